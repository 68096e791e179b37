// SPDX-License-Identifier: MIT OR Apache-2.0
//! Page tables: a radix tree of 512-entry tables, for host and guest spaces, in the entry format of the architecture.
//!
//! Ranges are aligned powers of two. A range uses the largest pages that its order allows and lies in one table, so that every
//! operation touches at most 512 entries (unmapping: at most 512 tables below). Each entry is written once, with one
//! store, and a table is filled before it is linked: whoever walks the tree meanwhile sees the old or the new mapping and
//! nothing else. A failure changes nothing.

use crate::{Exhausted, FRAME, Frames};
use core::marker::PhantomData;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering};

/// Bits of address translated by one table.
pub const LEVEL_BITS: u32 = 9;
const PAGE_BITS: u32 = 12;
const SLOTS: usize = 1 << LEVEL_BITS;

/// How entries look.
pub trait Format {
    /// Number of table levels.
    const LEVELS: u32;
    /// An entry is present if one of these bits is set.
    const PRESENT: u64;
    /// Marks a leaf above the lowest level.
    const LARGE: u64;
    /// Bits of an entry that points to a table, beside the address.
    const TABLE: u64;
    /// Bits of the physical address.
    const ADDRESS: u64;
    /// Number of slots of the root that are this tree's own; those after it are shared and left alone.
    const ROOT_SLOTS: usize;
}

/// Frames of which the physical address is known.
pub trait TableFrames: Frames {
    /// Physical address of a frame.
    fn physical(&self, frame: NonNull<u8>) -> u64;
    /// Frame at a physical address that `physical` gave.
    fn frame(&self, physical: u64) -> NonNull<u8>;
}

/// Why a range could not be mapped or unmapped. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapError {
    /// Memory for a table could not be had.
    Exhausted(Exhausted),
    /// Something is mapped there, or the range is part of a larger page.
    Occupied,
    /// Misaligned, out of the space, or larger than one call can do.
    Range,
}

/// A mapping that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// Physical address of the page that was asked for (4 KiB).
    pub address: u64,
    /// Attribute bits of the entry.
    pub bits: u64,
    /// Level of the entry: 0 for 4 KiB, 1 for 2 MiB, 2 for 1 GiB.
    pub level: u32,
}

/// A page table. Writers need a lock of their own; readers need none.
#[derive(Debug)]
pub struct PageTable<F> {
    root: NonNull<[AtomicU64; SLOTS]>,
    format: PhantomData<F>,
}

type Table<'a> = &'a [AtomicU64; SLOTS];

impl<F: Format> PageTable<F> {
    /// An empty table over a root frame that is zeroed, but for what is shared.
    ///
    /// # Safety
    /// The frame belongs to the table until [`PageTable::clear`] was called and the table is gone.
    pub const unsafe fn new(root: NonNull<u8>) -> Self {
        Self { root: root.cast(), format: PhantomData }
    }

    /// The root frame.
    #[must_use]
    pub const fn root(&self) -> NonNull<u8> {
        self.root.cast()
    }

