// SPDX-License-Identifier: MIT OR Apache-2.0
//! The program of a component: a static ELF64 image, read by core for init and by each sandbox for its children.
//!
//! [`parse`] looks at the headers only, through a [`Source`] that copies bytes out of the ROM, and returns the segments
//! to map. It takes what a component may be and refuses the rest, with the offset of what it objects to: executables
//! (and position-independent ones that relocate themselves) for this machine without an interpreter; no segment both
//! writable and executable; no two segments on one page; the entry inside of an executable segment.
//!
//! Own code instead of a crate: the forty lines that read the two header types are fewer than what would have to be
//! checked again behind any library, which knows neither our policy nor our address space.

#![no_std]
#![cfg_attr(
    not(test),
    deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::panic, clippy::expect_used)
)]

extern crate alloc;
#[cfg(test)]
extern crate std;

#[cfg(any(feature = "testing", test))]
pub mod testing;
#[cfg(test)]
mod tests;

use alloc::vec::Vec;
use core::fmt;

/// Where an image is read from.
pub trait Source {
    /// Length of the ROM in bytes.
    fn size(&mut self) -> u64;
    /// Fills `buffer` with what stands at `offset`; `false` if that is not all inside of the ROM.
    fn read(&mut self, offset: u64, buffer: &mut [u8]) -> bool;
}

impl Source for &[u8] {
    fn size(&mut self) -> u64 {
        u64::try_from(<[u8]>::len(self)).unwrap_or(u64::MAX)
    }

    fn read(&mut self, offset: u64, buffer: &mut [u8]) -> bool {
        let from = usize::try_from(offset).ok().and_then(|offset| self.get(offset..));
        let Some(bytes) = from.and_then(|from| from.get(..buffer.len())) else { return false };
        buffer.copy_from_slice(bytes);
        true
    }
}

/// Bytes of a page; segments are mapped in pages.
pub const PAGE: u64 = 4096;

/// The machine that an image is for, as ELF numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machine(pub u16);

impl Machine {
    /// x86 with 64 bits.
    pub const X86_64: Self = Self(62);
    /// ARM with 64 bits.
    pub const AARCH64: Self = Self(183);
    /// RISC-V.
    pub const RISCV: Self = Self(243);
}

#[cfg(target_arch = "x86_64")]
const NATIVE: Machine = Machine::X86_64;
#[cfg(target_arch = "aarch64")]
const NATIVE: Machine = Machine::AARCH64;
#[cfg(target_arch = "riscv64")]
const NATIVE: Machine = Machine::RISCV;

/// What images may be.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// The machine.
    pub machine: Machine,
    /// The lowest address that may be mapped.
    pub low: u64,
    /// The address behind the highest one that may be mapped.
    pub high: u64,
    /// Where position-independent images go; a multiple of [`PAGE`].
    pub base: u64,
}

impl Policy {
    /// What a component of this machine may be: not below 64 KiB, where null pointers lead, nor in the last page of the user half;
    /// position-independent images go to 256 MiB.
    pub const NATIVE: Self = Self { machine: NATIVE, low: 64 << 10, high: 0x7fff_ffff_f000, base: 256 << 20 };
}

/// An image that may be loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Address of the first instruction.
    pub entry: u64,
    /// What to map, with ascending addresses.
    pub segments: Vec<Segment>,
}

/// A piece of memory of a child and what it starts with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Address of its first byte, not always at the start of a page.
    pub address: u64,
    /// Its bytes in memory; those behind the ones of the file are 0.
    pub size: u64,
    /// Where its bytes stand in the ROM; the same offset into a page as the address.
    pub offset: u64,
    /// Its bytes in the ROM.
    pub file_size: u64,
    /// Whether the child may write to it.
    pub writable: bool,
    /// Whether the child may execute it.
    pub executable: bool,
}

impl Segment {
    /// Address of its first page.
    #[must_use]
    pub const fn first_page(&self) -> u64 {
        self.address & !(PAGE.wrapping_sub(1))
    }

