// SPDX-License-Identifier: MIT OR Apache-2.0
//! Against a model.

use crate::FRAME;
use crate::pool::{Exhausted, Pool};
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
