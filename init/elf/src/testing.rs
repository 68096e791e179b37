// SPDX-License-Identifier: MIT OR Apache-2.0
//! Images made by hand.

use alloc::vec::Vec;

/// `type, flags, offset, address, file size, memory size`
pub type Program = (u32, u32, u64, u64, u64, u64);

/// An image with these program headers and this entry, padded to `len` bytes.
#[must_use]
pub fn image(programs: &[Program], entry: u64, len: usize) -> Vec<u8> {
    let mut bytes = b"\x7fELF\x02\x01\x01".to_vec();
    bytes.resize(16, 0);
    for half in [2_u16, 62] {
        bytes.extend(half.to_le_bytes());
    }
    bytes.extend(1_u32.to_le_bytes());
    for word in [entry, 64, 0] {
        bytes.extend(word.to_le_bytes());
    }
    bytes.extend(0_u32.to_le_bytes());
    for half in [64, 56, u16::try_from(programs.len()).unwrap_or(u16::MAX), 64, 0, 0] {
        bytes.extend(half.to_le_bytes());
    }
    for (kind, flags, offset, address, file_size, size) in programs {
        bytes.extend(kind.to_le_bytes());
        bytes.extend(flags.to_le_bytes());
        for word in [*offset, *address, *address, *file_size, *size, 0x1000] {
            bytes.extend(word.to_le_bytes());
        }
    }
    bytes.resize(len.max(bytes.len()), 0);
    bytes
}

/// Code of two pages at 4 MiB.
pub const TEXT: Program = (1, 5, 0, 0x40_0000, 0x2000, 0x2000);
/// Data behind it, larger in memory than in the file.
pub const DATA: Program = (1, 6, 0x2010, 0x40_3010, 0x100, 0x3000);

/// A small program of these two.
#[must_use]
pub fn program() -> Vec<u8> {
    image(&[TEXT, DATA], 0x40_1000, 0x3000)
}
