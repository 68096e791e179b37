// SPDX-License-Identifier: MIT OR Apache-2.0
//! The interval timer 8254 (Intel 8254 datasheet, order 231164) and the system control port 0x61 before channel 2.
//!
//! Channel 0 interrupts (IRQ 0), channel 2 drives the speaker and is what systems calibrate their clocks with, channel
//! 1 once refreshed memory. All run at [`PIT_HZ`]. Nothing counts down: a channel remembers the tick at which it was
//! loaded, and its count and output are computed when somebody looks.
//!
//! Rules. The interrupt of channel 0 is an edge when its output rises; of periods that were missed, one is told.
//! A channel never interrupts sooner than [`MIN_PERIOD_NS`] after it was found due.

#[cfg(test)]
mod tests;

use crate::bits::{lo8, lo16};
use crate::bus::ByteDevice;
use crate::clock::{Clock, Deadline, Frequency, Timed};
use crate::irq::IrqLine;
use crate::lock;
use std::sync::{Arc, Mutex};

/// Input clock of all channels, in ticks per second.
pub const PIT_HZ: u32 = 1_193_182;
/// First of the four ports.
pub const PIT_PORT: u16 = 0x40;
/// System control port B.
pub const SPEAKER_PORT: u16 = 0x61;
/// ISA interrupt of channel 0.
pub const PIT_IRQ: u32 = 0;
/// A periodic channel 0 is served no more often than this, in nanoseconds.
pub const MIN_PERIOD_NS: u64 = 50_000;

const TICKS: Frequency = Frequency::new(PIT_HZ);

/// How bytes of the count are accessed (control word, RW bits).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    Low,
    High,
    Both,
}

#[derive(Clone, Debug)]
struct Channel {
    mode: u8,
    bcd: bool,
    access: Access,
    /// The initial count, 1 to 65,536.
    reload: u32,
    /// First byte of a count that is being written.
    low_byte: Option<u8>,
    /// The next byte read is the high one.
    read_high: bool,
    latched: Option<u16>,
    latched_status: Option<u8>,
    gate: bool,
    /// Tick at which counting began; `None` before the first count is written, and while it waits for its gate.
    start: Option<u64>,
    /// Ticks counted when the gate went low.
    paused: Option<u64>,
    /// No count was written since the mode was.
    null_count: bool,
}

impl Channel {
    const fn new(gate: bool) -> Self {
        Self {
            mode: 0,
            bcd: false,
            access: Access::Both,
            reload: 65_536,
            low_byte: None,
            read_high: false,
            latched: None,
            latched_status: None,
            gate,
            start: None,
            paused: None,
            null_count: true,
        }
    }

    /// Ticks counted at `tick`.
    fn elapsed(&self, tick: u64) -> Option<u64> {
        self.paused.or_else(|| self.start.map(|start| tick.saturating_sub(start)))
    }

    /// The counting element, as read.
    fn count(&self, tick: u64) -> u16 {
        let n = u64::from(self.reload);
        let Some(elapsed) = self.elapsed(tick) else { return self.encode(n) };
        let left = match self.mode {
            2 => n.wrapping_sub(elapsed.checked_rem(n).unwrap_or(0)),
            3 => {
                // Counts by two, twice per period.
                let half = elapsed.wrapping_mul(2).checked_rem(n).unwrap_or(0);
                n.wrapping_sub(half) & !1
            }
            _ => n.wrapping_sub(elapsed),
        };
        self.encode(left)
    }

    /// The low 16 bits, or four decimal digits.
    fn encode(&self, value: u64) -> u16 {
        if !self.bcd {
            return lo16(value);
        }
        let mut rest = value.checked_rem(10_000).unwrap_or(0);
        let mut digits = 0u64;
        for shift in [0u32, 4, 8, 12] {
            digits |= rest.checked_rem(10).unwrap_or(0) << shift;
            rest = rest.checked_div(10).unwrap_or(0);
        }
        lo16(digits)
    }

    fn decode(&self, value: u16) -> u32 {
        let count = if self.bcd {
            [12u32, 8, 4, 0]
                .iter()
                .fold(0u32, |n, shift| n.wrapping_mul(10).wrapping_add((u32::from(value) >> shift) & 0xf))
        } else {
            u32::from(value)
        };
        match (count, self.bcd) {
            (0, false) => 65_536,
            (0, true) => 10_000,
            (n, _) => n,
        }
    }

