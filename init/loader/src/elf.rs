// SPDX-License-Identifier: MIT OR Apache-2.0
//! ELF files, as far as a loader needs them (System V ABI, "Object Files"; x86-64 psABI for the machine number).

use cloister_session::Rights;

const PAGE: u64 = 4096;
const HEADER: usize = 64;
const PROGRAM_HEADER: usize = 56;
const LOAD: u32 = 1;
const EXECUTABLE: u16 = 2;

/// Machine numbers.
#[cfg(target_arch = "x86_64")]
const MACHINE: u16 = 62;
#[cfg(target_arch = "aarch64")]
const MACHINE: u16 = 183;
#[cfg(target_arch = "riscv64")]
const MACHINE: u16 = 243;

/// What is wrong with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Corrupt {
    /// Shorter than its headers say.
    Truncated,
    /// Does not begin like a 64-bit little-endian ELF file.
    NotElf,
    /// For another machine.
    WrongMachine,
    /// Not a program with fixed addresses.
    NotExecutable,
    /// The program headers are of an unknown size.
    BadHeaders,
    /// A segment's file part is larger than its memory, or its addresses wrap.
    BadSegment,
    /// A segment is writable and executable.
    WritableCode,
    /// There is nothing to load.
    Empty,
}

impl core::fmt::Display for Corrupt {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Truncated => "truncated",
            Self::NotElf => "no 64-bit little-endian ELF file",
            Self::WrongMachine => "for another machine",
            Self::NotExecutable => "no program with fixed addresses",
            Self::BadHeaders => "program headers of an unknown size",
            Self::BadSegment => "a segment's sizes or addresses make no sense",
            Self::WritableCode => "a segment is writable and executable",
            Self::Empty => "nothing to load",
        })
    }
}

/// A checked program.
#[derive(Clone, Copy, Debug)]
pub struct Program<'a> {
    /// Where it starts.
    pub entry: u64,
    file: &'a [u8],
    headers: &'a [u8],
}

/// A part of a program that is loaded.
#[derive(Clone, Copy, Debug)]
pub struct Segment<'a> {
    /// Address in the program.
    pub address: u64,
    /// Bytes in memory; what is behind `data` is zero.
    pub size: u64,
    /// Where `data` lies in the file.
    pub file_offset: u64,
    /// Its content.
    pub data: &'a [u8],
    /// Rights.
    pub rights: Rights,
}

/// The whole pages that a segment takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pages {
    /// First byte.
    pub address: u64,
    /// Bytes.
    pub size: u64,
    /// Bytes before the segment begins.
    pub lead: usize,
}

impl<'a> Program<'a> {
    /// Checks a file.
    ///
    /// # Errors
    /// What is wrong with it first.
    pub fn parse(file: &'a [u8]) -> Result<Self, Corrupt> {
        let header = file.get(..HEADER).ok_or(Corrupt::Truncated)?;
        if !header.starts_with(b"\x7fELF\x02\x01\x01") {
            return Err(Corrupt::NotElf);
        }
        if u16_at(header, 18)? != MACHINE {
            return Err(Corrupt::WrongMachine);
        }
        if u16_at(header, 16)? != EXECUTABLE {
            return Err(Corrupt::NotExecutable);
        }
        if usize::from(u16_at(header, 54)?) != PROGRAM_HEADER {
            return Err(Corrupt::BadHeaders);
        }
        let start = usize::try_from(u64_at(header, 32)?).map_err(|_| Corrupt::Truncated)?;
        let length = usize::from(u16_at(header, 56)?).saturating_mul(PROGRAM_HEADER);
        let headers = file.get(start..).and_then(|rest| rest.get(..length)).ok_or(Corrupt::Truncated)?;
        let program = Self { entry: u64_at(header, 24)?, file, headers };
        let mut count = 0_usize;
        for raw in program.loads() {
            program.segment(raw)?.pages()?;
            count = count.saturating_add(1);
        }
        if count == 0 { Err(Corrupt::Empty) } else { Ok(program) }
    }

    fn loads(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        self.headers.chunks_exact(PROGRAM_HEADER).filter(|raw| {
            // Segments without memory are nothing to load.
            u32_at(raw, 0) == Ok(LOAD) && u64_at(raw, 40) != Ok(0)
        })
    }

    /// What is to be loaded.
    pub fn segments(&self) -> impl Iterator<Item = Segment<'a>> + use<'a> {
        let program = *self;
        // Parsing checked each of them.
        self.loads().filter_map(move |raw| program.segment(raw).ok())
    }

