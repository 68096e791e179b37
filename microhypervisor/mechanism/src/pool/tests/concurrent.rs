// SPDX-License-Identifier: MIT OR Apache-2.0
//! By several cores at once, in every order of steps.

use crate::FRAME;
use crate::pool::Pool;
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
