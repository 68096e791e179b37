// SPDX-License-Identifier: MIT OR Apache-2.0
//! Firmware's maps of many ranges, and the few that the root task is told.
#![cfg(not(feature = "loom"))]

use super::{LARGE, Layout, bytes, lay_out};
use crate::ranges::{Kinds, Range, Ranges};
use proptest::prelude::{Strategy, prop_assert, prop_assert_eq, proptest};
use std::vec::Vec;

/// Kinds as the contract has them.
#[derive(Debug)]
struct Memory;
const AVAILABLE: u32 = 1;
const RESERVED: u32 = 2;
const IMAGE: u32 = 5;
const KERNEL: u32 = 6;

impl Kinds for Memory {
    const AVAILABLE: u32 = AVAILABLE;
    const RESERVED: u32 = RESERVED;
    fn wins(kind: u32, over: u32) -> bool {
        over == AVAILABLE || kind == RESERVED
    }
    fn may_be_reserved(kind: u32) -> bool {
        kind != KERNEL
    }
}

const LIMIT: u64 = 1 << 32;
/// What a boot loader puts down: kernel and boot image.
const PARTS: [(u64, u64, u32); 3] =
    [(40 << 20, (41 << 20) + 5, IMAGE), (16 << 20, 17 << 20, KERNEL), (0, 1 << 20, RESERVED)];

fn of_kind<const N: usize>(map: &Ranges<Memory, N>, kind: u32) -> impl Iterator<Item = &Range> {
    map.as_slice().iter().filter(move |range| range.kind == kind)
}

/// More ranges than the contract has room for: available and others by turns, some of them ragged, above memory that is whole.
fn firmware() -> impl Strategy<Value = Vec<(u64, u64, u32)>> {
    let hole = (1..40u64, 1..4u64, 2..5u32, 0..3u64);
    proptest::collection::vec(hole, 0..110).prop_map(|holes| {
        let mut next = 128u64 << 20;
        let mut map = Vec::from([(0, next, AVAILABLE)]);
        for (room, size, kind, ragged) in holes {
            let (start, end) = (next + room * 123 * 4096 + ragged * 7, next + room * 123 * 4096 + size * 4096);
            map.push((next, start, AVAILABLE));
            map.push((start, end, kind));
            next = end;
        }
        map
    })
}

proptest! {
    #[test]
    fn any_map_is_told_in_few_ranges(map in firmware(), megabytes in 1..40u64) {
        let size = megabytes * LARGE;
        let mut memory: Ranges<Memory, 256> = Ranges::empty();
        for (start, end, kind) in map {
            memory.add(start, end, kind);
        }
        let (total, firmware) = (memory.total(), memory.as_slice().to_vec());
        let Some(Layout { pool, lost }) = lay_out(&mut memory, &PARTS, (size, KERNEL), LIMIT, 64) else {
            // There is room in the memory below, but for what was loaded.
            prop_assert!(size > 80 << 20);
            return Ok(());
        };
        prop_assert!(memory.as_slice().len() <= 64);
        prop_assert_eq!(memory.total(), total, "every byte is told");
        prop_assert_eq!((pool.1 - pool.0, pool.0 % LARGE), (size, 0));
        prop_assert!(pool.1 <= LIMIT);
        // The kernel's is image and pool, whatever had to be joined.
        prop_assert_eq!(memory.sum(KERNEL), size + (1 << 20));
        let was_available = |start: u64, end: u64| {
            firmware.iter().any(|range| range.kind == AVAILABLE && range.base <= start && end <= range.end)
        };
        prop_assert!(was_available(pool.0, pool.1));
        for range in of_kind(&memory, AVAILABLE) {
            prop_assert_eq!((range.base % 4096, range.end % 4096), (0, 0));
            prop_assert!(was_available(range.base, range.end));
            let taken = PARTS.iter().map(|(start, end, _)| (*start, *end)).chain([pool]);
            prop_assert!(taken.into_iter().all(|(start, end)| range.end <= start || end <= range.base));
        }
        prop_assert!(lost == 0 || memory.as_slice().len() > 60, "nothing is given up without need");
    }
}

#[test]
fn a_pool_needs_room_below_the_limit() {
    let mut memory: Ranges<Memory, 256> = Ranges::empty();
    memory.add(0, 64 << 20, AVAILABLE);
    memory.add(LIMIT, 2 * LIMIT, AVAILABLE);
    assert_eq!(lay_out(&mut memory, &PARTS, (64 << 20, KERNEL), LIMIT, 64), None);
    assert_eq!(
        lay_out(&mut memory, &PARTS, (20 << 20, KERNEL), LIMIT, 64).map(|it| it.pool),
        Some((44 << 20, 64 << 20))
    );
}

#[test]
fn sizes_have_units() {
    let known = [("4096", 4096), ("64K", 64 << 10), ("48M", 48 << 20), ("2g", 2 << 30), ("0", 0)];
    assert!(known.iter().all(|(text, size)| bytes(text) == Some(*size)));
    assert!(["", "M", "12X", "-1M", "1.5M", "99999999999999G"].iter().all(|text| bytes(text).is_none()));
}

/// Where the map is full, room for the pool is made of other memory than the pool's.
#[test]
fn the_pool_is_the_kernels_in_a_full_map() {
    let mut memory: Ranges<Memory, 8> = Ranges::empty();
    // The last of these is the smallest, and the highest that a pool fits in.
    for (index, size) in [5, 4, 3, 2].into_iter().enumerate() {
        let start = u64::try_from(index).expect("small") * 8 * LARGE;
        memory.add(start, start + size * LARGE, AVAILABLE);
        memory.add(start + size * LARGE, start + 8 * LARGE, RESERVED);
    }
    assert_eq!(memory.as_slice().len(), 8);
    let laid = lay_out(&mut memory, &[], (LARGE, KERNEL), LIMIT, 8).expect("there is room");
    assert_eq!(memory.sum(KERNEL), LARGE);
    assert_eq!((memory.total(), laid.lost), (32 * LARGE, 2 * LARGE));
    assert!(of_kind(&memory, KERNEL).all(|range| (range.base, range.end) == laid.pool));
}
