// SPDX-License-Identifier: MIT OR Apache-2.0
//! Capabilities: the object space of a protection domain, a table of two levels.
//!
//! A capability ([`Capability`]) is one word, the object's address with permissions in its low bits; 0 is none. A frame of the first
//! level names frames of capabilities, each of which is made when the first one comes and stays as long as the [`Table`]: so a
//! look-up is two loads, and takes neither lock nor reference. A capability holds one reference to its object.
//!
//! Concurrency: every change of a capability is one exchange, and whoever takes one out of its place by that lets its reference go.
//! Frames are made under a lock. A table that is destroyed is [emptied](Table::empty) in pieces while others still look and insert:
//! from the first piece on, which takes the lock once, no frame is made; and who inserts looks *afterwards* whether that has begun. He
//! who empties exchanges each place, empty or not: so of the two one comes second at that place, and sees what the other one did.
//!
//! Rejected: a reference per look-up (two locked instructions on the fastest path), and one level (2 MiB for a domain with ten
//! capabilities).

use crate::sync::{AtomicU32, AtomicU64, Mutex, Ordering};
use crate::work::Work;
use crate::{Exhausted, Frames};
use core::marker::PhantomData;
use core::ptr::NonNull;

/// Log2 of the capabilities, or of the names of frames of them, in one frame.
const BITS: u32 = if cfg!(feature = "loom") { 1 } else { 9 };
const SLOTS: usize = 1 << BITS;

/// Places in a table: selectors are below.
pub const SELECTORS: u32 = 1 << (2 * BITS);

/// Bits of permissions.
const PERMS: u64 = 0x1f;

type Slots = [AtomicU64; SLOTS];

/// What capabilities refer to.
///
/// # Safety
/// Addresses are multiples of 32. An object's memory stays until all references have been released, and nobody who has looked it up
/// in a table before that is still at it.
pub unsafe trait Target {
    /// Whether it was not destroyed.
    fn is_alive(&self) -> bool;
    /// Takes a reference.
    fn acquire(&self);
    /// Lets a reference go.
    fn release(&self);
}

/// A capability, as it was found.
#[derive(Debug)]
pub struct Capability<'a, T> {
    word: u64,
    target: &'a T,
}

impl<'a, T> Capability<'a, T> {
    /// The object.
    #[inline]
    #[must_use]
    pub const fn target(&self) -> &'a T {
        self.target
    }

    /// What may be done with it.
    #[inline]
    #[must_use]
    pub const fn perms(&self) -> u8 {
        (self.word & PERMS) as u8
    }

    /// Whether all of that may be done with it.
    #[inline]
    #[must_use]
    pub const fn allows(&self, perms: u8) -> bool {
        self.word & perms as u64 == perms as u64
    }
}

/// Why a capability was not put in. Nothing was changed, but that a frame may have been made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Memory for a frame could not be had.
    Exhausted(Exhausted),
    /// The table is being destroyed.
    Closed,
    /// There is no such selector.
    Range,
}

/// The first level of a table: what look-ups need.
#[derive(Debug)]
pub struct Root<T>(NonNull<Slots>, PhantomData<*const T>);

impl<T> Clone for Root<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Root<T> {}

impl<T> Root<T> {
    /// The place of a selector, if its frame is there.
    ///
    /// # Safety
    /// The table outlives the result.
    #[inline]
    unsafe fn slot<'a>(self, selector: u64) -> Option<&'a AtomicU64> {
        if selector >= SELECTORS as u64 {
            return None;
        }
        let selector = index(selector);
        // SAFETY: the frame of the first level is the table's for its life, as the caller says.
        let name = unsafe { self.0.as_ref() }[selector / SLOTS].load(Ordering::Acquire);
        // SAFETY: as above, for a frame that it names.
        unsafe { frame(name) }.map(|slots| &slots[selector % SLOTS])
    }

    /// The capability at a selector, if there is one.
    ///
    /// # Safety
    /// The table and the object outlive the result: the caller looks no longer than [`Target`] grants.
    #[inline]
    #[must_use]
    pub unsafe fn get<'a>(self, selector: u64) -> Option<Capability<'a, T>> {
        // SAFETY: the caller vouches for the table.
        let word = unsafe { self.slot(selector) }?.load(Ordering::Acquire);
        // SAFETY: a capability holds a reference to its object; the caller vouches for the rest.
        unsafe { target(word) }.map(|target| Capability { word, target })
    }
}

