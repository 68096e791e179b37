// SPDX-License-Identifier: MIT OR Apache-2.0
//! I/O APICs: which vector an interrupt has, its trigger and polarity, and its mask. Intel 82093AA data sheet, section 3.
//!
//! A [`Pin`] is found once, when its interrupt is bound, and carries what its redirection entry holds, so that masking neither searches nor
//! reads back; until it is dropped it is nobody else's. The index and window registers of a controller are behind its lock, and held for
//! two writes.

use super::acpi::{self, MANY};
use crate::memory;
use crate::width::{index, low8};
use cloister_abi::hypercall::IrqFlags;
use cloister_abi::status::Status;
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use spin::Mutex;

const VERSION: u32 = 1;
const REDIRECTION: u32 = 0x10;
/// Mask bit of a redirection entry.
const MASKED: u32 = 1 << 16;
/// Level-triggered.
const LEVEL: u32 = 1 << 15;
/// Active low.
const LOW: u32 = 1 << 13;

/// A controller: its registers' page, its first interrupt, how many it has, and which of them are taken.
#[derive(Debug)]
struct Controller {
    address: u64,
    first: u32,
    pins: u32,
    taken: [bool; 256],
}

static CONTROLLERS: [Mutex<Controller>; MANY] =
    [const { Mutex::new(Controller { address: 0, first: 0, pins: 0, taken: [false; 256] }) }; MANY];
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
    let io_apics = &acpi::tables().io_apics;
    for (found, place) in io_apics.iter().zip(&CONTROLLERS) {
        let mut controller = place.lock();
        (controller.address, controller.first) = (found.address, found.first_gsi);
        controller.pins = (controller.read(VERSION) >> 16 & 0xff) + 1;
        for pin in 0..controller.pins {
            controller.write(REDIRECTION + 2 * pin, MASKED);
            controller.write(REDIRECTION + 2 * pin + 1, 0);
        }
    }
    COUNT.store(io_apics.len(), Relaxed);
}

/// Number of global system interrupts.
pub(crate) fn count() -> u32 {
    let end = |controller: &Mutex<Controller>| {
        let controller = controller.lock();
        controller.first.saturating_add(controller.pins)
    };
    all().map(end).max().unwrap_or(0)
}

/// An input of a controller, taken, and the low word of its redirection entry.
#[derive(Debug)]
pub(crate) struct Pin {
    controller: u8,
    index: u8,
    entry: u32,
    /// The controller does not see the end of its interrupt, since the entry does not have the vector that the IOMMU makes of it.
    deaf: bool,
}

impl Pin {
    /// Takes the pin of an interrupt, which is masked.
    ///
    /// # Errors
    /// `BadDevice`: there is no such interrupt. `Busy`: its pin is taken.
    pub(crate) fn take(gsi: u32) -> Result<Self, Status> {
        for (number, controller) in all().enumerate() {
            let mut controller = controller.lock();
            if let Some(pin) = gsi.checked_sub(controller.first).filter(|pin| *pin < controller.pins) {
                if core::mem::replace(&mut controller.taken[index(pin.into())], true) {
                    return Err(Status::Busy);
                }
                return Ok(Self {
                    controller: low8(number as u64),
                    index: low8(pin.into()),
                    entry: MASKED,
                    deaf: false,
                });
            }
        }
        Err(Status::BadDevice)
    }

    /// Number of its controller.
    pub(crate) const fn controller(&self) -> usize {
        self.controller as usize
    }

    /// Sets the redirection entry, masked, of an interrupt that arrives as `vector`: high and low word beside trigger and polarity, and these.
    pub(crate) fn route(&mut self, (high, low): (u32, u32), wired: IrqFlags, vector: u8) {
        let level = if wired.contains(IrqFlags::LEVEL) { LEVEL } else { 0 };
        let polarity = if wired.contains(IrqFlags::LOW) { LOW } else { 0 };
        self.entry = low | level | polarity | MASKED;
        self.deaf = low8(low.into()) != vector;
        // Edge-triggered first: an interrupt that was under way for the vector before would never be seen to end, and the line be dead.
        self.write(&[(0, MASKED), (1, high), (0, self.entry)]);
    }

    /// Masks or unmasks it.
    pub(crate) fn mask(&mut self, masked: bool) {
        self.entry = if masked { self.entry | MASKED } else { self.entry & !MASKED };
        if masked && self.deaf {
            // As an edge-triggered one it waits for no end.
            self.write(&[(0, self.entry & !LEVEL), (0, self.entry)]);
        } else {
            self.write(&[(0, self.entry)]);
        }
    }

    /// Writes words of its redirection entry, 0 for the low one, nothing between.
    fn write(&self, words: &[(u32, u32)]) {
        let controller = CONTROLLERS[self.controller()].lock();
        for (word, value) in words {
            controller.write(REDIRECTION + 2 * u32::from(self.index) + word, *value);
        }
    }

    /// Whether it is level-triggered.
    pub(crate) fn is_level(&self) -> bool {
        self.entry & LEVEL != 0
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.mask(true);
        CONTROLLERS[self.controller()].lock().taken[usize::from(self.index)] = false;
    }
}
