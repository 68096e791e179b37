// SPDX-License-Identifier: MIT OR Apache-2.0
//! The I/O APIC (Intel 82093AA datasheet; end-of-interrupt register as in version 0x20, ICH9 section 13.5.6).
//!
//! Twenty-four pins, each with a redirection entry that says whom to tell and how. (A board may have fewer: a system
//! initialises each pin by a dozen accesses, all of them exits.) An [`IoApic`] is pure state: what
//! must be sent is returned as a [`Message`] and carried by the [`crate::fabric::Fabric`].
//!
//! Rules. An edge at a masked pin is lost (section 3.2.4, mask bit). A level is told once, then not again until its
//! end is broadcast (Remote IRR); it is told again at that time if it still is high.

use crate::bits::{lo8, lo32};
use crate::bus::Width;
use crate::lapic::{Delivery, Message, widen_broadcast};

/// Number of pins of a PC's, and the most that one can have here.
pub const PINS: u32 = 24;

/// Guest-physical address of the registers: the usual one, which the VMM tells the guest by ACPI.
pub const IOAPIC_BASE: u64 = 0xfec0_0000;
/// Length of the register window, in bytes.
pub const IOAPIC_LEN: u64 = 0x1000;

/// Version 0x20: it has an EOI register.
const VERSION: u32 = 0x20;

const MASKED: u64 = 1 << 16;
const LEVEL: u64 = 1 << 15;
const REMOTE_IRR: u64 = 1 << 14;
const LOW_ACTIVE: u64 = 1 << 13;
const DELIVERY_STATUS: u64 = 1 << 12;
const LOGICAL: u64 = 1 << 11;
/// What software may write: all but Remote IRR and delivery status, which are read-only, and the reserved bits.
const WRITABLE: u64 = 0xff00_0000_0001_ffff & !(REMOTE_IRR | DELIVERY_STATUS);

#[derive(Clone, Copy, Debug)]
struct Pin {
    entry: u64,
    /// How many ends of the line are high.
    high: u16,
}

/// One I/O APIC.
#[derive(Clone, Debug)]
pub struct IoApic {
    id: u8,
    select: u8,
    /// Number of pins that exist.
    count: u8,
    pins: [Pin; PINS as usize],
}

impl Default for IoApic {
    fn default() -> Self {
        Self::new()
    }
}

impl IoApic {
    /// As after reset: all pins masked.
    #[must_use]
    pub const fn new() -> Self {
        Self { id: 0, select: 0, count: 24, pins: [Pin { entry: MASKED, high: 0 }; PINS as usize] }
    }

    /// As [`Self::new`], but with `pins` pins only; at least 1, at most [`PINS`].
    #[must_use]
    pub fn with_pins(pins: u8) -> Self {
        Self { count: pins.clamp(1, 24), ..Self::new() }
    }

    fn pin_mut(&mut self, pin: usize) -> Option<&mut Pin> {
        self.pins.get_mut(..usize::from(self.count))?.get_mut(pin)
    }

    /// One more (`true`) or one fewer end of the line at `pin` is high. Gives what must be sent.
    pub fn drive(&mut self, pin: u32, high: bool) -> Option<Message> {
        let pin = self.pin_mut(usize::try_from(pin).ok()?)?;
        let was = pin.high != 0;
        pin.high = if high { pin.high.saturating_add(1) } else { pin.high.saturating_sub(1) };
        let rises = !was && pin.high != 0;
        if rises { pin.fire() } else { None }
    }

    /// The end of the level-triggered interrupt `vector`. Calls `send` for each pin whose line is still high.
    pub fn end_of_interrupt(&mut self, vector: u8, mut send: impl FnMut(Message)) {
        for pin in &mut self.pins {
            if lo8(pin.entry) == vector && pin.entry & LEVEL != 0 && pin.entry & REMOTE_IRR != 0 {
                pin.entry &= !REMOTE_IRR;
                if pin.high != 0
                    && let Some(message) = pin.fire()
                {
                    send(message);
                }
            }
        }
    }

