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
#[cfg(not(feature = "loom"))]
mod tests {
    use super::{Exhausted, Pool};
    use crate::FRAME;
    use core::ptr::NonNull;
    use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};
    use std::alloc::{Layout, alloc};
    use std::collections::BTreeSet;
    use std::vec::Vec;

    fn pool(frames: usize) -> Pool {
        let pool = Pool::empty();
        // SAFETY: the layout is not empty.
        let base = unsafe { alloc(Layout::from_size_align(frames * FRAME, FRAME).expect("layout")) };
        // SAFETY: a fresh allocation of the right size, never freed.
        unsafe { pool.fill(NonNull::new(base).expect("memory"), frames) };
        pool
    }

    #[test]
    fn takes_each_frame_once_and_again_after_give() {
        let pool = pool(8);
        for _ in 0..3 {
            let frames: Vec<_> = (0..8).map(|_| pool.take().expect("a frame")).collect();
            assert_eq!(frames.iter().map(|f| f.as_ptr().addr()).collect::<BTreeSet<_>>().len(), 8);
            assert_eq!(pool.take(), Err(Exhausted::Pool));
            assert_eq!(pool.available(), 0);
            for frame in frames {
                // SAFETY: taken above, not used.
                unsafe { pool.give(frame) };
            }
            assert_eq!(pool.available(), 8);
        }
    }

    #[test]
    fn reserve_is_contiguous_and_bounded() {
        let pool = pool(4);
        assert!(pool.reserve(3).is_ok());
        assert_eq!(pool.reserve(2), Err(Exhausted::Pool));
        assert_eq!(pool.reserve(usize::MAX), Err(Exhausted::Pool));
        assert_eq!(pool.available(), 1);
    }

    proptest! {
        /// A pool is a set of frames: nobody gets one that somebody has, and none is lost.
        #[test]
        fn is_a_set_of_frames(steps in proptest::collection::vec((0..8u8, any::<usize>()), 0..200)) {
            const FRAMES: usize = 16;
            let pool = pool(FRAMES);
            let (mut held, mut reserved) = (Vec::new(), 0);
            // Frames that were never taken are at the end, and only they are adjacent for sure.
            let mut fresh = FRAMES;
            for (what, which) in steps {
                match what {
                    0..4 => {
                        let given_back = FRAMES - fresh - reserved - held.len();
                        match pool.take() {
                            Ok(frame) => {
                                prop_assert!(!held.contains(&frame));
                                // SAFETY: the frame is ours.
                                unsafe { frame.write_bytes(0xff, FRAME) };
                                held.push(frame);
                                fresh -= usize::from(given_back == 0);
                            }
                            Err(why) => prop_assert_eq!((why, fresh, given_back), (Exhausted::Pool, 0, 0)),
                        }
                    }
                    4..7 if !held.is_empty() => {
                        let frame = held.swap_remove(which % held.len());
                        // SAFETY: taken above.
                        unsafe { pool.give(frame) };
                    }
                    _ => {
                        let count = which % 4;
                        prop_assert_eq!(pool.reserve(count).is_ok(), count <= fresh);
                        if count <= fresh {
                            fresh -= count;
                            reserved += count;
                        }
                    }
                }
                prop_assert_eq!(pool.available(), (FRAMES - reserved - held.len()) as u64);
            }
        }
    }
}

#[cfg(test)]
#[cfg(feature = "loom")]
mod loom_tests {
    use super::Pool;
    use crate::FRAME;
    use crate::sync::explore;
    use core::ptr::NonNull;
    use loom::thread;
    use std::alloc::{Layout, alloc, dealloc};
    use std::sync::Arc;

    /// Two cores take and give: never both the same frame, and all are there at the end.
    #[test]
    fn nobody_gets_what_somebody_has() {
        explore(|| {
            let pool = Arc::new(Pool::empty());
            let layout = Layout::from_size_align(2 * FRAME, FRAME).expect("layout");
            // SAFETY: the layout is not empty.
            let memory = NonNull::new(unsafe { alloc(layout) }).expect("memory");
            // SAFETY: two frames, freed when nobody uses the pool any more.
            unsafe { pool.fill(memory, 2) };
            let round = |pool: Arc<Pool>| {
                for _ in 0..2 {
                    let Ok(frame) = pool.take() else { continue };
                    let word = frame.cast::<u64>();
                    // SAFETY: the frame is ours.
                    unsafe { word.write(0x5a5a) };
                    thread::yield_now();
                    // SAFETY: as above.
                    assert_eq!(unsafe { word.read() }, 0x5a5a, "somebody else wrote here");
                    // SAFETY: taken above.
                    unsafe { pool.give(frame) };
                }
            };
            let other = Arc::clone(&pool);
            let thread = thread::spawn(move || round(other));
            let (first, second) = (pool.take(), pool.take());
            assert!(first.is_err() || first != second);
            for frame in [first, second].into_iter().flatten() {
                // SAFETY: taken above.
                unsafe { pool.give(frame) };
            }
            thread.join().expect("no panic");
            assert_eq!(pool.available(), 2);
            // SAFETY: allocated above.
            unsafe { dealloc(memory.as_ptr(), layout) };
        });
    }
}