    /// Address behind its last page. Never overflows, since `parse` checked it.
    #[must_use]
    pub const fn end_page(&self) -> u64 {
        let end = self.address.saturating_add(self.size).saturating_add(PAGE.saturating_sub(1));
        end & !(PAGE.wrapping_sub(1))
    }

    /// Whether the ROM's own pages can be mapped in place of copies: nothing of it is written or filled up.
    #[must_use]
    pub const fn shares_rom(&self) -> bool {
        !self.writable && self.file_size == self.size
    }
}

/// Why an image is refused. Numbers are offsets into the ROM, except where they are addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ElfError {
    /// The ROM ends before what stands at `offset` and takes `size` bytes; the ROM has `len`.
    Truncated {
        /// What is missing starts here.
        offset: u64,
        /// And takes so many bytes.
        size: u64,
        /// The ROM's length.
        len: u64,
    },
    /// The ROM does not start with ELF's four magic bytes.
    NotElf,
    /// The field at this offset has a value that a component's program has not; what it is about is in words.
    Unfit(u64, &'static str),
    /// The program header at this offset wants an interpreter: the program is linked dynamically.
    Interpreter(u64),
    /// The segment of the program header at this offset is writable and executable.
    WritableAndExecutable(u64),
    /// The segment of the program header at this offset lies outside of what may be mapped, or wraps.
    OutOfRange(u64),
    /// The segment of the program header at this offset shares a page with another one.
    Overlap(u64),
    /// There is nothing to map.
    NoSegments,
    /// The entry, an address, is in no executable segment.
    Entry(u64),
}

impl fmt::Display for ElfError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated { offset, size, len } => {
                write!(f, "truncated: {size} bytes at offset {offset:#x}, but it has only {len} bytes")
            }
            Self::NotElf => f.write_str("not an ELF image (offset 0x0)"),
            Self::Unfit(offset, what) => write!(f, "{what} (offset {offset:#x})"),
            Self::Interpreter(offset) => write!(f, "linked dynamically (program header at offset {offset:#x})"),
            Self::WritableAndExecutable(offset) => {
                write!(f, "segment writable and executable (program header at offset {offset:#x})")
            }
            Self::OutOfRange(offset) => {
                write!(f, "segment outside of the address space (program header at offset {offset:#x})")
            }
            Self::Overlap(offset) => write!(f, "segments share a page (program header at offset {offset:#x})"),
            Self::NoSegments => f.write_str("nothing to load"),
            Self::Entry(entry) => write!(f, "entry point {entry:#x} in no executable segment"),
        }
    }
}

/// A header in a buffer, with its offset in the ROM for error reports.
struct Header<const N: usize> {
    bytes: [u8; N],
    offset: u64,
}

impl<const N: usize> Header<N> {
    fn read(source: &mut impl Source, offset: u64) -> Result<Self, ElfError> {
        let mut bytes = [0; N];
        if source.read(offset, &mut bytes) {
            Ok(Self { bytes, offset })
        } else {
            Err(ElfError::Truncated { offset, size: N as u64, len: source.size() })
        }
    }

    fn field<const W: usize>(&self, at: usize) -> [u8; W] {
        let mut field = [0; W];
        if let Some(bytes) = self.bytes.get(at..).and_then(|from| from.get(..W)) {
            field.copy_from_slice(bytes);
        }
        field
    }

    fn u16(&self, at: usize) -> u16 {
        u16::from_le_bytes(self.field(at))
    }

    fn u32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.field(at))
    }

    fn u64(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.field(at))
    }

    fn require(&self, holds: bool, at: u64, what: &'static str) -> Result<(), ElfError> {
        if holds { Ok(()) } else { Err(ElfError::Unfit(self.offset.saturating_add(at), what)) }
    }
}

// Values of the ELF-64 object file format, version 1.5, tables 3 to 6 and 16.
const ET_EXEC: u16 = 2;
const ET_DYN: u16 = 3;
const PT_LOAD: u32 = 1;
const PT_INTERP: u32 = 3;
const PF_X: u32 = 1;
const PF_W: u32 = 2;
const EHDR: usize = 64;
const PHDR: usize = 56;
const MAX_SEGMENTS: u16 = 64;

