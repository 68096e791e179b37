// SPDX-License-Identifier: MIT OR Apache-2.0
//! Time as the devices see it: given to them, never taken.
//!
//! A [`Clock`] is the VM's monotonic time in nanoseconds since the VM was built; it stands still while the VM is
//! paused. A [`WallClock`] is the time of day, for the RTC. [`Frequency`] turns nanoseconds into the ticks of a
//! counter with one multiplication. Devices that must act later publish when in a [`Deadline`]; the VMM asks
//! [`Deadlines::earliest`] before it lets a VCPU sleep, and calls the device's `advance` when it is due.
//!
//! The LAPIC timer is not here: it counts guest TSC ticks, see [`crate::lapic`].

use crate::lock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// The VM's monotonic clock.
pub trait Clock: Send + Sync {
    /// Nanoseconds since the VM was built. Never goes back.
    fn now(&self) -> u64;
}

/// The time of day.
pub trait WallClock: Send + Sync {
    /// Seconds since 1970-01-01 00:00 UTC.
    fn unix_seconds(&self) -> i64;
}

/// A clock that is moved by hand: for tests and for replay.
#[derive(Debug, Default)]
pub struct ManualClock(AtomicU64);

impl ManualClock {
    /// Sets the time, in nanoseconds.
    pub fn set(&self, now: u64) {
        self.0.store(now, Ordering::Release);
    }

    /// Moves the time on by `ns` nanoseconds.
    pub fn advance(&self, ns: u64) {
        self.0.fetch_add(ns, Ordering::AcqRel);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

impl WallClock for ManualClock {
    fn unix_seconds(&self) -> i64 {
        i64::try_from(self.now().checked_div(NS_PER_S).unwrap_or(0)).unwrap_or(i64::MAX)
    }
}

/// Nanoseconds in a second.
pub const NS_PER_S: u64 = 1_000_000_000;

/// The rate of a counter below 1 GHz.
#[derive(Clone, Copy, Debug)]
pub struct Frequency {
    hz: u32,
    /// hz / 10^9 as a 0.64 fixed-point fraction, rounded up so that whole seconds give whole counts.
    fraction: u64,
}

impl Frequency {
    /// A counter with `hz` ticks per second; `hz` is kept within 1 and 999,999,999.
    #[must_use]
    pub const fn new(hz: u32) -> Self {
        let hz = if hz == 0 {
            1
        } else if hz > 999_999_999 {
            999_999_999
        } else {
            hz
        };
        let fraction = match ((hz as u128) << 64).checked_div(NS_PER_S as u128) {
            Some(quotient) => quotient.wrapping_add(1).to_le_bytes(),
            None => [0; 16],
        };
        let [a, b, c, d, e, f, g, h, ..] = fraction;
        Self { hz, fraction: u64::from_le_bytes([a, b, c, d, e, f, g, h]) }
    }

    /// Ticks per second.
    #[must_use]
    pub const fn hz(self) -> u32 {
        self.hz
    }

    /// The number of whole ticks in `ns` nanoseconds.
    #[must_use]
    pub const fn ticks(self, ns: u64) -> u64 {
        let product = (ns as u128).wrapping_mul(self.fraction as u128);
        let [.., a, b, c, d, e, f, g, h] = product.to_le_bytes();
        u64::from_le_bytes([a, b, c, d, e, f, g, h])
    }

    /// The first nanosecond at which [`Self::ticks`] gives `ticks`; saturates at the end of time.
    #[must_use]
    pub fn ns(self, ticks: u64) -> u64 {
        let product = u128::from(ticks).wrapping_mul(u128::from(NS_PER_S));
        let ns = product.div_ceil(u128::from(self.hz.max(1)));
        let ns = u64::try_from(ns).unwrap_or(u64::MAX);
        // The fraction is rounded up, so one nanosecond less may do.
        match ns.checked_sub(1) {
            Some(before) if self.ticks(before) >= ticks => before,
            _ => ns,
        }
    }
}

/// When one device wants to be called again. Written by the device, read by the VMM without a lock.
#[derive(Clone, Debug)]
pub struct Deadline(Arc<AtomicU64>);

impl Default for Deadline {
    fn default() -> Self {
        Self(Arc::new(AtomicU64::new(u64::MAX)))
    }
}

impl Deadline {
    /// Publishes the next time to act, in nanoseconds of the VM's clock; `None` is never.
    pub fn set(&self, at: Option<u64>) {
        self.0.store(at.unwrap_or(u64::MAX), Ordering::Release);
    }

    /// What was published last.
    #[must_use]
    pub fn get(&self) -> Option<u64> {
        let at = self.0.load(Ordering::Acquire);
        (at != u64::MAX).then_some(at)
    }
}

/// A device that acts by itself when time passes.
pub trait Timed: Send {
    /// Does all that was due at `now` (nanoseconds of the VM's clock) and publishes the next deadline.
    fn advance(&mut self, now: u64);
    /// The handle through which this device publishes when it is due.
    fn deadline(&self) -> Deadline;
}

/// All devices of a VM that act by themselves.
#[derive(Default)]
pub struct Deadlines {
    entries: Vec<(Deadline, Arc<Mutex<dyn Timed>>)>,
}

impl std::fmt::Debug for Deadlines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.entries.iter().map(|(d, _)| d.get())).finish()
    }
}

impl Deadlines {
    /// Adds a device.
    pub fn add(&mut self, device: Arc<Mutex<dyn Timed>>) {
        let deadline = lock(&device).deadline();
        self.entries.push((deadline, device));
    }

    /// When the first device is due, in nanoseconds of the VM's clock. Takes no lock.
    #[must_use]
    pub fn earliest(&self) -> Option<u64> {
        self.entries.iter().filter_map(|(d, _)| d.get()).min()
    }

    /// Calls each device that is due at `now`.
    pub fn advance(&self, now: u64) {
        for (deadline, device) in &self.entries {
            if deadline.get().is_some_and(|at| at <= now) {
                lock(device).advance(now);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Frequency, NS_PER_S};

    #[test]
    fn whole_seconds_are_whole_counts() {
        for hz in [1, 32_768, 1_193_182, 3_579_545, 999_999_999] {
            let f = Frequency::new(hz);
            for s in [0u64, 1, 2, 3600, 31_536_000, 18_000_000_000 / u64::from(hz).max(1)] {
                assert_eq!(f.ticks(s * NS_PER_S), s * u64::from(hz), "{hz} Hz after {s} s");
            }
        }
    }

    #[test]
    fn ns_is_the_first_moment_of_a_tick() {
        for hz in [8192, 32_768, 1_193_182, 3_579_545] {
            let f = Frequency::new(hz);
            for t in [1u64, 2, 3, 1000, 65_535, 1 << 24] {
                let at = f.ns(t);
                assert!(f.ticks(at) >= t && f.ticks(at - 1) < t, "{hz} Hz, tick {t}");
            }
            assert_eq!(f.ns(u64::MAX) == u64::MAX, hz < 999_999_999);
        }
    }
}
