// SPDX-License-Identifier: MIT OR Apache-2.0
//! Interrupts by global system interrupt: how each is wired, and switching it. The legacy controllers are masked for good.
//!
//! ISA interrupts are edge-triggered and active high unless the MADT overrides them; all others level-triggered and active low
//! (ACPI 6.5, 5.2.12.5).

use super::{acpi, apic, idt, ioapic};
use cloister_abi::hypercall::IrqFlags;
use x86::io::outb;

/// Most interrupts that have a vector.
pub(crate) const MANY: u32 = 160;

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

/// Number of global system interrupts that can be bound.
pub(crate) fn count() -> u32 {
    ioapic::count().min(MANY)
}

/// Physical addresses of register pages that the kernel uses.
pub(crate) fn register_pages(pages: &mut [u64; 20]) -> usize {
    pages[0] = apic::BASE;
    let tables = acpi::tables();
    for index in 0..tables.io_apic_count {
        pages[1 + index] = tables.io_apics[index].address & !0xfff;
    }
    1 + tables.io_apic_count
}

/// Translates an ISA interrupt number to its global system interrupt, and says how a global system interrupt is wired.
fn wiring(gsi: u32) -> IrqFlags {
    let tables = acpi::tables();
    for entry in &tables.overrides[..tables.override_count] {
        if entry.gsi == gsi {
            let mut flags = IrqFlags::empty();
            flags.set(IrqFlags::LOW, entry.flags & 3 == 3);
            flags.set(IrqFlags::LEVEL, entry.flags >> 2 & 3 == 3);
            return flags;
        }
    }
    if gsi < 16 { IrqFlags::empty() } else { IrqFlags::LEVEL | IrqFlags::LOW }
}

/// Routes an interrupt to this core and unmasks it. Answers whether it is level-triggered.
pub(crate) fn bind(gsi: u32, flags: IrqFlags) -> bool {
    let wired = if flags.contains(IrqFlags::EXPLICIT) { flags } else { wiring(gsi) };
    let level = wired.contains(IrqFlags::LEVEL);
    let mut bits = if level { ioapic::LEVEL } else { 0 };
    bits |= if wired.contains(IrqFlags::LOW) { ioapic::LOW } else { 0 };
    ioapic::route(gsi, crate::width::low32(idt::FIRST_GSI) + gsi, bits, apic::id());
    level
}

/// Masks or unmasks an interrupt.
pub(crate) fn set_mask(gsi: u32, masked: bool) {
    ioapic::set_mask(gsi, masked);
}

/// Acknowledges the interrupt in service.
pub(crate) fn end() {
    apic::end_of_interrupt();
}
