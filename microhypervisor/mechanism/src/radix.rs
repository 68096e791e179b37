// SPDX-License-Identifier: MIT OR Apache-2.0
//! Page tables: a radix tree of 512-entry tables, for host and guest spaces, in the entry format of the architecture.
//!
//! Ranges are aligned powers of two. A range uses the largest pages that its order allows and lies in one table, so that every
//! operation touches at most 512 entries (unmapping: at most 512 tables below). A failure changes nothing.
//!
//! The processor walks the tree at any time, and so do look-ups. Hence each entry is written once, with one store; new tables are
//! filled before the one store that links them; and a table that is taken out is not given back, nor is its content lost, but for its
//! first entry: it is [`Freed`], until the caller has flushed what processors and others may have seen of it. At every moment a
//! walk finds for each address the old or the new mapping and nothing else: the tests check that after every store.
//! Tables that are being taken out are linked through their first entry, whose address has no bit that makes an entry present.

use crate::work::Work;
use crate::{Exhausted, FRAME, Frames};
use core::marker::PhantomData;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering};

/// Bits of address translated by one table.
pub const LEVEL_BITS: u32 = 9;
const PAGE_BITS: u32 = 12;
const SLOTS: usize = 1 << LEVEL_BITS;
/// Most levels of tables.
const DEPTH: usize = 6;

/// How entries look.
pub trait Format {
    /// Number of table levels.
    const LEVELS: u32;
    /// An entry is present if one of these bits is set. They lie below the address.
    const PRESENT: u64;
    /// Marks a leaf above the lowest level.
    const LARGE: u64;
    /// Bits of an entry that points to a table, beside the address (see [`Format::table`]).
    const TABLE: u64;
    /// Bits of the physical address.
    const ADDRESS: u64;
    /// Number of slots of the root that are this tree's own; those after it are shared and left alone.
    const ROOT_SLOTS: usize;

    /// Bits of an entry in a table of that level (1 and above) that points to a table of the level below, beside the address.
    #[must_use]
    fn table(level: u32) -> u64 {
        let _ = level;
        Self::TABLE
    }

    /// Whether a present entry of a table of that level (1 and above) is a page.
    #[must_use]
    fn is_leaf(entry: u64, level: u32) -> bool {
        let _ = level;
        entry & Self::LARGE != 0
    }
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

/// An entry.
#[derive(Debug)]
#[repr(transparent)]
struct Entry(AtomicU64);

impl Entry {
    fn get(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    fn set(&self, entry: u64) {
        self.0.store(entry, Ordering::Release);
        #[cfg(all(test, not(feature = "loom")))]
        tests::model::written();
    }
}

type Table<'a> = &'a [Entry; SLOTS];

/// Tables that are taken out of a tree and not given back yet.
#[derive(Debug, Default)]
#[must_use = "the frames are lost unless they are given back"]
pub struct Freed {
    last: Option<NonNull<u8>>,
}

impl Freed {
    /// Adds a table that is no longer linked, and of which the first entry is not needed any more.
    fn push(&mut self, table: NonNull<u8>) {
        let link = self.last.map_or(0, |last| last.as_ptr().expose_provenance());
        // SAFETY: the frame was a table, whose entries are atomic.
        unsafe { table.cast::<Entry>().as_ref() }.set(link as u64);
        self.last = Some(table);
    }