    /// Reads at `offset` in the register window.
    pub fn read(&mut self, offset: u64, width: Width) -> u64 {
        let value = match offset & !3 & 0xff {
            0x00 => u32::from(self.select),
            0x10 => self.read_register(),
            _ => 0,
        };
        (u64::from(value) >> ((offset & 3) << 3)) & width.mask()
    }

    /// Writes at `offset` in the register window. Calls `send` for what must be sent.
    pub fn write(&mut self, offset: u64, _width: Width, value: u64, mut send: impl FnMut(Message)) {
        match offset & 0xff {
            0x00 => self.select = lo8(value),
            0x10 => {
                if let Some(message) = self.write_register(lo32(value)) {
                    send(message);
                }
            }
            0x40 => self.end_of_interrupt(lo8(value), send),
            _ => {}
        }
    }

    fn read_register(&self) -> u32 {
        match self.select {
            0 | 2 => u32::from(self.id) << 24,
            1 => VERSION | (u32::from(self.count.saturating_sub(1)) << 16),
            select => self
                .pins
                .get(..usize::from(self.count))
                .and_then(|p| p.get(Self::pin_of(select)))
                .map_or(0, |pin| if select & 1 == 0 { lo32(pin.entry) } else { lo32(pin.entry >> 32) }),
        }
    }

    fn write_register(&mut self, value: u32) -> Option<Message> {
        let select = self.select;
        if select == 0 {
            self.id = lo8(u64::from(value >> 24)) & 0xf;
            return None;
        }
        let pin = self.pin_mut(Self::pin_of(select))?;
        let value = u64::from(value);
        let new = if select & 1 == 0 {
            (pin.entry & !0xffff_ffff) | value
        } else {
            (pin.entry & 0xffff_ffff) | (value << 32)
        };
        pin.entry = (new & WRITABLE) | (pin.entry & REMOTE_IRR);
        if pin.entry & LEVEL == 0 {
            // An edge-triggered entry has no Remote IRR: software clears a stuck one by this change of mode.
            pin.entry &= !REMOTE_IRR;
            return None;
        }
        if pin.high != 0 { pin.fire() } else { None }
    }

    const fn pin_of(select: u8) -> usize {
        (select.wrapping_sub(0x10) >> 1) as usize
    }

    /// The interrupt of `pin` as (masked, vector, level), for a VMM that programs an in-kernel interrupt controller.
    #[must_use]
    pub fn entry(&self, pin: u32) -> Option<u64> {
        self.pins.get(usize::try_from(pin).ok()?).map(|p| p.entry)
    }
}

