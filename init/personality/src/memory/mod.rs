// SPDX-License-Identifier: MIT OR Apache-2.0
//! The address space that the program may shape: `mmap`, `munmap`, `mprotect`, `mremap`, `madvise`, `brk`.
//!
//! [`Area`]s (sorted, not overlapping) say what lies where; a [`Backing`] is a dataspace that one or more areas show. There are
//! no page faults to allocate by: an area that may be read has its memory from the start, and an area without any access
//! ([`Prot::None`], never touched) is address space only. So reservations cost nothing (a thread's guard page, an
//! allocator's arena of 64 MiB) and `mprotect` is what allocates. A reservation that grows in small steps gets its memory in
//! steps of [`STEP`].
//!
//! What is changed is prepared first: table space is checked and RAM allocated before anything is taken down, so that
//! an error leaves everything as it was. Splitting a live area takes its attachment down for a moment; only a program that
//! unmaps part of memory that another thread uses at that time could notice.

mod brk;
mod change;
mod table;

pub use table::{AREAS, Area, BACKINGS, Backing, NO_BACKING};

use crate::errno::Errno;
use crate::kernel::{Handle, Kernel, Prot, Rom};
use table::Table;

/// Page size, bytes.
pub const PAGE: u64 = 4096;
/// Size and alignment from which on areas are placed so that large pages can map them, bytes.
pub const LARGE: u64 = 2 << 20;
/// Smallest piece of RAM that is allocated for memory that grows bit by bit, bytes.
pub const STEP: u64 = 64 << 10;

/// Which addresses the personality may use.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// First address for `mmap`.
    pub start: u64,
    /// First address behind it.
    pub end: u64,
    /// First address of the heap that `brk` grows.
    pub brk_start: u64,
    /// First address behind it.
    pub brk_end: u64,
}

/// What an area is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Length in bytes, not 0.
    pub size: u64,
    /// Access.
    pub prot: Prot,
    /// Address (page-aligned), or anywhere.
    pub fixed: Option<u64>,
    /// It is a thread's stack: its content need not be cleared when it is not needed any more.
    pub stack: bool,
}

/// The address space.
#[derive(Debug)]
pub struct Memory {
    table: Table,
    layout: Layout,
    brk: u64,
    dirty: u64,
}

/// Rounds up to pages; `None` if that wraps.
#[must_use]
pub fn page_up(size: u64) -> Option<u64> {
    Some(size.checked_add(PAGE - 1)? & !(PAGE - 1))
}

/// End of a range of pages; checks alignment, length and wrapping.
///
/// # Errors
/// `INVAL`.
pub fn range(start: u64, size: u64) -> Result<u64, Errno> {
    if !start.is_multiple_of(PAGE) || size == 0 {
        return Err(Errno::INVAL);
    }
    let size = page_up(size).ok_or(Errno::INVAL)?;
    start.checked_add(size).ok_or(Errno::INVAL)
}

impl Memory {
    /// An empty address space.
    #[must_use]
    pub const fn new(layout: Layout) -> Self {
        Self { table: Table::new(), layout, brk: layout.brk_start, dirty: layout.brk_start }
    }

    /// The areas in order of their addresses.
    #[must_use]
    pub fn areas(&self) -> &[Area] {
        self.table.areas()
    }

    /// The backing of that index.
    #[must_use]
    pub fn backing(&self, index: u16) -> Option<&Backing> {
        self.table.backing(index)
    }

    /// Maps anonymous memory, cleared.
    ///
    /// # Errors
    /// `NOMEM`: no RAM, no free range, or the tables are full. `INVAL`: a fixed address outside of the layout.
    pub fn map<K: Kernel>(&mut self, kernel: &K, request: &Request) -> Result<u64, Errno> {
        let size = page_up(request.size).filter(|size| *size > 0).ok_or(Errno::NOMEM)?;
        let (address, replaced) = self.place(request.fixed, size)?;
        self.table.room(3, 1)?;
        let backing = self.anonymous(kernel, request.prot, size, size)?;
        if replaced && let Err(error) = self.unmap(kernel, address, size) {
            self.table.release(kernel, backing);
            return Err(error);
        }
        let area =
            Area { start: address, end: address + size, prot: request.prot, backing, offset: 0, stack: request.stack };
        self.show(kernel, area)?;
        self.table.join(area.start);
        self.table.join(area.end);
        Ok(address)
    }

    /// Maps part of an open boot module, readable.
    ///
    /// # Errors
    /// As [`Self::map`]; `INVAL` for an offset that is not a page's or that lies behind the end.
    pub fn map_rom<K: Kernel>(&mut self, kernel: &K, backing: u16, offset: u64, size: u64) -> Result<u64, Errno> {
        let size = page_up(size).filter(|size| *size > 0).ok_or(Errno::NOMEM)?;
        let whole = self.table.backing(backing).ok_or(Errno::BADF)?.size;
        let end = offset.checked_add(size).ok_or(Errno::INVAL)?;
        if !offset.is_multiple_of(PAGE) || end > whole {
            return Err(Errno::INVAL);
        }
        let (address, _) = self.place(None, size)?;
        self.table.room(1, 0)?;
        self.table.hold(backing);
        let area = Area { start: address, end: address + size, prot: Prot::Read, backing, offset, stack: false };
        self.show(kernel, area)?;
        Ok(address)
    }

