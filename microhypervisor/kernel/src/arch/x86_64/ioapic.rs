// SPDX-License-Identifier: MIT OR Apache-2.0
//! I/O APICs: which vector an interrupt has, its trigger and polarity, and its mask. Intel 82093AA data sheet, section 3.

use super::acpi::{self, IoApic};
use crate::memory;

const REDIRECTION: u32 = 0x10;
/// Mask bit of a redirection entry.
pub(crate) const MASKED: u32 = 1 << 16;
/// Level-triggered.
pub(crate) const LEVEL: u32 = 1 << 15;
/// Active low.
pub(crate) const LOW: u32 = 1 << 13;

impl IoApic {
    fn select(self, register: u32) -> *mut u32 {
        // SAFETY: the registers' page is mapped; index and window are 32 bits wide.
        unsafe { memory::direct::<u32>(self.address).write_volatile(register) };
        memory::direct(self.address + 0x10)
    }

    fn read(self, register: u32) -> u32 {
        let window = self.select(register);
        // SAFETY: as above.
        unsafe { window.read_volatile() }
    }

    fn write(self, register: u32, value: u32) {
        let window = self.select(register);
        // SAFETY: as above.
        unsafe { window.write_volatile(value) };
    }

    fn pins(self) -> u32 {
        (self.read(1) >> 16 & 0xff) + 1
    }
}

fn all() -> impl Iterator<Item = IoApic> {
    let tables = acpi::tables();
    (0..tables.io_apic_count).map(move |index| tables.io_apics[index])
}

/// The controller and pin of a global system interrupt.
fn find(gsi: u32) -> Option<(IoApic, u32)> {
    all()
        .find(|apic| (apic.first_gsi..apic.first_gsi + apic.pins()).contains(&gsi))
        .map(|apic| (apic, gsi - apic.first_gsi))
}

/// Masks everything.
pub(crate) fn init() {
    for apic in all() {
        for pin in 0..apic.pins() {
            apic.write(REDIRECTION + 2 * pin, MASKED);
            apic.write(REDIRECTION + 2 * pin + 1, 0);
        }
    }
}

/// Number of global system interrupts.
pub(crate) fn count() -> u32 {
    all().map(|apic| apic.first_gsi + apic.pins()).max().unwrap_or(0)
}

/// Routes an interrupt to a local APIC.
pub(crate) fn route(gsi: u32, vector: u32, flags: u32, apic_id: u32) {
    if let Some((apic, pin)) = find(gsi) {
        apic.write(REDIRECTION + 2 * pin, MASKED);
        apic.write(REDIRECTION + 2 * pin + 1, apic_id << 24);
        apic.write(REDIRECTION + 2 * pin, vector | flags);
    }
}

/// Masks or unmasks an interrupt.
pub(crate) fn set_mask(gsi: u32, masked: bool) {
    if let Some((apic, pin)) = find(gsi) {
        let entry = apic.read(REDIRECTION + 2 * pin);
        apic.write(REDIRECTION + 2 * pin, if masked { entry | MASKED } else { entry & !MASKED });
    }
}
