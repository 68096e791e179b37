// SPDX-License-Identifier: MIT OR Apache-2.0
//! IOMMUs, as far as no register need be touched: AMD-Vi ([`amd`]) and Intel VT-d ([`intel`]).
//!
//! Each of the two has the formats of its tables in memory (device or context entries, page tables for DMA, interrupt remapping), of its
//! command queue and of its faults, and a parser of the firmware's table that tells where the units are (IVRS, DMAR). What both have in common
//! is here: who makes an access ([`Requester`]), and what is told of one that was blocked ([`Fault`], [`log`]).
//!
//! Rule: everything that comes from outside (firmware tables, event records that a device provokes) is read by total functions, which answer
//! `None` or skip what makes no sense. Numbers of bits and offsets are those of the manuals: AMD I/O Virtualization Technology (IOMMU)
//! Specification, publication 48882, revision 3.07; Intel Virtualization Technology for Directed I/O, revision 3.3 (order number D51397).
#![cfg_attr(not(test), no_std)]

pub mod amd;
pub mod intel;
pub mod log;

use core::fmt;

/// PCI function that makes an access: bus in bits 8–15, device in 3–7, function in 0–2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Requester(pub u16);

impl Requester {
    /// The function at that place.
    #[must_use]
    pub const fn new(bus: u8, device: u8, function: u8) -> Self {
        Self((bus as u16) << 8 | (device as u16 & 31) << 3 | (function as u16 & 7))
    }

    /// Its bus.
    #[must_use]
    pub const fn bus(self) -> u8 {
        self.0.to_be_bytes()[0]
    }

    /// Device and function on its bus.
    #[must_use]
    pub const fn function(self) -> u8 {
        self.0.to_be_bytes()[1]
    }
}

impl fmt::Display for Requester {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}:{:02x}.{}", self.bus(), self.function() >> 3, self.function() & 7)
    }
}

/// Why an access was blocked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Cause {
    /// Nothing is mapped at the address, or not with that right.
    Address = 1,
    /// The device is in no DMA space.
    Device = 2,
    /// The device may not raise that interrupt.
    Interrupt = 3,
    /// A table or command is not as the unit wants it: the kernel's fault, or a broken unit.
    Table = 4,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Address => "nothing mapped there with that right",
            Self::Device => "the device is in no DMA space",
            Self::Interrupt => "an interrupt that is not its own",
            Self::Table => "a table or command is malformed",
        })
    }
}

/// An access that was blocked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Who made it.
    pub device: Requester,
    /// To which address of its own. For an interrupt: address, or index in the table, as the unit tells.
    pub address: u64,
    /// It was a write.
    pub write: bool,
    /// Why it was blocked.
    pub cause: Cause,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let access = if self.write { "write to" } else { "read of" };
        write!(f, "device {}: {access} {:#x} blocked: {}", self.device, self.address, self.cause)
    }
}

/// A range of memory that firmware says a device needs as it is (IVMD, RMRR).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reserved {
    /// First device.
    pub first: Requester,
    /// Last device.
    pub last: Requester,
    /// First byte.
    pub base: u64,
    /// First byte after it.
    pub end: u64,
    /// The device may read.
    pub read: bool,
    /// The device may write.
    pub write: bool,
}

/// An I/O APIC, as a requester of interrupts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IoApic {
    /// Its identity in the MADT.
    pub id: u8,
    /// Who it is to the IOMMU.
    pub device: Requester,
}

/// What firmware tells of IOMMUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item {
    /// A unit: physical address of its registers, the PCI segment it serves, and its own PCI function and the offset of its capability
    /// there (AMD-Vi).
    Unit {
        /// Registers.
        base: u64,
        /// PCI segment.
        segment: u16,
        /// Its own PCI function.
        device: Requester,
    },
    /// An I/O APIC.
    IoApic(IoApic),
    /// Memory that devices need.
    Reserved(Reserved),
}

/// Bytes of a table, from whatever memory.
pub trait Bytes {
    /// The byte at an offset; `None` beyond the end.
    fn byte(&self, offset: u64) -> Option<u8>;

    /// A little-endian number of up to eight bytes.
    fn number(&self, offset: u64, bytes: u64) -> Option<u64> {
        (0..bytes).rev().try_fold(0, |sum, index| Some(sum << 8 | u64::from(self.byte(offset.checked_add(index)?)?)))
    }

    /// A number of two bytes.
    fn short(&self, offset: u64) -> Option<u16> {
        Some(u16::from_le_bytes([self.byte(offset)?, self.byte(offset.checked_add(1)?)?]))
    }
}

impl Bytes for [u8] {
    fn byte(&self, offset: u64) -> Option<u8> {
        self.get(usize::try_from(offset).ok()?).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::{Bytes, Requester};

    #[test]
    fn requesters_are_shown_as_people_write_them() {
        assert_eq!(Requester::new(0, 4, 0).to_string(), "00:04.0");
        assert_eq!(Requester(0xff_ff).to_string(), "ff:1f.7");
    }

    #[test]
    fn numbers_beyond_the_end_are_none() {
        let bytes: &[u8] = &[1, 2, 3];
        assert_eq!(bytes.number(0, 3), Some(0x03_0201));
        assert_eq!(bytes.number(1, 3), None);
        assert_eq!(bytes.number(u64::MAX, 2), None);
        assert_eq!(bytes.short(1), Some(0x0302));
    }
}
