// SPDX-License-Identifier: MIT OR Apache-2.0
//! Against a model.

use crate::radix::tests::Heap;
use crate::slab::{ALIGN, Slab};
use crate::{Exhausted, FRAME};
use core::ptr::NonNull;
use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};
use std::collections::BTreeSet;
use std::vec::Vec;

#[test]
fn slots_do_not_overlap_and_all_memory_returns() {
    let heap = Heap::new(16);
    for size in [64, 128, 192, 576, 1024] {
        let slab = Slab::new(size);
        let mut slots: Vec<NonNull<u8>> = Vec::new();
        while let Ok(slot) = slab.take(&heap) {
            assert_eq!(slot.as_ptr().addr() % ALIGN, 0);
            slots.push(slot);
        }
        assert!(slots.len() >= 16 * (4096 / size - 1), "size {size}: {}", slots.len());
        let mut addresses: Vec<_> = slots.iter().map(|s| s.as_ptr().addr()).collect();
        addresses.sort_unstable();
        assert!(addresses.windows(2).all(|w| w[1] - w[0] >= size));
        // Every second first, so that frames become partial before they become empty.
        for pass in [0, 1] {
            for slot in slots.iter().skip(pass).step_by(2) {
                // SAFETY: taken above.
                unsafe { slab.give(*slot, &heap) };
            }
        }
        assert_eq!(heap.used(), 0, "size {size}");
    }
}

#[test]
fn a_frame_serves_again_after_one_slot_is_given() {
    let heap = Heap::new(1);
    let slab = Slab::new(1024);
    let slots: Vec<_> = (0..3).map(|_| slab.take(&heap).expect("a slot")).collect();
    assert!(slab.take(&heap).is_err());
    // SAFETY: taken above.
    unsafe { slab.give(slots[1], &heap) };
    assert_eq!(slab.take(&heap), Ok(slots[1]));
}

proptest! {
    /// What is taken is nobody else's, keeps its content, and as few frames are charged as slots in use need at most; with memory
    /// running out at any time, which changes nothing.
    #[test]
    fn is_a_set_of_slots(size in 1..9usize, limit in 1..6usize, steps in proptest::collection::vec((any::<bool>(), any::<usize>()), 0..300)) {
        let (heap, slab) = (Heap::new(limit), Slab::new(size * ALIGN));
        let per_frame = (FRAME - ALIGN) / (size * ALIGN);
        let mut held: Vec<(NonNull<u8>, u8)> = Vec::new();
        for (take, which) in steps {
            if take {
                match slab.take(&heap) {
                    Ok(slot) => {
                        #[expect(clippy::cast_possible_truncation, reason = "any byte")]
                        let mark = which as u8;
                        // SAFETY: the slot is ours.
                        unsafe { slot.write_bytes(mark, size * ALIGN) };
                        held.push((slot, mark));
                    }
                    Err(why) => {
                        prop_assert_eq!(why, Exhausted::Budget);
                        prop_assert_eq!(held.len(), limit * per_frame);
                    }
                }
            } else if !held.is_empty() {
                let (slot, mark) = held.swap_remove(which % held.len());
                // SAFETY: the slot is ours.
                let content = unsafe { core::slice::from_raw_parts(slot.as_ptr(), size * ALIGN) };
                prop_assert!(content.iter().all(|byte| *byte == mark));
                // SAFETY: taken above.
                unsafe { slab.give(slot, &heap) };
            }
            let frames: BTreeSet<usize> = held.iter().map(|(slot, _)| slot.as_ptr().addr() / FRAME).collect();
            prop_assert_eq!(heap.used(), frames.len());
        }
        for (slot, _) in held {
            // SAFETY: taken above.
            unsafe { slab.give(slot, &heap) };
        }
        prop_assert_eq!(heap.used(), 0);
    }
}
