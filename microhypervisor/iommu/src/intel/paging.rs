// SPDX-License-Identifier: MIT OR Apache-2.0
//! Second-level page tables (VT-d 9.8), of three or four levels, as the unit can.

use cloister_mechanism::radix::Format;

const READ: u64 = 1 << 0;
const WRITE: u64 = 1 << 1;

/// Tables of a DMA space.
#[derive(Debug)]
pub struct Paging<const LEVELS: u32>;

impl<const LEVELS: u32> Format for Paging<LEVELS> {
    const LEVELS: u32 = LEVELS;
    const PRESENT: u64 = READ | WRITE;
    const LARGE: u64 = 1 << 7;
    const TABLE: u64 = READ | WRITE;
    const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
    const ROOT_SLOTS: usize = 512;
}

/// Attribute bits of a page.
#[must_use]
pub const fn attributes(read: bool, write: bool) -> u64 {
    let write = if write { WRITE } else { 0 };
    if read { READ | write } else { write }
}
