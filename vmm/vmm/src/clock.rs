// SPDX-License-Identifier: MIT OR Apache-2.0
//! Time out of the time-stamp counter.
//!
//! One counter drives all: the devices' nanoseconds, the guest's own clock (`paravirt`), and the deadlines at which a
//! VCPU is stopped. A [`Scale`] turns ticks into nanoseconds with one multiplication, in the form in which the guest's
//! paravirtual clock wants it.

use std::time::{SystemTime, UNIX_EPOCH};

use cloister_devices::clock::{Clock, WallClock};
use cloister_hypervisor::arch::Tsc;

/// Ticks to nanoseconds: shift left by `shift` (right if negative), multiply, take the high half of 32.32.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Scale {
    /// Multiplier; its highest bit is set.
    pub multiplier: u32,
    /// Shift, -31 to 31.
    pub shift: i8,
    khz: u32,
}

impl Scale {
    /// The scale of a counter with `khz` kHz (at least 1).
    #[must_use]
    pub fn new(khz: u32) -> Self {
        let khz = khz.max(1);
        // ns per tick = 10^6 / khz; find the power of two that brings it into [1/2, 1).
        let mut shift = 0_i8;
        let fraction = |shift: i8| {
            let (up, down) = (u32::from(shift.min(0).unsigned_abs()), u32::from(shift.max(0).unsigned_abs()));
            let scaled = 1_000_000_u128.wrapping_shl(up.wrapping_add(32)).checked_div(u128::from(khz));
            scaled.unwrap_or(0).wrapping_shr(down)
        };
        while fraction(shift) > u128::from(u32::MAX) && shift < 31 {
            shift = shift.saturating_add(1);
        }
        while fraction(shift) < 1 << 31 && shift > -31 {
            shift = shift.saturating_sub(1);
        }
        Self { multiplier: u32::try_from(fraction(shift)).unwrap_or(u32::MAX), shift, khz }
    }

    /// Nanoseconds of `ticks`.
    #[must_use]
    pub fn ns(self, ticks: u64) -> u64 {
        let shift = u32::from(self.shift.unsigned_abs());
        let wide =
            if self.shift < 0 { u128::from(ticks.wrapping_shr(shift)) } else { u128::from(ticks).wrapping_shl(shift) };
        let product = wide.saturating_mul(u128::from(self.multiplier));
        u64::try_from(product >> 32).unwrap_or(u64::MAX)
    }

    /// Ticks after which [`Scale::ns`] is at least `ns`; saturates at the end of time.
    #[must_use]
    pub fn ticks(self, ns: u64) -> u64 {
        let product = u128::from(ns).saturating_mul(u128::from(self.khz));
        // What `ns` rounds off: by its shift, by its product, and by its multiplier one per 2^30 ticks.
        let ticks = u64::try_from(product.div_ceil(1_000_000)).unwrap_or(u64::MAX);
        let shifted_out = 1_u64.wrapping_shl(u32::from(self.shift.min(0).unsigned_abs()));
        ticks.saturating_add(ticks >> 30).saturating_add(shifted_out).saturating_add(shifted_out)
    }
}

/// The VM's clock: nanoseconds since its start.
#[derive(Clone, Copy, Debug)]
pub struct TscClock {
    start: Tsc,
    scale: Scale,
}

impl TscClock {
    /// Starts now.
    #[must_use]
    pub fn start(khz: u32) -> Self {
        Self { start: Tsc::now(), scale: Scale::new(khz) }
    }

    /// The counter's value at the start.
    #[must_use]
    pub const fn origin(&self) -> Tsc {
        self.start
    }

    /// How ticks become nanoseconds.
    #[must_use]
    pub const fn scale(&self) -> Scale {
        self.scale
    }

    /// Nanoseconds from the start to `tsc`.
    #[must_use]
    pub fn ns_at(&self, tsc: Tsc) -> u64 {
        self.scale.ns(tsc.since(self.start))
    }

    /// The counter's value `ns` nanoseconds after the start.
    #[must_use]
    pub fn tsc_at(&self, ns: u64) -> Tsc {
        Tsc(self.start.0.saturating_add(self.scale.ticks(ns)))
    }
}

impl Clock for TscClock {
    fn now(&self) -> u64 {
        self.ns_at(Tsc::now())
    }
}

/// The host's time of day.
#[derive(Clone, Copy, Debug, Default)]
pub struct HostTime;

impl HostTime {
    /// Nanoseconds since 1970-01-01 00:00 UTC.
    #[must_use]
    pub fn unix_ns() -> u64 {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
    }
}

impl WallClock for HostTime {
    fn unix_seconds(&self) -> i64 {
        i64::try_from(Self::unix_ns() / 1_000_000_000).unwrap_or(i64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::Scale;

    #[test]
    fn scales_are_exact_to_a_billionth() {
        for khz in [1, 1000, 999_999, 1_000_000, 1_000_001, 2_450_000, 3_999_998, 4_200_000] {
            let scale = Scale::new(khz);
            assert!(scale.multiplier >= 1 << 31, "{scale:?}");
            for seconds in [1_u64, 60, 86_400] {
                let ns = scale.ns(seconds * 1000 * u64::from(khz));
                let error = ns.abs_diff(seconds * 1_000_000_000);
                assert!(error <= seconds + (2_000_000 / u64::from(khz)), "{khz} kHz, {seconds} s: {error} ns off");
            }
        }
    }

    #[test]
    fn a_deadline_in_ticks_is_not_early() {
        for khz in [1000, 999_999, 2_450_000, 4_200_000] {
            let scale = Scale::new(khz);
            for ns in [0, 1, 999, 1_000_000, 3_600_000_000_000] {
                assert!(scale.ns(scale.ticks(ns)) >= ns, "{khz} kHz, {ns} ns");
            }
        }
        assert_eq!(Scale::new(1).ticks(u64::MAX) >> 40, (u64::MAX / 1_000_000) >> 40);
        assert_eq!(Scale::new(u32::MAX).ticks(u64::MAX), u64::MAX);
    }
}