    /// Gives all back.
    ///
    /// # Safety
    /// They came from these frames, and nobody walks through them any more: translations and cached entries are flushed
    /// wherever the tree may have been in use.
    pub unsafe fn give_back(&mut self, frames: &impl Frames) {
        while let Some(table) = self.last {
            // SAFETY: as `push` left it.
            let link = unsafe { table.cast::<Entry>().as_ref() }.get();
            #[expect(clippy::cast_possible_truncation, reason = "an address")]
            let next = core::ptr::with_exposed_provenance_mut(link as usize);
            self.last = NonNull::new(next);
            // SAFETY: the caller vouches for it.
            unsafe { frames.give(table) };
        }
    }
}

/// A page table. Writers need a lock of their own; readers need none, but something that keeps [`Freed`] tables while they look.
#[derive(Debug)]
pub struct PageTable<F> {
    root: NonNull<[Entry; SLOTS]>,
    format: PhantomData<F>,
}

impl<F: Format> PageTable<F> {
    /// An empty table over a root frame that is zeroed, but for what is shared.
    ///
    /// # Safety
    /// The frame belongs to the table as long as that is used.
    pub const unsafe fn new(root: NonNull<u8>) -> Self {
        assert!(F::LEVELS as usize <= DEPTH && F::PRESENT < 1 << PAGE_BITS);
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

    fn slot(table: Table<'_>, virt: u64, level: u32) -> &Entry {
        #[expect(clippy::cast_possible_truncation, reason = "masked to nine bits")]
        let index = (virt >> Self::shift(level)) as usize & (SLOTS - 1);
        &table[index]
    }

    /// Slots of a range in its table.
    fn slots(table: Table<'_>, virt: u64, order: u32) -> &[Entry] {
        let level = order / LEVEL_BITS;
        #[expect(clippy::cast_possible_truncation, reason = "masked to nine bits")]
        let first = (virt >> Self::shift(level)) as usize & (SLOTS - 1);
        let count = 1usize << (order % LEVEL_BITS);
        // A range is aligned to its order, so it does not run over the table's end.
        table.get(first..first + count).unwrap_or(&[])
    }

    /// Table that a table entry points to.
    fn below<'a>(&'a self, frames: &impl TableFrames, entry: u64) -> Table<'a> {
        let frame = frames.frame(entry & F::ADDRESS).cast::<[Entry; SLOTS]>();
        // SAFETY: table entries are made by `branch` and point to frames of this tree, which live as long as it.
        unsafe { frame.as_ref() }
    }

    const fn is_present(entry: u64) -> bool {
        entry & F::PRESENT != 0
    }

    fn is_leaf(entry: u64, level: u32) -> bool {
        level == 0 || F::is_leaf(entry, level)
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

    /// Where the walk to an address ends: in the table of level `to`, or above it if there is a larger page or nothing. Answers that
    /// table, its level, and the entry found there.
    #[inline]
    fn descend(&self, frames: &impl TableFrames, virt: u64, to: u32) -> (Table<'_>, u32, u64) {
        let mut table = self.top();
        for level in (to + 1..F::LEVELS).rev() {
            let entry = Self::slot(table, virt, level).get();
            if !Self::is_present(entry) || Self::is_leaf(entry, level) {
                return (table, level, entry);
            }
            table = self.below(frames, entry);
        }
        (table, to, Self::slot(table, virt, to).get())
    }

    /// Maps an aligned range of 2^order pages; `page` gives physical address and attribute bits for each entry's offset in bytes. If
    /// that changes meanwhile, what it gave up is not mapped.
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
        let to = order / LEVEL_BITS;
        let (table, level, entry) = self.descend(frames, virt, to);
        if Self::is_present(entry) {
            return Err(MapError::Occupied);
        }
        if level > to {
            let branch = self.branch(frames, virt, order, level, page)?;
            Self::slot(table, virt, level).set(branch);
            return Ok(());
        }
        let slots = Self::slots(table, virt, order);
        if slots.len() > 1 && slots.iter().any(|slot| Self::is_present(slot.get())) {
            return Err(MapError::Occupied);
        }
        Self::fill(slots, to, page)
    }

    /// Fills slots of a table of that level with pages.
    fn fill(slots: &[Entry], level: u32, page: impl Fn(u64) -> Option<(u64, u64)>) -> Result<(), MapError> {
        let large = if level > 0 { F::LARGE } else { 0 };
        let entry = |index: u64| page(index << Self::shift(level)).map(|(address, bits)| address | bits | large);
        if let [slot] = slots {
            slot.set(entry(0).ok_or(MapError::Range)?);
            return Ok(());
        }
        if (0..slots.len() as u64).any(|index| entry(index).is_none()) {
            return Err(MapError::Range);
        }
        for (slot, index) in slots.iter().zip(0..) {
            if let Some(entry) = entry(index) {
                slot.set(entry);
            }
        }
        Ok(())
    }

