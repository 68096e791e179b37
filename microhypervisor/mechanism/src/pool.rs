// SPDX-License-Identifier: MIT OR Apache-2.0
//! The kernel's page frames: one contiguous region, taken from the front until used once, then from a list of free ones.
//!
//! Frames are single: what needs contiguous memory is allocated once at boot with [`Pool::reserve`]. Nothing is touched before it is
//! used, so that a large pool costs no boot time.

use crate::sync::{Mutex, constructor};
use crate::{Exhausted, FRAME};
use core::ptr::NonNull;

/// A free frame's first word: the next free frame.
type Link = Option<NonNull<u8>>;

#[derive(Debug)]
struct Inner {
    free: Link,
    fresh: usize,
    end: usize,
    available: u64,
}

// SAFETY: the frames that the links name belong to the pool alone, and the pool is behind a lock.
unsafe impl Send for Inner {}

/// The pool.
#[derive(Debug)]
pub struct Pool {
    inner: Mutex<Inner>,
}

impl Pool {
    constructor! {
        /// A pool without memory.
        pub fn empty() -> Self {
            Self { inner: Mutex::new(Inner { free: None, fresh: 0, end: 0, available: 0 }) }
        }
    }

    /// Gives the pool its region.
    ///
    /// # Safety
    /// The region is page-aligned, mapped, and belongs to the pool from now on. Called once.
    pub unsafe fn fill(&self, base: NonNull<u8>, frames: usize) {
        let mut inner = self.inner.lock();
        inner.fresh = base.as_ptr().expose_provenance();
        inner.end = inner.fresh + frames * FRAME;
        inner.available = frames as u64;
    }

    /// Number of free frames.
    #[must_use]
    pub fn available(&self) -> u64 {
        self.inner.lock().available
    }

    /// Takes a frame. Its content is undefined.
    ///
    /// # Errors
    /// `Pool` if there is none.
    pub fn take(&self) -> Result<NonNull<u8>, Exhausted> {
        let mut inner = self.inner.lock();
        if let Some(frame) = inner.free {
            // SAFETY: the first word of a free frame is its link, written by `give`.
            inner.free = unsafe { frame.cast::<Link>().read() };
            inner.available -= 1;
            return Ok(frame);
        }
        inner.reserve(1)
    }

    /// Takes adjacent frames that were never used; they are not given back.
    ///
    /// # Errors
    /// `Pool` if there are not as many.
    pub fn reserve(&self, frames: usize) -> Result<NonNull<u8>, Exhausted> {
        self.inner.lock().reserve(frames)
    }

    /// Gives a frame back.
    ///
    /// # Safety
    /// The frame came from `take`, and nothing points to it any more.
    pub unsafe fn give(&self, frame: NonNull<u8>) {
        let mut inner = self.inner.lock();
        // SAFETY: the frame is the pool's again, page-aligned and large enough for a link.
        unsafe { frame.cast::<Link>().write(inner.free) };
        inner.free = Some(frame);
        inner.available += 1;
    }
}

impl Inner {
    fn reserve(&mut self, frames: usize) -> Result<NonNull<u8>, Exhausted> {
        let size = frames.checked_mul(FRAME).ok_or(Exhausted::Pool)?;
        if self.end - self.fresh < size {
            return Err(Exhausted::Pool);
        }
        let frame = NonNull::new(core::ptr::with_exposed_provenance_mut(self.fresh)).ok_or(Exhausted::Pool)?;
        self.fresh += size;
        self.available -= frames as u64;
        Ok(frame)
    }
}

#[cfg(test)]
mod tests;
