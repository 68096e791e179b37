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
//! | 16 | 4 | number of rules, U |
//! | 20 | 4 | bytes of names, N |
//! | 24 | 12 each | F functions, ascending: address (4), offset of the name (4), first row (4); the last one stands for the end of the text |
//! | | 4 each | R rows, ascending in each function: offset in the function (2), rule from there on (2) |
//! | | 4 each | U rules, see [`Rule`] |
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

const HEADER: usize = 24;
const FUNCTION: usize = 12;
const ROW: usize = 4;
const RULE: usize = 4;

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
    /// As it stands in the table: kind in bits 24 and 25, saved base pointer in bits 16 to 23, words in bits 0 to 15.
    #[must_use]
    pub fn to_raw(self) -> u32 {
        match self {
            Self::End => 0,
            Self::Frame { base, words, saved } => {
                u32::from(words) | u32::from(saved) << 16 | if base { 2 } else { 1 } << 24
            }
            Self::Interrupted => 3 << 24,
        }
    }

    /// From the table.
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

/// A table, read in place.
#[derive(Clone, Copy, Debug)]
pub struct Table<'a> {
    functions: &'a [u8],
    rows: &'a [u8],
    rules: &'a [u8],
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

fn number<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

fn wide(bytes: &[u8], at: usize) -> Option<u32> {
    number(bytes, at).map(u32::from_le_bytes)
}

fn size(bytes: &[u8], at: usize) -> Option<usize> {
    usize::try_from(wide(bytes, at)?).ok()
}

/// Index of the last of `count` ascending keys that is not above `key`.
fn last_not_above(count: usize, key: u32, read: impl Fn(usize) -> Option<u32>) -> Option<usize> {
    let (mut low, mut high) = (0, count);
    while low < high {
        let middle = low.midpoint(high);
        if read(middle)? <= key {
            low = middle.checked_add(1)?;
        } else {
            high = middle;
        }
    }
    low.checked_sub(1)
}

impl<'a> Table<'a> {
    /// A table at the start of these bytes; nothing if there is none, or it is not complete.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Option<Self> {
        if number::<8>(bytes, 0)? != MAGIC {
            return None;
        }
        let (functions, rest) = bytes.get(HEADER..)?.split_at_checked(size(bytes, 8)?.checked_mul(FUNCTION)?)?;
        let (rows, rest) = rest.split_at_checked(size(bytes, 12)?.checked_mul(ROW)?)?;
        let (rules, rest) = rest.split_at_checked(size(bytes, 16)?.checked_mul(RULE)?)?;
        Some(Self { functions, rows, rules, names: rest.get(..size(bytes, 20)?)? })
    }

    fn function(&self, index: usize, field: usize) -> Option<u32> {
        wide(self.functions, index.checked_mul(FUNCTION)?.checked_add(field)?)
    }

    /// What is known of an address.
    #[must_use]
    pub fn find(&self, address: u32) -> Option<Place<'a>> {
        let count = self.functions.len() / FUNCTION;
        let index = last_not_above(count, address, |index| self.function(index, 0))?;
        let next = index.checked_add(1).filter(|next| *next < count)?;
        let offset = address.checked_sub(self.function(index, 0)?)?;
        let name = self.name(usize::try_from(self.function(index, 4)?).ok()?)?;
        let (first, after) = (self.function(index, 8)?, self.function(next, 8)?);
        Some(Place { name, offset, rule: self.rule(first, after, offset).unwrap_or(Rule::End) })
    }

    fn name(&self, at: usize) -> Option<&'a str> {
        let length = usize::from(*self.names.get(at)?);
        core::str::from_utf8(self.names.get(at.checked_add(1)?..)?.get(..length)?).ok()
    }

    fn rule(&self, first: u32, after: u32, offset: u32) -> Option<Rule> {
        let (first, after) = (usize::try_from(first).ok()?, usize::try_from(after).ok()?);
        let rows = self.rows.get(first.checked_mul(ROW)?..after.checked_mul(ROW)?)?;
        let half = |index: usize, field: usize| {
            let at = index.checked_mul(ROW)?.checked_add(field)?;
            number(rows, at).map(|bytes| u32::from(u16::from_le_bytes(bytes)))
        };
        let row = last_not_above(rows.len() / ROW, offset, |index| half(index, 0))?;
        let rule = usize::try_from(half(row, 2)?).ok()?;
        wide(self.rules, rule.checked_mul(RULE)?).map(Rule::from_raw)
    }
}
