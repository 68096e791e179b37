// SPDX-License-Identifier: MIT OR Apache-2.0
//! Time is counted in ticks of the time-stamp counter.

use crate::{arch, env};
use core::sync::atomic::{AtomicU64, Ordering};

static HZ: AtomicU64 = AtomicU64::new(0);

/// The present time, ticks.
#[must_use]
pub fn now() -> u64 {
    arch::clock()
}

/// Ticks per second; asked from the CPU session once.
#[must_use]
pub fn hz() -> u64 {
    let known = HZ.load(Ordering::Relaxed);
    if known != 0 {
        return known;
    }
    let hz = env::cpu().info().map_or(1_000_000_000, |info| info.tsc_hz.max(1));
    HZ.store(hz, Ordering::Relaxed);
    hz
}

/// So many milliseconds as ticks.
#[must_use]
pub fn milliseconds(count: u64) -> u64 {
    scale(count, hz(), 1000)
}

/// The time so many milliseconds from now.
#[must_use]
pub fn after_milliseconds(count: u64) -> u64 {
    now().saturating_add(milliseconds(count))
}

/// Ticks as nanoseconds.
#[must_use]
pub fn to_nanoseconds(ticks: u64) -> u64 {
    scale(ticks, 1_000_000_000, hz())
}

/// Nanoseconds as ticks.
#[must_use]
pub fn from_nanoseconds(nanoseconds: u64) -> u64 {
    scale(nanoseconds, hz(), 1_000_000_000)
}

/// `value * factor / divisor` without overflow in between.
#[must_use]
pub fn scale(value: u64, factor: u64, divisor: u64) -> u64 {
    let wide = u128::from(value) * u128::from(factor) / u128::from(divisor.max(1));
    u64::try_from(wide).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::scale;

    #[test]
    fn scales_without_overflow() {
        assert_eq!(scale(u64::MAX, 1000, 1000), u64::MAX);
        assert_eq!(scale(u64::MAX, 1000, 1), u64::MAX);
        assert_eq!(scale(10, 3, 2), 15);
        assert_eq!(scale(10, 3, 0), 30);
    }
}
