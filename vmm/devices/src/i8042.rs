// SPDX-License-Identifier: MIT OR Apache-2.0
//! The keyboard controller (ports 0x60 and 0x64), with nothing plugged in.
//!
//! Systems probe for it even when the firmware says that it is absent, and wait long for what does not answer: so it
//! answers, at once, that it works and that neither a keyboard nor a mouse is there. Bytes for the keyboard are
//! answered as the controller does when the device stays silent: status bit 6 (time-out) and the byte 0xfe. It can
//! reset the machine (pulse of output bit 0).
//!
//! Reference: IBM PS/2 Hardware Interface Technical Reference, section "Keyboard and Auxiliary Device Controller".

use crate::bus::ByteDevice;
use crate::irq::IrqLine;
use crate::power::{PowerEvent, PowerLatch};

/// Data port.
pub const I8042_DATA: u16 = 0x60;
/// Command and status port.
pub const I8042_COMMAND: u16 = 0x64;
/// ISA interrupt of the keyboard.
pub const KEYBOARD_IRQ: u32 = 1;

const STATUS_FULL: u8 = 1 << 0;
const STATUS_SYSTEM: u8 = 1 << 2;
const STATUS_COMMAND: u8 = 1 << 3;
const STATUS_UNLOCKED: u8 = 1 << 4;
const STATUS_TIMEOUT: u8 = 1 << 6;

const CTR_KEYBOARD_INTERRUPT: u8 = 1 << 0;
const CTR_SYSTEM: u8 = 1 << 2;
const CTR_KEYBOARD_OFF: u8 = 1 << 4;
const CTR_AUX_OFF: u8 = 1 << 5;

/// What the next byte at the data port is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expects {
    Keyboard,
    ControlByte,
    OutputPort,
    /// Echo it as keyboard data.
    Echo,
    Discard,
}

/// The controller.
#[derive(Debug)]
pub struct I8042 {
    line: IrqLine,
    latch: PowerLatch,
    control: u8,
    output_port: u8,
    answer: Option<u8>,
    timed_out: bool,
    last_was_command: bool,
    expects: Expects,
}

impl I8042 {
    /// A controller, as after its self test, that interrupts through `line`.
    #[must_use]
    pub const fn new(line: IrqLine, latch: PowerLatch) -> Self {
        Self {
            line,
            latch,
            control: CTR_SYSTEM | CTR_KEYBOARD_OFF | CTR_AUX_OFF,
            output_port: 0b11,
            answer: None,
            timed_out: false,
            last_was_command: false,
            expects: Expects::Keyboard,
        }
    }

    fn answer(&mut self, byte: u8, timed_out: bool) {
        self.answer = Some(byte);
        self.timed_out = timed_out;
        self.line.set(self.control & CTR_KEYBOARD_INTERRUPT != 0);
    }

    fn status(&self) -> u8 {
        let mut status = STATUS_UNLOCKED | (self.control & STATUS_SYSTEM);
        if self.answer.is_some() {
            status |= STATUS_FULL;
        }
        if self.timed_out {
            status |= STATUS_TIMEOUT;
        }
        if self.last_was_command {
            status |= STATUS_COMMAND;
        }
        status
    }

    fn command(&mut self, command: u8) {
        self.expects = Expects::Keyboard;
        match command {
            0x20..=0x3f => self.answer(self.control, false),
            0x60..=0x7f => self.expects = Expects::ControlByte,
            0xa7 => self.control |= CTR_AUX_OFF,
            // No mouse port: enabling it does not show.
            0xa8 => {}
            // Test of the mouse port: its clock line hangs.
            0xa9 => self.answer(1, false),
            0xaa => {
                self.control = CTR_SYSTEM | CTR_KEYBOARD_OFF | CTR_AUX_OFF;
                self.answer(0x55, false);
            }
            0xab => self.answer(0, false),
            0xad => self.control |= CTR_KEYBOARD_OFF,
            0xae => self.control &= !CTR_KEYBOARD_OFF,
            0xc0 => self.answer(0x80, false),
            0xd0 => self.answer(self.output_port, false),
            0xd1 => self.expects = Expects::OutputPort,
            // Loop of keyboard and of mouse data: both come back as the keyboard's, so that no mouse is seen.
            0xd2 | 0xd3 => self.expects = Expects::Echo,
            0xd4 => self.expects = Expects::Discard,
            // Pulse output bits that are 0 in the command: bit 0 is the reset line.
            0xf0..=0xff if command & 1 == 0 => self.latch.request(PowerEvent::Reset),
            _ => {}
        }
    }