/// The frame of that name, if it is one.
///
/// # Safety
/// It outlives the result.
#[inline]
unsafe fn frame<'a>(name: u64) -> Option<&'a Slots> {
    let slots: *const Slots = core::ptr::with_exposed_provenance(index(name));
    // SAFETY: null, or a frame, which the caller vouches for.
    unsafe { slots.as_ref() }
}

/// The object of a capability, if it is one.
///
/// # Safety
/// The object outlives the result.
#[inline]
unsafe fn target<'a, T>(word: u64) -> Option<&'a T> {
    let target: *const T = core::ptr::with_exposed_provenance(index(word & !PERMS));
    // SAFETY: null, or an object, which the caller vouches for.
    unsafe { target.as_ref() }
}

const fn index(word: u64) -> usize {
    const { assert!(size_of::<usize>() == size_of::<u64>()) };
    #[expect(clippy::cast_possible_truncation, reason = "as large")]
    let index = word as usize;
    index
}

/// The capabilities of a domain.
#[derive(Debug)]
pub struct Table<T> {
    root: Root<T>,
    /// Frames are made under it.
    lock: Mutex<()>,
    /// 0, or one more than the selector from which on capabilities have yet to be dropped, when that has begun.
    cursor: AtomicU32,
}

// SAFETY: the frames belong to the table; their words and the cursor are atomic.
unsafe impl<T: Sync> Sync for Table<T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Send for Table<T> {}

impl<T: Target> Table<T> {
    /// An empty table, whose first level is a zeroed frame.
    ///
    /// # Safety
    /// The frame belongs to the table as long as that is used.
    #[must_use]
    pub unsafe fn new(root: NonNull<u8>) -> Self {
        Self { root: Root(root.cast(), PhantomData), lock: Mutex::new(()), cursor: AtomicU32::new(0) }
    }

    /// What look-ups need.
    #[inline]
    pub const fn root(&self) -> Root<T> {
        self.root
    }

    #[inline]
    fn slot(&self, selector: u64) -> Option<&AtomicU64> {
        // SAFETY: the result does not outlive the table.
        unsafe { self.root.slot(selector) }
    }

