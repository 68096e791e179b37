// SPDX-License-Identifier: MIT OR Apache-2.0
//! Against a model.

use crate::ranges::{Kinds, Ranges};
use proptest::prelude::{Strategy, any, prop_assert, prop_assert_eq, proptest};
use std::vec::Vec;

#[derive(Debug)]
struct Memory;
impl Kinds for Memory {
    const AVAILABLE: u32 = 1;
    const RESERVED: u32 = 2;
    fn wins(kind: u32, over: u32) -> bool {
        over == 1 || kind == 2
    }
    fn may_be_reserved(kind: u32) -> bool {
        kind != 6
    }
}

const SPACE: usize = 256;

fn pieces() -> impl Strategy<Value = Vec<(u64, u64, u32, bool)>> {
    let piece = (0..SPACE as u64, 0..40u64, 1..7u32, any::<bool>());
    proptest::collection::vec(piece, 0..40)
}

proptest! {
    /// With room enough the map is what a list of bytes would be.
    #[test]
    fn is_an_array_of_bytes(pieces in pieces()) {
        let mut ranges: Ranges<Memory, 300> = Ranges::empty();
        let mut bytes = [0u32; SPACE];
        for (base, size, kind, add) in pieces {
            let end = (base + size).min(SPACE as u64);
            if add { ranges.add(base, end, kind) } else { ranges.carve(base, end, kind) }
            for byte in &mut bytes[usize::try_from(base).expect("small")..usize::try_from(end).expect("small")] {
                if *byte == 0 {
                    *byte = if add { kind } else { 0 };
                } else if if add { Memory::wins(kind, *byte) } else { *byte == 1 } {
                    *byte = kind;
                }
            }
        }
        let mut found = [0u32; SPACE];
        let mut last = (0, 0);
        for range in ranges.as_slice() {
            prop_assert!(range.base < range.end && range.base >= last.0);
            prop_assert!((range.base, range.kind) != last, "joined");
            last = (range.end, range.kind);
            found[usize::try_from(range.base).expect("small")..usize::try_from(range.end).expect("small")]
                .fill(range.kind);
        }
        prop_assert_eq!(found, bytes);
    }

    /// However little room there is: nothing is lost, nothing becomes available, and the kernel's stays the kernel's.
    #[test]
    fn nothing_is_lost_where_room_is_short(pieces in pieces(), most in 3..8usize) {
        let (mut large, mut small): (Ranges<Memory, 300>, Ranges<Memory, 8>) = (Ranges::empty(), Ranges::empty());
        for (base, size, kind, _) in pieces {
            let kind = if kind == 6 { 5 } else { kind };
            large.add(base, base + size, kind);
            small.add(base, base + size, kind);
        }
        large.carve(100, 120, 6);
        let (kernel, available) = (large.sum(6), large.sum(1));
        large.fit(most);
        small.fit(most);
        // What may not be told as reserved stays, with a reserved range at most before, between and behind.
        let pieces_of_kernel = large.as_slice().iter().filter(|range| range.kind == 6).count();
        let needed = if pieces_of_kernel == 0 { 1 } else { 2 * pieces_of_kernel + 1 };
        prop_assert!(large.as_slice().len() <= most.max(needed) && small.as_slice().len() <= most);
        prop_assert_eq!(large.sum(6), kernel);
        prop_assert!(large.sum(1) <= available && small.sum(1) <= available + kernel);
        for range in small.as_slice().iter().filter(|range| range.kind == 1) {
            prop_assert!(small.as_slice().windows(2).all(|pair| pair[0].end <= pair[1].base), "{:?}", range);
        }
    }

    #[test]
    fn what_is_available_is_whole_pages(pieces in pieces()) {
        let mut ranges: Ranges<Memory, 300> = Ranges::empty();
        for (base, size, kind, _) in pieces {
            ranges.add(base, base + size, kind);
        }
        let total = ranges.total();
        ranges.align(16);
        prop_assert_eq!(ranges.total(), total);
        for range in ranges.as_slice().iter().filter(|range| range.kind == 1) {
            prop_assert_eq!((range.base % 16, range.end % 16), (0, 0));
        }
    }
}
