// SPDX-License-Identifier: MIT OR Apache-2.0
//! I/O page tables (48882, 2.2.3): an entry names the level that it leads to, and 0 makes it a page of its table's own size.

use cloister_mechanism::radix::Format;

/// Levels of a table: 48 bits of address, which each unit can.
pub const LEVELS: u32 = 4;

const PRESENT: u64 = 1 << 0;
const NEXT_SHIFT: u32 = 9;
const NEXT: u64 = 7 << NEXT_SHIFT;
/// Snoop the processors' caches, whatever the device asks for.
const COHERENT: u64 = 1 << 60;
const READ: u64 = 1 << 61;
const WRITE: u64 = 1 << 62;

/// Tables of a DMA space.
#[derive(Debug)]
pub struct Paging;

impl Format for Paging {
    const LEVELS: u32 = LEVELS;
    const PRESENT: u64 = PRESENT;
    const LARGE: u64 = 0;
    const TABLE: u64 = PRESENT | READ | WRITE;
    const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
    const ROOT_SLOTS: usize = 512;

    fn table(level: u32) -> u64 {
        Self::TABLE | u64::from(level) << NEXT_SHIFT
    }

    fn is_leaf(entry: u64, _: u32) -> bool {
        entry & NEXT == 0
    }
}

/// Attribute bits of a page.
#[must_use]
pub const fn attributes(read: bool, write: bool) -> u64 {
    PRESENT | COHERENT | if read { READ } else { 0 } | if write { WRITE } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::{Paging, attributes};
    use cloister_mechanism::radix::Format;

    #[test]
    fn entries_name_the_next_level_48882_2_2_3() {
        // The root, level 4 in the manual, leads to level 3; the last table, level 1, has pages.
        assert_eq!(Paging::table(3), 0x6000_0000_0000_0601);
        assert_eq!(Paging::table(1), 0x6000_0000_0000_0201);
        assert!(!Paging::is_leaf(Paging::table(1), 1));
        assert!(Paging::is_leaf(attributes(true, true), 2));
        assert_eq!(attributes(true, false), 0x3000_0000_0000_0001);
        assert_eq!(attributes(false, true), 0x5000_0000_0000_0001);
    }
}
