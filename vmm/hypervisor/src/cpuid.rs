// SPDX-License-Identifier: MIT OR Apache-2.0
//! Answers to the CPUID instruction out of a list of leaves, for back ends whose kernel does not do it.
//!
//! The list is made once by the VMM's policy. A few answers change while the guest runs, because the processor mirrors
//! its own state in them: OSXSAVE (leaf 1), and the size of the XSAVE area (leaf 0xd), see [`CpuidState`]. Sources:
//! AMD64 Architecture Programmer's Manual volume 3, appendix E; volume 2, 11.5 (extended state management).

use kvm_bindings::{KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2};

const CR4_OSXSAVE: u64 = 1 << 18;
const LEAF1_ECX_OSXSAVE: u32 = 1 << 27;
/// Legacy area and header, which each XSAVE area has.
const XSAVE_HEAD: u32 = 576;

/// The guest state that CPUID mirrors.
#[derive(Clone, Copy, Debug, Default)]
pub struct CpuidState {
    /// CR4.
    pub cr4: u64,
    /// XCR0.
    pub xcr0: u64,
}

/// A CPUID leaf list with look-up.
#[derive(Clone, Debug, Default)]
pub struct CpuidTable {
    /// Sorted by (leaf, subleaf).
    entries: Vec<kvm_cpuid_entry2>,
}

impl CpuidTable {
    /// Takes the list; of two equal leaves the first one counts.
    #[must_use]
    pub fn new(entries: &[kvm_cpuid_entry2]) -> Self {
        let mut entries = entries.to_vec();
        entries.sort_by_key(|e| (e.function, e.index));
        Self { entries }
    }

    /// What CPUID answers: EAX, EBX, ECX, EDX. Leaves that are not in the list read as zeros.
    #[must_use]
    pub fn answer(&self, leaf: u32, subleaf: u32, state: CpuidState) -> [u32; 4] {
        let Some(e) = self.find(leaf, subleaf) else { return [0; 4] };
        let mut answer = [e.eax, e.ebx, e.ecx, e.edx];
        let [_, ebx, ecx, _] = &mut answer;
        match (leaf, subleaf) {
            (1, _) => {
                *ecx &= !LEAF1_ECX_OSXSAVE;
                if state.cr4 & CR4_OSXSAVE != 0 {
                    *ecx |= LEAF1_ECX_OSXSAVE;
                }
            }
            (0xd, 0) => *ebx = self.xsave_size(state.xcr0),
            _ => {}
        }
        answer
    }

    /// Which bits of XCR0 the guest may set.
    #[must_use]
    pub fn xcr0_mask(&self) -> u64 {
        self.find(0xd, 0).map_or(0, |e| u64::from(e.edx) << 32 | u64::from(e.eax))
    }

    fn find(&self, leaf: u32, subleaf: u32) -> Option<&kvm_cpuid_entry2> {
        let first = self.entries.partition_point(|e| e.function < leaf);
        let of_leaf = self.entries.get(first..)?.iter().take_while(|e| e.function == leaf);
        let significant = |e: &kvm_cpuid_entry2| e.flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX != 0;
        of_leaf.into_iter().find(|e| !significant(e) || e.index == subleaf)
    }

    /// Size of the standard-format XSAVE area for the components enabled in `xcr0`.
    fn xsave_size(&self, xcr0: u64) -> u32 {
        (2..63)
            .filter(|bit| xcr0 >> bit & 1 != 0)
            .filter_map(|bit| self.find(0xd, bit))
            .map(|e| e.ebx.saturating_add(e.eax))
            .fold(XSAVE_HEAD, u32::max)
    }
}

#[cfg(test)]
mod tests {
    use super::{CpuidState, CpuidTable};
    use kvm_bindings::{KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2};

    fn leaf(function: u32, index: Option<u32>, [eax, ebx, ecx, edx]: [u32; 4]) -> kvm_cpuid_entry2 {
        let flags = if index.is_some() { KVM_CPUID_FLAG_SIGNIFCANT_INDEX } else { 0 };
        kvm_cpuid_entry2 { function, index: index.unwrap_or(0), flags, eax, ebx, ecx, edx, ..Default::default() }
    }

    fn table() -> CpuidTable {
        CpuidTable::new(&[
            leaf(0xd, Some(2), [256, 576, 0, 0]),
            leaf(1, None, [7, 8, 1 << 27, 9]),
            leaf(0xd, Some(0), [7, 1, 832, 0]),
            leaf(4, Some(1), [1, 1, 1, 1]),
        ])
    }

    #[test]
    fn leaves_without_subleaf_answer_any_subleaf() {
        let s = CpuidState::default();
        assert_eq!(table().answer(1, 55, s), [7, 8, 0, 9]);
        assert_eq!(table().answer(4, 0, s), [0; 4]);
        assert_eq!(table().answer(4, 1, s), [1; 4]);
        assert_eq!(table().answer(0x4000_0000, 0, s), [0; 4]);
    }

    #[test]
    fn osxsave_follows_cr4() {
        let s = CpuidState { cr4: 1 << 18, xcr0: 1 };
        assert_eq!(table().answer(1, 0, s), [7, 8, 1 << 27, 9]);
    }

    #[test]
    fn xsave_size_follows_xcr0() {
        let size = |xcr0| table().answer(0xd, 0, CpuidState { cr4: 0, xcr0 })[1];
        assert_eq!(size(1), 576);
        assert_eq!(size(3), 576);
        assert_eq!(size(7), 832);
        assert_eq!(table().xcr0_mask(), 7);
    }
}
