// SPDX-License-Identifier: MIT OR Apache-2.0
//! The real-time clock and its battery-backed memory (Motorola MC146818A datasheet; ports 0x70 and 0x71).
//!
//! Time is the time of day at which the VM was built, or that the guest set, plus what the VM's clock has counted
//! since. [`Rtc::resync`] takes the time of day anew, after a pause. Flags are computed when somebody looks, so that a
//! clock whose interrupts are off costs nothing.
//!
//! - this file: registers, flags, interrupts;
//! - `calendar`: seconds to fields and back, BCD, 12-hour form, alarms.
//!
//! Rule: whatever digits the guest writes make a valid time, or are ignored.

mod calendar;
#[cfg(test)]
mod tests;

use crate::bits::lo8;
use crate::bus::ByteDevice;
use crate::clock::{Clock, Deadline, NS_PER_S, Timed, WallClock};
use crate::irq::IrqLine;
use calendar::{Alarm, Fields, Format};
use std::sync::Arc;

/// Index port; the data port follows.
pub const RTC_PORT: u16 = 0x70;
/// ISA interrupt.
pub const RTC_IRQ: u32 = 8;

mod reg {
    pub(super) const SECONDS: u8 = 0;
    pub(super) const SECONDS_ALARM: u8 = 1;
    pub(super) const MINUTES: u8 = 2;
    pub(super) const MINUTES_ALARM: u8 = 3;
    pub(super) const HOURS: u8 = 4;
    pub(super) const HOURS_ALARM: u8 = 5;
    pub(super) const YEAR: u8 = 9;
    pub(super) const A: u8 = 0x0a;
    pub(super) const B: u8 = 0x0b;
    pub(super) const C: u8 = 0x0c;
    pub(super) const D: u8 = 0x0d;
    /// Where the FADT usually says that the century is.
    pub(super) const CENTURY: u8 = 0x32;
}

/// The index of the century register: what the FADT must say.
pub const RTC_CENTURY: u8 = reg::CENTURY;

const A_UIP: u8 = 0x80;
const B_SET: u8 = 0x80;
const B_PERIODIC: u8 = 0x40;
const B_ALARM: u8 = 0x20;
const B_UPDATE: u8 = 0x10;
const C_IRQ: u8 = 0x80;
const D_VALID: u8 = 0x80;

/// An update is announced this long before it happens, in nanoseconds.
const UIP_NS: u64 = 244_000;

/// The real-time clock.
pub struct Rtc {
    index: u8,
    memory: [u8; 128],
    flags: u8,
    /// Seconds since 1970 at `base_ns` of the VM's clock.
    base_unix: i64,
    base_ns: u64,
    /// Until when flags are computed.
    seen_ns: u64,
    clock: Arc<dyn Clock>,
    wall: Arc<dyn WallClock>,
    line: IrqLine,
    deadline: Deadline,
}

impl std::fmt::Debug for Rtc {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rtc").field("index", &self.index).field("flags", &self.flags).finish_non_exhaustive()
    }
}

