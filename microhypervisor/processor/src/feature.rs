// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a processor is and can do, as bits of one number.
//!
//! Most are bits of CPUID or of `IA32_ARCH_CAPABILITIES`, by the table below; some are at several places, of which any does. A processor
//! that says nothing has nothing: what follows from that is decided where the bits are used.
//!
//! Sources: CPUID as in AMD APM vol. 3, appendix E; Intel, "CPUID Enumeration and Architectural MSRs".

/// States features: constants, one bit each, and where they are: leaf, subleaf, register, bit.
macro_rules! features {
    ($($(#[$text:meta])* $name:ident: $($leaf:literal $subleaf:literal $register:ident $bit:literal),*;)*) => {
        #[expect(clippy::upper_case_acronyms, non_camel_case_types, reason = "only counts")]
        enum Number { $($name),* }
        $($(#[$text])* pub const $name: u64 = 1 << Number::$name as u64;)*
        const PLACES: &[(u64, u32, u32, usize, u32)] = &[$($(($name, $leaf, $subleaf, $register, $bit),)*)*];
    };
}

const EAX: usize = 0;
const EBX: usize = 1;
const ECX: usize = 2;
const EDX: usize = 3;
/// The register [`CAPABILITIES`] says of, in place of a leaf.
const ARCH: usize = 4;

features! {
    /// Made by Intel.
    INTEL: ;
    /// Made by AMD, or by Hygon, whose processors are AMD's.
    AMD: ;
    /// AMD's families 0x15 to 0x18: Bulldozer to Zen 2.
    AMD_OLD: ;
    /// AMD's family 0x19: Zen 3 and 4.
    AMD_19: ;
    /// Cores have more than one thread.
    THREADS: ;
    /// An emulator that executes one instruction after the other, as QEMU without acceleration says of itself.
    EMULATED: ;
    /// Machine-check exception.
    MACHINE_CHECK: 1 0 EDX 7;
    /// Machine-check banks.
    MACHINE_BANKS: 1 0 EDX 14;
    /// MONITOR and MWAIT.
    MONITOR: 1 0 ECX 3;
    /// x2APIC mode.
    X2APIC: 1 0 ECX 21;
    /// Local APIC timer in TSC-deadline mode.
    TSC_DEADLINE: 1 0 ECX 24;
    /// XSAVE.
    XSAVE: 1 0 ECX 26;
    /// Access to FS and GS base for components.
    FSGSBASE: 7 0 EBX 0;
    /// The kernel is kept from executing what is a component's.
    SMEP: 7 0 EBX 7;
    /// The kernel is kept from touching what is a component's.
    SMAP: 7 0 EBX 20;
    /// Components are kept from reading descriptor-table registers.
    UMIP: 7 0 ECX 2;
    /// 1 GiB pages in host tables.
    PAGE_1G: 0x8000_0001 0 EDX 26;
    /// RDTSCP.
    RDTSCP: 0x8000_0001 0 EDX 27;
    /// Constant-rate time-stamp counter.
    INVARIANT_TSC: 0x8000_0007 0 EDX 8;
    /// Transactions.
    RTM: 7 0 EBX 11;
    /// VERW overwrites buffers (Intel).
    MD_CLEAR: 7 0 EDX 10;
    /// SPEC_CTRL.IBRS.
    IBRS: 7 0 EDX 26, 0x8000_0008 0 EBX 14;
    /// The branch-predictor barrier.
    IBPB: 7 0 EDX 26, 0x8000_0008 0 EBX 12;
    /// SPEC_CTRL.STIBP.
    STIBP: 7 0 EDX 27, 0x8000_0008 0 EBX 15;
    /// The first-level data cache can be flushed.
    L1D_FLUSH: 7 0 EDX 28;
    /// There is `IA32_ARCH_CAPABILITIES`.
    CAPABILITIES: 7 0 EDX 29;
    /// SPEC_CTRL.SSBD.
    SSBD: 7 0 EDX 31, 0x8000_0008 0 EBX 24;
    /// SPEC_CTRL.BHI_DIS_S.
    BHI_CTRL: 7 2 EDX 4;
    /// IBRS may stay on (AMD).
    IBRS_ALWAYS: 0x8000_0008 0 EBX 16;
    /// The barrier empties the return stack, too (AMD).
    IBPB_RETURNS: 0x8000_0008 0 EBX 30;
    /// VERW overwrites buffers (AMD).
    VERW_CLEAR: 0x8000_0021 0 EAX 5;
    /// EFER.AutomaticIBRS.
    AUTO_IBRS: 0x8000_0021 0 EAX 8;
    /// Returns cannot be led astray by speculation, at all or across the border of the kernel.
    SRSO_NO: 0x8000_0021 0 EAX 29, 0x8000_0021 0 EAX 30;
    /// No transient scheduler attack by the store queue.
    TSA_SQ_NO: 0x8000_0021 0 ECX 1;
    /// None by the first-level cache.
    TSA_L1_NO: 0x8000_0021 0 ECX 2;
    /// No meltdown, no L1TF.
    RDCL_NO: 7 0 ARCH 0;
    /// IBRS may stay on (Intel).
    IBRS_ALL: 7 0 ARCH 1;
    /// No need to flush the cache before a guest.
    SKIP_L1D_FLUSH: 7 0 ARCH 3;
    /// Loads pass stores only where that is harmless.
    SSB_NO: 7 0 ARCH 4, 0x8000_0008 0 EBX 26;
    /// No sampling of buffers.
    MDS_NO: 7 0 ARCH 5;
    /// None by transactions.
    TAA_NO: 7 0 ARCH 8;
    /// No stale data from device registers, of three kinds.
    SBDR_NO: 7 0 ARCH 13;
    /// See [`SBDR_NO`].
    FBSDP_NO: 7 0 ARCH 14;
    /// See [`SBDR_NO`].
    PSDP_NO: 7 0 ARCH 15;
    /// VERW overwrites fill buffers.
    FB_CLEAR: 7 0 ARCH 17;
    /// No injection of branch history.
    BHI_NO: 7 0 ARCH 20;
    /// The return stack is safe after a guest.
    PBRSB_NO: 7 0 ARCH 24;
    /// No sampling of register files.
    RFDS_NO: 7 0 ARCH 27;
    /// VERW overwrites register files.
    RFDS_CLEAR: 7 0 ARCH 28;
}

/// Reads them. `cpuid` answers EAX to EDX of a leaf and subleaf, zeros where the processor has none of that number; `capabilities` reads
/// `IA32_ARCH_CAPABILITIES`, and is asked only where there is that register.
pub fn read(cpuid: impl Fn(u32, u32) -> [u32; 4], capabilities: impl Fn() -> u64) -> u64 {
    let capabilities = if cpuid(7, 0)[EDX] >> 29 & 1 != 0 { capabilities() } else { 0 };
    let is_set = |leaf, subleaf, register, bit: u32| match register {
        ARCH => capabilities >> bit & 1 != 0,
        // Leaf 7 says how many subleaves it has.
        _ => (subleaf == 0 || cpuid(leaf, 0)[EAX] >= subleaf) && cpuid(leaf, subleaf)[register] >> bit & 1 != 0,
    };
    let [_, ebx, ecx, edx] = cpuid(0, 0);
    let maker = match ([ebx, edx, ecx].map(u32::to_le_bytes).as_flattened(), family(cpuid(1, 0)[EAX])) {
        (b"GenuineIntel", _) => INTEL,
        (b"AuthenticAMD" | b"HygonGenuine", 0x15..=0x18) => AMD | AMD_OLD,
        (b"AuthenticAMD" | b"HygonGenuine", 0x19) => AMD | AMD_19,
        (b"AuthenticAMD" | b"HygonGenuine", _) => AMD,
        _ => 0,
    };
    // Several logical processors, of which some are in the same core.
    let threads = cpuid(1, 0)[EDX] >> 28 & 1 != 0 && cpuid(0xb, 0)[EBX] & 0xffff > 1;
    let [_, name @ ..] = if cpuid(1, 0)[ECX] >> 31 != 0 { cpuid(0x4000_0000, 0) } else { [0; 4] };
    let emulated = name.map(u32::to_le_bytes).as_flattened() == b"TCGTCGTCGTCG";
    let own = maker | if threads { THREADS } else { 0 } | if emulated { EMULATED } else { 0 };
    let there = PLACES.iter().filter(|(_, leaf, subleaf, register, bit)| is_set(*leaf, *subleaf, *register, *bit));
    there.fold(own, |all, (feature, ..)| all | feature)
}

/// Family of the signature (CPUID 1 EAX), extended family added.
const fn family(signature: u32) -> u32 {
    let family = signature >> 8 & 0xf;
    if family == 0xf { family + (signature >> 20 & 0xff) } else { family }
}
