// SPDX-License-Identifier: MIT OR Apache-2.0
//! The LAPIC timer (SDM volume 3 section 11.5.4).
//!
//! Time is the guest's TSC, in all three modes: the TSC-deadline mode then is one comparison, and the bus clock that
//! the other modes count is the TSC divided by a constant. A timer is armed with the TSC at which it fires; nothing
//! counts down, the current count is computed when the guest reads it.
//!
//! Rule: a periodic timer that missed some of its periods fires once (the IRR has one bit per vector), and never
//! sooner than [`TimerConfig::min_period`] after it was found due, so that a guest cannot keep its VMM busy.

/// How the timer relates to the TSC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimerConfig {
    /// TSC ticks per tick of the bus clock that one-shot and periodic mode count (before the divider); at least 1.
    pub tsc_per_bus_tick: u32,
    /// Shortest period, in TSC ticks, with which a periodic timer is served.
    pub min_period: u64,
}

impl Default for TimerConfig {
    fn default() -> Self {
        Self { tsc_per_bus_tick: 1, min_period: 50_000 }
    }
}

/// The mode in bits 18:17 of the timer's LVT entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    OneShot,
    Periodic,
    TscDeadline,
}

impl Mode {
    pub(crate) const fn decode(lvt: u32) -> Self {
        match (lvt >> 17) & 3 {
            0 => Self::OneShot,
            1 => Self::Periodic,
            // The value 3 is reserved; a timer that never counts is what it gets.
            _ => Self::TscDeadline,
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Timer {
    config: TimerConfig,
    mode: Mode,
    divide: u32,
    initial: u32,
    /// The TSC at which it fires, if it runs.
    fires: Option<u64>,
}

impl Timer {
    pub(crate) const fn new(config: TimerConfig) -> Self {
        Self { config, mode: Mode::OneShot, divide: 0, initial: 0, fires: None }
    }

    pub(crate) fn reset(&mut self) {
        *self = Self::new(self.config);
    }

    pub(crate) const fn initial(&self) -> u32 {
        self.initial
    }

    pub(crate) const fn divide(&self) -> u32 {
        self.divide
    }

    pub(crate) const fn fires(&self) -> Option<u64> {
        self.fires
    }

    /// A change between TSC-deadline mode and the others disarms the timer.
    pub(crate) fn set_mode(&mut self, mode: Mode) {
        if (mode == Mode::TscDeadline) != (self.mode == Mode::TscDeadline) {
            self.fires = None;
            self.initial = 0;
        }
        self.mode = mode;
    }

    pub(crate) fn set_initial(&mut self, initial: u32, now: u64) {
        if self.mode == Mode::TscDeadline {
            return;
        }
        self.initial = initial;
        self.fires = if initial == 0 { None } else { Some(now.saturating_add(self.span(initial))) };
    }

    /// The count goes on from where it is, at the new rate.
    pub(crate) fn set_divide(&mut self, divide: u32, now: u64) {
        let left = self.current(now);
        self.divide = divide & 0xb;
        if self.mode != Mode::TscDeadline && self.fires.is_some() && left != 0 {
            self.fires = Some(now.saturating_add(self.span(left)));
        }
    }

    pub(crate) fn set_deadline(&mut self, tsc: u64) {
        if self.mode == Mode::TscDeadline {
            self.fires = if tsc == 0 { None } else { Some(tsc) };
        }
    }

    pub(crate) fn deadline(&self) -> u64 {
        match self.mode {
            Mode::TscDeadline => self.fires.unwrap_or(0),
            _ => 0,
        }
    }

    pub(crate) fn current(&self, now: u64) -> u32 {
        match (self.mode, self.fires) {
            (Mode::TscDeadline, _) | (_, None) => 0,
            (_, Some(fires)) => {
                let left = fires.saturating_sub(now).div_ceil(self.tick());
                u32::try_from(left).unwrap_or(u32::MAX).min(self.initial)
            }
        }
    }

    /// If the timer was due at `now`: disarms or re-arms it and says true.
    pub(crate) fn expire(&mut self, now: u64) -> bool {
        let Some(fires) = self.fires.filter(|f| *f <= now) else { return false };
        self.fires = match self.mode {
            Mode::Periodic if self.initial != 0 => Some(self.next_period(fires, now)),
            _ => None,
        };
        true
    }

    fn next_period(&self, fires: u64, now: u64) -> u64 {
        let period = self.span(self.initial);
        let late = now.wrapping_sub(fires);
        let missed = late.checked_rem(period).unwrap_or(0);
        let next = now.saturating_add(period.saturating_sub(missed));
        next.max(now.saturating_add(self.config.min_period))
    }

    /// TSC ticks per count.
    fn tick(&self) -> u64 {
        // Bits 3, 1 and 0 of the divide register: 000 divides by 2, 110 by 128, 111 by 1.
        let code = (self.divide & 3) | ((self.divide >> 1) & 4);
        let shift = code.wrapping_add(1) & 7;
        u64::from(self.config.tsc_per_bus_tick.max(1)) << shift
    }

    fn span(&self, count: u32) -> u64 {
        u64::from(count).saturating_mul(self.tick())
    }
}

#[cfg(test)]
mod tests {
    use super::{Mode, Timer, TimerConfig};

    fn timer() -> Timer {
        Timer::new(TimerConfig { tsc_per_bus_tick: 10, min_period: 100 })
    }

    #[test]
    fn sdm3_11_5_4_divide_configuration() {
        for (code, by) in [(0, 2), (1, 4), (2, 8), (3, 16), (8, 32), (9, 64), (10, 128), (11, 1)] {
            let mut t = timer();
            t.set_divide(code, 0);
            t.set_initial(1000, 0);
            assert_eq!(t.fires(), Some(1000 * 10 * by), "divide code {code:#b}");
        }
    }

    #[test]
    fn sdm3_11_5_4_one_shot_counts_down_and_stops() {
        let mut t = timer();
        t.set_divide(0xb, 0);
        t.set_initial(1000, 500);
        assert_eq!((t.current(500), t.current(5500), t.current(1 << 40)), (1000, 500, 0));
        assert!(!t.expire(10_499) && t.expire(10_500) && !t.expire(20_000));
        assert_eq!((t.current(20_000), t.initial(), t.fires()), (0, 1000, None));
    }

    #[test]
    fn sdm3_11_5_4_periodic_keeps_its_phase_and_drops_missed_periods() {
        let mut t = timer();
        t.set_divide(0xb, 0);
        t.set_mode(Mode::Periodic);
        t.set_initial(1000, 0);
        assert!(t.expire(10_000));
        assert_eq!(t.fires(), Some(20_000));
        assert!(t.expire(73_000));
        assert_eq!(t.fires(), Some(80_000));
        t.set_initial(0, 0);
        assert_eq!(t.fires(), None);
    }

    #[test]
    fn a_tiny_period_does_not_storm() {
        let mut t = timer();
        t.set_divide(0xb, 0);
        t.set_mode(Mode::Periodic);
        t.set_initial(1, 0);
        assert!(t.expire(1000));
        assert_eq!(t.fires(), Some(1100));
    }

    #[test]
    fn sdm3_11_5_4_1_tsc_deadline() {
        let mut t = timer();
        t.set_deadline(5);
        assert_eq!(t.fires(), None, "ignored in other modes");
        t.set_initial(5, 0);
        t.set_mode(Mode::TscDeadline);
        assert_eq!((t.fires(), t.initial()), (None, 0), "the change of mode disarms");
        t.set_initial(5, 0);
        assert_eq!((t.initial(), t.current(0)), (0, 0), "initial count is ignored");
        t.set_deadline(777);
        assert_eq!(t.deadline(), 777);
        assert!(!t.expire(776) && t.expire(777));
        assert_eq!(t.deadline(), 0);
    }

    #[test]
    fn a_new_divider_keeps_the_count() {
        let mut t = timer();
        t.set_divide(0xb, 0);
        t.set_initial(1000, 0);
        t.set_divide(0, 5_000);
        assert_eq!((t.current(5_000), t.fires()), (500, Some(5_000 + 500 * 20)));
    }
}