    fn top(&self) -> Table<'_> {
        // SAFETY: the root frame is the table's for its life; entries are atomic.
        unsafe { self.root.as_ref() }
    }

    const fn shift(level: u32) -> u32 {
        PAGE_BITS + level * LEVEL_BITS
    }

    fn slot(table: Table<'_>, virt: u64, level: u32) -> &AtomicU64 {
        #[expect(clippy::cast_possible_truncation, reason = "masked to nine bits")]
        let index = (virt >> Self::shift(level)) as usize & (SLOTS - 1);
        &table[index]
    }

    /// Table that a table entry points to.
    fn below<'a>(&'a self, frames: &impl TableFrames, entry: u64) -> Table<'a> {
        let frame = frames.frame(entry & F::ADDRESS).cast::<[AtomicU64; SLOTS]>();
        // SAFETY: table entries are made by `descend` and point to frames of this tree, which live as long as it.
        unsafe { frame.as_ref() }
    }

    const fn is_leaf(entry: u64, level: u32) -> bool {
        level == 0 || entry & F::LARGE != 0
    }

    fn check(virt: u64, order: u32) -> Result<(), MapError> {
        let bits = PAGE_BITS + order;
        if order > 2 * LEVEL_BITS + LEVEL_BITS - 1 || virt & ((1 << bits) - 1) != 0 {
            return Err(MapError::Range);
        }
        let last = virt + ((1 << bits) - 1);
        let top = Self::shift(F::LEVELS - 1);
        if virt.checked_add(1 << bits).is_none() || last >> top >= F::ROOT_SLOTS as u64 {
            return Err(MapError::Range);
        }
        Ok(())
    }

    /// The table of that level for an address, made if need be.
    fn descend(&self, frames: &impl TableFrames, virt: u64, to: u32) -> Result<Table<'_>, MapError> {
        let mut table = self.top();
        let mut level = F::LEVELS - 1;
        while level > to {
            let slot = Self::slot(table, virt, level);
            let entry = slot.load(Ordering::Relaxed);
            table = if entry & F::PRESENT == 0 {
                let frame = match frames.take_zeroed() {
                    Ok(frame) => frame,
                    Err(why) => {
                        self.prune(frames, virt);
                        return Err(MapError::Exhausted(why));
                    }
                };
                let entry = frames.physical(frame) | F::TABLE;
                slot.store(entry, Ordering::Release);
                self.below(frames, entry)
            } else if Self::is_leaf(entry, level) {
                return Err(MapError::Occupied);
            } else {
                self.below(frames, entry)
            };
            level -= 1;
        }
        Ok(table)
    }

    /// Slots of a range in its table.
    fn slots(table: Table<'_>, virt: u64, order: u32) -> &[AtomicU64] {
        let level = order / LEVEL_BITS;
        #[expect(clippy::cast_possible_truncation, reason = "masked to nine bits")]
        let first = (virt >> Self::shift(level)) as usize & (SLOTS - 1);
        let count = 1usize << (order % LEVEL_BITS);
        // A range is aligned to its order, so it does not run over the table's end.
        table.get(first..first + count).unwrap_or(&[])
    }

    /// Maps an aligned range of 2^order pages; `page` gives physical address and attribute bits for each entry's offset in bytes.
    ///
    /// # Errors
    /// See [`MapError`]; nothing was changed.
    pub fn map(
        &self,
        frames: &impl TableFrames,
        virt: u64,
        order: u32,
        page: impl Fn(u64) -> Option<(u64, u64)>,
    ) -> Result<(), MapError> {
        Self::check(virt, order)?;
        let level = order / LEVEL_BITS;
        let slots = Self::slots(self.descend(frames, virt, level)?, virt, order);
        let large = if level > 0 { F::LARGE } else { 0 };
        let size = 1u64 << Self::shift(level);
        let free = slots.iter().all(|slot| slot.load(Ordering::Relaxed) & F::PRESENT == 0);
        let sound = slots.len() == 1 || (0..slots.len() as u64).all(|index| page(index * size).is_some());
        if !free || !sound {
            self.prune(frames, virt);
            return Err(if free { MapError::Range } else { MapError::Occupied });
        }
        for (slot, index) in slots.iter().zip(0u64..) {
            let Some((address, bits)) = page(index * size) else {
                self.prune(frames, virt);
                return Err(MapError::Range);
            };
            slot.store(address | bits | large, Ordering::Release);
        }
        Ok(())
    }

    /// Unmaps an aligned range of 2^order pages. Answers whether something was there.
    ///
    /// # Errors
    /// `Range`; `Occupied` if the range is part of a larger page. Nothing was changed.
    pub fn unmap(&self, frames: &impl TableFrames, virt: u64, order: u32) -> Result<bool, MapError> {
        Self::check(virt, order)?;
        if order > 2 * LEVEL_BITS {
            return Err(MapError::Range);
        }
        let to = order / LEVEL_BITS;
        let mut table = self.top();
        for level in (to + 1..F::LEVELS).rev() {
            let entry = Self::slot(table, virt, level).load(Ordering::Relaxed);
            if entry & F::PRESENT == 0 {
                return Ok(false);
            }
            if Self::is_leaf(entry, level) {
                return Err(MapError::Occupied);
            }
            table = self.below(frames, entry);
        }
        let mut found = false;
        for slot in Self::slots(table, virt, order) {
            let entry = slot.swap(0, Ordering::AcqRel);
            if entry & F::PRESENT != 0 {
                found = true;
                self.release(frames, entry, to);
            }
        }
        if found {
            self.prune(frames, virt);
        }
        Ok(found)
    }

    /// The mapping of an address.
    #[must_use]
    pub fn lookup(&self, frames: &impl TableFrames, virt: u64) -> Option<Leaf> {
        if virt >> Self::shift(F::LEVELS) != 0 {
            return None;
        }
        let mut table = self.top();
        for level in (0..F::LEVELS).rev() {
            let entry = Self::slot(table, virt, level).load(Ordering::Acquire);
            if entry & F::PRESENT == 0 {
                return None;
            }
            if Self::is_leaf(entry, level) {
                let inside = virt & ((1 << Self::shift(level)) - 1) & !(FRAME as u64 - 1);
                let large = if level > 0 { F::LARGE } else { 0 };
                return Some(Leaf {
                    address: (entry & F::ADDRESS) + inside,
                    bits: entry & !F::ADDRESS & !large,
                    level,
                });
            }
            table = self.below(frames, entry);
        }
        None
    }

    /// Removes tables with all they map, lowest first, until none but the root is left or `most` were given back. Answers whether there may
    /// be more: so that a large tree goes in pieces of bounded work.
    pub fn strip(&self, frames: &impl TableFrames, most: usize) -> bool {
        let mut left = most;
        self.strip_below(frames, &self.top()[..F::ROOT_SLOTS], F::LEVELS - 1, &mut left);
        left == 0
    }

    /// Strips what hangs below the entries of that level in a table.
    fn strip_below(&self, frames: &impl TableFrames, table: &[AtomicU64], level: u32, left: &mut usize) {
        for slot in table {
            let entry = slot.load(Ordering::Relaxed);
            if entry & F::PRESENT == 0 || Self::is_leaf(entry, level) {
                continue;
            }
            if level > 1 {
                self.strip_below(frames, self.below(frames, entry), level - 1, left);
            }
            if *left == 0 {
                return;
            }
            slot.store(0, Ordering::Release);
            // SAFETY: the table is no longer linked, and no table hangs below it.
            unsafe { frames.give(frames.frame(entry & F::ADDRESS)) };
            *left -= 1;
        }
    }

    /// Removes everything and gives back all tables but the root.
    pub fn clear(&self, frames: &impl TableFrames) {
        for slot in self.top().iter().take(F::ROOT_SLOTS) {
            let entry = slot.swap(0, Ordering::AcqRel);
            if entry & F::PRESENT != 0 {
                self.release(frames, entry, F::LEVELS - 1);
            }
        }
    }

    /// Gives back what hangs below an entry of that level that was taken out.
    fn release(&self, frames: &impl TableFrames, entry: u64, level: u32) {
        if Self::is_leaf(entry, level) {
            return;
        }
        for slot in self.below(frames, entry) {
            let below = slot.load(Ordering::Relaxed);
            if below & F::PRESENT != 0 {
                self.release(frames, below, level - 1);
            }
        }
        // SAFETY: the table is no longer linked; its entries were released.
        unsafe { frames.give(frames.frame(entry & F::ADDRESS)) };
    }

    /// Gives back the tables on the way to an address that are empty.
    fn prune(&self, frames: &impl TableFrames, virt: u64) {
        self.prune_below(frames, self.top(), virt, F::LEVELS - 1);
    }

    /// Answers whether the table is empty after its branch was pruned.
    fn prune_below(&self, frames: &impl TableFrames, table: Table<'_>, virt: u64, level: u32) {
        let slot = Self::slot(table, virt, level);
        let entry = slot.load(Ordering::Relaxed);
        if entry & F::PRESENT == 0 || Self::is_leaf(entry, level) {
            return;
        }
        let below = self.below(frames, entry);
        if level > 1 {
            self.prune_below(frames, below, virt, level - 1);
        }
        if below.iter().all(|slot| slot.load(Ordering::Relaxed) & F::PRESENT == 0) {
            slot.store(0, Ordering::Release);
            // SAFETY: the table is empty and no longer linked.
            unsafe { frames.give(frames.frame(entry & F::ADDRESS)) };
        }
    }
}