impl Pin {
    /// Tells of the line's being high, if the entry allows.
    fn fire(&mut self) -> Option<Message> {
        if self.entry & MASKED != 0 {
            return None;
        }
        let level = self.entry & LEVEL != 0;
        if level && self.entry & REMOTE_IRR != 0 {
            return None;
        }
        let delivery = Delivery::decode(lo32(self.entry >> 8)).filter(|d| *d != Delivery::StartUp)?;
        // SMI, NMI, INIT and ExtINT are edges whatever the entry says (section 3.2.4, delivery mode).
        let level = level && matches!(delivery, Delivery::Fixed | Delivery::LowestPriority);
        if level {
            self.entry |= REMOTE_IRR;
        }
        // The polarity (LOW_ACTIVE) is a matter of wires: here a line is high when it is asserted.
        let _polarity = self.entry & LOW_ACTIVE;
        Some(Message {
            destination: widen_broadcast(lo8(self.entry >> 56)),
            logical: self.entry & LOGICAL != 0,
            delivery,
            vector: lo8(self.entry),
            level,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{IoApic, PINS};
    use crate::bus::Width;
    use crate::lapic::{BROADCAST, Delivery, Message};

    const D: Width = Width::Dword;

    fn set(io: &mut IoApic, register: u8, value: u32) -> Vec<Message> {
        let mut sent = Vec::new();
        io.write(0, D, u64::from(register), |m| sent.push(m));
        io.write(0x10, D, u64::from(value), |m| sent.push(m));
        sent
    }

    fn get(io: &mut IoApic, register: u8) -> u64 {
        io.write(0, D, u64::from(register), |_| ());
        io.read(0x10, D)
    }

    #[test]
    fn s3_2_registers_after_reset() {
        let mut io = IoApic::new();
        assert_eq!(get(&mut io, 1), 0x0017_0020);
        for pin in 0..24 {
            assert_eq!((get(&mut io, 0x10 + 2 * pin), get(&mut io, 0x11 + 2 * pin)), (0x1_0000, 0));
        }
        assert_eq!(get(&mut io, 0x40), 0);
        set(&mut io, 0, 0xffff_ffff);
        assert_eq!(get(&mut io, 0), 0x0f00_0000);
    }

    #[test]
    fn a_board_may_have_fewer_pins() {
        let mut io = IoApic::with_pins(8);
        assert_eq!(get(&mut io, 1), 0x0007_0020);
        set(&mut io, 0x20, 0x8041);
        assert_eq!((get(&mut io, 0x20), io.drive(8, true)), (0, None));
        set(&mut io, 0x1e, 0x8041);
        assert!(io.drive(7, true).is_some());
    }

    #[test]
    fn s3_2_4_edges() {
        let mut io = IoApic::new();
        assert_eq!(io.drive(4, true), None, "masked: lost");
        set(&mut io, 0x19, 0xff00_0000);
        assert!(set(&mut io, 0x18, 0x0000_0934).is_empty(), "high, but no edge");
        assert_eq!(io.drive(4, true), None, "already high");
        io.drive(4, false);
        io.drive(4, false);
        let m = io.drive(4, true).unwrap();
        assert_eq!(
            m,
            Message {
                destination: BROADCAST,
                logical: true,
                delivery: Delivery::LowestPriority,
                vector: 0x34,
                level: false
            }
        );
    }

    #[test]
    fn s3_2_4_level_and_remote_irr() {
        let mut io = IoApic::new();
        io.drive(20, true);
        io.drive(20, true);
        assert_eq!(set(&mut io, 0x38, 0x8041).len(), 1, "high when unmasked");
        assert_eq!(get(&mut io, 0x38), 0xc041);
        assert!(set(&mut io, 0x38, 0x8041).is_empty(), "not told twice");
        let mut n = 0;
        io.end_of_interrupt(0x40, |_| n += 1);
        assert_eq!(n, 0, "another vector");
        io.drive(20, false);
        io.end_of_interrupt(0x41, |_| n += 1);
        assert_eq!(n, 1, "the other end still is high");
        io.drive(20, false);
        io.write(0x40, D, 0x41, |_| n += 1);
        assert_eq!((n, get(&mut io, 0x38)), (1, 0x8041), "EOI register");
        assert!(io.drive(20, true).is_some());
    }

    #[test]
    fn change_to_edge_clears_remote_irr() {
        let mut io = IoApic::new();
        set(&mut io, 0x38, 0x8041);
        io.drive(20, true);
        set(&mut io, 0x38, 0x0041);
        assert_eq!(get(&mut io, 0x38), 0x0041);
    }

    #[test]
    fn delivery_modes_without_vector_are_edges_and_reserved_ones_nothing() {
        let mut io = IoApic::new();
        set(&mut io, 0x10, 0x8700);
        assert_eq!(io.drive(0, true).map(|m| (m.delivery, m.level)), Some((Delivery::ExtInt, false)));
        set(&mut io, 0x12, 0x300);
        set(&mut io, 0x14, 0x600);
        assert_eq!((io.drive(1, true), io.drive(2, true), io.drive(PINS, true)), (None, None, None));
    }
}