    /// Level of the output.
    fn output(&self, tick: u64) -> bool {
        let n = u64::from(self.reload);
        let Some(elapsed) = self.elapsed(tick) else { return self.mode != 0 };
        let phase = elapsed.checked_rem(n).unwrap_or(0);
        match self.mode {
            0 | 1 => elapsed >= n,
            2 => !self.gate || phase.wrapping_add(1) != n,
            3 => !self.gate || phase < n.div_ceil(2),
            _ => elapsed != n,
        }
    }

    fn status(&self, tick: u64) -> u8 {
        let access = match self.access {
            Access::Low => 0x10,
            Access::High => 0x20,
            Access::Both => 0x30,
        };
        (u8::from(self.output(tick)) << 7)
            | (u8::from(self.null_count) << 6)
            | access
            | (self.mode << 1)
            | u8::from(self.bcd)
    }

    fn control(&mut self, word: u8, tick: u64) {
        self.access = match (word >> 4) & 3 {
            0 => {
                // Counter latch command: a latched count stays until it is read.
                let count = self.count(tick);
                self.latched.get_or_insert(count);
                return;
            }
            1 => Access::Low,
            2 => Access::High,
            _ => Access::Both,
        };
        // Modes 6 and 7 are 2 and 3.
        self.mode = match (word >> 1) & 7 {
            mode @ 0..=5 => mode,
            mode => mode & 3,
        };
        *self = Self { mode: self.mode, access: self.access, bcd: word & 1 != 0, ..Self::new(self.gate) };
    }

    fn read(&mut self, tick: u64) -> u8 {
        if let Some(status) = self.latched_status.take() {
            return status;
        }
        let value = self.latched.unwrap_or_else(|| self.count(tick));
        let high = match self.access {
            Access::Low => false,
            Access::High => true,
            Access::Both => {
                self.read_high = !self.read_high;
                !self.read_high
            }
        };
        if high || self.access != Access::Both {
            self.latched = None;
        }
        let [low, top] = value.to_le_bytes();
        if high { top } else { low }
    }

    /// True if a whole count was written: counting begins.
    fn write(&mut self, value: u8, tick: u64) -> bool {
        let count = match (self.access, self.low_byte.take()) {
            (Access::Low, _) => u16::from(value),
            (Access::High, _) => u16::from(value) << 8,
            (Access::Both, Some(low)) => u16::from_le_bytes([low, value]),
            (Access::Both, None) => {
                self.low_byte = Some(value);
                if self.mode == 0 {
                    // The first byte stops the count.
                    self.start = None;
                }
                return false;
            }
        };
        // A periodic count that is running ends its period first; to begin at once is what guests can't tell apart.
        self.reload = self.decode(count);
        self.null_count = false;
        let waits_for_gate = matches!(self.mode, 1 | 5);
        self.start = if waits_for_gate { None } else { Some(tick) };
        self.paused = if self.gate || waits_for_gate { None } else { Some(0) };
        true
    }

    fn set_gate(&mut self, gate: bool, tick: u64) {
        if gate == self.gate {
            return;
        }
        self.gate = gate;
        match (self.mode, gate) {
            (1 | 5, true) if !self.null_count => self.start = Some(tick),
            (1 | 5, _) => {}
            (2 | 3, true) => {
                self.start = self.start.map(|_| tick);
                self.paused = None;
            }
            (_, true) => {
                if let Some(counted) = self.paused.take() {
                    self.start = Some(tick.saturating_sub(counted));
                }
            }
            (_, false) => self.paused = self.elapsed(tick),
        }
    }

    /// The first tick after `tick` at which the output rises.
    fn next_rise(&self, tick: u64) -> Option<u64> {
        let start = self.start.filter(|_| self.paused.is_none())?;
        let n = u64::from(self.reload);
        let once = |at: u64| (at > tick).then_some(at);
        match self.mode {
            0 | 1 => once(start.saturating_add(n)),
            2 | 3 => {
                let periods = tick.saturating_sub(start).checked_div(n)?.saturating_add(1);
                Some(start.saturating_add(periods.saturating_mul(n)))
            }
            _ => once(start.saturating_add(n).saturating_add(1)),
        }
    }
}

