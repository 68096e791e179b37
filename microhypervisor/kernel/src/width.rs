// SPDX-License-Identifier: MIT OR Apache-2.0
//! Numbers of one width as numbers of another, where nothing is lost, or where the low part is what is meant.
//!
//! The language has no lossless conversion between `u64` and `usize`, since it knows machines where there is none. This kernel
//! is for 64-bit machines, which is asserted here, once. All other narrowing says by its name that it takes the low bits.

const _: () = assert!(size_of::<usize>() == size_of::<u64>());

/// A number as an index or address; loses nothing.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "asserted above: both are as wide")]
pub(crate) const fn index(value: u64) -> usize {
    value as usize
}

/// The low 32 bits.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "the low half is what is asked for")]
pub(crate) const fn low32(value: u64) -> u32 {
    value as u32
}

/// The low 16 bits.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "the low bits are what is asked for")]
pub(crate) const fn low16(value: u64) -> u16 {
    value as u16
}

/// The low 8 bits.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "the low bits are what is asked for")]
pub(crate) const fn low8(value: u64) -> u8 {
    value as u8
}
