// SPDX-License-Identifier: MIT OR Apache-2.0
//! The unit as 48882 has it: device table (2.2.2), page and interrupt tables (2.2.3, 2.2.5), commands (2.4), events (2.5), registers (3.4).

use super::{ADDRESS, Page, State, load, permitted, store};

impl State {
    pub(super) fn amd_write(&mut self, offset: u64, value: u64) {
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

    pub(super) fn amd_command(&mut self, command: [u64; 2]) {
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
                self.entries.clear();
                self.pages.clear();
                self.interrupts.clear();
            }
            other => panic!("command {other}"),
        }
    }

    pub(super) fn amd_entry(&mut self, device: u16) -> [u64; 4] {
        let at = (self.get(0) & ADDRESS) + u64::from(device) * 32;
        *self.entries.entry(device).or_insert_with(|| [0, 8, 16, 24].map(|word| load(at + word)))
    }

    pub(super) fn amd_access(&mut self, device: u16, address: u64, write: bool) -> Option<u64> {
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

    pub(super) fn amd_walk(&self, entry: u64, address: u64) -> Option<Page> {
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

    pub(super) fn amd_event(&mut self, event: [u64; 2]) {
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

    pub(super) fn amd_raise(&mut self, device: u16, data: u64) -> Option<(u64, u64)> {
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
}
