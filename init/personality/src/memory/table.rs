// SPDX-License-Identifier: MIT OR Apache-2.0
//! The tables: areas sorted by address, and what backs them with the number of areas that do so.
//!
//! Fixed capacity, no pointers. The only operations here that touch the machine are attaching, detaching and giving a
//! backing up; when they happen is the caller's business (the parent module).

use super::PAGE;
use crate::errno::Errno;
use crate::kernel::{Handle, Kernel, Prot};

/// Most areas.
pub const AREAS: usize = 512;
/// Most backings.
pub const BACKINGS: usize = 384;
/// Index that says: nothing.
pub const NO_BACKING: u16 = u16::MAX;

/// A range with one access, made of one piece of one dataspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Area {
    /// First byte, page-aligned.
    pub start: u64,
    /// First byte behind.
    pub end: u64,
    /// Access. It is attached if this is not `None` and there is a backing.
    pub prot: Prot,
    /// Index of the backing, [`NO_BACKING`] for address space only.
    pub backing: u16,
    /// Where in the backing the area starts, bytes.
    pub offset: u64,
    /// Its content need not be cleared when the program says that it does not need it.
    pub stack: bool,
}

/// A dataspace in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backing {
    /// The dataspace.
    pub handle: Handle,
    /// Its size, bytes.
    pub size: u64,
    /// How much of it has been given to areas; what lies behind is spare.
    pub given: u64,
    /// Areas and file descriptors that hold it; 0 for a free entry.
    pub holds: u16,
    /// It is a boot module.
    pub rom: bool,
}

impl Backing {
    /// A backing held once.
    #[must_use]
    pub const fn new(handle: Handle, size: u64, given: u64, rom: bool) -> Self {
        Self { handle, size, given, holds: 1, rom }
    }

    const FREE: Self = Self { handle: Handle(0), size: 0, given: 0, holds: 0, rom: false };
}

/// Both tables.
#[derive(Debug)]
pub(super) struct Table {
    areas: [Area; AREAS],
    count: usize,
    backings: [Backing; BACKINGS],
}

impl Table {
    pub(super) const fn new() -> Self {
        // All zeroes but for the access, which is 0 too: the tables cost no space in the program's file.
        let empty = Area { start: 0, end: 0, prot: Prot::None, backing: 0, offset: 0, stack: false };
        Self { areas: [empty; AREAS], count: 0, backings: [Backing::FREE; BACKINGS] }
    }

    pub(super) fn areas(&self) -> &[Area] {
        self.areas.get(..self.count).unwrap_or(&[])
    }

    pub(super) fn area_mut(&mut self, index: usize) -> Option<&mut Area> {
        self.areas.get_mut(..self.count)?.get_mut(index)
    }

    pub(super) fn backings(&self) -> impl Iterator<Item = &Backing> {
        self.backings.iter().filter(|backing| backing.holds > 0)
    }

    pub(super) fn backing(&self, index: u16) -> Option<&Backing> {
        self.backings.get(usize::from(index)).filter(|backing| backing.holds > 0)
    }

    pub(super) fn backing_mut(&mut self, index: u16) -> Option<&mut Backing> {
        self.backings.get_mut(usize::from(index)).filter(|backing| backing.holds > 0)
    }

    /// Whether so many areas and backings can be added.
    pub(super) fn room(&self, areas: usize, backings: usize) -> Result<(), Errno> {
        let free = self.backings.iter().filter(|backing| backing.holds == 0).take(backings).count();
        if AREAS - self.count < areas || free < backings { Err(Errno::NOMEM) } else { Ok(()) }
    }

    pub(super) fn add_backing(&mut self, backing: Backing) -> Option<u16> {
        let index = self.backings.iter().position(|entry| entry.holds == 0)?;
        *self.backings.get_mut(index)? = backing;
        u16::try_from(index).ok()
    }

    pub(super) fn hold(&mut self, index: u16) {
        if let Some(backing) = self.backing_mut(index) {
            backing.holds += 1;
        }
    }

