// SPDX-License-Identifier: MIT OR Apache-2.0
//! A machine with one unit that keeps to the manual: it caches entries and translations until it is told to forget them, records what it refuses, and
//! says when its log is full. Written from the manuals and not from the driver. Physical addresses are those of this process.
#![expect(unsafe_code, reason = "page tables are memory")]

mod amd;
mod intel;

use super::Tables;
use crate::{Bus, Kind, Requester};
use cloister_mechanism::radix::{Freed, PageTable, TableFrames};
use cloister_mechanism::{Exhausted, FRAME, Frames};
use core::cell::RefCell;
use core::ptr::NonNull;
use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::collections::BTreeMap;
use std::rc::Rc;

/// Where the unit's registers are.
pub(super) const BASE: u64 = 0xfed8_0000;
const WINDOW: u64 = 0x4000;

/// Units of several abilities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Variant {
    /// AMD-Vi with narrow interrupt entries.
    AmdOld,
    /// AMD-Vi with wide ones.
    Amd,
    /// VT-d with three levels that caches absence, knows no ranges, and wants its write buffer flushed.
    IntelOld,
    /// VT-d with four levels.
    Intel,
}

pub(super) const VARIANTS: [Variant; 4] = [Variant::AmdOld, Variant::Amd, Variant::IntelOld, Variant::Intel];

impl Variant {
    pub(super) fn kind(self) -> Kind {
        match self {
            Self::AmdOld | Self::Amd => Kind::Amd,
            Self::IntelOld | Self::Intel => Kind::Intel,
        }
    }

    /// Local APICs have 32-bit identities.
    pub(super) fn is_wide(self) -> bool {
        matches!(self, Self::Amd | Self::Intel)
    }

    /// How many faults the unit keeps.
    pub(super) fn room(self) -> usize {
        match self.kind() {
            Kind::Amd => 255,
            Kind::Intel => 4,
        }
    }
}

/// A page: where it is, and whether it may be read and written.
type Page = (u64, bool, bool);

#[derive(Debug)]
struct State {
    variant: Variant,
    /// By offset, in 32 bits.
    registers: BTreeMap<u64, u32>,
    /// Device or context entries.
    entries: BTreeMap<u16, [u64; 4]>,
    /// Translations by domain and page.
    pages: BTreeMap<(u16, u64), Page>,
    /// Interrupt entries by source (AMD-Vi) and index.
    interrupts: BTreeMap<(u16, u64), [u64; 2]>,
    /// Next fault record (VT-d).
    record: u64,
    /// How often the unit interrupted.
    interrupted: u32,
    /// Devices that look at an address at all times.
    nosy: Vec<(u16, u64)>,
    memory: Vec<(u64, Layout)>,
}

impl Drop for State {
    fn drop(&mut self) {
        for (address, layout) in &self.memory {
            // SAFETY: allocated by `allocate` with that layout.
            unsafe { dealloc(pointer(*address).cast(), *layout) };
        }
    }
}

/// The machine.
#[derive(Clone, Debug)]
pub(super) struct Machine(Rc<RefCell<State>>);

fn pointer(address: u64) -> *mut u64 {
    core::ptr::with_exposed_provenance_mut(usize::try_from(address).expect("an address"))
}

fn load(address: u64) -> u64 {
    // SAFETY: the address is in memory that was allocated, as the driver says.
    unsafe { pointer(address).read_volatile() }
}

fn store(address: u64, value: u64) {
    // SAFETY: as above.
    unsafe { pointer(address).write_volatile(value) };
}

impl Machine {
    pub(super) fn new(variant: Variant) -> Self {
        let state = State {
            variant,
            registers: BTreeMap::new(),
            entries: BTreeMap::new(),
            pages: BTreeMap::new(),
            interrupts: BTreeMap::new(),
            record: 0,
            interrupted: 0,
            nosy: Vec::new(),
            memory: Vec::new(),
        };
        let this = Self(Rc::new(RefCell::new(state)));
        let set = |offset, value| this.0.borrow_mut().set(offset, value);
        match variant {
            Variant::AmdOld => set(0x30, 1 << 6),
            Variant::Amd => set(0x30, 1 << 7 | 1 << 6 | 1 << 2),
            // 3 levels, 2 MiB pages, caching mode, write buffer, 256 domains, 4 records at 0x100.
            Variant::IntelOld => {
                set(0x08, 3 << 40 | 1 << 34 | 0x10 << 24 | 1 << 9 | 1 << 7 | 1 << 4 | 2);
                set(0x10, 1 << 3 | 1 << 1);
            }
            Variant::Intel => {
                set(0x08, 18 << 48 | 3 << 40 | 1 << 39 | 3 << 34 | 0x10 << 24 | 1 << 10 | 6);
                set(0x10, 1 << 4 | 1 << 3 | 1 << 1 | 1);
            }
        }
        this
    }

    /// Zeroed memory, aligned to pages.
    pub(super) fn allocate(&self, bytes: u64) -> u64 {
        let layout = Layout::from_size_align(usize::try_from(bytes).expect("a size"), FRAME).expect("a layout");
        // SAFETY: the size is not zero.
        let address = unsafe { alloc_zeroed(layout) }.expose_provenance() as u64;
        self.0.borrow_mut().memory.push((address, layout));
        address
    }

