// SPDX-License-Identifier: MIT OR Apache-2.0
//! Integer arithmetic with its flags (SDM volume 1 section 3.4.3.1 and the instructions' pages in volume 2).
//!
//! Values are the low 1, 2, 4 or 8 bytes of a `u64`. Each function gives the result and the status flags that it
//! defines; those that the manual leaves undefined are as processors leave them where that is known (AF cleared by
//! logic), else unchanged.

use crate::cpu::flag::{AF, CF, OF, PF, SF, ZF};
use crate::cpu::mask;

/// All flags that arithmetic sets.
pub(crate) const ARITHMETIC: u64 = CF | PF | AF | ZF | SF | OF;

const fn sign_bit(bytes: usize) -> u64 {
    mask(bytes) ^ (mask(bytes) >> 1)
}

const fn when(condition: bool, flag: u64) -> u64 {
    if condition { flag } else { 0 }
}

/// Sign, zero and parity of a result.
pub(crate) const fn of_result(result: u64, bytes: usize) -> u64 {
    let result = result & mask(bytes);
    let [low, ..] = result.to_le_bytes();
    when(result & sign_bit(bytes) != 0, SF) | when(result == 0, ZF) | when(low.count_ones() & 1 == 0, PF)
}

/// `a + b + carry`.
pub(crate) const fn add(a: u64, b: u64, carry: bool, bytes: usize) -> (u64, u64) {
    let (a, b) = (a & mask(bytes), b & mask(bytes));
    let wide = (a as u128).wrapping_add(b as u128).wrapping_add(carry as u128);
    let result = a.wrapping_add(b).wrapping_add(carry as u64) & mask(bytes);
    let flags = when(wide > mask(bytes) as u128, CF)
        | when((a ^ b ^ result) & 0x10 != 0, AF)
        | when((a ^ result) & (b ^ result) & sign_bit(bytes) != 0, OF);
    (result, flags | of_result(result, bytes))
}

/// `a - b - borrow`.
pub(crate) const fn sub(a: u64, b: u64, borrow: bool, bytes: usize) -> (u64, u64) {
    let (a, b) = (a & mask(bytes), b & mask(bytes));
    let result = a.wrapping_sub(b).wrapping_sub(borrow as u64) & mask(bytes);
    let flags = when((a as u128) < (b as u128).wrapping_add(borrow as u128), CF)
        | when((a ^ b ^ result) & 0x10 != 0, AF)
        | when((a ^ b) & (a ^ result) & sign_bit(bytes) != 0, OF);
    (result, flags | of_result(result, bytes))
}

/// The flags of a logical operation: carry and overflow are cleared.
pub(crate) const fn logic(result: u64, bytes: usize) -> (u64, u64) {
    (result & mask(bytes), of_result(result, bytes))
}

#[cfg(test)]
mod tests {
    use super::{add, logic, sub};
    use crate::cpu::flag::{AF, CF, OF, PF, SF, ZF};

    #[test]
    fn add_flags_at_each_width() {
        assert_eq!(add(0xff, 1, false, 1), (0, CF | ZF | PF | AF));
        assert_eq!(add(0x7f, 1, false, 1), (0x80, SF | OF | AF));
        assert_eq!(add(0xffff, 0, true, 2), (0, CF | ZF | PF | AF));
        assert_eq!(add(0x8000_0000, 0x8000_0000, false, 4), (0, CF | ZF | PF | OF));
        assert_eq!(add(u64::MAX, u64::MAX, true, 8), (u64::MAX, CF | SF | PF | AF));
        assert_eq!(add(1, 1, false, 8), (2, 0));
    }

    #[test]
    fn sub_flags_at_each_width() {
        assert_eq!(sub(0, 1, false, 1), (0xff, CF | SF | PF | AF));
        assert_eq!(sub(0x80, 1, false, 1), (0x7f, OF | AF));
        assert_eq!(sub(5, 5, false, 4), (0, ZF | PF));
        assert_eq!(sub(5, 4, true, 8), (0, ZF | PF));
        assert_eq!(sub(0, u64::MAX, true, 8), (0, CF | ZF | PF | AF));
    }

    #[test]
    fn logic_clears_carry_and_overflow() {
        assert_eq!(logic(0x180, 1), (0x80, SF));
        assert_eq!(logic(0, 8), (0, ZF | PF));
    }

    /// Against the same operations in a wider type, on values that walk through the corners.
    #[test]
    fn carries_and_overflows_agree_with_wide_arithmetic() {
        let corners = [0u8, 1, 2, 0x0f, 0x10, 0x7e, 0x7f, 0x80, 0x81, 0xf0, 0xfe, 0xff];
        for a in corners {
            for b in corners {
                for c in [false, true] {
                    let (r, f) = add(u64::from(a), u64::from(b), c, 1);
                    let unsigned = u16::from(a) + u16::from(b) + u16::from(c);
                    let signed = i16::from(a.cast_signed()) + i16::from(b.cast_signed()) + i16::from(c);
                    assert_eq!((r, f & CF != 0), (u64::from(unsigned & 0xff), unsigned > 0xff), "{a} + {b} + {c}");
                    assert_eq!(f & OF != 0, i8::try_from(signed).is_err(), "{a} + {b} + {c}");
                    let (r, f) = sub(u64::from(a), u64::from(b), c, 1);
                    let unsigned = i16::from(a) - i16::from(b) - i16::from(c);
                    let signed = i16::from(a.cast_signed()) - i16::from(b.cast_signed()) - i16::from(c);
                    let low = u64::from(unsigned.cast_unsigned() & 0xff);
                    assert_eq!((r, f & CF != 0), (low, unsigned < 0), "{a} - {b} - {c}");
                    assert_eq!(f & OF != 0, i8::try_from(signed).is_err(), "{a} - {b} - {c}");
                }
            }
        }
    }
}
