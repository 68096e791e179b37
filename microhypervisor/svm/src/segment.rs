// SPDX-License-Identifier: MIT OR Apache-2.0
//! Segment attributes, between the form of the contract (VMX access rights) and that of the VMCB.
//!
//! Both are the descriptor's attribute bits; the contract leaves the gap of the limit's upper bits in (AVL is bit 12), SVM
//! does not (AVL is bit 8). SVM has no "unusable" bit: a segment that is not present is not usable (AMD APM vol. 2,
//! 15.5.1; Intel SDM vol. 3, table 25-2).

/// Segment is present, in both forms.
const PRESENT: u64 = 1 << 7;
/// Segment is unusable, in the contract's form.
const UNUSABLE: u64 = 1 << 16;

/// Attributes of the contract as attributes of the VMCB.
#[inline]
pub(crate) const fn pack(access: u64) -> u64 {
    let packed = access & 0xff | access >> 4 & 0xf00;
    if access & UNUSABLE != 0 { packed & !PRESENT } else { packed }
}

/// Attributes of the VMCB as attributes of the contract.
#[inline]
pub(crate) const fn unpack(attributes: u64) -> u64 {
    let access = attributes & 0xff | (attributes & 0xf00) << 4;
    if attributes & PRESENT == 0 { access | UNUSABLE } else { access }
}

#[cfg(test)]
mod tests {
    use super::{UNUSABLE, pack, unpack};
    use proptest::prelude::*;

    #[test]
    fn code_segment_of_long_mode() {
        assert_eq!(pack(0xa09b), 0xa9b);
        assert_eq!(unpack(0xa9b), 0xa09b);
    }

    #[test]
    fn unusable_is_not_present() {
        assert_eq!(pack(UNUSABLE | 0x93), 0x13);
        assert_eq!(unpack(0x13), UNUSABLE | 0x13);
    }

    proptest! {
        #[test]
        fn attributes_survive(attributes in 0u64..0x1000) {
            prop_assert_eq!(pack(unpack(attributes)), attributes);
        }

        #[test]
        fn packed_has_twelve_bits(access: u64) {
            prop_assert!(pack(access) < 0x1000);
        }
    }
}
