// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the processor can do, and the control registers that follow from it.
//!
//! Sources: AMD APM vol. 2, 3.1 (control registers); Intel SDM vol. 3, 2.5; CPUID as in APM vol. 3, appendix E.

pub(crate) use cloister_processor::feature;
use core::arch::x86_64::__cpuid_count;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use x86::controlregs::{Cr0, Cr4, cr0, cr0_write, cr4_write};

const ARCH_CAPABILITIES: u32 = 0x10a;

static PRESENT: AtomicU64 = AtomicU64::new(0);

/// A leaf of CPUID, as EAX to EDX; zeros if the processor has none of that number.
pub(crate) fn cpuid(leaf: u32, subleaf: u32) -> [u32; 4] {
    if __cpuid_count(leaf & 0xf000_0000, 0).eax < leaf {
        return [0; 4];
    }
    let registers = __cpuid_count(leaf, subleaf);
    [registers.eax, registers.ebx, registers.ecx, registers.edx]
}

/// Notes what the boot processor has, before anybody asks.
pub(crate) fn identify() {
    // SAFETY: the register exists where it is asked for.
    PRESENT.store(feature::read(cpuid, || unsafe { x86::msr::rdmsr(ARCH_CAPABILITIES) }), Relaxed);
}

/// What the processor has, as [`feature`]s.
pub(crate) fn features() -> u64 {
    PRESENT.load(Relaxed)
}

/// Whether the processor has the features.
pub(crate) fn has(wanted: u64) -> bool {
    features() & wanted == wanted
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

/// Switches on what the boot core has.
///
/// # Errors
/// What the processor lacks and the kernel cannot do without.
pub(crate) fn init(command_line: &str) -> Result<(), &'static str> {
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
    control.set(Cr4::CR4_ENABLE_UMIP, has(feature::UMIP));
    // SAFETY: paging stays as it is; the bits set are protections and instructions that the processor has.
    unsafe { cr4_write(control) };
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