    /// Gives one hold up, and the dataspace with the last.
    pub(super) fn release<K: Kernel>(&mut self, kernel: &K, index: u16) {
        let Some(backing) = self.backing_mut(index) else {
            return;
        };
        backing.holds -= 1;
        if backing.holds > 0 {
            return;
        }
        if backing.rom {
            kernel.rom_close(backing.handle);
        } else {
            kernel.ram_free(backing.handle);
        }
    }

    pub(super) fn attach<K: Kernel>(&self, kernel: &K, area: &Area) -> Result<(), Errno> {
        match self.backing(area.backing) {
            Some(backing) if area.prot != Prot::None => {
                kernel.attach(backing.handle, area.offset, area.start, area.end - area.start, area.prot)
            }
            _ => Ok(()),
        }
    }

    pub(super) fn detach<K: Kernel>(&self, kernel: &K, area: &Area) {
        if area.prot != Prot::None && self.backing(area.backing).is_some() {
            kernel.detach(area.start, area.end - area.start);
        }
    }

    /// Index of the first area that ends behind `address`.
    fn lower(&self, address: u64) -> usize {
        self.areas().partition_point(|area| area.end <= address)
    }

    /// First area that has a byte in the range.
    pub(super) fn first_in(&self, start: u64, end: u64) -> Option<usize> {
        let index = self.lower(start);
        self.areas().get(index).filter(|area| area.start < end).map(|_| index)
    }

    /// The area that has `address` in it, and not as its first byte.
    pub(super) fn around(&self, address: u64) -> Option<usize> {
        let index = self.lower(address);
        self.areas().get(index).filter(|area| area.start < address).map(|_| index)
    }

    /// The area that ends at `address`.
    pub(super) fn ending_at(&self, address: u64) -> Option<&Area> {
        let index = self.lower(address.checked_sub(1)?);
        self.areas().get(index).filter(|area| area.end == address)
    }

    /// The areas that cover the range without a hole.
    pub(super) fn covering(&self, start: u64, end: u64) -> Option<core::ops::Range<usize>> {
        let first = self.lower(start);
        let mut reached = start;
        for (index, area) in self.areas().iter().enumerate().skip(first) {
            if area.start > reached {
                return None;
            }
            reached = area.end;
            if reached >= end {
                return Some(first..index + 1);
            }
        }
        None
    }

    /// Lowest free range of that size and alignment.
    pub(super) fn gap(&self, start: u64, end: u64, size: u64, align: u64) -> Option<u64> {
        let mut candidate = align_up(start, align)?;
        for area in self.areas().get(self.lower(start)..)? {
            if candidate.checked_add(size)? <= area.start {
                break;
            }
            candidate = candidate.max(align_up(area.end, align)?);
        }
        (candidate.checked_add(size)? <= end).then_some(candidate)
    }

    /// Enters an area.
    pub(super) fn insert(&mut self, area: Area) -> Result<(), Errno> {
        if self.count >= AREAS {
            return Err(Errno::NOMEM);
        }
        let index = self.lower(area.start);
        self.areas.copy_within(index..self.count, index + 1);
        self.count += 1;
        if let Some(entry) = self.area_mut(index) {
            *entry = area;
        }
        Ok(())
    }

    /// Makes one area of two that meet at `border` and are address space only.
    pub(super) fn join(&mut self, border: u64) {
        let index = self.lower(border);
        let Some(high) = self.areas().get(index).copied() else {
            return;
        };
        let Some(low) = index.checked_sub(1).and_then(|before| self.area_mut(before)) else {
            return;
        };
        let whole = Area { start: low.start, offset: low.offset, ..high };
        if low.end != border
            || high.start != border
            || high.backing != NO_BACKING
            || (Area { end: whole.end, ..*low }) != whole
        {
            return;
        }
        low.end = high.end;
        self.remove(index);
    }

    pub(super) fn remove(&mut self, index: usize) -> Option<Area> {
        let area = *self.areas().get(index)?;
        self.areas.copy_within(index + 1..self.count, index);
        self.count -= 1;
        Some(area)
    }
}

fn align_up(address: u64, align: u64) -> Option<u64> {
    debug_assert!(align.is_power_of_two() && align >= PAGE);
    Some(address.checked_add(align - 1)? & !(align - 1))
}
