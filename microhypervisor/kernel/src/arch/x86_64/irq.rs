// SPDX-License-Identifier: MIT OR Apache-2.0
//! Interrupts of devices: how each is wired, and switching it. The legacy controllers are masked for good.
//!
//! A [`Way`] leads from what raises an interrupt to a vector of a core; a binding has it, and it is free again when dropped.
//!
//! ISA interrupts are edge-triggered and active high unless the MADT overrides them; all others level-triggered and active low
//! (ACPI 6.5, 5.2.12.5). Messages: PCI Local Bus 3.0, 6.8.

use super::ioapic::{self, Pin};
use super::iommu::{Entry, Source};
use super::{acpi, apic, idt};
use cloister_abi::hypercall::IrqFlags;
use cloister_abi::status::Status;
use x86::io::outb;

pub(crate) use super::apic::{end_of_interrupt as end, hold, id as apic_id};
pub(crate) use super::ioapic::count;

/// First vector of devices.
pub(crate) const FIRST_VECTOR: u8 = crate::width::low8(idt::FIRST_DEVICE);
/// Number of vectors of devices.
pub(crate) const VECTORS: usize = crate::width::index(idt::TIMER - idt::FIRST_DEVICE);

/// Masks everything, switches local and I/O APICs on.
pub(crate) fn init() {
    // Legacy controllers: initialize, so that a spurious one does not look like an exception, then mask (8259A data sheet).
    for (port, value) in [
        (0x20, 0x11),
        (0xa0, 0x11),
        (0x21, 0x20),
        (0xa1, 0x28),
        (0x21, 4),
        (0xa1, 2),
        (0x21, 1),
        (0xa1, 1),
        (0x21, 0xff),
        (0xa1, 0xff),
    ] {
        // SAFETY: the legacy controllers are the kernel's.
        unsafe { outb(port, value) };
    }
    apic::init();
    ioapic::init();
}

/// Physical addresses of register pages that the kernel uses.
pub(crate) fn register_pages() -> impl Iterator<Item = u64> {
    let io_apics = acpi::tables().io_apics.iter().map(|io_apic| io_apic.address & !0xfff);
    core::iter::once(apic::BASE).chain(io_apics)
}

/// How a global system interrupt is wired.
fn wiring(gsi: u32) -> IrqFlags {
    let isa = acpi::tables().overrides.iter().find(|entry| entry.gsi == gsi).map(|entry| entry.flags);
    let [low, level] = match isa {
        Some(flags) => [flags & 3 == 3, flags >> 2 & 3 == 3],
        None => [gsi >= 16; 2],
    };
    let mut flags = IrqFlags::empty();
    flags.set(IrqFlags::LOW, low);
    flags.set(IrqFlags::LEVEL, level);
    flags
}

/// The way of an interrupt to a vector, from a line or from the messages of a device; nobody else's until it is dropped.
///
/// With an IOMMU that remaps interrupts it leads through an entry that belongs to the device, which can be blocked; without one the
/// message names APIC and vector itself, every device can send every message, and nothing can block it but the device.
#[derive(Debug)]
pub(crate) struct Way {
    /// Dropped, and with that masked, before the entry.
    pin: Option<Pin>,
    entry: Option<Entry>,
}

impl Way {
    /// From a line, masked, to a vector of a local APIC.
    ///
    /// # Errors
    /// There is no such line, or it is taken, or the APIC cannot be reached.
    pub(crate) fn of_line(gsi: u32, apic: u32, vector: u8, flags: IrqFlags) -> Result<Self, Status> {
        let mut pin = Pin::take(gsi)?;
        let wired = if flags.contains(IrqFlags::EXPLICIT) { flags } else { wiring(gsi) };
        let source = Source::IoApic(pin.controller());
        let (entry, taken) = Entry::take(source, apic, vector, wired.contains(IrqFlags::LEVEL))?;
        pin.route(taken.redirection, wired, vector);
        Ok(Self { pin: Some(pin), entry })
    }

    /// From a device to a vector of a local APIC. Answers with it address and data of the message: fixed delivery, edge.
    ///
    /// # Errors
    /// `BadCore`: the APIC cannot be reached by messages. With an IOMMU, `BadDevice`: not on the first PCI segment, `OutOfMemory`: its tables
    /// are full.
    pub(crate) fn of_messages(device: u32, apic: u32, vector: u8) -> Result<(Self, (u64, u64)), Status> {
        let (entry, taken) = Entry::take(Source::Device(device), apic, vector, false)?;
        Ok((Self { pin: None, entry }, taken.message))
    }

    /// Blocks it or lets through; false if nothing can block it.
    pub(crate) fn block(&mut self, blocked: bool) -> bool {
        match (&mut self.pin, &self.entry) {
            (Some(pin), _) => pin.mask(blocked),
            (None, Some(entry)) => entry.block(blocked),
            (None, None) => return false,
        }
        true
    }

    /// Whether it is raised until its device is served.
    pub(crate) fn is_level(&self) -> bool {
        self.pin.as_ref().is_some_and(Pin::is_level)
    }
}
