// SPDX-License-Identifier: MIT OR Apache-2.0
//! Free physical memory.
//!
//! A request is served by one contiguous, aligned piece if there is one, so that guests are mapped with large pages; else it
//! is put together out of several. Small requests are served from the end of the lowest range that fits, large aligned
//! ones from the start of one, so that they do not cut each other up.

use crate::PAGE;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

/// A piece of physical memory, whole pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Extent {
    /// First byte.
    pub base: u64,
    /// Bytes.
    pub size: u64,
}

/// What is free.
#[derive(Debug, Default)]
pub struct Physical {
    free: BTreeMap<u64, u64>,
    bytes: u64,
}

impl Physical {
    /// Nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self { free: BTreeMap::new(), bytes: 0 }
    }

    /// Free bytes.
    #[must_use]
    pub const fn free_bytes(&self) -> u64 {
        self.bytes
    }

    /// Adds memory; parts of pages at the ends are left out. It must not be in here already.
    pub fn add(&mut self, extent: Extent) {
        let Some(base) = extent.base.checked_next_multiple_of(PAGE) else { return };
        let end = extent.base.saturating_add(extent.size) / PAGE * PAGE;
        if end > base {
            self.insert(base, end - base);
        }
    }

    fn insert(&mut self, mut base: u64, mut size: u64) {
        self.bytes += size;
        if let Some((&before, &length)) = self.free.range(..base).next_back()
            && before + length == base
        {
            self.free.remove(&before);
            (base, size) = (before, size + length);
        }
        if let Some(length) = self.free.remove(&(base + size)) {
            size += length;
        }
        self.free.insert(base, size);
    }

    /// Allocates `size` bytes (whole pages), aligned to `1 << align` if that can be had: at best one extent; else several,
    /// each as well aligned as can be. Nothing if there is not as much.
    #[must_use]
    pub fn allocate(&mut self, size: u64, align: u32) -> Option<Vec<Extent>> {
        if size == 0 || !size.is_multiple_of(PAGE) || size > self.bytes {
            return None;
        }
        let align = 1_u64.checked_shl(align)?.max(PAGE);
        if let Some(extent) = self.one_piece(size, align) {
            return Some([extent].into());
        }
        Some(self.pieces(size, align))
    }

    fn one_piece(&mut self, size: u64, align: u64) -> Option<Extent> {
        let base = self.free.iter().find_map(|(&base, &length)| {
            let end = base + length;
            let first = base.checked_next_multiple_of(align)?;
            let fits = first.checked_add(size).is_some_and(|stop| stop <= end);
            let last = end.saturating_sub(size) / align * align;
            fits.then_some(if align > PAGE { first } else { last })
        })?;
        self.cut(base, size);
        Some(Extent { base, size })
    }

    /// Takes pieces until there is enough, of which there is. First whole aligned units, then anything.
    fn pieces(&mut self, mut size: u64, align: u64) -> Vec<Extent> {
        let mut found = Vec::new();
        for unit in [align, PAGE] {
            while size >= unit {
                let Some((base, length)) = self.longest(unit) else { break };
                let length = length.min(size / unit * unit);
                self.cut(base, length);
                found.push(Extent { base, size: length });
                size -= length;
            }
        }
        found
    }

    /// The longest aligned run of units.
    fn longest(&self, unit: u64) -> Option<(u64, u64)> {
        self.free
            .iter()
            .filter_map(|(&base, &length)| {
                let first = base.checked_next_multiple_of(unit)?;
                let usable = (base + length).checked_sub(first)? / unit * unit;
                (usable > 0).then_some((first, usable))
            })
            .max_by_key(|(_, usable)| *usable)
    }

    /// Takes out a part of a free range.
    fn cut(&mut self, base: u64, size: u64) {
        let Some((&start, &length)) = self.free.range(..=base).next_back() else { return };
        self.free.remove(&start);
        if base > start {
            self.free.insert(start, base - start);
        }
        let (end, stop) = (start + length, base + size);
        if end > stop {
            self.free.insert(stop, end - stop);
        }
        self.bytes -= size;
    }

    /// Gives memory back.
    pub fn free(&mut self, extents: &[Extent]) {
        for extent in extents {
            self.insert(extent.base, extent.size);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Extent, Physical};
    use proptest::prelude::{prop, prop_assert, prop_assert_eq, proptest};
    use std::vec::Vec;

    fn memory() -> Physical {
        let mut memory = Physical::new();
        memory.add(Extent { base: 0x800, size: 0x9f000 });
        memory.add(Extent { base: 0x10_0000, size: 0x3ff0_0000 });
        memory
    }

    #[test]
    fn partial_pages_are_left_out() {
        let mut memory = Physical::new();
        memory.add(Extent { base: 0x800, size: 0x1000 });
        assert_eq!(memory.free_bytes(), 0);
        memory.add(Extent { base: 0x800, size: 0x1800 });
        assert_eq!(memory.free_bytes(), 0x1000);
    }

    #[test]
    fn guest_memory_is_aligned_even_after_small_allocations() {
        let mut memory = memory();
        for _ in 0..300 {
            assert!(memory.allocate(0x1000, 12).is_some());
        }
        let guest = memory.allocate(256 << 20, 21).expect("room");
        assert_eq!(guest.len(), 1);
        assert!(guest[0].base.is_multiple_of(2 << 20));
    }

    #[test]
    fn fragments_are_put_together() {
        let mut memory = Physical::new();
        for index in 0..8 {
            memory.add(Extent { base: index << 24, size: 0x21_0000 });
        }
        let all = memory.free_bytes();
        let got = memory.allocate(8 << 21, 21).expect("room");
        assert!(got.iter().all(|extent| extent.base.is_multiple_of(2 << 20)));
        assert_eq!(got.iter().map(|extent| extent.size).sum::<u64>(), 8 << 21);
        assert_eq!(memory.free_bytes(), all - (8 << 21));
        assert_eq!(memory.allocate(8 << 21, 21), None);
    }

    proptest! {
        #[test]
        fn nothing_is_lost_or_given_twice(
            steps in prop::collection::vec((1_u64..3000, 12_u32..22, prop::num::u8::ANY), 1..100),
        ) {
            let mut memory = memory();
            let all = memory.free_bytes();
            let mut held: Vec<Vec<Extent>> = Vec::new();
            for (pages, align, free) in steps {
                if free < 100 && !held.is_empty() {
                    let extents = held.swap_remove(usize::from(free) % held.len());
                    memory.free(&extents);
                } else if let Some(extents) = memory.allocate(pages * 4096, align) {
                    prop_assert_eq!(extents.iter().map(|extent| extent.size).sum::<u64>(), pages * 4096);
                    held.push(extents);
                }
                let mut flat: Vec<Extent> = held.iter().flatten().copied().collect();
                flat.sort();
                prop_assert!(flat.windows(2).all(|pair| pair[0].base + pair[0].size <= pair[1].base));
                let used: u64 = flat.iter().map(|extent| extent.size).sum();
                prop_assert_eq!(memory.free_bytes() + used, all);
            }
            for extents in held {
                memory.free(&extents);
            }
            prop_assert_eq!(memory.free_bytes(), all);
            prop_assert_eq!(memory.free.len(), 2);
        }
    }
}
