// SPDX-License-Identifier: MIT OR Apache-2.0
//! The two 8259A interrupt controllers of a PC (Intel 8259A datasheet, order 231468).
//!
//! The second one's output is input 2 of the first. Linux reads back the mask register to see that they are there,
//! initialises them and masks all inputs; older systems live by them. A [`PicPair`] is pure state; its output
//! is asked for with [`PicPair::output`] and the vector is fetched with [`PicPair::acknowledge`].
//!
//! Registers: ports 0x20, 0x21 and 0xa0, 0xa1, and the edge/level controls 0x4d0, 0x4d1 (ICH9 section 13.4.7).
//! Not done: the mode for the MCS-80, buffered mode, special fully nested mode.

#[cfg(test)]
mod tests;

use crate::bits::lo8;

/// Vector given when a request vanished before it was acknowledged: that of input 7.
const SPURIOUS: u8 = 7;

#[derive(Clone, Debug, Default)]
struct Pic {
    /// Input levels, requests, mask, in service, edge (0) or level (1).
    lines: u8,
    irr: u8,
    imr: u8,
    isr: u8,
    elcr: u8,
    elcr_mask: u8,
    vector_base: u8,
    /// The next initialisation word expected: 0 none, 2, 3, 4.
    init_step: u8,
    wants_icw4: bool,
    auto_eoi: bool,
    rotate_on_auto_eoi: bool,
    /// The input with the lowest priority.
    lowest: u8,
    read_isr: bool,
    poll: bool,
    special_mask: bool,
}

impl Pic {
    fn new(elcr_mask: u8) -> Self {
        Self { elcr_mask, lowest: 7, ..Self::default() }
    }

    fn set_line(&mut self, input: u8, high: bool) {
        let bit = 1u8.wrapping_shl(u32::from(input));
        let was = self.lines & bit != 0;
        if high {
            self.lines |= bit;
            if !was || self.elcr & bit != 0 {
                self.irr |= bit;
            }
        } else {
            self.lines &= !bit;
            // The datasheet wants an input to stay high until it is acknowledged. Our devices pulse their edges, so
            // that an edge is kept, as other models do; a level goes with its line.
            self.irr &= !(bit & self.elcr);
        }
    }

    /// Position of `bits`' most urgent member, counted from the highest priority; 8 if there is none.
    fn urgency(&self, bits: u8) -> u8 {
        let first = self.lowest.wrapping_add(1) & 7;
        lo8(u64::from(bits.rotate_right(u32::from(first)).trailing_zeros()))
    }

    const fn input_at(&self, urgency: u8) -> u8 {
        self.lowest.wrapping_add(1).wrapping_add(urgency) & 7
    }

    /// The input to serve next, if one may interrupt what is served.
    fn next(&self) -> Option<u8> {
        let wanted = self.urgency(self.irr & !self.imr);
        let in_service = if self.special_mask { self.isr & !self.imr } else { self.isr };
        (wanted < self.urgency(in_service)).then(|| self.input_at(wanted))
    }

    fn acknowledge(&mut self, input: u8) {
        let bit = 1u8.wrapping_shl(u32::from(input));
        if self.elcr & bit == 0 {
            self.irr &= !bit;
        }
        if !self.auto_eoi {
            self.isr |= bit;
        } else if self.rotate_on_auto_eoi {
            self.lowest = input;
        }
    }

    fn read(&mut self, data_port: bool) -> u8 {
        if std::mem::take(&mut self.poll) {
            return match self.next() {
                Some(input) => {
                    self.acknowledge(input);
                    0x80 | input
                }
                None => 0,
            };
        }
        match (data_port, self.read_isr) {
            (true, _) => self.imr,
            (false, true) => self.isr,
            (false, false) => self.irr,
        }
    }

    fn write(&mut self, data_port: bool, value: u8) {
        match (data_port, value & 0x18) {
            (false, _) if value & 0x10 != 0 => self.icw1(value),
            (false, 0) => self.ocw2(value),
            (false, _) => self.ocw3(value),
            (true, _) => self.data(value),
        }
    }

    fn icw1(&mut self, value: u8) {
        *self = Self { elcr: self.elcr, lines: self.lines, ..Self::new(self.elcr_mask) };
        // Level inputs that are high ask again; edges must come again.
        self.irr = self.lines & self.elcr;
        self.wants_icw4 = value & 1 != 0;
        self.init_step = 2;
    }

    fn data(&mut self, value: u8) {
        self.init_step = match self.init_step {
            2 => {
                self.vector_base = value & 0xf8;
                3
            }
            3 if self.wants_icw4 => 4,
            4 => {
                self.auto_eoi = value & 2 != 0;
                0
            }
            3 => 0,
            _ => {
                self.imr = value;
                0
            }
        };
    }