#[cfg(test)]
#[cfg(not(feature = "loom"))]
pub(crate) mod tests {
    use super::{Format, MapError, PageTable, TableFrames};
    use crate::{Exhausted, FRAME, Frames};
    use core::cell::{Cell, RefCell};
    use core::ptr::NonNull;
    use std::alloc::{Layout, alloc, dealloc};
    use std::vec::Vec;

    /// Frames of the host's heap, limited, with a count of what is in use.
    pub(crate) struct Heap {
        free: RefCell<Vec<NonNull<u8>>>,
        used: Cell<usize>,
        limit: Cell<usize>,
    }

    impl Heap {
        pub(crate) fn new(limit: usize) -> Self {
            Self { free: RefCell::new(Vec::new()), used: Cell::new(0), limit: Cell::new(limit) }
        }
        pub(crate) fn used(&self) -> usize {
            self.used.get()
        }
    }

    const LAYOUT: Layout = Layout::new::<Page>();
    #[repr(align(4096))]
    struct Page(#[expect(dead_code, reason = "only its layout counts")] [u8; FRAME]);

    impl Drop for Heap {
        fn drop(&mut self) {
            for frame in self.free.borrow().iter() {
                // SAFETY: allocated in `take` with this layout.
                unsafe { dealloc(frame.as_ptr(), LAYOUT) };
            }
        }
    }

    impl Frames for Heap {
        fn take(&self) -> Result<NonNull<u8>, Exhausted> {
            if self.used.get() == self.limit.get() {
                return Err(Exhausted::Budget);
            }
            self.used.set(self.used.get() + 1);
            // SAFETY: the layout is not empty.
            Ok(self.free.borrow_mut().pop().unwrap_or_else(|| NonNull::new(unsafe { alloc(LAYOUT) }).expect("memory")))
        }
        unsafe fn give(&self, frame: NonNull<u8>) {
            self.used.set(self.used.get() - 1);
            self.free.borrow_mut().push(frame);
        }
    }

    impl TableFrames for Heap {
        fn physical(&self, frame: NonNull<u8>) -> u64 {
            frame.as_ptr().expose_provenance() as u64
        }
        fn frame(&self, physical: u64) -> NonNull<u8> {
            let address = usize::try_from(physical).expect("64 bit");
            NonNull::new(core::ptr::with_exposed_provenance_mut(address)).expect("not null")
        }
    }

    struct Host;
    impl Format for Host {
        const LEVELS: u32 = 4;
        const PRESENT: u64 = 1;
        const LARGE: u64 = 1 << 7;
        const TABLE: u64 = 7;
        const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
        const ROOT_SLOTS: usize = 256;
    }

    fn table(heap: &Heap) -> PageTable<Host> {
        // SAFETY: the frame is the table's to the end of the test.
        unsafe { PageTable::new(heap.take_zeroed().expect("a frame")) }
    }

    fn linear(base: u64) -> impl Fn(u64) -> Option<(u64, u64)> {
        move |offset| Some((base + offset, 7))
    }

    #[test]
    fn maps_looks_up_and_unmaps_each_page_size() {
        for (order, tables) in [(0, 3), (3, 3), (9, 2), (11, 2), (18, 1), (20, 1)] {
            let heap = Heap::new(100);
            let table = table(&heap);
            let (virt, phys) = (1 << 40, 1 << 34);
            assert_eq!(table.map(&heap, virt, order, linear(phys)), Ok(()));
            assert_eq!(heap.used(), 1 + tables, "order {order}");
            let last = (1u64 << (order + 12)) - 4096;
            let leaf = table.lookup(&heap, virt + last).expect("mapped");
            assert_eq!((leaf.address, leaf.bits, leaf.level), (phys + last, 7, order / 9));
            assert!(table.lookup(&heap, virt + last + 4096).is_none());
            if order <= 18 {
                assert_eq!(table.unmap(&heap, virt, order), Ok(true));
                assert_eq!(table.unmap(&heap, virt, order), Ok(false));
            } else {
                table.clear(&heap);
            }
            assert_eq!(heap.used(), 1);
        }
    }

    #[test]
    fn occupied_ranges_stay_as_they_are() {
        let heap = Heap::new(100);
        let table = table(&heap);
        assert_eq!(table.map(&heap, 0x20_0000, 9, linear(0x4000_0000)), Ok(()));
        let used = heap.used();
        assert_eq!(table.map(&heap, 0x20_1000, 0, linear(0)), Err(MapError::Occupied));
        assert_eq!(table.map(&heap, 0x20_0000, 9, linear(0)), Err(MapError::Occupied));
        assert_eq!(table.map(&heap, 0, 10, linear(0)), Err(MapError::Occupied));
        assert_eq!(table.unmap(&heap, 0x20_1000, 0), Err(MapError::Occupied));
        assert_eq!(heap.used(), used);
        assert_eq!(table.lookup(&heap, 0x20_1000).map(|l| l.address), Some(0x4000_1000));
    }

    #[test]
    fn bad_ranges_are_refused() {
        let heap = Heap::new(100);
        let table = table(&heap);
        for (virt, order) in [(0x1000, 1), (1 << 47, 0), (u64::MAX - 4095, 0), (0, 27), (0, 64 - 12), (0x1000, 9)] {
            assert_eq!(table.map(&heap, virt, order, linear(0)), Err(MapError::Range), "{virt:#x} {order}");
        }
        assert_eq!(table.map(&heap, 0, 2, |offset| (offset < 0x2000).then_some((offset, 7))), Err(MapError::Range));
        assert_eq!(heap.used(), 1);
    }

    #[test]
    fn failure_of_each_allocation_rolls_back() {
        for limit in 1..4 {
            let heap = Heap::new(limit);
            let table = table(&heap);
            let full = table.map(&heap, 0x1234_5000, 0, linear(0x1000));
            assert_eq!(full, Err(MapError::Exhausted(Exhausted::Budget)));
            assert_eq!(heap.used(), 1);
        }
    }

    #[test]
    fn strips_in_pieces() {
        let heap = Heap::new(2000);
        let table = table(&heap);
        for index in 0..100u64 {
            assert_eq!(table.map(&heap, index << 21, 0, linear(0x1000)), Ok(()));
            assert_eq!(table.map(&heap, 1 << 40 | index << 30, 9, linear(0)), Ok(()));
        }
        let mut before = heap.used();
        assert_eq!(before, 1 + 2 + 100 + 1 + 100);
        while table.strip(&heap, 30) {
            assert_eq!(before - heap.used(), 30);
            before = heap.used();
        }
        assert_eq!(heap.used(), 1);
        assert!(table.lookup(&heap, 0).is_none() && table.lookup(&heap, 1 << 40).is_none());
        assert_eq!(table.map(&heap, 0, 0, linear(0x1000)), Ok(()));
    }

    #[test]
    fn unmapping_a_large_range_takes_the_tables_below() {
        let heap = Heap::new(2000);
        let table = table(&heap);
        for page in 0..2048u64 {
            assert_eq!(table.map(&heap, page << 12, 0, linear(page << 12)), Ok(()));
        }
        assert_eq!(heap.used(), 1 + 2 + 4);
        assert_eq!(table.unmap(&heap, 0, 10), Ok(true));
        assert!(table.lookup(&heap, 0x3f_f000).is_none());
        assert!(table.lookup(&heap, 0x40_0000).is_some());
        assert_eq!(table.unmap(&heap, 0, 18), Ok(true));
        assert_eq!(heap.used(), 1);
    }
}
