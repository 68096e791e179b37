// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which function an address of the kernel lies in, and how to get from its stack frame to its caller's.
//!
//! A kernel without frame pointers can still print its callers: the compiler says in DWARF's call-frame information where, at each
//! instruction, the return address lies. DWARF itself is a program for an interpreter, too much for a kernel. So `xtask` runs
//! it after the link, for each instruction, and writes what comes of it as a table into a section that the linker script left room
//! for. It costs nothing while the kernel runs well.
//!
//! All numbers are little-endian. Addresses are offsets from where the kernel's text is linked.
//!
//! | at | size | field |
//! |---|---|---|
//! | 0 | 8 | magic, the bytes `CLSTRSYM` |
//! | 8 | 4 | number of functions, F |
//! | 12 | 4 | number of rows, R |
//! | 16 | 4 | bytes of names, N |
//! | 20 | 8 each | F functions, ascending: address (4), offset of the name (4); the last one, without a name, stands for the end of the text |
//! | | 8 each | R rows, ascending: address (4), rule from there on (4), see [`Rule`] |
//! | | N | names: length (1) and as many bytes |
//!
//! Key types: [`Table`] reads, `Writer` (feature `alloc`) builds. The reader is total: whatever the bytes are, it answers something or
//! nothing, and never panics; who prints a panic cannot use another one.
//!
//! Neighbours: `xtask` writes it; the kernel's backtrace reads it.
#![no_std]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::panic, clippy::expect_used)]

#[cfg(any(feature = "alloc", test))]
extern crate alloc;

#[cfg(test)]
mod tests;
#[cfg(any(feature = "alloc", test))]
mod writer;

#[cfg(any(feature = "alloc", test))]
pub use writer::{Function, Writer};

/// The first eight bytes of a table.
pub const MAGIC: [u8; 8] = *b"CLSTRSYM";

/// How to find the caller's registers. The canonical frame address (CFA) is the stack pointer as it was before the call; the return
/// address lies just below it (System V ABI for x86-64, 6.2.5; DWARF 5, 6.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// There is no caller: the stack ends here, or nobody knows.
    End,
    /// The CFA is that many words above the stack pointer, or above the base pointer.
    Frame {
        /// Above the base pointer instead of the stack pointer.
        base: bool,
        /// Words.
        words: u16,
        /// The caller's base pointer was saved that many words below the CFA; 0: it is still in the register.
        saved: u8,
    },
    /// The base pointer holds the address of the registers of whoever was interrupted.
    Interrupted,
}

impl Rule {
    /// From the table: kind in bits 24 and 25, saved base pointer in bits 16 to 23, words in bits 0 to 15.
    #[must_use]
    pub fn from_raw(raw: u32) -> Self {
        let [low, high, saved, kind] = raw.to_le_bytes();
        let words = u16::from_le_bytes([low, high]);
        match kind & 3 {
            0 => Self::End,
            3 => Self::Interrupted,
            kind => Self::Frame { base: kind == 2, words, saved },
        }
    }
}

/// An address, and what holds from there on.
type Entry = [[u8; 4]; 2];

/// A table, read in place.
#[derive(Clone, Copy, Debug)]
pub struct Table<'a> {
    functions: &'a [Entry],
    rows: &'a [Entry],
    names: &'a [u8],
}

/// What is known of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place<'a> {
    /// Name of the function.
    pub name: &'a str,
    /// Bytes from its start.
    pub offset: u32,
    /// How to find its caller.
    pub rule: Rule,
}

/// The last entry that is not above an address. In entries that do not ascend it is any.
fn last(entries: &[Entry], address: u32) -> Option<[u32; 2]> {
    let after = entries.partition_point(|[start, _]| u32::from_le_bytes(*start) <= address);
    Some(entries.get(after.checked_sub(1)?)?.map(u32::from_le_bytes))
}

impl<'a> Table<'a> {
    /// A table at the start of these bytes; nothing if there is none, or it is not complete.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Option<Self> {
        let (counts, mut rest) = bytes.strip_prefix(&MAGIC)?.split_first_chunk::<12>()?;
        let mut entries = |count: u32| {
            let (head, tail) = rest.split_at_checked((count as usize).checked_mul(size_of::<Entry>())?)?;
            rest = tail;
            Some(head.as_chunks().0.as_chunks().0)
        };
        let [functions, rows, names] = counts.as_chunks().0.first_chunk()?.map(u32::from_le_bytes);
        let (functions, rows) = (entries(functions)?, entries(rows)?);
        Some(Self { functions, rows, names: rest.get(..names as usize)? })
    }

    /// What is known of an address.
    #[must_use]
    pub fn find(&self, address: u32) -> Option<Place<'a>> {
        let [start, name] = last(self.functions, address)?;
        let (length, names) = self.names.get(name as usize..)?.split_first()?;
        let name = core::str::from_utf8(names.get(..usize::from(*length))?).ok().filter(|name| !name.is_empty())?;
        let rule = last(self.rows, address).map_or(Rule::End, |[_, rule]| Rule::from_raw(rule));
        Some(Place { name, offset: address.checked_sub(start)?, rule })
    }
}