    fn segment(&self, raw: &'a [u8]) -> Result<Segment<'a>, Corrupt> {
        let flags = u32_at(raw, 4)?;
        let file_offset = u64_at(raw, 8)?;
        let file_size = u64_at(raw, 32)?;
        let size = u64_at(raw, 40)?;
        let start = usize::try_from(file_offset).map_err(|_| Corrupt::Truncated)?;
        let length = usize::try_from(file_size).map_err(|_| Corrupt::Truncated)?;
        let data = self.file.get(start..).and_then(|rest| rest.get(..length)).ok_or(Corrupt::Truncated)?;
        if file_size > size {
            return Err(Corrupt::BadSegment);
        }
        let mut rights = Rights::READ;
        rights.set(Rights::EXEC, flags & 1 != 0);
        rights.set(Rights::WRITE, flags & 2 != 0);
        if rights.contains(Rights::WRITE | Rights::EXEC) {
            return Err(Corrupt::WritableCode);
        }
        Ok(Segment { address: u64_at(raw, 16)?, size, file_offset, data, rights })
    }
}

impl Segment<'_> {
    /// The pages it takes.
    ///
    /// # Errors
    /// [`Corrupt::BadSegment`] if that wraps.
    pub fn pages(&self) -> Result<Pages, Corrupt> {
        let lead = self.address % PAGE;
        let address = self.address.checked_sub(lead).ok_or(Corrupt::BadSegment)?;
        let size = self.size.checked_add(lead).and_then(|size| size.checked_next_multiple_of(PAGE));
        let size = size.filter(|size| address.checked_add(*size).is_some()).ok_or(Corrupt::BadSegment)?;
        Ok(Pages { address, size, lead: usize::try_from(lead).map_err(|_| Corrupt::BadSegment)? })
    }

    /// Whether it can be used as it lies in the file.
    #[must_use]
    pub fn is_shareable(&self) -> bool {
        let whole = u64::try_from(self.data.len()) == Ok(self.size);
        whole && !self.rights.contains(Rights::WRITE) && self.address % PAGE == self.file_offset % PAGE
    }
}

fn bytes_at<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], Corrupt> {
    bytes.get(at..).and_then(|rest| rest.first_chunk::<N>()).copied().ok_or(Corrupt::Truncated)
}

fn u16_at(bytes: &[u8], at: usize) -> Result<u16, Corrupt> {
    bytes_at(bytes, at).map(u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32, Corrupt> {
    bytes_at(bytes, at).map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Result<u64, Corrupt> {
    bytes_at(bytes, at).map(u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::{Corrupt, MACHINE, Program};
    use cloister_session::Rights;
    use std::vec::Vec;

    /// A file with one segment: flags, address, size in the file and in memory. The content starts at 0x1000.
    fn file(flags: u32, address: u64, in_file: u64, in_memory: u64) -> Vec<u8> {
        let mut file = [0_u8; 0x1100].to_vec();
        file[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
        file[16..18].copy_from_slice(&2_u16.to_le_bytes());
        file[18..20].copy_from_slice(&MACHINE.to_le_bytes());
        file[24..32].copy_from_slice(&address.to_le_bytes());
        file[32..40].copy_from_slice(&64_u64.to_le_bytes());
        file[54..56].copy_from_slice(&56_u16.to_le_bytes());
        file[56..58].copy_from_slice(&1_u16.to_le_bytes());
        let header = &mut file[64..120];
        header[..4].copy_from_slice(&1_u32.to_le_bytes());
        header[4..8].copy_from_slice(&flags.to_le_bytes());
        for (at, value) in [(8, 0x1000), (16, address), (32, in_file), (40, in_memory)] {
            header[at..][..8].copy_from_slice(&u64::to_le_bytes(value));
        }
        file
    }

    #[test]
    fn code_is_used_in_place_and_data_is_copied() {
        let code = file(5, 0x40_0000, 0x100, 0x100);
        let segment = Program::parse(&code).expect("good").segments().next().expect("one");
        assert!(segment.is_shareable());
        assert_eq!(segment.rights, Rights::RX);
        let data = file(6, 0x40_0010, 0x100, 0x2000);
        let segment = Program::parse(&data).expect("good").segments().next().expect("one");
        assert!(!segment.is_shareable());
        let pages = segment.pages().expect("good");
        assert_eq!((pages.address, pages.size, pages.lead), (0x40_0000, 0x3000, 0x10));
    }

    #[test]
    fn each_defect_has_its_name() {
        let error = |file: &[u8]| Program::parse(file).err();
        let good = file(5, 0x40_0000, 0x100, 0x100);
        assert_eq!(error(&good[..63]), Some(Corrupt::Truncated));
        assert_eq!(error(&good[..100]), Some(Corrupt::Truncated));
        assert_eq!(error(&good[..0x10ff]), Some(Corrupt::Truncated));
        assert_eq!(error(&[0; 200]), Some(Corrupt::NotElf));
        assert_eq!(error(&file(7, 0x40_0000, 1, 1)), Some(Corrupt::WritableCode));
        assert_eq!(error(&file(6, 0x40_0000, 2, 1)), Some(Corrupt::BadSegment));
        assert_eq!(error(&file(6, u64::MAX - 10, 1, 0x2000)), Some(Corrupt::BadSegment));
        assert_eq!(error(&file(6, 0x1000, 1, u64::MAX)), Some(Corrupt::BadSegment));
        assert_eq!(error(&file(6, 0x1000, 0, 0)), Some(Corrupt::Empty));
        let mut other = good.clone();
        other[18] = 40;
        assert_eq!(error(&other), Some(Corrupt::WrongMachine));
        let mut position_independent = good.clone();
        position_independent[16] = 3;
        assert_eq!(error(&position_independent), Some(Corrupt::NotExecutable));
    }

    #[test]
    fn no_prefix_and_no_flipped_byte_panics() {
        let good = file(6, 0x40_0000, 0x100, 0x1234);
        for length in 0..good.len() {
            let _ = Program::parse(&good[..length]);
        }
        for at in 0..120 {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut bad = good.clone();
                bad[at] = value;
                if let Ok(program) = Program::parse(&bad) {
                    assert!(program.segments().all(|segment| segment.pages().is_ok()));
                }
            }
        }
    }
}
