// SPDX-License-Identifier: MIT OR Apache-2.0
//! What this machine can give a guest: the processor's own leaves without what the kernel does not keep apart per guest.
//!
//! Left out: all that is switched by MSRs that guests do not have (speculation control, XSS), and state beyond AVX. RDTSCP, RDPID
//! and INVPCID are there wherever the processor has them: a kernel whose VMX would refuse them to guests has no guests.

use cloister_hypervisor::arch::cpuid;
use kvm_bindings::{KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2};

/// Leaf 0xd, subleaf 1, EAX: XSAVES.
const XSAVES: u32 = 1 << 3;
const XCR0: u32 = 7;
const LEAVES: [u32; 6] = [0, 1, 2, 7, 0xd, 0x8000_0000];

/// The leaves.
pub(crate) fn supported() -> Vec<kvm_cpuid_entry2> {
    let mut list = Vec::new();
    let [max, ..] = cpuid(0, 0);
    for leaf in LEAVES.into_iter().filter(|leaf| *leaf <= max || *leaf == 0x8000_0000) {
        list.push(entry(leaf, 0));
    }
    if max >= 4 {
        // Cache levels, until there are no more.
        let caches = (0..8).map(|index| entry(4, index)).take_while(|level| level.eax & 0x1f != 0);
        list.extend(caches);
    }
    if max >= 0xd {
        list.extend([1, 2].map(|index| entry(0xd, index)));
    }
    let [last, ..] = cpuid(0x8000_0000, 0);
    list.extend((0x8000_0001..=last.min(0x8000_0008)).map(|leaf| entry(leaf, 0)));
    list
}

fn entry(function: u32, index: u32) -> kvm_cpuid_entry2 {
    let [eax, ebx, ecx, edx] = cpuid(function, index);
    let flags = if matches!(function, 4 | 7 | 0xd) { KVM_CPUID_FLAG_SIGNIFCANT_INDEX } else { 0 };
    let mut entry = kvm_cpuid_entry2 { function, index, flags, eax, ebx, ecx, edx, ..Default::default() };
    match (function, index) {
        (0xd, 0) => (entry.eax, entry.edx) = (eax & XCR0, 0),
        (0xd, 1) => (entry.eax, entry.ecx, entry.edx) = (eax & !XSAVES, 0, 0),
        _ => {}
    }
    entry
}

#[cfg(test)]
mod tests {
    use super::supported;

    #[test]
    fn the_basics_are_there() {
        let list = supported();
        let find = |leaf| list.iter().find(|e| e.function == leaf).expect("every 64-bit processor has it");
        assert!(find(1).edx & 1 << 4 != 0, "TSC");
        assert_eq!(find(0x8000_0001).edx, super::cpuid(0x8000_0001, 0)[3], "RDTSCP among them");
        assert!(find(0x8000_0001).edx & 1 << 29 != 0, "long mode");
    }
}
