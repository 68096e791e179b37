// SPDX-License-Identifier: MIT OR Apache-2.0
//! Ticks of the time-stamp counter as nanoseconds and back, and the two clocks made of them.
//!
//! `CLOCK_MONOTONIC` is the counter itself, `CLOCK_REALTIME` adds the wall-clock time at which it was 0. Nobody sets the time
//! while the program runs. Arithmetic is in 128 bits and saturates; results for absurd inputs are absurd, but never wrap.

/// Nanoseconds in a second.
pub const SECOND: u64 = 1_000_000_000;

/// Rate of the counter and origin of wall-clock time.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    hz: u64,
    /// Nanoseconds per tick, times 2^32.
    scale: u64,
    boot: u64,
}

impl Clock {
    /// A counter with `hz` ticks per second that was 0 at `boot` (nanoseconds since 1970-01-01, 0 if unknown).
    #[must_use]
    pub fn new(hz: u64, boot: u64) -> Self {
        let hz = hz.max(1);
        // Rounded up, so that a wait that is over never looks too short.
        let scale = (u128::from(SECOND) << 32).div_ceil(u128::from(hz));
        Self { hz, scale: u64::try_from(scale).unwrap_or(u64::MAX), boot }
    }

    /// A clock that is not set yet: a tick is a nanosecond.
    #[must_use]
    pub const fn unset() -> Self {
        Self { hz: SECOND, scale: 1 << 32, boot: 0 }
    }

    /// Ticks as nanoseconds.
    #[must_use]
    pub fn nanoseconds(&self, ticks: u64) -> u64 {
        let scaled = (u128::from(ticks) * u128::from(self.scale)) >> 32;
        u64::try_from(scaled).unwrap_or(u64::MAX)
    }

    /// Ticks as nanoseconds since 1970-01-01.
    #[must_use]
    pub fn wall(&self, ticks: u64) -> u64 {
        self.nanoseconds(ticks).saturating_add(self.boot)
    }

    /// First tick at which so many nanoseconds are over.
    #[must_use]
    pub fn ticks(&self, nanoseconds: u64) -> u64 {
        // Seconds and rest apart: both products stay far below 128 bits, and the quotient needs 64-bit division only.
        let (seconds, rest) = (nanoseconds / SECOND, nanoseconds % SECOND);
        let whole = u128::from(seconds) * u128::from(self.hz);
        let part = (u128::from(rest) * u128::from(self.hz)).div_ceil(u128::from(SECOND));
        u64::try_from(whole + part).unwrap_or(u64::MAX)
    }

    /// Tick at which a wait ends: `duration` nanoseconds after `now`.
    #[must_use]
    pub fn after(&self, now: u64, duration: u64) -> u64 {
        now.saturating_add(self.ticks(duration)).max(1)
    }

    /// Tick at which a clock shows this time.
    #[must_use]
    pub fn until(&self, time: u64, wall: bool) -> u64 {
        self.ticks(if wall { time.saturating_sub(self.boot) } else { time }).max(1)
    }

    /// Smallest step of the clock, nanoseconds.
    #[must_use]
    pub const fn resolution(&self) -> u64 {
        if self.hz >= SECOND { 1 } else { SECOND.div_ceil(self.hz) }
    }
}

#[cfg(test)]
mod tests {
    use super::{Clock, SECOND};

    #[test]
    fn a_second_is_a_second_for_years() {
        for hz in [1_000_000, 24_000_000, 999_999_937, SECOND, 2_593_907_000, 5_000_000_000] {
            let clock = Clock::new(hz, 0);
            for seconds in [1, 60, 86_400, 86_400 * 365] {
                let shown = clock.nanoseconds(hz * seconds);
                assert!(shown.abs_diff(seconds * SECOND) <= seconds * 10, "{hz} Hz, {seconds} s: {shown}");
            }
        }
    }

    #[test]
    fn a_wait_is_never_too_short() {
        let clock = Clock::new(2_593_907_001, 0);
        for wait in [1, 999, 1_000_001, SECOND - 1, 17 * SECOND + 3] {
            assert!(clock.nanoseconds(clock.ticks(wait)) >= wait, "{wait}");
        }
    }

    #[test]
    fn wall_clock_counts_from_boot() {
        let clock = Clock::new(SECOND, 1_700_000_000 * SECOND);
        assert_eq!(clock.wall(5), 1_700_000_000 * SECOND + 5);
        assert_eq!(clock.until(1_700_000_000 * SECOND + 7, true), 7);
        assert_eq!(clock.until(3, true), 1, "a time that is over ends the wait at once, and 0 would mean never");
    }

    #[test]
    fn extremes_saturate() {
        let clock = Clock::new(1, 0);
        assert_eq!(clock.nanoseconds(u64::MAX), u64::MAX);
        assert_eq!(Clock::new(u64::MAX, 0).ticks(u64::MAX), u64::MAX);
        assert_eq!(clock.after(u64::MAX, u64::MAX), u64::MAX);
    }
}