    fn data(&mut self, value: u8) {
        match std::mem::replace(&mut self.expects, Expects::Keyboard) {
            Expects::ControlByte => {
                self.control = value | CTR_AUX_OFF;
                if self.answer.is_none() {
                    self.line.set(false);
                }
            }
            Expects::OutputPort => {
                self.output_port = value | 0b10;
                if value & 1 == 0 {
                    self.latch.request(PowerEvent::Reset);
                }
            }
            Expects::Echo => self.answer(value, false),
            Expects::Keyboard | Expects::Discard => self.answer(0xfe, true),
        }
    }
}

/// Offsets 0 (data) and 4 (command). On a board where port 0x61 is somebody else's, use [`I8042Port`].
impl ByteDevice for I8042 {
    fn read_byte(&mut self, offset: u16) -> u8 {
        match offset {
            0 => {
                self.line.set(false);
                self.timed_out = false;
                self.answer.take().unwrap_or(0)
            }
            4 => self.status(),
            _ => 0xff,
        }
    }

    fn write_byte(&mut self, offset: u16, value: u8) {
        self.last_was_command = offset == 4;
        match offset {
            0 => self.data(value),
            4 => self.command(value),
            _ => {}
        }
    }
}

/// One of the two ports of a controller, for a bus on which port 0x61 is somebody else's.
#[derive(Clone, Debug)]
pub struct I8042Port {
    controller: std::sync::Arc<std::sync::Mutex<I8042>>,
    offset: u16,
}

impl I8042Port {
    /// The data port and the command port of a controller, one byte each.
    #[must_use]
    pub fn pair(controller: I8042) -> (Self, Self) {
        let controller = std::sync::Arc::new(std::sync::Mutex::new(controller));
        (Self { controller: controller.clone(), offset: 0 }, Self { controller, offset: 4 })
    }
}

impl ByteDevice for I8042Port {
    fn read_byte(&mut self, _offset: u16) -> u8 {
        crate::lock(&self.controller).read_byte(self.offset)
    }

    fn write_byte(&mut self, _offset: u16, value: u8) {
        crate::lock(&self.controller).write_byte(self.offset, value);
    }
}

#[cfg(test)]
mod tests {
    use super::{I8042, I8042Port};
    use crate::bus::ByteDevice;
    use crate::irq::{IrqLine, Recorder};
    use crate::power::{PowerEvent, PowerLatch};
    use std::sync::Arc;

    fn controller() -> (I8042, Arc<Recorder>, PowerLatch) {
        let (recorder, latch) = (Arc::new(Recorder::default()), PowerLatch::new());
        (I8042::new(IrqLine::new(recorder.clone(), 1), latch.clone()), recorder, latch)
    }

    fn ask(c: &mut I8042, command: u8) -> u8 {
        c.write_byte(4, command);
        assert_eq!(c.read_byte(4) & 1, 1, "an answer to {command:#x}");
        c.read_byte(0)
    }

    #[test]
    fn probe_as_linux_does_it() {
        let (mut c, _, _) = controller();
        assert_eq!(c.read_byte(4) & 1, 0, "nothing to flush");
        assert_eq!(ask(&mut c, 0xaa), 0x55);
        c.write_byte(4, 0x60);
        c.write_byte(0, 0x47);
        assert_eq!(ask(&mut c, 0x20), 0x67, "mouse port stays off");
        c.write_byte(4, 0xd3);
        c.write_byte(0, 0x5a);
        assert_eq!((c.read_byte(4) & 0x21, c.read_byte(0)), (1, 0x5a), "not marked as mouse data");
        assert_eq!((ask(&mut c, 0xab), ask(&mut c, 0xa9)), (0, 1));
    }

    #[test]
    fn no_keyboard_is_told_at_once_and_by_interrupt() {
        let (mut c, irq, _) = controller();
        c.write_byte(4, 0x60);
        c.write_byte(0, 1);
        c.write_byte(0, 0xf2);
        assert_eq!(irq.rises(), 1);
        assert_eq!((c.read_byte(4) & 0x41, c.read_byte(0), c.read_byte(4) & 0x41), (0x41, 0xfe, 0));
    }

    #[test]
    fn resets_by_pulse_and_by_output_port() {
        let (c, _, latch) = controller();
        let (mut data, mut command) = I8042Port::pair(c);
        command.write_byte(0, 0xfe);
        assert_eq!(latch.take(), Some(PowerEvent::Reset));
        command.write_byte(0, 0xd1);
        data.write_byte(0, 0xde);
        assert_eq!(latch.take(), Some(PowerEvent::Reset));
        command.write_byte(0, 0xff);
        assert_eq!((latch.take(), command.read_byte(0) & 8), (None, 8));
    }
}