/// The interval timer. Ports 0x40 to 0x43; port 0x61 is [`SpeakerPort`].
pub struct Pit {
    channels: [Channel; 3],
    speaker: bool,
    clock: Arc<dyn Clock>,
    line: IrqLine,
    deadline: Deadline,
}

impl std::fmt::Debug for Pit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pit").field("channels", &self.channels).finish_non_exhaustive()
    }
}

impl Pit {
    /// A timer, not counting, whose channel 0 pulses `line`.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>, line: IrqLine) -> Self {
        Self {
            channels: [Channel::new(true), Channel::new(true), Channel::new(false)],
            speaker: false,
            clock,
            line,
            deadline: Deadline::default(),
        }
    }

    fn tick(&self) -> u64 {
        TICKS.ticks(self.clock.now())
    }

    /// Publishes when channel 0 rises next after `tick`, but not before `earliest` (nanoseconds).
    fn publish(&self, tick: u64, earliest: u64) {
        let [channel0, ..] = &self.channels;
        self.deadline.set(channel0.next_rise(tick).map(|rise| TICKS.ns(rise).max(earliest)));
    }

    fn read_back(&mut self, word: u8, tick: u64) {
        for (index, channel) in self.channels.iter_mut().enumerate() {
            if word & (2 << index) == 0 {
                continue;
            }
            if word & 0x20 == 0 {
                let count = channel.count(tick);
                channel.latched.get_or_insert(count);
            }
            if word & 0x10 == 0 {
                let status = channel.status(tick);
                channel.latched_status.get_or_insert(status);
            }
        }
    }
}

impl ByteDevice for Pit {
    fn read_byte(&mut self, offset: u16) -> u8 {
        let tick = self.tick();
        // The control word cannot be read.
        self.channels.get_mut(usize::from(offset)).map_or(0xff, |c| c.read(tick))
    }

    fn write_byte(&mut self, offset: u16, value: u8) {
        let now = self.clock.now();
        // What was due before this write happens before it.
        self.advance(now);
        let tick = TICKS.ticks(now);
        let channel = match offset {
            3 if value >> 6 == 3 => return self.read_back(value, tick),
            3 => {
                let index = value >> 6;
                if let Some(channel) = self.channels.get_mut(usize::from(index)) {
                    channel.control(value, tick);
                }
                if value & 0x30 == 0 {
                    return;
                }
                u16::from(index)
            }
            _ => {
                if let Some(channel) = self.channels.get_mut(usize::from(offset)) {
                    channel.write(value, tick);
                }
                offset
            }
        };
        if channel == 0 {
            self.publish(tick, 0);
        }
    }
}

impl Timed for Pit {
    fn advance(&mut self, now: u64) {
        if self.deadline.get().is_none_or(|at| at > now) {
            return;
        }
        self.line.pulse();
        self.publish(TICKS.ticks(now), now.saturating_add(MIN_PERIOD_NS));
    }

    fn deadline(&self) -> Deadline {
        self.deadline.clone()
    }
}

/// System control port B, 0x61: gate and output of channel 2, the speaker, the refresh toggle.
#[derive(Debug, Clone)]
pub struct SpeakerPort(pub Arc<Mutex<Pit>>);

impl ByteDevice for SpeakerPort {
    fn read_byte(&mut self, _offset: u16) -> u8 {
        let pit = lock(&self.0);
        let now = pit.clock.now();
        let [.., channel2] = &pit.channels;
        let output = channel2.output(TICKS.ticks(now));
        // The refresh request toggles every 15.085 microseconds.
        let refresh = now.checked_div(15_085).unwrap_or(0) & 1;
        u8::from(channel2.gate) | (u8::from(pit.speaker) << 1) | (lo8(refresh) << 4) | (u8::from(output) << 5)
    }

    fn write_byte(&mut self, _offset: u16, value: u8) {
        let mut pit = lock(&self.0);
        let tick = pit.tick();
        pit.speaker = value & 2 != 0;
        let [.., channel2] = &mut pit.channels;
        channel2.set_gate(value & 1 != 0, tick);
    }
}
