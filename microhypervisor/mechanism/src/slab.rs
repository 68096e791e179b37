// SPDX-License-Identifier: MIT OR Apache-2.0
//! Small objects of one size out of the frames of one payer.
//!
//! Each payer (protection domain) has slabs of its own, so that no domain's objects keep frames occupied that another
//! one pays for. A frame starts with a [`Head`]; the slots follow. A frame that becomes empty is given back at once: what
//! is charged is what is in use. Slots are multiples of [`ALIGN`] and aligned to it.

use crate::list::{Link, Linked, List};
use crate::{Exhausted, FRAME, Frames};
use core::cell::Cell;
use core::ptr::NonNull;

/// Alignment of every slot, in bytes: capabilities keep permissions in the low bits of an object's address.
pub const ALIGN: usize = 64;

/// At the start of each frame of a slab.
#[derive(Debug)]
#[repr(C)]
struct Head {
    link: Link<Head>,
    free: Cell<Option<NonNull<u8>>>,
    used: Cell<u32>,
    fresh: Cell<u32>,
}

const _: () = assert!(size_of::<Head>() <= ALIGN);

/// Marks the list of frames that have room.
#[derive(Debug)]
struct Partial;

impl Linked<Partial> for Head {
    fn link(&self) -> &Link<Self> {
        &self.link
    }
}

/// Objects of one size for one payer. Not synchronized: the payer's lock covers it.
#[derive(Debug)]
pub struct Slab {
    size: u32,
    partial: List<Head, Partial>,
}

impl Slab {
    /// A slab for objects of so many bytes.
    #[must_use]
    pub const fn new(size: usize) -> Self {
        assert!(size >= ALIGN && size.is_multiple_of(ALIGN) && size <= FRAME - ALIGN);
        Self {
            #[expect(clippy::cast_possible_truncation, reason = "below the size of a frame")]
            size: size as u32,
            partial: List::empty(),
        }
    }

    const fn slots(&self) -> u32 {
        #[expect(clippy::cast_possible_truncation, reason = "below the size of a frame")]
        let room = (FRAME - ALIGN) as u32;
        room / self.size
    }

    /// Takes a slot. Its content is undefined.
    ///
    /// # Errors
    /// A new frame was needed and could not be had.
    pub fn take(&self, frames: &impl Frames) -> Result<NonNull<u8>, Exhausted> {
        let head = match self.partial.first() {
            Some(head) => head,
            None => self.grow(frames)?,
        };
        // SAFETY: frames in the list of partial ones are ours and start with a head.
        let page = unsafe { head.as_ref() };
        let slot = match page.free.get() {
            Some(slot) => {
                // SAFETY: a free slot's first word is the link to the next, written by `give`.
                page.free.set(unsafe { slot.cast::<Option<NonNull<u8>>>().read() });
                slot
            }
            None => {
                let index = page.fresh.get();
                page.fresh.set(index + 1);
                // SAFETY: a partial frame without free slots has fresh ones, so the slot lies in the frame.
                unsafe { head.cast::<u8>().add(ALIGN + (index * self.size) as usize) }
            }
        };
        page.used.set(page.used.get() + 1);
        if page.used.get() == self.slots() {
            self.partial.remove(page);
        }
        Ok(slot)
    }

    /// Gives a slot back, and its frame if that was the last slot in use.
    ///
    /// # Safety
    /// The slot came from `take` of this slab with the same payer, and nothing points to it any more.
    pub unsafe fn give(&self, slot: NonNull<u8>, frames: &impl Frames) {
        let offset = slot.as_ptr().addr() % FRAME;
        // SAFETY: a slot lies in a frame that starts with a head.
        let head = unsafe { slot.sub(offset) }.cast::<Head>();
        // SAFETY: as above.
        let page = unsafe { head.as_ref() };
        if page.used.get() == self.slots() {
            self.partial.push_front(page);
        }
        page.used.set(page.used.get() - 1);
        if page.used.get() == 0 {
            self.partial.remove(page);
            // SAFETY: no slot of the frame is in use and the list has forgotten it.
            unsafe { frames.give(head.cast()) };
            return;
        }
        // SAFETY: the slot is free, aligned, and at least a word long.
        unsafe { slot.cast::<Option<NonNull<u8>>>().write(page.free.get()) };
        page.free.set(Some(slot));
    }

    fn grow(&self, frames: &impl Frames) -> Result<NonNull<Head>, Exhausted> {
        let head = frames.take()?.cast::<Head>();
        let empty = Head { link: Link::none(), free: Cell::new(None), used: Cell::new(0), fresh: Cell::new(0) };
        // SAFETY: the frame is ours and large enough.
        unsafe { head.write(empty) };
        // SAFETY: just written.
        self.partial.push_front(unsafe { head.as_ref() });
        Ok(head)
    }
}

#[cfg(test)]
mod tests;
