// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the processor can do, and the control registers that follow from it.
//!
//! Sources: AMD APM vol. 2, 3.1 (control registers); Intel SDM vol. 3, 2.5; CPUID as in APM vol. 3, appendix E.

use core::arch::x86_64::{__cpuid, __cpuid_count};
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use x86::controlregs::{Cr0, Cr4, cr0, cr0_write, cr4_write};

/// Features that the kernel looks at, as bits.
pub(crate) mod feature {
    /// 1 GiB pages in host tables.
    pub(crate) const PAGE_1G: u64 = 1 << 0;
    /// SVM with nested paging.
    pub(crate) const SVM: u64 = 1 << 1;
    /// XSAVE.
    pub(crate) const XSAVE: u64 = 1 << 2;
    /// Constant-rate time-stamp counter.
    pub(crate) const INVARIANT_TSC: u64 = 1 << 3;
    /// Local APIC timer in TSC-deadline mode.
    pub(crate) const TSC_DEADLINE: u64 = 1 << 4;
    /// x2APIC mode.
    pub(crate) const X2APIC: u64 = 1 << 5;
    /// SVM: next instruction pointer saved.
    pub(crate) const NRIP: u64 = 1 << 6;
    /// SVM: guest address-space identifiers can be flushed one by one.
    pub(crate) const FLUSH_ASID: u64 = 1 << 7;
    /// RDTSCP.
    pub(crate) const RDTSCP: u64 = 1 << 9;
    /// SVM: clean bits.
    pub(crate) const CLEAN_BITS: u64 = 1 << 8;
}

static FEATURES: AtomicU64 = AtomicU64::new(0);

/// Whether the processor has the feature.
pub(crate) fn has(feature: u64) -> bool {
    FEATURES.load(Relaxed) & feature != 0
}

/// Sets what RDTSCP and RDPID answer on this core, if it has them. In components that is 0.
#[cold]
pub(crate) fn set_tsc_aux(value: u64) {
    if has(feature::RDTSCP) {
        // SAFETY: the register exists where the instruction does; the upper half must be zero.
        unsafe { x86::msr::wrmsr(x86::msr::IA32_TSC_AUX, value & 0xffff_ffff) };
    }
}

/// Whether the kernel can be kept from touching user memory.
pub(crate) fn has_smap() -> bool {
    __cpuid(0).eax >= 7 && __cpuid_count(7, 0).ebx >> 20 & 1 != 0
}

/// Reads the time-stamp counter.
#[inline]
pub(crate) fn ticks() -> u64 {
    // SAFETY: RDTSC is available in 64-bit mode and harmless.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// EBX and ECX of the structured extended features, zero where there are none.
fn structured() -> (u32, u32) {
    if __cpuid(0).eax < 7 {
        return (0, 0);
    }
    let leaf = __cpuid_count(7, 0);
    (leaf.ebx, leaf.ecx)
}

/// Reads features.
///
/// # Errors
/// What the processor lacks and the kernel cannot do without.
pub(crate) fn init() -> Result<(), &'static str> {
    let basic = __cpuid(1);
    let fsgsbase = structured().0 & 1 != 0;
    let extended = __cpuid(0x8000_0000).eax;
    let ext1 = __cpuid(0x8000_0001);
    let power = if extended >= 0x8000_0007 { __cpuid(0x8000_0007).edx } else { 0 };
    if !fsgsbase {
        return Err("the processor lacks FSGSBASE (Ivy Bridge, Steamroller, or later)");
    }
    let mut features = 0;
    let mut set = |present: bool, bit: u64| features |= if present { bit } else { 0 };
    set(ext1.edx >> 26 & 1 != 0, feature::PAGE_1G);
    set(ext1.edx >> 27 & 1 != 0, feature::RDTSCP);
    set(basic.ecx >> 26 & 1 != 0, feature::XSAVE);
    set(basic.ecx >> 24 & 1 != 0, feature::TSC_DEADLINE);
    set(basic.ecx >> 21 & 1 != 0, feature::X2APIC);
    set(power >> 8 & 1 != 0, feature::INVARIANT_TSC);
    if ext1.ecx >> 2 & 1 != 0 && extended >= 0x8000_000a {
        let svm = __cpuid(0x8000_000a).edx;
        set(svm & 1 != 0, feature::SVM);
        set(svm >> 3 & 1 != 0, feature::NRIP);
        set(svm >> 5 & 1 != 0, feature::CLEAN_BITS);
        set(svm >> 6 & 1 != 0, feature::FLUSH_ASID);
    }
    FEATURES.store(features, Relaxed);
    init_core();
    Ok(())
}

/// Switches protections and instructions on, on the core that runs.
pub(crate) fn init_core() {
    let (ebx, ecx) = structured();
    let (smep, smap, umip) = (ebx >> 7 & 1 != 0, ebx >> 20 & 1 != 0, ecx >> 2 & 1 != 0);
    let mut control = Cr4::CR4_ENABLE_PAE | Cr4::CR4_ENABLE_SSE | Cr4::CR4_UNMASKED_SSE | Cr4::CR4_ENABLE_FSGSBASE;
    control |= Cr4::CR4_ENABLE_GLOBAL_PAGES;
    control.set(Cr4::CR4_ENABLE_MACHINE_CHECK, super::machine_check::is_supported());
    control.set(Cr4::CR4_ENABLE_SMEP, smep);
    control.set(Cr4::CR4_ENABLE_SMAP, smap);
    control.set(Cr4::CR4_ENABLE_OS_XSAVE, has(feature::XSAVE));
    // SAFETY: paging stays as it is; the bits set are protections and instructions that the processor has.
    unsafe { cr4_write(control) };
    if umip {
        // SAFETY: reads a control register, and sets one protection more, for which the crate has no name.
        unsafe {
            core::arch::asm!("mov {tmp}, cr4", "bts {tmp}, 11", "mov cr4, {tmp}", tmp = out(reg) _, options(nostack))
        };
    }
    // SAFETY: reads a control register.
    let control = unsafe { cr0() } | Cr0::CR0_WRITE_PROTECT | Cr0::CR0_MONITOR_COPROCESSOR | Cr0::CR0_NUMERIC_ERROR;
    // SAFETY: floating-point instructions trap until an EC owns the unit; write protection holds in the kernel too.
    unsafe { cr0_write(control - Cr0::CR0_EMULATE_COPROCESSOR) };
    // SAFETY: PAT as after reset but entry 1 = write-combining, which no mapping uses before.
    unsafe { x86::msr::wrmsr(x86::msr::IA32_PAT, 0x0007_0406_0007_0106) };
    set_tsc_aux(0);
    super::fpu::init_core();
    super::speculation::init_core();
    super::machine_check::init_core();
}
