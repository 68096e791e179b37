// SPDX-License-Identifier: MIT OR Apache-2.0
//! The dataspaces behind the program's memory.
//!
//! A program that got memory from its libc or by `mmap` can show it to others (a VM's guest memory, a ring that is shared with
//! a server): behind each range is a dataspace of the component's own.

use crate::program;
use cloister_base::Cap;

/// A piece of memory as its maker knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The dataspace.
    pub dataspace: Cap,
    /// Where in it the piece starts, bytes.
    pub offset: u64,
    /// How much of what was asked for lies there in a row, bytes.
    pub size: u64,
}

/// The dataspace behind the memory at `address`, as far as it reaches within `size` bytes. Whoever shares memory in this way keeps it
/// mapped for as long. `None` on Linux, and for what the personality did not map (the program's image).
#[must_use]
pub fn behind(address: u64, size: u64) -> Option<Piece> {
    if !crate::is_cloister() {
        return None;
    }
    let memory = program::program().memory();
    let area = *memory.areas().iter().find(|area| area.start <= address && address < area.end)?;
    let handle = memory.backing(area.backing)?.handle;
    let into = address - area.start;
    Some(Piece { dataspace: Cap::new(handle.0), offset: area.offset + into, size: size.min(area.end - address) })
}
