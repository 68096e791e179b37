// SPDX-License-Identifier: MIT OR Apache-2.0
//! The configuration space of a function with a type 0 header (PCI 3.0 section 6.1).
//!
//! Each byte has a mask of bits that software may write; reading and writing know nothing more. BARs follow from that:
//! the bits of a BAR below its size are not writable, so that what a system reads after writing all ones is the size
//! (section 6.2.5.1).
//!
//! Rule: a BAR is decoded when its space is enabled in the command register and its whole range lies in the address
//! space; what it overlaps is not checked here.

#[cfg(test)]
mod tests;

use cloister_devices::bits::{byte, lo8, lo16, lo32};
use cloister_devices::bus::Width;

/// Bits of the command register (section 6.2.2).
pub mod command {
    /// Decode I/O BARs.
    pub const IO: u16 = 1 << 0;
    /// Decode memory BARs.
    pub const MEMORY: u16 = 1 << 1;
    /// May be a bus master: read guest memory and send messages.
    pub const BUS_MASTER: u16 = 1 << 2;
    /// Do not use the interrupt line.
    pub const INTX_DISABLE: u16 = 1 << 10;
    pub(super) const PARITY_AND_SERR: u16 = (1 << 6) | (1 << 8);
}

const COMMAND: u16 = 0x04;
const STATUS: u16 = 0x06;
const BAR0: u16 = 0x10;
const CAPABILITIES_POINTER: u16 = 0x34;
const STATUS_CAPABILITIES: u16 = 1 << 4;
const STATUS_INTERRUPT: u16 = 1 << 3;
/// First offset at which capabilities may lie.
const FIRST_CAPABILITY: u16 = 0x40;

/// What a function says it is (section 6.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Vendor ID.
    pub vendor: u16,
    /// Device ID.
    pub device: u16,
    /// Class code: base class, sub-class, interface.
    pub class: [u8; 3],
    /// Revision ID.
    pub revision: u8,
    /// Subsystem vendor ID.
    pub subsystem_vendor: u16,
    /// Subsystem ID.
    pub subsystem: u16,
    /// Interrupt pin: 0 for none, 1 to 4 for INTA to INTD.
    pub interrupt_pin: u8,
}

/// Kind of address space of a BAR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BarKind {
    /// Ports.
    Io,
    /// Memory below 4 GiB.
    Memory32,
    /// Memory anywhere, prefetchable; takes two BARs.
    Memory64,
}

/// A base address register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bar {
    /// Kind of address space.
    pub kind: BarKind,
    /// Size in bytes: a power of two, at least 16 for memory and 4 for ports.
    pub size: u64,
}

/// A BAR that is decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// Index of the BAR.
    pub bar: u8,
    /// True for ports.
    pub io: bool,
    /// First address.
    pub base: u64,
    /// Number of addresses.
    pub size: u64,
}

/// A configuration space.
#[derive(Clone, Debug)]
pub struct ConfigSpace {
    data: [u8; 256],
    writable: [u8; 256],
    bars: [Option<Bar>; 6],
    last_capability: Option<u16>,
    next_free: u16,
}

impl ConfigSpace {
    /// A space with the header of `identity`, no BARs and no capabilities.
    #[must_use]
    pub fn new(identity: &Identity) -> Self {
        let mut space = Self {
            data: [0; 256],
            writable: [0; 256],
            bars: [None; 6],
            last_capability: None,
            next_free: FIRST_CAPABILITY,
        };
        let [base, sub, interface] = identity.class;
        space.put16(0x00, identity.vendor);
        space.put16(0x02, identity.device);
        space.put(0x08, &[identity.revision, interface, sub, base]);
        space.put16(0x2c, identity.subsystem_vendor);
        space.put16(0x2e, identity.subsystem);
        space.put(0x3d, &[identity.interrupt_pin]);
        let writable =
            command::IO | command::MEMORY | command::BUS_MASTER | command::INTX_DISABLE | command::PARITY_AND_SERR;
        space.allow(COMMAND, &writable.to_le_bytes());
        // Cache line size, latency timer, interrupt line: scratch for software.
        space.allow(0x0c, &[0xff, 0xff]);
        space.allow(0x3c, &[0xff]);
        space
    }

    /// Puts bytes, whatever the masks say.
    pub fn put(&mut self, offset: u16, bytes: &[u8]) {
        for (slot, value) in self.data.iter_mut().skip(usize::from(offset)).zip(bytes) {
            *slot = *value;
        }
    }

    fn put16(&mut self, offset: u16, value: u16) {
        self.put(offset, &value.to_le_bytes());
    }

    /// Lets software write the bits that are set in `mask`.
    pub fn allow(&mut self, offset: u16, mask: &[u8]) {
        for (slot, value) in self.writable.iter_mut().skip(usize::from(offset)).zip(mask) {
            *slot = *value;
        }
    }

