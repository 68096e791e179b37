// SPDX-License-Identifier: MIT OR Apache-2.0
//! Segment attributes, between the form of the contract (VMX access rights) and that of the VMCB.
//!
//! Both are the descriptor's attribute bits; the contract leaves the gap of the limit's upper bits in (AVL is bit 12), SVM
//! does not (AVL is bit 8). SVM has no "unusable" bit: a segment that is not present is not usable (AMD APM vol. 2,
//! 15.5.1; Intel SDM vol. 3, table 25-2).

use crate::vmcb;
use cloister_abi::arch::x86_64::vcpu::Segment;

/// Segment is present, in both forms.
const PRESENT: u16 = 1 << 7;
/// Segment is unusable, in the contract's form.
const UNUSABLE: u32 = 1 << 16;

/// Attributes of the contract as attributes of the VMCB.
#[inline]
pub(crate) const fn pack(access: u32) -> u16 {
    let [low, high, ..] = access.to_le_bytes();
    let packed = u16::from_le_bytes([low, high >> 4]);
    if access & UNUSABLE != 0 { packed & !PRESENT } else { packed }
}

/// Attributes of the VMCB as attributes of the contract.
#[inline]
pub(crate) const fn unpack(attributes: u16) -> u32 {
    let [low, high] = attributes.to_le_bytes();
    let access = u32::from_le_bytes([low, high << 4, 0, 0]);
    if attributes & PRESENT == 0 { access | UNUSABLE } else { access }
}

/// A segment register of the contract as one of the VMCB.
#[inline]
pub(crate) const fn to_vmcb(segment: Segment) -> vmcb::Segment {
    vmcb::Segment {
        selector: segment.selector,
        attributes: pack(segment.access),
        limit: segment.limit,
        base: segment.base,
    }
}

/// A segment register of the VMCB as one of the contract.
#[inline]
pub(crate) const fn from_vmcb(segment: vmcb::Segment) -> Segment {
    Segment {
        selector: segment.selector,
        reserved: 0,
        access: unpack(segment.attributes),
        limit: segment.limit,
        reserved2: 0,
        base: segment.base,
    }
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
        fn attributes_survive(attributes in 0u16..0x1000) {
            prop_assert_eq!(pack(unpack(attributes)), attributes);
        }

        #[test]
        fn packed_has_twelve_bits(access: u32) {
            prop_assert!(pack(access) < 0x1000);
        }
    }
}