    /// Takes an open boot module in and maps all of it; it stays open until [`Self::forget_rom`] and the last area that
    /// shows it is gone. Answers its index and its address (0 for an empty one).
    ///
    /// # Errors
    /// As [`Self::map`]; the module is closed then.
    pub fn add_rom<K: Kernel>(&mut self, kernel: &K, rom: Rom) -> Result<(u16, u64), Errno> {
        let size = page_up(rom.size).ok_or(Errno::NOMEM)?;
        let Some(backing) = self.table.add_backing(Backing::new(rom.handle, size, size, true)) else {
            kernel.rom_close(rom.handle);
            return Err(Errno::NOMEM);
        };
        if size == 0 {
            return Ok((backing, 0));
        }
        match self.map_rom(kernel, backing, 0, size) {
            Ok(address) => Ok((backing, address)),
            Err(error) => {
                self.table.release(kernel, backing);
                Err(error)
            }
        }
    }

    /// Another file descriptor uses the boot module.
    pub fn share_rom(&mut self, backing: u16) {
        self.table.hold(backing);
    }

    /// A file descriptor of a boot module was closed. `address` is where all of it is mapped; that mapping goes with the last
    /// descriptor.
    pub fn forget_rom<K: Kernel>(&mut self, kernel: &K, backing: u16, address: u64, last: bool) {
        if last && let Some(Backing { size, .. }) = self.table.backing(backing).copied() {
            // The area is whole, so there is nothing to split and nothing to fail.
            let _ = self.unmap(kernel, address, size.max(PAGE));
        }
        self.table.release(kernel, backing);
    }

    /// Unmaps a range; what was not mapped is no error.
    ///
    /// # Errors
    /// `INVAL`: the range is none. `NOMEM`: splitting an area needs more table space than there is.
    pub fn unmap<K: Kernel>(&mut self, kernel: &K, start: u64, size: u64) -> Result<(), Errno> {
        let end = range(start, size)?;
        self.split(kernel, start)?;
        self.split(kernel, end)?;
        while let Some(index) = self.table.first_in(start, end) {
            self.hide(kernel, index);
        }
        Ok(())
    }

    /// Whether the range and the rest of the address space of the layout fit, and where a new area goes.
    fn place(&self, fixed: Option<u64>, size: u64) -> Result<(u64, bool), Errno> {
        let Some(address) = fixed else {
            let align = if size >= LARGE { LARGE } else { PAGE };
            let found = self.table.gap(self.layout.start, self.layout.end, size, align);
            return found.map(|address| (address, false)).ok_or(Errno::NOMEM);
        };
        let end = range(address, size)?;
        if address < self.layout.start || end > self.layout.end {
            return Err(Errno::NOMEM);
        }
        Ok((address, self.table.first_in(address, end).is_some()))
    }

    /// RAM for `size` bytes (of which `total` are allocated) if the access needs any.
    fn anonymous<K: Kernel>(&mut self, kernel: &K, prot: Prot, size: u64, total: u64) -> Result<u16, Errno> {
        match prot {
            Prot::None => Ok(NO_BACKING),
            Prot::Exec => Err(Errno::ACCES),
            Prot::Read | Prot::Write => {
                let align = if total >= LARGE { LARGE } else { PAGE };
                let ram = kernel.ram_alloc(total, align)?;
                self.table.add_backing(Backing::new(ram, total, size, false)).ok_or(Errno::NOMEM).inspect_err(|_| {
                    kernel.ram_free(ram);
                })
            }
        }
    }

    /// Attaches an area and enters it. Takes over one hold on its backing, also on failure.
    fn show<K: Kernel>(&mut self, kernel: &K, area: Area) -> Result<(), Errno> {
        let attached = self
            .table
            .attach(kernel, &area)
            .and_then(|()| self.table.insert(area).inspect_err(|_| self.table.detach(kernel, &area)));
        attached.inspect_err(|_| self.table.release(kernel, area.backing))
    }

    /// Detaches and removes an area and lets go of its backing.
    fn hide<K: Kernel>(&mut self, kernel: &K, index: usize) {
        if let Some(area) = self.table.remove(index) {
            self.table.detach(kernel, &area);
            self.table.release(kernel, area.backing);
        }
    }

    /// Makes `at` a border between areas.
    fn split<K: Kernel>(&mut self, kernel: &K, at: u64) -> Result<(), Errno> {
        let Some(index) = self.table.around(at) else {
            return Ok(());
        };
        self.table.room(1, 0)?;
        let Some(area) = self.table.remove(index) else {
            return Ok(());
        };
        let low = Area { end: at, ..area };
        let skipped = if area.backing == NO_BACKING { 0 } else { at - area.start };
        let high = Area { start: at, offset: area.offset + skipped, ..area };
        self.table.detach(kernel, &area);
        self.table.hold(area.backing);
        let lower = self.show(kernel, low);
        let upper = self.show(kernel, high);
        lower.and(upper)
    }

    /// RAM that is attached or kept for a reservation, bytes.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.table.backings().filter(|backing| !backing.rom).map(|backing| backing.size).sum()
    }

    /// Whether the dataspace is still held.
    #[must_use]
    pub fn holds(&self, handle: Handle) -> bool {
        self.table.backings().any(|backing| backing.handle == handle)
    }
}

#[cfg(test)]
mod tests;
