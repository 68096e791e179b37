// SPDX-License-Identifier: MIT OR Apache-2.0
//! The unit as VT-d has it: queue (6.5.2), root and context tables (9.1, 9.3), page tables (9.8), interrupt entries (9.10), registers (11.4).

use super::{ADDRESS, Page, State, load, permitted, pointer};

impl State {
    pub(super) fn intel_write(&mut self, offset: u64, value: u64) {
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

    pub(super) fn intel_write32(&mut self, offset: u64, value: u32) {
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

    pub(super) fn intel_descriptor(&mut self, descriptor: [u64; 2]) {
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

    pub(super) fn intel_entry(&mut self, device: u16) -> [u64; 4] {
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

    pub(super) fn intel_access(&mut self, device: u16, address: u64, write: bool) -> Option<u64> {
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

    pub(super) fn intel_walk(mut table: u64, levels: u64, address: u64) -> Option<Page> {
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
    pub(super) fn intel_fault(&mut self, entry: u64, device: u16, information: u64, reason: u64, write: bool) {
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

    pub(super) fn intel_raise(&mut self, device: u16, address: u64) -> Option<(u64, u64)> {
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
