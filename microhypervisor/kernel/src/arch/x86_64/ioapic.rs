// SPDX-License-Identifier: MIT OR Apache-2.0
//! I/O APICs: which vector an interrupt has, its trigger and polarity, and its mask. Intel 82093AA data sheet, section 3.

use super::acpi::{self, MANY};
use crate::memory;
use spin::Mutex;

const VERSION: u32 = 1;
const REDIRECTION: u32 = 0x10;
/// Mask bit of a redirection entry.
pub(crate) const MASKED: u32 = 1 << 16;
/// Level-triggered.
pub(crate) const LEVEL: u32 = 1 << 15;
/// Active low.
pub(crate) const LOW: u32 = 1 << 13;

/// A controller: its registers' page, its first interrupt, and how many it has.
#[derive(Clone, Copy, Debug)]
struct Controller {
    address: u64,
    first: u32,
    pins: u32,
}

/// The controllers, and the low words of the redirection entries of all interrupts, so that masking need not read them back.
struct State {
    controllers: [Controller; MANY],
    count: usize,
    entries: [u32; super::irq::MANY as usize],
}

static STATE: Mutex<State> = Mutex::new(State {
    controllers: [Controller { address: 0, first: 0, pins: 0 }; MANY],
    count: 0,
    entries: [MASKED; super::irq::MANY as usize],
});

impl Controller {
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
}

impl State {
    fn all(&self) -> impl Iterator<Item = Controller> {
        self.controllers.iter().copied().take(self.count)
    }

    /// Controller, first register and remembered entry of an interrupt.
    fn find(&mut self, gsi: u32) -> Option<(Controller, u32, &mut u32)> {
        let controller = self.all().find(|it| gsi.checked_sub(it.first).is_some_and(|pin| pin < it.pins))?;
        let entry = self.entries.get_mut(gsi as usize)?;
        Some((controller, REDIRECTION + 2 * (gsi - controller.first), entry))
    }
}

/// Finds the controllers and masks everything.
pub(crate) fn init() {
    let tables = acpi::tables();
    let mut state = STATE.lock();
    for found in tables.io_apics.iter().take(tables.io_apic_count) {
        let mut controller = Controller { address: found.address, first: found.first_gsi, pins: 0 };
        controller.pins = (controller.read(VERSION) >> 16 & 0xff) + 1;
        for pin in 0..controller.pins {
            controller.write(REDIRECTION + 2 * pin, MASKED);
            controller.write(REDIRECTION + 2 * pin + 1, 0);
        }
        let index = state.count;
        if let Some(place) = state.controllers.get_mut(index) {
            *place = controller;
            state.count += 1;
        }
    }
}

/// Number of global system interrupts.
pub(crate) fn count() -> u32 {
    STATE.lock().all().map(|controller| controller.first.saturating_add(controller.pins)).max().unwrap_or(0)
}

/// Routes an interrupt to a local APIC.
pub(crate) fn route(gsi: u32, vector: u32, flags: u32, apic_id: u32) {
    if let Some((controller, register, entry)) = STATE.lock().find(gsi) {
        *entry = vector | flags;
        controller.write(register, MASKED);
        controller.write(register + 1, apic_id << 24);
        controller.write(register, *entry);
    }
}

/// Masks or unmasks an interrupt.
pub(crate) fn set_mask(gsi: u32, masked: bool) {
    if let Some((controller, register, entry)) = STATE.lock().find(gsi) {
        *entry = if masked { *entry | MASKED } else { *entry & !MASKED };
        controller.write(register, *entry);
    }
}
