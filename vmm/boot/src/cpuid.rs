// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which processor features a guest sees: a list of CPUID leaves made out of the host's.
//!
//! Policy by allow-list: a feature is shown if the host has it and the list below has it. What is left out needs
//! something that the VMM does not give a guest: virtualization, performance counters, debug store, MONITOR, machine
//! checks of the real machine, thermal and power management. What is added is what the VMM emulates itself: x2APIC and
//! the TSC deadline timer, and the hypervisor leaves in the form that guests know from KVM, with the clock whose
//! frequency need not be calibrated, and the end of interrupt without an exit.
//!
//! Sources: AMD64 APM volume 3, appendix E; Intel SDM volume 2, CPUID; the kernel's Documentation/virt/kvm/x86/cpuid.rst.

use kvm_bindings::{KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2};

/// What the policy needs to know besides the host's leaves.
#[derive(Clone, Copy, Debug)]
pub struct Params {
    /// Frequency of the time-stamp counter in kHz.
    pub tsc_khz: u32,
    /// Frequency of the local APIC's timer in kHz.
    pub apic_khz: u32,
    /// APIC id of the VCPU.
    pub apic_id: u32,
}

/// Leaf 1, ECX: SSE3, PCLMULQDQ, SSSE3, FMA, CX16, PCID, SSE4.1, SSE4.2, MOVBE, POPCNT, AES, XSAVE, AVX, F16C, RDRAND.
const LEAF1_ECX: u32 = 1 << 0
    | 1 << 1
    | 1 << 9
    | 1 << 12
    | 1 << 13
    | 1 << 17
    | 1 << 19
    | 1 << 20
    | 1 << 22
    | 1 << 23
    | 1 << 25
    | 1 << 26
    | 1 << 28
    | 1 << 29
    | 1 << 30;
const LEAF1_ECX_X2APIC: u32 = 1 << 21;
const LEAF1_ECX_TSC_DEADLINE: u32 = 1 << 24;
const LEAF1_ECX_HYPERVISOR: u32 = 1 << 31;
/// Leaf 1, EDX: FPU, VME, DE, PSE, TSC, MSR, PAE, CX8, APIC, SEP, PGE, CMOV, PAT, PSE36, CLFLUSH, MMX, FXSR, SSE, SSE2.
/// Machine check and MTRRs are left out: the VMM has neither machine checks nor memory types of its own.
const LEAF1_EDX: u32 = 0x7f | 1 << 8 | 1 << 9 | 1 << 11 | 1 << 13 | 7 << 15 | 1 << 19 | 0xf << 23;
const LEAF1_EDX_APIC: u32 = 1 << 9;
/// Leaf 7, EBX: FSGSBASE, BMI1, AVX2, SMEP, BMI2, ERMS, INVPCID, RDSEED, ADX, SMAP, CLFLUSHOPT, CLWB, SHA.
const LEAF7_EBX: u32 = 1 << 0
    | 1 << 3
    | 1 << 5
    | 1 << 7
    | 1 << 8
    | 1 << 9
    | 1 << 10
    | 1 << 18
    | 1 << 19
    | 1 << 20
    | 1 << 23
    | 1 << 24
    | 1 << 29;
/// Leaf 7, ECX: UMIP, VAES, VPCLMULQDQ, RDPID.
const LEAF7_ECX: u32 = 1 << 2 | 1 << 9 | 1 << 10 | 1 << 22;
/// Leaf 7, EDX: FSRM.
const LEAF7_EDX: u32 = 1 << 4;
/// x87, SSE and AVX state.
const XCR0: u32 = 7;
/// Leaf 0xd subleaf 1, EAX: XSAVEOPT, XGETBV with index 1.
const LEAF_D1_EAX: u32 = 1 << 0 | 1 << 2;
/// Leaf 0x80000001, ECX: LAHF, CR8 legacy, ABM, SSE4A, misaligned SSE, prefetch.
const EXT_ECX: u32 = 1 << 0 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 8;
/// Leaf 0x80000001, EDX: the mirrored bits of leaf 1, SYSCALL, NX, MMX extensions, fast FXSAVE, 1 GiB pages, RDTSCP, LM.
const EXT_EDX: u32 = LEAF1_EDX & 0x0183_f3ff | 1 << 11 | 1 << 20 | 1 << 22 | 1 << 25 | 1 << 26 | 1 << 27 | 1 << 29;
/// Leaf 0x80000007, EDX: invariant TSC.
const INVARIANT_TSC: u32 = 1 << 8;
/// Leaf 0x80000008, EBX: CLZERO.
const EXT8_EBX: u32 = 1 << 0;

/// KVM's signature leaf, `KVMKVMKVM`.
const KVM_SIGNATURE: [u32; 3] = [0x4b4d_564b, 0x564b_4d56, 0x4d];
const KVM_LEAF: u32 = 0x4000_0000;
/// Last hypervisor leaf: 0x40000010 has the frequencies.
const KVM_LAST: u32 = 0x4000_0010;
/// KVM features, leaf 0x40000001 EAX: no delay after port accesses, clock with the new MSRs, end of interrupt in memory,
/// stable clock.
pub const KVM_FEATURES: u32 = 1 << 1 | 1 << 3 | 1 << 6 | 1 << 24;

/// Makes the guest's list out of `host`, which has the leaves of the host processor or of KVM.
#[must_use]
pub fn policy(host: &[kvm_cpuid_entry2], params: Params) -> Vec<kvm_cpuid_entry2> {
    let mut list: Vec<_> = host.iter().filter_map(|e| filter(*e, params)).collect();
    list.extend(hypervisor_leaves(params));
    list
}

