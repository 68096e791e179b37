// SPDX-License-Identifier: MIT OR Apache-2.0
//! The heap that grows at one end. RAM comes in pieces of [`STEP`] and goes piece by piece when the heap shrinks below one.
//!
//! The program counts on new heap memory being cleared, so what it gave back and takes again is cleared then.

use super::{Area, Memory, STEP};
use crate::kernel::{Kernel, Prot};

impl Memory {
    /// Sets the end of the heap if that can be done; answers the end, the old one if it can't (so `brk` says that it
    /// failed).
    pub fn set_brk<K: Kernel>(&mut self, kernel: &K, wanted: u64) -> u64 {
        if wanted < self.layout.brk_start || wanted > self.layout.brk_end {
            return self.brk;
        }
        if wanted < self.brk {
            self.shrink(kernel, wanted);
        } else if self.grow(kernel, wanted).is_none() {
            return self.brk;
        }
        self.brk = wanted;
        self.brk
    }

    /// First address behind the memory that the heap has.
    fn heap_end(&self) -> u64 {
        let start = self.layout.brk_start;
        self.table
            .areas()
            .iter()
            .rfind(|area| area.start >= start && area.end <= self.layout.brk_end)
            .map_or(start, |area| area.end)
    }

    fn grow<K: Kernel>(&mut self, kernel: &K, wanted: u64) -> Option<()> {
        let end = self.heap_end();
        if wanted > end {
            let size = (wanted - end).next_multiple_of(STEP).min(self.layout.brk_end - end);
            self.table.room(1, 1).ok()?;
            let backing = self.anonymous(kernel, Prot::Write, size, size).ok()?;
            let area = Area { start: end, end: end + size, prot: Prot::Write, backing, offset: 0, stack: false };
            self.show(kernel, area).ok()?;
        }
        let used = self.dirty.min(wanted);
        if used > self.brk {
            kernel.zero(self.brk, used - self.brk);
        }
        self.dirty = self.dirty.max(wanted);
        Some(())
    }

    fn shrink<K: Kernel>(&mut self, kernel: &K, wanted: u64) {
        while let Some(index) = self.table.first_in(wanted, self.layout.brk_end) {
            let above = self.table.areas().iter().enumerate().skip(index).find(|(_, area)| area.start >= wanted);
            let Some((index, area)) = above.filter(|(_, area)| area.end <= self.layout.brk_end) else {
                break;
            };
            self.dirty = self.dirty.min(area.start);
            self.hide(kernel, index);
        }
    }
}
