// SPDX-License-Identifier: MIT OR Apache-2.0
//! Against a model.

use crate::bitmap::Bitmap;
use crate::radix::tests::Heap;
use crate::{Exhausted, FRAME};
use proptest::prelude::{any, prop_assert_eq, proptest};
use std::collections::BTreeSet;

fn is_allowed(bitmap: &Bitmap, bit: u16) -> bool {
    bitmap.frames().is_some_and(|frames| {
        let byte = usize::from(bit) / 8;
        // SAFETY: the offset is inside the frame.
        let byte = unsafe { frames[byte / FRAME].add(byte % FRAME) };
        // SAFETY: the frame is the bitmap's.
        unsafe { byte.read() >> (bit % 8) & 1 == 0 }
    })
}

proptest! {
    #[test]
    fn is_a_set_of_numbers(steps in proptest::collection::vec((any::<bool>(), any::<u16>(), 0..10u32, 0..3usize), 0..40)) {
        let (heap, mut bitmap) = (Heap::new(0), Bitmap::empty());
        let mut model = BTreeSet::new();
        for (allowed, near, order, frames) in steps {
            // Often at the edges of bytes and frames.
            let first = (near & 0x8007) >> order << order;
            let range = first..=first | ((1 << order) - 1);
            heap.set_limit(frames);
            let there = bitmap.frames().is_some();
            let answer = bitmap.set(&heap, range.clone(), allowed);
            let good = there || !allowed || frames == 2;
            prop_assert_eq!(answer, if good { Ok(()) } else { Err(Exhausted::Budget) });
            prop_assert_eq!(heap.used(), if there || (allowed && good) { 2 } else { 0 });
            if answer.is_ok() {
                range.for_each(|bit| { if allowed { model.insert(bit); } else { model.remove(&bit); } });
            }
            for bit in model.iter().copied().chain([0, 7, 8, 0x7fff, 0x8000, 0xffff, first.wrapping_sub(1)]) {
                prop_assert_eq!(is_allowed(&bitmap, bit), model.contains(&bit));
            }
        }
        // SAFETY: nobody reads it any more.
        unsafe { bitmap.destroy(&heap) };
        prop_assert_eq!(heap.used(), 0);
    }
}
