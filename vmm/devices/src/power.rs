// SPDX-License-Identifier: MIT OR Apache-2.0
//! How the guest switches its machine off, and on again.
//!
//! Devices that can do so (ACPI sleep control, reset port 0xcf9, keyboard controller, system control port 0x92) set
//! the one [`PowerLatch`] of the VM; the VMM looks at it after the access and acts. The first wish wins: what a guest
//! asks for after it has asked to be switched off does not matter.

use crate::bus::ByteDevice;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

/// What the guest asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PowerEvent {
    /// Switch the machine off (ACPI S5).
    Off,
    /// Reset the machine.
    Reset,
    /// Enter ACPI sleep state S3: memory stays.
    Sleep,
}

/// Holds the guest's wish until the VMM takes it. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct PowerLatch(Arc<AtomicU8>);

impl PowerLatch {
    /// A latch with no wish in it.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Records a wish, unless there is one.
    pub fn request(&self, event: PowerEvent) {
        let code = match event {
            PowerEvent::Off => 1,
            PowerEvent::Reset => 2,
            PowerEvent::Sleep => 3,
        };
        let _first_wins = self.0.compare_exchange(0, code, Ordering::AcqRel, Ordering::Acquire);
    }

    /// The wish, if any, without taking it: one load.
    #[must_use]
    pub fn peek(&self) -> Option<PowerEvent> {
        Self::decode(self.0.load(Ordering::Acquire))
    }

    /// Takes the wish out.
    #[must_use]
    pub fn take(&self) -> Option<PowerEvent> {
        Self::decode(self.0.swap(0, Ordering::AcqRel))
    }

    const fn decode(code: u8) -> Option<PowerEvent> {
        match code {
            1 => Some(PowerEvent::Off),
            2 => Some(PowerEvent::Reset),
            3 => Some(PowerEvent::Sleep),
            _ => None,
        }
    }
}

/// Reset control register, port 0xcf9 (Intel ICH9 datasheet section 13.7.5): writing SYS_RST and then RST_CPU, or
/// both at once, resets. One byte.
#[derive(Debug)]
pub struct ResetControl {
    latch: PowerLatch,
    value: u8,
}

impl ResetControl {
    /// The port, as reset.
    #[must_use]
    pub const fn new(latch: PowerLatch) -> Self {
        Self { latch, value: 0 }
    }
}

/// RST_CPU: a change from 0 to 1 resets.
const RST_CPU: u8 = 1 << 2;

impl ByteDevice for ResetControl {
    fn read_byte(&mut self, _offset: u16) -> u8 {
        self.value
    }

    fn write_byte(&mut self, _offset: u16, value: u8) {
        if value & RST_CPU != 0 && self.value & RST_CPU == 0 {
            self.latch.request(PowerEvent::Reset);
        }
        // SYS_RST (bit 1) and FULL_RST (bit 3) are kept; RST_CPU reads as written until the reset comes.
        self.value = value & 0x0e;
    }
}

/// System control port A, port 0x92: bit 0 resets on its rise, bit 1 is the A20 gate, which is always open here.
#[derive(Debug)]
pub struct SystemControlA {
    latch: PowerLatch,
    value: u8,
}

impl SystemControlA {
    /// The port, as reset: A20 open.
    #[must_use]
    pub const fn new(latch: PowerLatch) -> Self {
        Self { latch, value: 2 }
    }
}

impl ByteDevice for SystemControlA {
    fn read_byte(&mut self, _offset: u16) -> u8 {
        self.value
    }

    fn write_byte(&mut self, _offset: u16, value: u8) {
        if value & 1 != 0 && self.value & 1 == 0 {
            self.latch.request(PowerEvent::Reset);
        }
        self.value = (value & 1) | 2;
    }
}

#[cfg(test)]
mod tests {
    use super::{PowerEvent, PowerLatch, ResetControl, SystemControlA};
    use crate::bus::ByteDevice;

    #[test]
    fn the_first_wish_wins_and_is_taken_once() {
        let latch = PowerLatch::new();
        latch.clone().request(PowerEvent::Off);
        latch.request(PowerEvent::Reset);
        assert_eq!(latch.peek(), Some(PowerEvent::Off));
        assert_eq!(latch.take(), Some(PowerEvent::Off));
        assert_eq!(latch.take(), None);
    }

    #[test]
    fn ich9_13_7_5_reset_needs_a_rise_of_rst_cpu() {
        let latch = PowerLatch::new();
        let mut port = ResetControl::new(latch.clone());
        port.write_byte(0, 0x02);
        assert_eq!((latch.take(), port.read_byte(0)), (None, 0x02));
        port.write_byte(0, 0x06);
        assert_eq!(latch.take(), Some(PowerEvent::Reset));
        port.write_byte(0, 0x06);
        assert_eq!(latch.take(), None);
    }

    #[test]
    fn port_92_resets_on_the_rise_of_bit_0_and_keeps_a20_open() {
        let latch = PowerLatch::new();
        let mut port = SystemControlA::new(latch.clone());
        port.write_byte(0, 0);
        assert_eq!((port.read_byte(0), latch.take()), (2, None));
        port.write_byte(0, 1);
        assert_eq!(latch.take(), Some(PowerEvent::Reset));
    }
}
