// SPDX-License-Identifier: MIT OR Apache-2.0
//! Interrupts of devices: how each is wired, and switching it. The legacy controllers are masked for good.
//!
//! A [`Line`] is an input of an I/O APIC, a [`Route`] the way of a message; either is taken by a binding and free again when dropped.
//!
//! ISA interrupts are edge-triggered and active high unless the MADT overrides them; all others level-triggered and active low
//! (ACPI 6.5, 5.2.12.5).

use super::ioapic::Pin;
use super::{acpi, apic, idt, ioapic};
use cloister_abi::hypercall::IrqFlags;
use cloister_abi::status::Status;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use x86::io::outb;

pub(crate) use super::apic::hold;
pub(crate) use super::msi::Route;

/// Most lines that can be bound.
const MANY: u32 = 256;
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

/// Number of global system interrupts that can be bound.
pub(crate) fn count() -> u32 {
    ioapic::count().min(MANY)
}

/// Physical addresses of register pages that the kernel uses.
pub(crate) fn register_pages(pages: &mut [u64]) -> usize {
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

/// Lines that are bound, one bit each.
static TAKEN: [AtomicU64; MANY as usize / 64] = [const { AtomicU64::new(0) }; MANY as usize / 64];

/// A line that is bound to a vector, by itself.
#[derive(Debug)]
pub(crate) struct Line {
    gsi: u32,
    pin: Pin,
    /// What the line's interrupt goes through.
    _route: Route,
}

impl Line {
    /// Routes a line, masked, to a vector of a local APIC.
    ///
    /// # Errors
    /// There is no such line, or it is bound, or the APIC cannot be reached.
    pub(crate) fn take(gsi: u32, apic: u32, vector: u8, flags: IrqFlags) -> Result<Self, Status> {
        let mut pin = Pin::find(gsi).filter(|_| gsi < MANY).ok_or(Status::BadDevice)?;
        let wired = if flags.contains(IrqFlags::EXPLICIT) { flags } else { wiring(gsi) };
        let mut bits = if wired.contains(IrqFlags::LEVEL) { ioapic::LEVEL } else { 0 };
        bits |= if wired.contains(IrqFlags::LOW) { ioapic::LOW } else { 0 };
        let taken = TAKEN[gsi as usize / 64].fetch_or(1 << (gsi % 64), Relaxed) >> (gsi % 64) & 1 != 0;
        if taken {
            return Err(Status::Busy);
        }
        match Route::of_pin(pin.controller(), apic, vector, wired.contains(IrqFlags::LEVEL)) {
            Ok((route, (high, low))) => {
                pin.route(high, low | bits, vector);
                Ok(Self { gsi, pin, _route: route })
            }
            Err(why) => {
                release(gsi);
                Err(why)
            }
        }
    }

    /// Masks or unmasks it.
    pub(crate) fn mask(&mut self, masked: bool) {
        self.pin.mask(masked);
    }

    /// Whether it is level-triggered.
    pub(crate) fn is_level(&self) -> bool {
        self.pin.is_level()
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.pin.mask(true);
        release(self.gsi);
    }
}

fn release(gsi: u32) {
    TAKEN[gsi as usize / 64].fetch_and(!(1 << (gsi % 64)), Relaxed);
}

/// Acknowledges the interrupt in service.
pub(crate) fn end() {
    apic::end_of_interrupt();
}

/// Identity of this core's local APIC.
pub(crate) fn apic_id() -> u32 {
    apic::id()
}
