// SPDX-License-Identifier: MIT OR Apache-2.0
//! A machine with one unit that keeps to the manual: it caches entries and translations until it is told to forget them, records what it refuses, and
//! says when its log is full. Written from the manuals and not from the driver. Physical addresses are those of this process.
#![expect(unsafe_code, reason = "page tables are memory")]

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
    /// AMD-Vi with narrow interrupt entries, and without the command that forgets everything.
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
            Variant::AmdOld => {}
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

    fn kept_frame(&self) -> Result<u64, &'static str> {
        Ok(self.allocate(FRAME as u64))
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

    // ---- AMD-Vi

    fn amd_write(&mut self, offset: u64, value: u64) {
        const RUNNING: u64 = 1 << 3;
        match offset {
            // Bits that are cleared by writing them.
            0x2020 => self.set(offset, self.get(offset) & !(value & 0x67)),
            0x18 => {
                // A log that is switched on anew runs, unless it is full of what was not looked at.
                let logs = value & 1 != 0 && value & 4 != 0 && self.get(0x2020) & 1 == 0;
                let status = self.get(0x2020) & !RUNNING;
                self.set(0x2020, if logs { status | RUNNING } else { status });
                self.set(offset, value);
            }
            _ => self.set(offset, value),
        }
        while self.get(0x18) & (1 | 1 << 12) == (1 | 1 << 12) && self.get(0x2000) != self.get(0x2008) {
            let head = self.get(0x2000);
            let at = (self.get(0x08) & ADDRESS) + head;
            self.amd_command([load(at), load(at + 8)]);
            self.set(0x2000, (head + 16) % 4096);
        }
    }

    fn amd_command(&mut self, command: [u64; 2]) {
        let device = u16::try_from(command[0] & 0xffff).expect("16 bits");
        match command[0] >> 60 {
            1 => {
                store(command[0] & 0x000f_ffff_ffff_fff8, command[1]);
                for (device, address) in self.nosy.clone() {
                    self.amd_access(device, address, false);
                }
            }
            2 => drop(self.entries.remove(&device)),
            3 => {
                let domain = u16::try_from(command[0] >> 32 & 0xffff).expect("16 bits");
                // With the size flag the lowest 0 of bits 12 and up says how large; all of them up to bit 62 are everything.
                let order = if command[1] & 1 == 0 { 12 } else { 13 + (command[1] >> 12).trailing_ones() };
                let same = |page: u64| order >= 64 || page >> order == command[1] >> order;
                self.pages.retain(|(of, page), _| *of != domain || !same(*page));
            }
            5 => self.interrupts.retain(|(of, _), _| *of != device),
            8 => {
                assert!(self.variant == Variant::Amd, "an old unit does not know this command");
                self.entries.clear();
                self.pages.clear();
                self.interrupts.clear();
            }
            other => panic!("command {other}"),
        }
    }

    fn amd_entry(&mut self, device: u16) -> [u64; 4] {
        let at = (self.get(0) & ADDRESS) + u64::from(device) * 32;
        *self.entries.entry(device).or_insert_with(|| [0, 8, 16, 24].map(|word| load(at + word)))
    }

    fn amd_access(&mut self, device: u16, address: u64, write: bool) -> Option<u64> {
        let entry = self.amd_entry(device);
        if self.get(0x18) & 1 == 0 || entry[0] & 1 == 0 {
            return Some(address);
        }
        assert!(entry[0] & 2 != 0, "what is not translated is not looked at here");
        let domain = u16::try_from(entry[1] & 0xffff).expect("16 bits");
        let page = match self.pages.get(&(domain, address & !0xfff)) {
            Some(page) => Some(*page),
            None => self.amd_walk(entry[0], address),
        };
        let place = page.and_then(|page| {
            self.pages.insert((domain, address & !0xfff), page);
            permitted(page, address, write)
        });
        if place.is_none() && entry[1] >> 34 & 1 == 0 {
            // Whether it was a write says the unit only where something is mapped.
            let write = u64::from(write && page.is_some()) << 53 | u64::from(page.is_some()) << 52;
            self.amd_event([2 << 60 | write | u64::from(domain) << 32 | u64::from(device), address]);
        }
        place
    }

    fn amd_walk(&self, entry: u64, address: u64) -> Option<Page> {
        let (mut entry, mut level) = (entry, entry >> 9 & 7);
        let mut rights = entry;
        while level != 0 {
            let table = entry & ADDRESS;
            entry = load(table + (address >> (3 + 9 * level) & 0x1ff) * 8);
            rights &= entry;
            if entry & 1 == 0 {
                return None;
            }
            let next = entry >> 9 & 7;
            assert!(next < level, "an entry leads upwards");
            if next == 0 {
                let size = 1u64 << (3 + 9 * level);
                let physical = entry & ADDRESS & !(size - 1) | address & (size - 1) & !0xfff;
                return Some((physical, rights >> 61 & 1 != 0, rights >> 62 & 1 != 0));
            }
            level = next;
        }
        None
    }

    fn amd_event(&mut self, event: [u64; 2]) {
        let status = self.get(0x2020);
        if status & 1 << 3 == 0 {
            return;
        }
        let (head, tail) = (self.get(0x2010), self.get(0x2018));
        let (next, mut now) = ((tail + 16) % 4096, status);
        if next == head {
            now = now & !(1 << 3) | 1;
        } else {
            let at = (self.get(0x10) & ADDRESS) + tail;
            store(at, event[0]);
            store(at + 8, event[1]);
            self.set(0x2018, next);
            now |= 2;
        }
        self.set(0x2020, now);
        self.interrupted += u32::from(now & 3 != status & 3);
    }

    fn amd_raise(&mut self, device: u16, data: u64) -> Option<(u64, u64)> {
        let table = self.amd_entry(device)[2];
        let (index, size) = (data & 0x7ff, if self.get(0x18) >> 17 & 1 != 0 { 16 } else { 4 });
        if table >> 60 & 3 != 2 || index >= 1 << (table >> 1 & 15) {
            self.amd_event([2 << 60 | 1 << 51 | u64::from(device), index]);
            return None;
        }
        let at = (table & 0x000f_ffff_ffff_ffc0) + index * size;
        let read =
            || if size == 4 { [load(at & !7) >> (at % 8 * 8) & 0xffff_ffff, 0] } else { [load(at), load(at + 8)] };
        let entry = *self.interrupts.entry((device, index)).or_insert_with(read);
        if entry[0] & 1 == 0 {
            if entry[0] & 2 == 0 {
                self.amd_event([2 << 60 | 1 << 51 | u64::from(device), index]);
            }
            return None;
        }
        Some(match size {
            4 => (entry[0] >> 8 & 0xff, entry[0] >> 16 & 0xff),
            _ => (entry[0] >> 8 & 0xff_ffff | entry[1] >> 56 << 24, entry[1] & 0xff),
        })
    }

    // ---- VT-d

    fn intel_write(&mut self, offset: u64, value: u64) {
        self.set(offset, value);
        let mut at = self.get(0x80);
        while self.status() & 1 << 26 != 0 && at != self.get(0x88) {
            let place = (self.get(0x90) & ADDRESS) + at;
            self.intel_descriptor([load(place), load(place + 8)]);
            at = (at + 16) % 4096;
            self.set(0x80, at);
        }
    }

    fn status(&self) -> u32 {
        self.registers.get(&0x1c).copied().unwrap_or(0)
    }

    fn intel_write32(&mut self, offset: u64, value: u32) {
        let old = self.registers.get(&offset).copied().unwrap_or(0);
        match offset {
            // Commands: those of one time are done at once; a flush of the write buffer leaves no trace.
            0x18 => {
                let stays = value & (1 << 31 | 1 << 26 | 1 << 25);
                let done = (self.status() | value) & (1 << 30 | 1 << 24);
                if stays & 1 << 31 != 0 {
                    assert!(done & 1 << 30 != 0, "translation without a root table");
                }
                if stays & 1 << 26 == 0 {
                    self.set(0x80, 0);
                }
                self.registers.insert(0x1c, stays | done);
            }
            // Faults: what is written is cleared, but that there is a record.
            0x34 => drop(self.registers.insert(offset, old & !(value & !2))),
            // The last word of a record: its flag.
            0x100..0x140 if offset % 16 == 12 => {
                self.registers.insert(offset, old & !(value & 1 << 31));
                let any = (0..4).any(|record| self.get(0x108 + record * 16) >> 63 != 0);
                let status = self.registers.entry(0x34).or_default();
                *status = *status & !2 | u32::from(any) << 1;
            }
            _ => drop(self.registers.insert(offset, value)),
        }
    }

    fn intel_descriptor(&mut self, descriptor: [u64; 2]) {
        let (granularity, domain) = (descriptor[0] >> 4 & 3, descriptor[0] >> 16 & 0xffff);
        let of_domain = |of: u16| u64::from(of) == domain;
        match descriptor[0] & 15 {
            1 if granularity == 1 => self.entries.clear(),
            1 => {
                let device = descriptor[0] >> 32 & 0xffff;
                // An entry that is not present is cached under domain 0.
                self.entries.retain(|of, entry| {
                    let under = if entry[0] & 1 == 0 { 0 } else { entry[1] >> 8 & 0xffff };
                    u64::from(*of) != device || under != domain
                });
            }
            2 if granularity == 1 => self.pages.clear(),
            2 if granularity == 2 => self.pages.retain(|(of, _), _| !of_domain(*of)),
            2 => {
                assert!(self.get(0x08) >> 39 & 1 != 0, "the unit knows no ranges");
                let (first, order) = (descriptor[1] & !0xfff, descriptor[1] & 0x3f);
                self.pages.retain(|(of, page), _| !of_domain(*of) || page.wrapping_sub(first) >= 0x1000 << order);
            }
            4 if granularity & 1 == 0 => self.interrupts.clear(),
            4 => self.interrupts.retain(|(_, index), _| *index != descriptor[0] >> 32 & 0xffff),
            5 => {
                let value = u32::try_from(descriptor[0] >> 32).expect("32 bits");
                // SAFETY: the driver's memory.
                unsafe { pointer(descriptor[1]).cast::<u32>().write_volatile(value) };
                for (device, address) in self.nosy.clone() {
                    self.intel_access(device, address, false);
                }
            }
            other => panic!("descriptor {other}"),
        }
    }

    fn intel_entry(&mut self, device: u16) -> [u64; 4] {
        if let Some(entry) = self.entries.get(&device) {
            return *entry;
        }
        let root = load((self.get(0x20) & ADDRESS) + u64::from(device >> 8) * 16);
        assert!(root & 1 != 0, "a bus without a table");
        let at = (root & ADDRESS) + u64::from(device & 0xff) * 16;
        let entry = [load(at), load(at + 8), 0, 0];
        let caches_absence = self.get(0x08) >> 7 & 1 != 0;
        if entry[0] & 1 != 0 || caches_absence {
            self.entries.insert(device, entry);
        }
        entry
    }

    fn intel_access(&mut self, device: u16, address: u64, write: bool) -> Option<u64> {
        if self.status() >> 31 == 0 {
            return Some(address);
        }
        let entry = self.intel_entry(device);
        if entry[0] & 1 == 0 {
            self.intel_fault(entry[0], device, address & !0xfff, 2, write);
            return None;
        }
        let (domain, levels) = (u16::try_from(entry[1] >> 8 & 0xffff).expect("16 bits"), (entry[1] & 7) + 2);
        let page = match self.pages.get(&(domain, address & !0xfff)) {
            Some(page) => Some(*page),
            None => Self::intel_walk(entry[0] & ADDRESS, levels, address),
        };
        let place = page.and_then(|page| {
            self.pages.insert((domain, address & !0xfff), page);
            permitted(page, address, write)
        });
        if place.is_none() {
            self.intel_fault(entry[0], device, address & !0xfff, if write { 5 } else { 6 }, write);
        }
        place
    }

    fn intel_walk(mut table: u64, levels: u64, address: u64) -> Option<Page> {
        if address >> (12 + 9 * levels) != 0 {
            return None;
        }
        let mut rights = 3;
        for level in (1..=levels).rev() {
            let entry = load(table + (address >> (3 + 9 * level) & 0x1ff) * 8);
            rights &= entry;
            if entry & 3 == 0 {
                return None;
            }
            if level == 1 || entry & 1 << 7 != 0 {
                let size = 1u64 << (3 + 9 * level);
                let physical = entry & ADDRESS & !(size - 1) | address & (size - 1) & !0xfff;
                return Some((physical, rights & 1 != 0, rights & 2 != 0));
            }
            table = entry & ADDRESS;
        }
        None
    }

    /// Records a fault, unless the entry says that nobody wants to know.
    fn intel_fault(&mut self, entry: u64, device: u16, information: u64, reason: u64, write: bool) {
        if entry & 2 != 0 {
            return;
        }
        let at = 0x100 + self.record * 16;
        let status = self.registers.get(&0x34).copied().unwrap_or(0);
        if self.get(at + 8) >> 63 != 0 {
            self.registers.insert(0x34, status | 1);
        } else {
            self.record = (self.record + 1) % 4;
            self.set(at, information);
            self.set(at + 8, 1 << 63 | u64::from(!write) << 62 | reason << 32 | u64::from(device));
            self.registers.insert(0x34, status | 2);
        }
        // What was pending before interrupts no more.
        self.interrupted += u32::from(status & 3 == 0);
    }

    fn intel_raise(&mut self, device: u16, address: u64) -> Option<(u64, u64)> {
        let index = address >> 5 & 0x7fff | (address >> 2 & 1) << 15;
        let table = self.get(0xb8);
        if self.status() >> 25 & 1 == 0 || address & 1 << 4 == 0 || index >= 2 << (table & 15) {
            self.intel_fault(0, device, index << 48, 0x21, true);
            return None;
        }
        let at = (table & ADDRESS) + index * 16;
        let entry = *self.interrupts.entry((0, index)).or_insert_with(|| [load(at), load(at + 8)]);
        if entry[0] & 1 == 0 {
            self.interrupts.remove(&(0, index));
            self.intel_fault(entry[0], device, index << 48, 0x22, true);
            return None;
        }
        if entry[1] >> 18 & 3 == 1 && entry[1] & 0xffff != u64::from(device) {
            self.intel_fault(entry[0], device, index << 48, 0x26, true);
            return None;
        }
        let wide = table >> 11 & 1 != 0;
        Some((if wide { entry[0] >> 32 } else { entry[0] >> 40 & 0xff }, entry[0] >> 16 & 0xff))
    }
}