impl Rtc {
    /// A running clock that shows UTC, in 24-hour BCD form.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>, wall: Arc<dyn WallClock>, line: IrqLine) -> Self {
        let now = clock.now();
        let mut rtc = Self {
            index: 0,
            memory: [0; 128],
            flags: 0,
            base_unix: wall.unix_seconds(),
            base_ns: now,
            seen_ns: now,
            clock,
            wall,
            line,
            deadline: Deadline::default(),
        };
        rtc.store(reg::A, 0x26);
        rtc.store(reg::B, 0x02);
        rtc
    }

    /// Shows the time of day again, whatever the guest has set.
    pub fn resync(&mut self) {
        self.base_unix = self.wall.unix_seconds();
        self.base_ns = self.clock.now();
        self.seen_ns = self.base_ns;
        self.publish();
    }

    /// Sets a byte of the memory, as firmware does before the guest runs; clock registers are not touched.
    pub fn set_memory(&mut self, index: u8, value: u8) {
        if index > reg::D && index != reg::CENTURY {
            self.store(index, value);
        }
    }

    fn load(&self, index: u8) -> u8 {
        self.memory.get(usize::from(index & 0x7f)).copied().unwrap_or(0)
    }

    fn store(&mut self, index: u8, value: u8) {
        if let Some(byte) = self.memory.get_mut(usize::from(index & 0x7f)) {
            *byte = value;
        }
    }

    fn format(&self) -> Format {
        Format::of(self.load(reg::B))
    }

    /// Seconds since 1970, and nanoseconds since that second began.
    fn time(&self, now: u64) -> (i64, u64) {
        if self.load(reg::B) & B_SET != 0 {
            return (self.base_unix, 0);
        }
        let passed = now.saturating_sub(self.base_ns);
        let seconds = i64::try_from(passed.checked_div(NS_PER_S).unwrap_or(0)).unwrap_or(0);
        (self.base_unix.saturating_add(seconds), passed.checked_rem(NS_PER_S).unwrap_or(0))
    }

    fn alarm(&self) -> Alarm {
        let format = self.format();
        Alarm::new(format, self.load(reg::HOURS_ALARM), self.load(reg::MINUTES_ALARM), self.load(reg::SECONDS_ALARM))
    }

    /// Period of the periodic flag in nanoseconds, if it is on (table 5).
    fn period(&self) -> Option<u64> {
        let a = self.load(reg::A);
        // Only the 32,768 Hz time base is there: divider 010.
        if a & 0x70 != 0x20 {
            return None;
        }
        let shift = match a & 0xf {
            0 => return None,
            rate @ (1 | 2) => rate.wrapping_add(6),
            rate => rate.wrapping_sub(1),
        };
        (NS_PER_S << shift).checked_div(32_768)
    }

    /// Sets the flags for all that happened until `now`.
    fn follow(&mut self, now: u64) {
        let (before, now) = (self.seen_ns, now.max(self.seen_ns));
        self.seen_ns = now;
        if let Some(period) = self.period()
            && before.checked_div(period) != now.checked_div(period)
        {
            self.flags |= B_PERIODIC;
        }
        if self.load(reg::B) & B_SET == 0 {
            let ((then, _), (second, _)) = (self.time(before), self.time(now));
            if then != second {
                self.flags |= B_UPDATE;
            }
            if self.alarm().next_after(then).is_some_and(|at| at <= second) {
                self.flags |= B_ALARM;
            }
        }
        self.update_line();
    }

    fn update_line(&mut self) {
        let raised = self.flags & self.load(reg::B) & (B_PERIODIC | B_ALARM | B_UPDATE) != 0;
        self.flags = (self.flags & !C_IRQ) | if raised { C_IRQ } else { 0 };
        self.line.set(raised);
    }

    /// Publishes when the next enabled flag is due. One that is set already needs no telling.
    fn publish(&self) {
        let b = self.load(reg::B);
        let wanted = b & !self.flags;
        let now = self.seen_ns;
        let periodic = self
            .period()
            .filter(|_| wanted & B_PERIODIC != 0)
            .map(|period| now.checked_div(period).unwrap_or(0).saturating_add(1).saturating_mul(period));
        let (second, phase) = self.time(now);
        let runs = b & B_SET == 0;
        let in_seconds = |seconds: i64| {
            let ns = u64::try_from(seconds).unwrap_or(0).saturating_mul(NS_PER_S);
            now.saturating_sub(phase).saturating_add(ns)
        };
        let update = (runs && wanted & B_UPDATE != 0).then(|| in_seconds(1));
        let alarm = self.alarm().next_after(second).filter(|_| runs && wanted & B_ALARM != 0);
        let alarm = alarm.map(|at| in_seconds(at.saturating_sub(second)));
        self.deadline.set([periodic, update, alarm].into_iter().flatten().min());
    }

    fn read_register(&mut self, index: u8, now: u64) -> u8 {
        let (second, phase) = self.time(now);
        match index {
            reg::A => {
                let updating = self.load(reg::B) & B_SET == 0 && phase >= NS_PER_S.saturating_sub(UIP_NS);
                (self.load(reg::A) & !A_UIP) | if updating { A_UIP } else { 0 }
            }
            reg::C => {
                self.follow(now);
                let flags = std::mem::take(&mut self.flags);
                self.update_line();
                self.publish();
                flags
            }
            reg::D => D_VALID,
            reg::SECONDS | reg::MINUTES | reg::HOURS | 6..=reg::YEAR | reg::CENTURY => {
                Fields::from_unix(second).get(index, self.format()).unwrap_or(0)
            }
            other => self.load(other),
        }
    }

    fn write_register(&mut self, index: u8, value: u8, now: u64) {
        self.follow(now);
        match index {
            reg::A => self.store(reg::A, value & !A_UIP),
            reg::B => {
                // The time goes on, or stops, from what it is.
                let (second, phase) = self.time(now);
                self.base_unix = second;
                self.base_ns = now.saturating_sub(phase);
                self.store(reg::B, value);
                self.update_line();
            }
            reg::C | reg::D => {}
            reg::SECONDS | reg::MINUTES | reg::HOURS | 6..=reg::YEAR | reg::CENTURY => {
                let (second, phase) = self.time(now);
                if let Some(new) = Fields::from_unix(second).with(index, value, self.format()) {
                    self.base_unix = new;
                    self.base_ns = now.saturating_sub(phase);
                }
            }
            other => self.store(other, value),
        }
        self.publish();
    }
}

impl ByteDevice for Rtc {
    fn read_byte(&mut self, offset: u16) -> u8 {
        if offset == 0 {
            // The index port cannot be read.
            return 0xff;
        }
        let now = self.clock.now();
        self.read_register(self.index, now)
    }

    fn write_byte(&mut self, offset: u16, value: u8) {
        if offset == 0 {
            // Bit 7 masks NMIs; nothing here raises any.
            self.index = lo8(u64::from(value)) & 0x7f;
            return;
        }
        let now = self.clock.now();
        self.write_register(self.index, value, now);
    }
}

impl Timed for Rtc {
    fn advance(&mut self, now: u64) {
        self.follow(now);
        self.publish();
    }

    fn deadline(&self) -> Deadline {
        self.deadline.clone()
    }
}