/// Reads the headers of an image.
///
/// # Errors
///
/// See [`ElfError`].
pub fn parse(source: &mut impl Source, policy: &Policy) -> Result<Image, ElfError> {
    let header = Header::<EHDR>::read(source, 0)?;
    if header.field::<4>(0) != *b"\x7fELF" {
        return Err(ElfError::NotElf);
    }
    header.require(header.field::<3>(4) == [2, 1, 1], 4, "not a little-endian ELF with 64 bits")?;
    let kind = header.u16(16);
    header.require(kind == ET_EXEC || kind == ET_DYN, 16, "not an executable")?;
    header.require(Machine(header.u16(18)) == policy.machine, 18, "for another machine")?;
    let count = header.u16(56);
    header.require(usize::from(header.u16(54)) == PHDR, 54, "program headers of an unknown size")?;
    header.require(count <= MAX_SEGMENTS, 56, "too many program headers")?;
    let bias = if kind == ET_DYN { policy.base } else { 0 };
    let mut segments = Vec::new();
    for index in 0..u64::from(count) {
        let offset = index.checked_mul(PHDR as u64).and_then(|offset| header.u64(32).checked_add(offset));
        let offset = offset.ok_or(ElfError::Unfit(32, "program headers outside of the file"))?;
        let program = Header::<PHDR>::read(source, offset)?;
        match program.u32(0) {
            PT_INTERP => return Err(ElfError::Interpreter(offset)),
            PT_LOAD if program.u64(40) > 0 => segments.push((segment(&program, source, policy, bias)?, offset)),
            _ => {}
        }
    }
    let entry = header.u64(24).wrapping_add(bias);
    Ok(Image { entry, segments: checked(segments, entry)? })
}

fn segment<S: Source>(program: &Header<PHDR>, source: &mut S, policy: &Policy, bias: u64) -> Result<Segment, ElfError> {
    let out_of_range = ElfError::OutOfRange(program.offset);
    let flags = program.u32(4);
    let segment = Segment {
        address: program.u64(16).checked_add(bias).ok_or(out_of_range)?,
        size: program.u64(40),
        offset: program.u64(8),
        file_size: program.u64(32),
        writable: flags & PF_W != 0,
        executable: flags & PF_X != 0,
    };
    if segment.writable && segment.executable {
        return Err(ElfError::WritableAndExecutable(program.offset));
    }
    program.require(segment.file_size <= segment.size, 32, "segment larger in the file than in memory")?;
    program.require(segment.offset % PAGE == segment.address % PAGE, 8, "segment not aligned as in the file")?;
    let len = source.size();
    if segment.offset.checked_add(segment.file_size).is_none_or(|end| end > len) {
        return Err(ElfError::Truncated { offset: segment.offset, size: segment.file_size, len });
    }
    let end = segment.address.checked_add(segment.size).ok_or(out_of_range)?;
    if segment.first_page() < policy.low || end > policy.high {
        return Err(out_of_range);
    }
    Ok(segment)
}

/// What concerns all segments together.
fn checked(mut segments: Vec<(Segment, u64)>, entry: u64) -> Result<Vec<Segment>, ElfError> {
    segments.sort_by_key(|(segment, _)| segment.address);
    let mut end = 0;
    for (segment, offset) in &segments {
        if segment.first_page() < end {
            return Err(ElfError::Overlap(*offset));
        }
        end = segment.end_page();
    }
    if segments.is_empty() {
        return Err(ElfError::NoSegments);
    }
    let segments: Vec<Segment> = segments.into_iter().map(|(segment, _)| segment).collect();
    let inside = |s: &Segment| s.executable && entry.checked_sub(s.address).is_some_and(|offset| offset < s.size);
    if segments.iter().any(inside) { Ok(segments) } else { Err(ElfError::Entry(entry)) }
}
