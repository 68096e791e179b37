// SPDX-License-Identifier: MIT OR Apache-2.0
//! I/O APICs: which vector an interrupt has, its trigger and polarity, and its mask. Intel 82093AA data sheet, section 3.
//!
//! A [`Pin`] is found once, when its interrupt is bound, and carries what its redirection entry holds, so that masking neither searches nor
//! reads back. The index and window registers of a controller are behind its lock, and held for two writes.

use super::acpi::{self, MANY};
use crate::memory;
use crate::width::low8;
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use spin::Mutex;

const VERSION: u32 = 1;
const REDIRECTION: u32 = 0x10;
/// Mask bit of a redirection entry.
const MASKED: u32 = 1 << 16;
/// Level-triggered.
pub(crate) const LEVEL: u32 = 1 << 15;
/// Active low.
pub(crate) const LOW: u32 = 1 << 13;

/// A controller: its registers' page, its first interrupt, and how many it has.
#[derive(Debug)]
struct Controller {
    address: u64,
    first: u32,
    pins: u32,
}

static CONTROLLERS: [Mutex<Controller>; MANY] =
    [const { Mutex::new(Controller { address: 0, first: 0, pins: 0 }) }; MANY];
static COUNT: AtomicUsize = AtomicUsize::new(0);

impl Controller {
    fn select(&self, register: u32) -> *mut u32 {
        // SAFETY: the registers' page is mapped; index and window are 32 bits wide.
        unsafe { memory::direct::<u32>(self.address).write_volatile(register) };
        memory::direct(self.address + 0x10)
    }

    fn read(&self, register: u32) -> u32 {
        let window = self.select(register);
        // SAFETY: as above.
        unsafe { window.read_volatile() }
    }

    fn write(&self, register: u32, value: u32) {
        let window = self.select(register);
        // SAFETY: as above.
        unsafe { window.write_volatile(value) };
    }
}

fn all() -> impl Iterator<Item = &'static Mutex<Controller>> {
    CONTROLLERS.iter().take(COUNT.load(Relaxed))
}

/// Finds the controllers and masks everything.
pub(crate) fn init() {
    let tables = acpi::tables();
    for (found, place) in tables.io_apics.iter().take(tables.io_apic_count).zip(&CONTROLLERS) {
        let mut controller = place.lock();
        (controller.address, controller.first) = (found.address, found.first_gsi);
        controller.pins = (controller.read(VERSION) >> 16 & 0xff) + 1;
        for pin in 0..controller.pins {
            controller.write(REDIRECTION + 2 * pin, MASKED);
            controller.write(REDIRECTION + 2 * pin + 1, 0);
        }
    }
    COUNT.store(tables.io_apic_count, Relaxed);
}

/// Number of global system interrupts.
pub(crate) fn count() -> u32 {
    let end = |controller: &Mutex<Controller>| {
        let controller = controller.lock();
        controller.first.saturating_add(controller.pins)
    };
    all().map(end).max().unwrap_or(0)
}

/// An input of a controller, and the low word of its redirection entry.
#[derive(Debug)]
pub(crate) struct Pin {
    controller: u8,
    index: u8,
    entry: u32,
    /// The controller does not see the end of its interrupt, since the entry does not have the vector that the IOMMU makes of it.
    deaf: bool,
}

impl Pin {
    /// The pin of an interrupt.
    pub(crate) fn find(gsi: u32) -> Option<Self> {
        all().enumerate().find_map(|(index, controller)| {
            let controller = controller.lock();
            let pin = gsi.checked_sub(controller.first).filter(|pin| *pin < controller.pins)?;
            Some(Self { controller: low8(index as u64), index: low8(u64::from(pin)), entry: MASKED, deaf: false })
        })
    }

    /// Number of its controller.
    pub(crate) const fn controller(&self) -> usize {
        self.controller as usize
    }

    /// Sets the redirection entry, masked, of an interrupt that arrives as `vector`.
    pub(crate) fn route(&mut self, high: u32, low: u32, vector: u8) {
        self.entry = low | MASKED;
        self.deaf = low8(low.into()) != vector;
        let register = REDIRECTION + 2 * u32::from(self.index);
        let controller = CONTROLLERS[usize::from(self.controller)].lock();
        // Edge-triggered first: an interrupt that was under way for the vector before would never be seen to end, and the line be dead.
        controller.write(register, MASKED);
        controller.write(register + 1, high);
        controller.write(register, self.entry);
    }

    /// Masks or unmasks it.
    pub(crate) fn mask(&mut self, masked: bool) {
        self.entry = if masked { self.entry | MASKED } else { self.entry & !MASKED };
        let register = REDIRECTION + 2 * u32::from(self.index);
        let controller = CONTROLLERS[usize::from(self.controller)].lock();
        if masked && self.deaf {
            // As an edge-triggered one it waits for no end.
            controller.write(register, self.entry & !LEVEL);
        }
        controller.write(register, self.entry);
    }

    /// Whether it is level-triggered.
    pub(crate) fn is_level(&self) -> bool {
        self.entry & LEVEL != 0
    }
}
