// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the processor can do, and the control registers that follow from it.
//!
//! Sources: AMD APM vol. 2, 3.1 (control registers); Intel SDM vol. 3, 2.5; CPUID as in APM vol. 3, appendix E.

use core::arch::x86_64::__cpuid_count;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use x86::controlregs::{Cr0, Cr4, cr0, cr0_write, cr4_write};

/// States features: constants, one bit each, and where CPUID has them: leaf, register, bit.
macro_rules! features {
    ($($(#[$text:meta])* $name:ident: $leaf:literal $register:ident $bit:literal)*) => {
        #[expect(clippy::upper_case_acronyms, non_camel_case_types, reason = "only counts")]
        enum Number { $($name),* }

        /// Features that the kernel looks at, as bits.
        pub(crate) mod feature {
            $($(#[$text])* pub(crate) const $name: u64 = 1 << super::Number::$name as u64;)*
        }

        const FEATURES: &[(u64, u32, usize, u32)] = &[$((feature::$name, $leaf, $register, $bit)),*];
    };
}

const EBX: usize = 1;
const ECX: usize = 2;
const EDX: usize = 3;

features! {
    /// Machine-check exception.
    MACHINE_CHECK: 1 EDX 7
    /// Machine-check banks.
    MACHINE_BANKS: 1 EDX 14
    /// MONITOR and MWAIT.
    MONITOR: 1 ECX 3
    /// x2APIC mode.
    X2APIC: 1 ECX 21
    /// Local APIC timer in TSC-deadline mode.
    TSC_DEADLINE: 1 ECX 24
    /// XSAVE.
    XSAVE: 1 ECX 26
    /// Access to FS and GS base for components.
    FSGSBASE: 7 EBX 0
    /// The kernel is kept from executing what is a component's.
    SMEP: 7 EBX 7
    /// The kernel is kept from touching what is a component's.
    SMAP: 7 EBX 20
    /// Components are kept from reading descriptor-table registers.
    UMIP: 7 ECX 2
    /// 1 GiB pages in host tables.
    PAGE_1G: 0x8000_0001 EDX 26
    /// RDTSCP.
    RDTSCP: 0x8000_0001 EDX 27
    /// Constant-rate time-stamp counter.
    INVARIANT_TSC: 0x8000_0007 EDX 8
}

static PRESENT: AtomicU64 = AtomicU64::new(0);

/// A leaf of CPUID, as EAX to EDX; zeros if the processor has none of that number.
pub(crate) fn cpuid(leaf: u32, subleaf: u32) -> [u32; 4] {
    if __cpuid_count(leaf & 0xf000_0000, 0).eax < leaf {
        return [0; 4];
    }
    let registers = __cpuid_count(leaf, subleaf);
    [registers.eax, registers.ebx, registers.ecx, registers.edx]
}

/// Whether the processor has the features. After [`init`].
pub(crate) fn has(features: u64) -> bool {
    PRESENT.load(Relaxed) & features == features
}

/// The same at any time.
pub(super) fn probe(features: u64) -> bool {
    let mut wanted = FEATURES.iter().filter(|(feature, ..)| features & feature != 0);
    wanted.all(|(_, leaf, register, bit)| cpuid(*leaf, 0)[*register] >> bit & 1 != 0)
}

/// Sets what RDTSCP and RDPID answer on this core, if it has them. In components that is 0.
#[cold]
pub(crate) fn set_tsc_aux(value: u64) {
    if has(feature::RDTSCP) {
        // SAFETY: the register exists where the instruction does; the upper half must be zero.
        unsafe { x86::msr::wrmsr(x86::msr::IA32_TSC_AUX, value & 0xffff_ffff) };
    }
}

/// Keeps the kernel from touching what is a component's, whatever the component's flags allowed: after a trap, which does not clear
/// them, as a system call does.
#[inline]
pub(super) fn protect_users() {
    if has(feature::SMAP) {
        // SAFETY: clears a flag that the kernel never sets, with an instruction that the processor has.
        unsafe { core::arch::asm!("clac", options(nostack)) };
    }
}

/// Reads the time-stamp counter.
#[inline]
pub(crate) fn ticks() -> u64 {
    // SAFETY: RDTSC is available in 64-bit mode and harmless.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Reads features.
///
/// # Errors
/// What the processor lacks and the kernel cannot do without.
pub(crate) fn init(command_line: &str) -> Result<(), &'static str> {
    let present = FEATURES.iter().map(|(feature, ..)| *feature).filter(|feature| probe(*feature));
    PRESENT.store(present.fold(0, |all, feature| all | feature), Relaxed);
    if !has(feature::FSGSBASE) {
        return Err("the processor lacks FSGSBASE (Ivy Bridge, Steamroller, or later)");
    }
    super::fpu::init(command_line);
    init_core();
    Ok(())
}

/// Switches protections and instructions on, on the core that runs.
pub(crate) fn init_core() {
    let mut control = Cr4::CR4_ENABLE_PAE | Cr4::CR4_ENABLE_SSE | Cr4::CR4_UNMASKED_SSE | Cr4::CR4_ENABLE_FSGSBASE;
    control |= Cr4::CR4_ENABLE_GLOBAL_PAGES;
    control.set(Cr4::CR4_ENABLE_MACHINE_CHECK, super::machine_check::is_supported());
    control.set(Cr4::CR4_ENABLE_SMEP, has(feature::SMEP));
    control.set(Cr4::CR4_ENABLE_SMAP, has(feature::SMAP));
    control.set(Cr4::CR4_ENABLE_OS_XSAVE, has(feature::XSAVE));
    // SAFETY: paging stays as it is; the bits set are protections and instructions that the processor has.
    unsafe { cr4_write(control) };
    if has(feature::UMIP) {
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