    /// Makes the tables that a range needs below an entry of that level, filled. Answers that entry.
    #[cold]
    fn branch(
        &self,
        frames: &impl TableFrames,
        virt: u64,
        order: u32,
        level: u32,
        page: impl Fn(u64) -> Option<(u64, u64)>,
    ) -> Result<u64, MapError> {
        let lowest = order / LEVEL_BITS;
        let mut tables = [None; DEPTH];
        let mut build = || {
            let mut entry = 0;
            for (place, level) in tables.iter_mut().zip(lowest..level) {
                let frame = frames.take_zeroed().map_err(MapError::Exhausted)?;
                *place = Some(frame);
                // SAFETY: the frame is ours and zeroed.
                let table = unsafe { frame.cast::<[Entry; SLOTS]>().as_ref() };
                if level == lowest {
                    Self::fill(Self::slots(table, virt, order), level, &page)?;
                } else {
                    Self::slot(table, virt, level).set(entry);
                }
                entry = frames.physical(frame) | F::table(level + 1);
            }
            Ok(entry)
        };
        let entry = build();
        if entry.is_err() {
            for table in tables.into_iter().flatten() {
                // SAFETY: taken above, and never linked into the tree.
                unsafe { frames.give(table) };
            }
        }
        entry
    }

    /// Unmaps an aligned range of 2^order pages. Answers whether something was there; tables that are not needed any more are added
    /// to `freed`.
    ///
    /// # Errors
    /// `Range`; `Occupied` if the range is part of a larger page. Nothing was changed.
    pub fn unmap(&self, frames: &impl TableFrames, virt: u64, order: u32, freed: &mut Freed) -> Result<bool, MapError> {
        Self::check(virt, order)?;
        if order > 2 * LEVEL_BITS {
            return Err(MapError::Range);
        }
        let to = order / LEVEL_BITS;
        let (table, level, entry) = self.descend(frames, virt, to);
        if level > to {
            return if Self::is_present(entry) { Err(MapError::Occupied) } else { Ok(false) };
        }
        let slots = Self::slots(table, virt, order);
        let found = slots.iter().any(|slot| Self::is_present(slot.get()));
        self.strip_below(frames, slots, to, &mut Work::of(usize::MAX), freed);
        for slot in slots.iter().filter(|slot| Self::is_present(slot.get())) {
            slot.set(0);
        }
        if found {
            self.prune(frames, self.top(), virt, F::LEVELS - 1, freed);
        }
        Ok(found)
    }

    /// The mapping of an address.
    #[must_use]
    pub fn lookup(&self, frames: &impl TableFrames, virt: u64) -> Option<Leaf> {
        if virt >> Self::shift(F::LEVELS) != 0 {
            return None;
        }
        let (_, level, entry) = self.descend(frames, virt, 0);
        let inside = virt & ((1 << Self::shift(level)) - 1) & !(FRAME as u64 - 1);
        let large = if level > 0 { F::LARGE } else { 0 };
        Self::is_present(entry).then_some(Leaf {
            address: (entry & F::ADDRESS) + inside,
            bits: entry & !F::ADDRESS & !large,
            level,
        })
    }

    /// Takes tables out with all they map, lowest first, until none but the root is left or the piece of work is done; they are added to
    /// `freed`. Answers whether there may be more: so that a large tree goes in pieces of bounded work.
    pub fn strip(&self, frames: &impl TableFrames, work: &mut Work, freed: &mut Freed) -> bool {
        self.strip_below(frames, &self.top()[..F::ROOT_SLOTS], F::LEVELS - 1, work, freed);
        let more = work.is_done();
        work.spend(Work::WALK);
        more
    }

    /// Takes out the tables that entries of a table of that level point to, each after those below it.
    fn strip_below(&self, frames: &impl TableFrames, slots: &[Entry], level: u32, work: &mut Work, freed: &mut Freed) {
        if level == 0 {
            return;
        }
        for slot in slots {
            let entry = slot.get();
            if !Self::is_present(entry) || Self::is_leaf(entry, level) {
                continue;
            }
            self.strip_below(frames, self.below(frames, entry), level - 1, work, freed);
            if work.is_done() {
                return;
            }
            slot.set(0);
            freed.push(frames.frame(entry & F::ADDRESS));
            work.spend(Work::TABLE);
        }
    }

    /// Frees the tables on the way to an address that are empty.
    fn prune(&self, frames: &impl TableFrames, table: Table<'_>, virt: u64, level: u32, freed: &mut Freed) {
        let slot = Self::slot(table, virt, level);
        let entry = slot.get();
        if !Self::is_present(entry) || Self::is_leaf(entry, level) {
            return;
        }
        let below = self.below(frames, entry);
        self.prune(frames, below, virt, level - 1, freed);
        if below.iter().all(|slot| !Self::is_present(slot.get())) {
            slot.set(0);
            freed.push(frames.frame(entry & F::ADDRESS));
        }
    }
}

#[cfg(test)]
#[cfg(not(feature = "loom"))]
pub(crate) mod tests;