    fn ocw2(&mut self, value: u8) {
        let input = value & 7;
        match value >> 5 {
            0b000 => self.rotate_on_auto_eoi = false,
            0b100 => self.rotate_on_auto_eoi = true,
            0b110 => self.lowest = input,
            command @ (0b001 | 0b101) => {
                let urgency = self.urgency(self.isr);
                if urgency < 8 {
                    self.end(self.input_at(urgency), command == 0b101);
                }
            }
            command @ (0b011 | 0b111) => self.end(input, command == 0b111),
            _ => {}
        }
    }

    fn end(&mut self, input: u8, rotate: bool) {
        self.isr &= !1u8.wrapping_shl(u32::from(input));
        if rotate {
            self.lowest = input;
        }
    }

    fn ocw3(&mut self, value: u8) {
        if value & 0x40 != 0 {
            self.special_mask = value & 0x20 != 0;
        }
        self.poll = value & 4 != 0;
        if value & 2 != 0 {
            self.read_isr = value & 1 != 0;
        }
    }
}

/// The pair. Inputs 0 to 7 are the first one's, 8 to 15 the second one's.
#[derive(Clone, Debug)]
pub struct PicPair {
    first: Pic,
    second: Pic,
    /// How many ends of each line are high.
    high: [u16; 16],
}

impl Default for PicPair {
    fn default() -> Self {
        Self::new()
    }
}

/// Which of the pair a port belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PicPort {
    /// Ports 0x20 and 0x21.
    First,
    /// Ports 0xa0 and 0xa1.
    Second,
    /// Ports 0x4d0 and 0x4d1.
    EdgeLevel,
}

impl PicPair {
    /// As after power-up: nothing initialised, nothing masked, no line high.
    #[must_use]
    pub fn new() -> Self {
        Self { first: Pic::new(0xf8), second: Pic::new(0xde), high: [0; 16] }
    }

    /// One more (`true`) or one fewer end of the line at `input` is high. True if the output is high after it.
    pub fn drive(&mut self, input: u32, high: bool) -> bool {
        let slot = usize::try_from(input).ok().and_then(|i| self.high.get_mut(i));
        if let Some(count) = slot {
            *count = if high { count.saturating_add(1) } else { count.saturating_sub(1) };
            let (level, input) = (*count != 0, lo8(u64::from(input)));
            match input {
                2 => {}
                0..=7 => self.first.set_line(input, level),
                _ => self.second.set_line(input & 7, level),
            }
            self.cascade();
        }
        self.output()
    }

    fn cascade(&mut self) {
        let asks = self.second.next().is_some();
        self.first.set_line(2, asks);
        if !asks {
            self.first.irr &= !4;
        }
    }

    /// True while the pair asks for service.
    #[must_use]
    pub fn output(&self) -> bool {
        self.first.next().is_some()
    }

    /// Acknowledges, as a processor does, and gives the vector.
    pub fn acknowledge(&mut self) -> u8 {
        let vector = match self.first.next() {
            None => self.first.vector_base | SPURIOUS,
            Some(2) => {
                self.first.acknowledge(2);
                match self.second.next() {
                    None => self.second.vector_base | SPURIOUS,
                    Some(input) => {
                        self.second.acknowledge(input);
                        self.second.vector_base | input
                    }
                }
            }
            Some(input) => {
                self.first.acknowledge(input);
                self.first.vector_base | input
            }
        };
        self.cascade();
        vector
    }

    /// Reads port `offset` (0 or 1) of `port`.
    pub fn read(&mut self, port: PicPort, offset: u16) -> u8 {
        match (port, offset & 1 != 0) {
            (PicPort::First, data) => self.first.read(data),
            (PicPort::Second, data) => {
                let value = self.second.read(data);
                self.cascade();
                value
            }
            (PicPort::EdgeLevel, false) => self.first.elcr,
            (PicPort::EdgeLevel, true) => self.second.elcr,
        }
    }

    /// Writes port `offset` (0 or 1) of `port`. True if the output is high after it.
    pub fn write(&mut self, port: PicPort, offset: u16, value: u8) -> bool {
        match (port, offset & 1 != 0) {
            (PicPort::First, data) => self.first.write(data, value),
            (PicPort::Second, data) => self.second.write(data, value),
            (PicPort::EdgeLevel, false) => self.first.elcr = value & self.first.elcr_mask,
            (PicPort::EdgeLevel, true) => self.second.elcr = value & self.second.elcr_mask,
        }
        self.cascade();
        self.output()
    }
}
