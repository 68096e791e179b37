// SPDX-License-Identifier: MIT OR Apache-2.0
//! What this machine's SVM can do.

use crate::vmcb::{TLB_FLUSH_ALL, TLB_FLUSH_GUEST};
use cloister_vcpu::Limits;
use cloister_vcpu::limits::{CR0_PG, CR4_PAE, EFER_LME};

/// EFER: SVM enabled; always set for the processor, never shown to the guest.
pub const EFER_SVME: u64 = 1 << 12;

/// The machine, as far as guests are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machine {
    /// What a guest may have.
    pub limits: Limits,
    /// Physical address of the port map (all ones).
    pub io_map: u64,
    /// Physical address of the MSR map ([`crate::permission::fill_msr_map`]).
    pub msr_map: u64,
    /// What VMRUN must be told to flush one guest's TLB entries.
    pub flush: u32,
    /// The processor tells the address of the next instruction.
    pub next_rip: bool,
    /// The processor tells segment and address size of string I/O and the register of DR accesses.
    pub decode_assists: bool,
}

impl Machine {
    /// The machine where CPUID answers these leaves (subleaf 0; zeros for one that does not exist), without its maps; `None` if it has no SVM
    /// with nested paging.
    pub fn from_cpuid(leaf: impl Fn(u32) -> [u32; 4]) -> Option<Self> {
        let [_, _, _, svm] = leaf(0x8000_000a);
        if leaf(0x8000_0001)[2] & 1 << 2 == 0 || svm & 1 == 0 {
            return None;
        }
        Some(Self {
            limits: Limits::from_cpuid(leaf),
            io_map: 0,
            msr_map: 0,
            flush: if svm & 1 << 6 != 0 { TLB_FLUSH_GUEST } else { TLB_FLUSH_ALL },
            next_rip: svm & 1 << 3 != 0,
            decode_assists: svm & 1 << 7 != 0,
        })
    }

    /// CR4 of a guest that has enabled long mode but not paging yet. QEMU's TCG goes back to a host from such a guest with the
    /// guest's CR0 if CR4.PAE is clear; the bit means nothing without paging, so the guest gets it early there.
    #[inline]
    #[must_use]
    pub const fn cr4_of_long_mode(&self, cr4: u64, efer: u64, cr0: u64) -> u64 {
        if !self.next_rip && efer & EFER_LME != 0 && cr0 & CR0_PG == 0 { cr4 | CR4_PAE } else { cr4 }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::{CR0_PG, Machine};
    use cloister_vcpu::tests::epyc_leaf;

    pub(crate) fn epyc() -> Machine {
        Machine::from_cpuid(epyc_leaf).unwrap()
    }

    #[test]
    fn without_nested_paging_there_is_nothing() {
        for missing in [0x8000_0001, 0x8000_000a] {
            assert_eq!(Machine::from_cpuid(|leaf| if leaf == missing { [0; 4] } else { epyc_leaf(leaf) }), None);
        }
    }

    #[test]
    fn emulator_gets_pae_early() {
        let machine = epyc();
        assert_eq!(machine.cr4_of_long_mode(0, 0x1100, 0x11), 0x20);
        assert_eq!(machine.cr4_of_long_mode(0, 0x1000, 0x11), 0);
        assert_eq!(machine.cr4_of_long_mode(0, 0x1100, CR0_PG), 0);
        let real = Machine { next_rip: true, ..machine };
        assert_eq!(real.cr4_of_long_mode(0, 0x1100, 0x11), 0);
    }
}