    pub(super) fn tables(&self, levels: u32) -> Tables {
        let root = self.frame(self.allocate(FRAME as u64));
        match (self.0.borrow().variant.kind(), levels) {
            // SAFETY: a fresh frame, which lives as long as the machine.
            (Kind::Amd, _) => Tables::Amd(unsafe { PageTable::new(root) }),
            // SAFETY: as above.
            (Kind::Intel, 3) => Tables::Intel3(unsafe { PageTable::new(root) }),
            // SAFETY: as above.
            (Kind::Intel, _) => Tables::Intel4(unsafe { PageTable::new(root) }),
        }
    }

    pub(super) fn address(&self, frame: NonNull<u8>) -> u64 {
        self.physical(frame)
    }

    pub(super) fn give_back(&self, mut freed: Freed) {
        // SAFETY: the driver was told to flush.
        unsafe { freed.give_back(self) };
    }

    /// Lets a device look at an address whenever the unit has done what it was told: it may cache that at any moment.
    pub(super) fn make_nosy(&self, device: Requester, address: u64) {
        self.0.borrow_mut().nosy.push((device.0, address));
    }

    /// Domains of which the unit has translations.
    pub(super) fn cached_domains(&self) -> Vec<u16> {
        self.0.borrow().pages.keys().map(|(domain, _)| *domain).collect()
    }

    /// How often the unit interrupted since the last time.
    pub(super) fn interrupted(&self) -> u32 {
        core::mem::take(&mut self.0.borrow_mut().interrupted)
    }

    /// A device makes an access: where it gets to, if it is let.
    pub(super) fn access(&self, device: Requester, address: u64, write: bool) -> Option<u64> {
        let mut state = self.0.borrow_mut();
        match state.variant.kind() {
            Kind::Amd => state.amd_access(device.0, address, write),
            Kind::Intel => state.intel_access(device.0, address, write),
        }
    }

    /// A device sends a message: the local APIC and the vector that it gets to, if it is let.
    pub(super) fn raise(&self, device: Requester, (address, data): (u64, u64)) -> Option<(u64, u64)> {
        let mut state = self.0.borrow_mut();
        match state.variant.kind() {
            Kind::Amd => state.amd_raise(device.0, data),
            Kind::Intel => state.intel_raise(device.0, address),
        }
    }
}

impl Frames for Machine {
    fn take(&self) -> Result<NonNull<u8>, Exhausted> {
        Ok(self.frame(self.allocate(FRAME as u64)))
    }

    unsafe fn give(&self, frame: NonNull<u8>) {
        // Whoever still walks through it finds pages everywhere.
        (0..512).for_each(|word| store(self.physical(frame) + word * 8, 0x6000_0000_dead_0003));
    }
}

impl TableFrames for Machine {
    fn physical(&self, frame: NonNull<u8>) -> u64 {
        frame.as_ptr().expose_provenance() as u64
    }

    fn frame(&self, physical: u64) -> NonNull<u8> {
        NonNull::new(pointer(physical).cast()).expect("a frame")
    }
}

impl Bus for Machine {
    fn read(&self, address: u64) -> u64 {
        match address.checked_sub(BASE).filter(|offset| *offset < WINDOW) {
            Some(offset) => self.0.borrow().get(offset),
            None => load(address),
        }
    }

    fn write(&self, address: u64, value: u64) {
        let Some(offset) = address.checked_sub(BASE).filter(|offset| *offset < WINDOW) else {
            return store(address, value);
        };
        let mut state = self.0.borrow_mut();
        match state.variant.kind() {
            Kind::Amd => state.amd_write(offset, value),
            Kind::Intel => state.intel_write(offset, value),
        }
    }

    fn read32(&self, address: u64) -> u32 {
        let word = self.read(address & !7) >> (address % 8 * 8);
        u32::try_from(word & 0xffff_ffff).expect("32 bits")
    }

    fn write32(&self, address: u64, value: u32) {
        if address.checked_sub(BASE).is_some_and(|offset| offset < WINDOW) {
            return self.0.borrow_mut().intel_write32(address - BASE, value);
        }
        // SAFETY: the driver's memory.
        unsafe { pointer(address).cast::<u32>().write_volatile(value) };
    }

    fn wait(&self, what: &str, mut done: impl FnMut() -> bool) {
        assert!(done(), "the unit has not done {what}");
    }

    fn write_back(&self) {}
}

const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// Where an entry that was found leads to, if it has the right.
fn permitted((physical, read, write): Page, address: u64, wants_write: bool) -> Option<u64> {
    (if wants_write { write } else { read }).then_some(physical | address & 0xfff)
}

impl State {
    fn get(&self, offset: u64) -> u64 {
        let half = |offset| u64::from(self.registers.get(&offset).copied().unwrap_or(0));
        half(offset) | half(offset + 4) << 32
    }

    fn set(&mut self, offset: u64, value: u64) {
        let [low, high] = [value & 0xffff_ffff, value >> 32].map(|half| u32::try_from(half).expect("32 bits"));
        self.registers.extend([(offset, low), (offset + 4, high)]);
    }
}
