// SPDX-License-Identifier: MIT OR Apache-2.0
//! Cutting registers into parts without casts that could lose bits by accident.
//!
//! A cast says nothing about whether the loss is meant; these names do.

/// Bits 7:0 of `value`.
#[must_use]
pub const fn lo8(value: u64) -> u8 {
    let [b0, ..] = value.to_le_bytes();
    b0
}

/// Bits 15:0 of `value`.
#[must_use]
pub const fn lo16(value: u64) -> u16 {
    let [b0, b1, ..] = value.to_le_bytes();
    u16::from_le_bytes([b0, b1])
}

/// Bits 31:0 of `value`.
#[must_use]
pub const fn lo32(value: u64) -> u32 {
    let [b0, b1, b2, b3, ..] = value.to_le_bytes();
    u32::from_le_bytes([b0, b1, b2, b3])
}

/// Byte `index` of the little-endian form of `value`; 0 beyond the eighth.
#[must_use]
pub const fn byte(value: u64, index: u32) -> u8 {
    if index < 8 { lo8(value >> index.wrapping_mul(8)) } else { 0 }
}

/// Replaces the bytes of `old` that an access of `width_mask` at byte `shift` touches by those of `value`.
#[must_use]
pub const fn merge(old: u64, value: u64, width_mask: u64, shift_bytes: u32) -> u64 {
    if shift_bytes >= 8 {
        return old;
    }
    let shift = shift_bytes.wrapping_mul(8);
    let mask = width_mask << shift;
    (old & !mask) | ((value << shift) & mask)
}

#[cfg(test)]
mod tests {
    use super::{byte, lo8, lo16, lo32, merge};

    #[test]
    fn parts_are_little_endian() {
        assert_eq!((lo8(0x1122_3344), lo16(0x1122_3344), lo32(0x99_1122_3344)), (0x44, 0x3344, 0x1122_3344));
        assert_eq!((byte(0x1122, 1), byte(0x1122, 8)), (0x11, 0));
    }

    #[test]
    fn merge_touches_only_the_accessed_bytes() {
        assert_eq!(merge(0xaabb_ccdd, 0x11, 0xff, 1), 0xaabb_11dd);
        assert_eq!(merge(7, 0xff, 0xff, 9), 7);
    }
}