    /// The capability at a selector, if there is one. The object may go when everybody has left the handler that he is in.
    #[inline]
    pub fn get(&self, selector: u64) -> Option<Capability<'_, T>> {
        // SAFETY: the result does not outlive the table; objects stay as `Target` says.
        unsafe { self.root.get(selector) }
    }

    /// Makes sure that selectors from `first` to `last`, which are in two frames at most, have places: all of them or none.
    ///
    /// # Errors
    /// See [`Refused`]; nothing was changed.
    pub fn prepare(&self, frames: &impl Frames, first: u64, last: u64) -> Result<(), Refused> {
        if first > last || last >= SELECTORS.into() {
            return Err(Refused::Range);
        }
        if self.slot(first).is_some() && self.slot(last).is_some() {
            return Ok(());
        }
        let _guard = self.lock.lock();
        if self.cursor.load(Ordering::Relaxed) != 0 {
            return Err(Refused::Closed);
        }
        // SAFETY: the frame of the first level is the table's for its life.
        let names = unsafe { self.root.0.as_ref() };
        let (low, high) = (index(first) / SLOTS, index(last) / SLOTS);
        let make = |index: usize| {
            let missing = names[index].load(Ordering::Relaxed) == 0;
            missing.then(|| frames.take_zeroed()).transpose().map_err(Refused::Exhausted)
        };
        let lower = make(low)?;
        let upper = if high == low { Ok(None) } else { make(high) };
        let upper = upper.inspect_err(|_| {
            // SAFETY: taken above, and nobody knows it.
            lower.into_iter().for_each(|frame| unsafe { frames.give(frame) });
        })?;
        // What has its place once keeps it, so this comes when nothing can fail any more.
        for (index, frame) in [(low, lower), (high, upper)] {
            if let Some(frame) = frame {
                names[index].store(frame.as_ptr().expose_provenance() as u64, Ordering::Release);
            }
        }
        Ok(())
    }

    /// Puts a capability at a selector, which takes over a reference that was acquired for it. What was there is dropped.
    ///
    /// # Errors
    /// See [`Refused`]; the reference is released.
    #[inline]
    pub fn insert(&self, frames: &impl Frames, selector: u64, object: &T, perms: u8) -> Result<(), Refused> {
        let Some(slot) = self.slot(selector) else { return self.insert_first(frames, selector, object, perms) };
        let word = core::ptr::from_ref(object).expose_provenance() as u64 | u64::from(perms) & PERMS;
        let old = slot.swap(word, Ordering::AcqRel);
        if old != 0 {
            Self::drop_capability(old);
        }
        if self.cursor.load(Ordering::Acquire) != 0 {
            return Self::refuse(slot);
        }
        Ok(())
    }

    /// Takes out what came in too late.
    #[cold]
    fn refuse(slot: &AtomicU64) -> Result<(), Refused> {
        Self::drop_capability(slot.swap(0, Ordering::AcqRel));
        Err(Refused::Closed)
    }

    /// Makes a place for a capability and puts it in.
    #[cold]
    fn insert_first(&self, frames: &impl Frames, selector: u64, object: &T, perms: u8) -> Result<(), Refused> {
        self.prepare(frames, selector, selector).inspect_err(|_| object.release())?;
        self.insert(frames, selector, object, perms)
    }

    /// Puts a copy of a capability into a table, with as much of its permissions as `mask` has. Answers false if there is none, or its
    /// object was destroyed.
    ///
    /// # Errors
    /// As [`Table::insert`].
    #[inline]
    pub fn delegate(&self, selector: u64, to: &Self, frames: &impl Frames, at: u64, mask: u8) -> Result<bool, Refused> {
        let Some(found) = self.get(selector).filter(|found| found.target.is_alive()) else { return Ok(false) };
        found.target.acquire();
        to.insert(frames, at, found.target, found.perms() & mask).map(|()| true)
    }

    /// Removes the capability at a selector.
    pub fn remove(&self, selector: u64) {
        if let Some(slot) = self.slot(selector) {
            Self::drop_capability(slot.swap(0, Ordering::AcqRel));
        }
    }

    #[inline(never)]
    fn drop_capability(word: u64) {
        // SAFETY: whoever takes a capability out of its place has its reference.
        if let Some(object) = unsafe { target::<T>(word) } {
            object.release();
        }
    }

    /// Drops capabilities, from where the last piece ended. Answers whether there may be more. From the first piece on nothing comes in.
    pub fn empty(&self, work: &mut Work) -> bool {
        let begun = self.cursor.load(Ordering::Acquire);
        if begun == 0 {
            // Whoever makes a frame has linked it, or will see that it is too late.
            let _guard = self.lock.lock();
            self.cursor.fetch_max(1, Ordering::AcqRel);
        }
        let mut next = begun.max(1) - 1;
        while next < SELECTORS && !work.is_done() {
            work.spend(Work::LOOK);
            let Some(slot) = self.slot(next.into()) else {
                next = ((next >> BITS) + 1) << BITS;
                continue;
            };
            let word = slot.swap(0, Ordering::AcqRel);
            if word != 0 {
                work.spend(Work::OBJECT);
                Self::drop_capability(word);
            }
            next += 1;
        }
        // Others may be at it too: all below has been seen by whoever is farthest.
        self.cursor.fetch_max(next + 1, Ordering::AcqRel);
        next < SELECTORS
    }

    /// Drops capabilities, then gives frames but the first level's back, as much as one piece allows. Answers whether there may be more.
    ///
    /// # Safety
    /// They came from these frames, and nobody uses the table any more, now or later.
    pub unsafe fn take_apart(&self, frames: &impl Frames, work: &mut Work) -> bool {
        if self.empty(work) {
            return true;
        }
        // SAFETY: the frame of the first level is the table's for its life.
        for name in unsafe { self.root.0.as_ref() } {
            if work.is_done() {
                return true;
            }
            let slots: *mut u8 = core::ptr::with_exposed_provenance_mut(index(name.swap(0, Ordering::AcqRel)));
            if let Some(slots) = NonNull::new(slots) {
                work.spend(Work::FRAME);
                // SAFETY: the caller says that nobody uses it.
                unsafe { frames.give(slots) };
            }
        }
        false
    }
}

#[cfg(test)]
mod tests;