/// One host leaf as the guest sees it, or nothing (which reads as zeros).
fn filter(mut e: kvm_cpuid_entry2, params: Params) -> Option<kvm_cpuid_entry2> {
    match (e.function, e.index) {
        // Leaves above 0xd are not shown.
        (0, _) => e.eax = e.eax.min(0xd),
        (1, _) => {
            e.ebx = e.ebx & 0x0000_ffff | 1 << 16 | params.apic_id << 24;
            e.ecx = e.ecx & LEAF1_ECX | LEAF1_ECX_X2APIC | LEAF1_ECX_TSC_DEADLINE | LEAF1_ECX_HYPERVISOR;
            e.edx = e.edx & LEAF1_EDX | LEAF1_EDX_APIC;
        }
        (2 | 4, _) => {}
        (7, 0) => {
            (e.eax, e.ebx) = (0, e.ebx & LEAF7_EBX);
            (e.ecx, e.edx) = (e.ecx & LEAF7_ECX, e.edx & LEAF7_EDX);
        }
        (0xd, 0) => (e.eax, e.edx) = (e.eax & XCR0, 0),
        (0xd, 1) => (e.eax, e.ebx, e.ecx, e.edx) = (e.eax & LEAF_D1_EAX, 0, 0, 0),
        (0xd, 2) => {}
        (0x8000_0000, _) => e.eax = e.eax.min(0x8000_0008),
        (0x8000_0001, _) => (e.ecx, e.edx) = (e.ecx & EXT_ECX, e.edx & EXT_EDX),
        (0x8000_0002..=0x8000_0006, _) => {}
        (0x8000_0007, _) => (e.eax, e.ebx, e.ecx, e.edx) = (0, 0, 0, e.edx & INVARIANT_TSC),
        (0x8000_0008, _) => (e.ebx, e.ecx, e.edx) = (e.ebx & EXT8_EBX, 0, 0),
        _ => return None,
    }
    if matches!(e.function, 4 | 7 | 0xd) {
        e.flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
    } else {
        (e.flags, e.index) = (0, 0);
    }
    Some(e)
}

fn hypervisor_leaves(params: Params) -> [kvm_cpuid_entry2; 3] {
    let leaf = |function, eax, ebx, ecx, edx| kvm_cpuid_entry2 { function, eax, ebx, ecx, edx, ..Default::default() };
    let [b, c, d] = KVM_SIGNATURE;
    [
        leaf(KVM_LEAF, KVM_LAST, b, c, d),
        leaf(KVM_LEAF | 1, KVM_FEATURES, 0, 0, 0),
        leaf(KVM_LAST, params.tsc_khz, params.apic_khz, 0, 0),
    ]
}

#[cfg(test)]
mod tests {
    use super::{Params, policy};
    use kvm_bindings::kvm_cpuid_entry2;

    const PARAMS: Params = Params { tsc_khz: 2_500_000, apic_khz: 1_000_000, apic_id: 3 };

    fn all_ones(function: u32, index: u32) -> kvm_cpuid_entry2 {
        let u = u32::MAX;
        kvm_cpuid_entry2 { function, index, eax: u, ebx: u, ecx: u, edx: u, ..Default::default() }
    }

    fn guest(function: u32, index: u32) -> Option<kvm_cpuid_entry2> {
        policy(&[all_ones(function, index)], PARAMS).into_iter().find(|e| e.function == function)
    }

    #[test]
    fn what_the_vmm_does_not_give_is_hidden() {
        let one = guest(1, 0).unwrap();
        assert_eq!(one.ecx & (1 << 5 | 1 << 3 | 1 << 15 | 1 << 27), 0, "VMX, MONITOR, PDCM, OSXSAVE");
        assert_eq!(one.edx & (1 << 7 | 1 << 14 | 1 << 12 | 1 << 21 | 1 << 28), 0, "MCE, MCA, MTRR, DS, HTT");
        assert_eq!(guest(0x8000_0001, 0).unwrap().ecx & 1 << 2, 0, "SVM");
        assert_eq!(guest(7, 0).unwrap().ebx & 1 << 16, 0, "AVX512");
        assert!(guest(0xa, 0).is_none(), "performance counters");
        assert!(guest(0x8000_000a, 0).is_none(), "SVM features");
    }

    #[test]
    fn what_the_vmm_emulates_is_shown_even_if_the_host_lacks_it() {
        let host = [kvm_cpuid_entry2 { function: 1, ..Default::default() }];
        let one = policy(&host, PARAMS).into_iter().find(|e| e.function == 1).unwrap();
        assert_eq!(one.ecx, 1 << 21 | 1 << 24 | 1 << 31);
        assert_eq!((one.ebx >> 24, one.edx), (3, 1 << 9));
    }

    #[test]
    fn the_basics_of_long_mode_survive() {
        let one = guest(1, 0).unwrap();
        for bit in [0, 3, 4, 5, 6, 8, 9, 11, 13, 15, 16, 19, 23, 24, 25, 26] {
            assert_ne!(one.edx & 1 << bit, 0, "bit {bit}");
        }
        let ext = guest(0x8000_0001, 0).unwrap();
        for bit in [11, 20, 26, 27, 29] {
            assert_ne!(ext.edx & 1 << bit, 0, "bit {bit}");
        }
    }

    #[test]
    fn frequencies_are_told() {
        let list = policy(&[], PARAMS);
        let khz = list.iter().find(|e| e.function == 0x4000_0010).unwrap();
        assert_eq!((khz.eax, khz.ebx), (2_500_000, 1_000_000));
    }
}
