// SPDX-License-Identifier: MIT OR Apache-2.0
//! Changing what is mapped: `mprotect` (which is what allocates reserved memory), `mremap`, `madvise`.

use super::{Area, Backing, Memory, NO_BACKING, PAGE, Request, STEP, page_up, range};
use crate::errno::Errno;
use crate::kernel::{Kernel, Prot};

impl Memory {
    /// Whether the range has nothing to do with the addresses of the layout (the program's own image).
    #[must_use]
    pub fn is_foreign(&self, start: u64, size: u64) -> bool {
        let end = start.saturating_add(size);
        let outside = |low: u64, high: u64| end <= low || start >= high;
        outside(self.layout.start, self.layout.end) && outside(self.layout.brk_start, self.layout.brk_end)
    }

    /// Changes the access of a range. Reserved address space gets RAM when it gets an access.
    ///
    /// # Errors
    /// `INVAL`: no range. `NOMEM`: part of it is not mapped, no RAM, or tables full. `ACCES`: execution of anonymous memory, or
    /// writing to a boot module. What came before the error in the range has the new access.
    pub fn protect<K: Kernel>(&mut self, kernel: &K, start: u64, size: u64, prot: Prot) -> Result<(), Errno> {
        let end = range(start, size)?;
        self.table.covering(start, end).ok_or(Errno::NOMEM)?;
        self.split(kernel, start)?;
        self.split(kernel, end)?;
        let mut at = start;
        while let Some(index) = self.table.first_in(at, end) {
            at = self.protect_area(kernel, index, prot)?;
        }
        self.table.join(start);
        self.table.join(end);
        Ok(())
    }

    /// Changes one area, or the first piece of it; answers how far it came.
    fn protect_area<K: Kernel>(&mut self, kernel: &K, index: usize, prot: Prot) -> Result<u64, Errno> {
        let Some(area) = self.table.areas().get(index).copied() else {
            return Err(Errno::NOMEM);
        };
        if area.prot == prot {
            return Ok(area.end);
        }
        if area.backing == NO_BACKING {
            return self.populate(kernel, area, prot);
        }
        let changed = Area { prot, ..area };
        self.table.detach(kernel, &area);
        let attached = self.table.attach(kernel, &changed);
        if let Some(entry) = self.table.area_mut(index) {
            entry.prot = if attached.is_ok() { prot } else { Prot::None };
        }
        attached.map(|()| area.end)
    }

    /// Gives RAM to address space: what the neighbour below has to spare, else new.
    fn populate<K: Kernel>(&mut self, kernel: &K, area: Area, prot: Prot) -> Result<u64, Errno> {
        let size = area.end - area.start;
        if let Some((backing, given, spare)) = self.spare_below(area.start) {
            let taken = size.min(spare);
            self.split(kernel, area.start + taken)?;
            let piece = Area { end: area.start + taken, prot, backing, offset: given, ..area };
            self.table.hold(backing);
            return self.replace(kernel, piece, given + taken);
        }
        let free_behind = match self.table.first_in(area.end, area.end + PAGE) {
            Some(next) => self.table.areas().get(next).filter(|next| next.backing == NO_BACKING),
            None => None,
        };
        let grown = size.next_multiple_of(STEP).min(size + free_behind.map_or(0, |next| next.end - next.start));
        self.table.room(1, 1)?;
        let backing = self.anonymous(kernel, prot, size, grown)?;
        self.replace(kernel, Area { prot, backing, offset: 0, ..area }, size)
    }

    /// Puts an area with RAM in the place of one without, and notes how much of the backing is given away.
    fn replace<K: Kernel>(&mut self, kernel: &K, area: Area, given: u64) -> Result<u64, Errno> {
        if let Err(error) = self.table.attach(kernel, &area) {
            self.table.release(kernel, area.backing);
            return Err(error);
        }
        if let Some(backing) = self.table.backing_mut(area.backing) {
            backing.given = given;
        }
        if let Some(index) = self.table.first_in(area.start, area.end)
            && let Some(entry) = self.table.area_mut(index)
        {
            *entry = area;
        }
        Ok(area.end)
    }

    /// Backing of the area that ends at `address`, if it was the last to be given memory out of it: index, given, spare.
    fn spare_below(&self, address: u64) -> Option<(u16, u64, u64)> {
        let below = self.table.ending_at(address)?;
        let Backing { given, size, rom, .. } = *self.table.backing(below.backing)?;
        let last = below.offset + (below.end - below.start) == given;
        (last && !rom && size > given).then_some((below.backing, given, size - given))
    }

    /// Changes the size of a mapping, moving it if it has to and may. Answers its address.
    ///
    /// # Errors
    /// `INVAL`: not page-aligned or no range. `FAULT`: not all of it is mapped. `NOMEM`: no RAM, no address space.
    pub fn remap<K: Kernel>(
        &mut self,
        kernel: &K,
        start: u64,
        old: u64,
        new: u64,
        may_move: bool,
    ) -> Result<u64, Errno> {
        let old_end = range(start, old)?;
        let new_end = range(start, new)?;
        self.table.covering(start, old_end).ok_or(Errno::FAULT)?;
        if new_end <= old_end {
            if new_end < old_end {
                self.unmap(kernel, new_end, old_end - new_end)?;
            }
            return Ok(start);
        }
        self.split(kernel, start)?;
        self.split(kernel, old_end)?;
        let prot = self.table.ending_at(old_end).map_or(Prot::None, |last| last.prot);
        let room = new_end <= self.layout.end && self.table.first_in(old_end, new_end).is_none();
        if room {
            let extra = Request { size: new_end - old_end, prot, fixed: Some(old_end), stack: false };
            return self.map(kernel, &extra).map(|_| start);
        }
        if !may_move {
            return Err(Errno::NOMEM);
        }
        self.relocate(kernel, start, old_end, page_up(new).ok_or(Errno::NOMEM)?, prot)
    }

    /// Moves the areas of a range to where there is space for `size` bytes, and adds what is missing.
    fn relocate<K: Kernel>(&mut self, kernel: &K, start: u64, end: u64, size: u64, prot: Prot) -> Result<u64, Errno> {
        let old = end - start;
        let (target, _) = self.place(None, size)?;
        let extra = Request { size: size - old, prot, fixed: Some(target + old), stack: false };
        self.map(kernel, &extra)?;
        while let Some(index) = self.table.first_in(start, end) {
            let Some(area) = self.table.remove(index) else {
                break;
            };
            self.table.detach(kernel, &area);
            let moved = Area { start: area.start - start + target, end: area.end - start + target, ..area };
            self.show(kernel, moved)?;
        }
        Ok(target)
    }

    /// The program does not need the content of a range any more: anonymous memory is cleared (stacks are not), and kept.
    ///
    /// # Errors
    /// `INVAL`: no range. `NOMEM`: part of it is not mapped.
    pub fn discard<K: Kernel>(&self, kernel: &K, start: u64, size: u64) -> Result<(), Errno> {
        let end = range(start, size)?;
        let covered = self.table.covering(start, end).ok_or(Errno::NOMEM)?;
        for area in self.table.areas().get(covered).unwrap_or(&[]) {
            let ram = self.table.backing(area.backing).is_some_and(|backing| !backing.rom);
            if ram && area.prot == Prot::Write && !area.stack {
                let from = area.start.max(start);
                kernel.zero(from, area.end.min(end) - from);
            }
        }
        Ok(())
    }
}