    /// Adds a BAR. A size that is not a power of two is rounded up; an index beyond the last is ignored.
    pub fn add_bar(&mut self, index: u8, kind: BarKind, size: u64) {
        let least = if kind == BarKind::Io { 4 } else { 16 };
        let size = size.max(least).checked_next_power_of_two().unwrap_or(1 << 31);
        let Some(slot) = self.bars.get_mut(usize::from(index)) else { return };
        *slot = Some(Bar { kind, size });
        let offset = bar_offset(index);
        let mask = !size.wrapping_sub(1);
        let (flags, mask_low) = match kind {
            BarKind::Io => (0b01, lo32(mask) & 0xffff_fffc),
            BarKind::Memory32 => (0b0000, lo32(mask) & 0xffff_fff0),
            BarKind::Memory64 => (0b1100, lo32(mask) & 0xffff_fff0),
        };
        self.put(offset, &[flags, 0, 0, 0]);
        self.allow(offset, &mask_low.to_le_bytes());
        if kind == BarKind::Memory64 {
            self.allow(offset.wrapping_add(4), &lo32(mask >> 32).to_le_bytes());
        }
    }

    /// Adds a capability: `id`, then `body`. Gives its offset; 0 if there is no room.
    pub fn add_capability(&mut self, id: u8, body: &[u8]) -> u16 {
        let at = self.next_free;
        let length = u16::try_from(body.len()).unwrap_or(u16::MAX).saturating_add(2);
        let end = at.saturating_add(length).saturating_add(3) & !3;
        if end > 0x100 {
            return 0;
        }
        self.put(at, &[id, 0]);
        self.put(at.wrapping_add(2), body);
        let link = self.last_capability.map_or(CAPABILITIES_POINTER, |last| last.wrapping_add(1));
        self.put(link, &[lo8(u64::from(at))]);
        self.last_capability = Some(at);
        self.next_free = end;
        let status = self.get16(STATUS) | STATUS_CAPABILITIES;
        self.put16(STATUS, status);
        at
    }

    fn get8(&self, offset: u16) -> u8 {
        self.data.get(usize::from(offset)).copied().unwrap_or(0)
    }

    /// The 16-bit register at `offset`.
    #[must_use]
    pub fn get16(&self, offset: u16) -> u16 {
        u16::from_le_bytes([self.get8(offset), self.get8(offset.wrapping_add(1))])
    }

    /// The 32-bit register at `offset`.
    #[must_use]
    pub fn get32(&self, offset: u16) -> u32 {
        u32::from(self.get16(offset)) | (u32::from(self.get16(offset.wrapping_add(2))) << 16)
    }

    /// The command register.
    #[must_use]
    pub fn command(&self) -> u16 {
        self.get16(COMMAND)
    }

    /// Shows in the status register whether an interrupt waits (section 6.2.3).
    pub fn set_interrupt_status(&mut self, waits: bool) {
        let status = self.get16(STATUS) & !STATUS_INTERRUPT;
        self.put16(STATUS, status | if waits { STATUS_INTERRUPT } else { 0 });
    }

    /// Reads. Beyond 256 bytes there is nothing: no extended capabilities.
    #[must_use]
    pub fn read(&self, offset: u16, width: Width) -> u32 {
        (0..width.bytes().min(4)).fold(0, |value, i| {
            let at = offset.wrapping_add(lo16(u64::from(i)));
            value | (u32::from(self.get8(at)) << i.wrapping_mul(8))
        })
    }

    /// Writes what may be written.
    pub fn write(&mut self, offset: u16, width: Width, value: u32) {
        for i in 0..width.bytes().min(4) {
            let at = usize::from(offset.wrapping_add(lo16(u64::from(i))));
            if let (Some(slot), Some(mask)) = (self.data.get_mut(at), self.writable.get(at)) {
                *slot = (*slot & !mask) | (byte(u64::from(value), i) & mask);
            }
        }
    }

    /// True if a write at `offset` may change what is decoded.
    #[must_use]
    pub const fn decodes(offset: u16) -> bool {
        (offset & !3) == COMMAND || (offset >= BAR0 && offset < 0x28)
    }

    /// All BARs.
    pub fn bars(&self) -> impl Iterator<Item = (u8, Bar)> + '_ {
        (0u8..).zip(&self.bars).filter_map(|(i, b)| b.map(|b| (i, b)))
    }

    /// The BARs that are decoded now.
    #[must_use]
    pub fn mappings(&self) -> Vec<Mapping> {
        self.bars().filter_map(|(index, bar)| self.mapping(index, bar)).collect()
    }

    fn mapping(&self, index: u8, bar: Bar) -> Option<Mapping> {
        let offset = bar_offset(index);
        let low = u64::from(self.get32(offset));
        let (io, base, limit) = match bar.kind {
            BarKind::Io => (true, low & 0xffff_fffc, 0xffff),
            BarKind::Memory32 => (false, low & 0xffff_fff0, 0xffff_ffff),
            BarKind::Memory64 => {
                (false, (low & 0xffff_fff0) | (u64::from(self.get32(offset.wrapping_add(4))) << 32), u64::MAX)
            }
        };
        let enabled = self.command() & if io { command::IO } else { command::MEMORY } != 0;
        let last = base.checked_add(bar.size.wrapping_sub(1))?;
        (enabled && base != 0 && last <= limit).then_some(Mapping { bar: index, io, base, size: bar.size })
    }

    /// Clears what software wrote into the header: command, BARs, interrupt line.
    pub fn reset(&mut self) {
        for (offset, (slot, mask)) in self.data.iter_mut().zip(&self.writable).enumerate() {
            if offset < usize::from(FIRST_CAPABILITY) {
                *slot &= !mask;
            }
        }
    }
}

/// Offset of BAR `index`.
#[must_use]
pub(super) fn bar_offset(index: u8) -> u16 {
    BAR0.wrapping_add(u16::from(index).wrapping_mul(4))
}
