// SPDX-License-Identifier: MIT OR Apache-2.0
//! IOMMUs: AMD-Vi ([`amd`]) and Intel VT-d ([`intel`]), as one driver ([`Iommu`]).
//!
//! Both have a table by which a device's accesses are looked up, page tables, interrupt tables, a ring of commands by which units are told to forget what
//! they have cached, and a record of what they refused. What differs is where a bit stands, so that the driver is written once, and the two modules are
//! formats. Where the units are says the firmware ([`firmware`]).
//!
//! Registers and tables are reached by physical address through a [`Bus`], which in the kernel is the machine and on the host a model of units that keep to
//! the manuals: so what is tested is what runs. What is told of an access that was blocked is a [`Fault`]; how much of it is told, [`log`].
//!
//! Rule: everything that comes from outside (firmware tables, event records that a device provokes) is read by total functions, which answer
//! `None` or skip what makes no sense. Numbers of bits and offsets are those of the manuals: AMD I/O Virtualization Technology (IOMMU)
//! Specification, publication 48882, revision 3.07; Intel Virtualization Technology for Directed I/O, revision 3.3 (order number D51397).
#![cfg_attr(not(test), no_std)]

pub mod amd;
mod devices;
mod driver;
pub mod firmware;
pub mod intel;
mod interrupts;
pub mod log;
#[cfg(test)]
mod tests;
mod unit;

use core::fmt;

pub use driver::{BLOCKED, Bus, Iommu, Setup};
pub use interrupts::Taken;

/// Who made the units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// AMD-Vi.
    Amd,
    /// Intel VT-d.
    Intel,
}

/// PCI function that makes an access: bus in bits 8–15, device in 3–7, function in 0–2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Requester(pub u16);

impl Requester {
    /// The function at that place.
    #[must_use]
    pub const fn new(bus: u8, device: u8, function: u8) -> Self {
        Self((bus as u16) << 8 | (device as u16 & 31) << 3 | (function as u16 & 7))
    }
}

impl fmt::Display for Requester {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}:{:02x}.{}", self.0 >> 8, self.0 >> 3 & 31, self.0 & 7)
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
        let cause = match self.cause {
            Cause::Address => "nothing mapped there with that right",
            Cause::Device => "the device is in no DMA space",
            Cause::Interrupt => "an interrupt that is not its own",
            Cause::Table => "a table or command is malformed",
        };
        write!(f, "device {}: {access} {:#x} blocked: {cause}", self.device, self.address)
    }
}
