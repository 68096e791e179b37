// SPDX-License-Identifier: MIT OR Apache-2.0
//! The local APIC: end of interrupt and the one-shot timer. xAPIC registers in memory, or x2APIC registers where the processor has
//! them. AMD APM vol. 2, chapter 16; Intel SDM vol. 3, chapter 11.

use super::cpu::{self, feature};
use super::idt;
use crate::memory;
use crate::width::low32;
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};
use x86::msr::{IA32_APIC_BASE, rdmsr, wrmsr};

/// Physical address of the registers.
pub(crate) const BASE: u64 = 0xfee0_0000;

const ID: u32 = 0x20;
const EOI: u32 = 0xb0;
const SPURIOUS: u32 = 0xf0;
const ERROR_STATUS: u32 = 0x280;
const ICR: u32 = 0x300;
const ICR_HIGH: u32 = 0x310;
const LVT_TIMER: u32 = 0x320;
const LVT_LINT0: u32 = 0x350;
const LVT_LINT1: u32 = 0x360;
const LVT_ERROR: u32 = 0x370;
const TIMER_INITIAL: u32 = 0x380;
const TIMER_CURRENT: u32 = 0x390;
const TIMER_DIVIDE: u32 = 0x3e0;

const MASKED: u32 = 1 << 16;
/// What one core can send another, [`send`]: an interrupt, beside its vector;
pub(crate) const FIXED: u32 = 1 << 14;
/// one that it takes though it takes none;
pub(crate) const NMI: u32 = 4 << 8 | FIXED;
/// its reset state, in which it waits for the next;
pub(crate) const INIT: u32 = 5 << 8 | FIXED;
/// a start in real mode, beside the number of the page below 1 MiB.
pub(crate) const START: u32 = 6 << 8 | FIXED;
const MODE_NMI: u32 = 4 << 8;
const MODE_DEADLINE: u32 = 2 << 17;

/// In [`IA32_APIC_BASE`].
const X2APIC_MODE: u64 = 1 << 10;

static X2APIC: AtomicBool = AtomicBool::new(false);

fn write(register: u32, value: u32) {
    if X2APIC.load(Relaxed) {
        // SAFETY: an APIC register in x2APIC mode.
        unsafe { wrmsr(0x800 + (register >> 4), u64::from(value)) };
    } else {
        // SAFETY: the page is mapped uncached; the registers are 32 bits wide.
        unsafe { memory::direct::<u32>(BASE + u64::from(register)).write_volatile(value) };
    }
}

fn read(register: u32) -> u32 {
    if X2APIC.load(Relaxed) {
        // SAFETY: an APIC register in x2APIC mode.
        low32(unsafe { rdmsr(0x800 + (register >> 4)) })
    } else {
        // SAFETY: the page is mapped uncached; the registers are 32 bits wide.
        unsafe { memory::direct::<u32>(BASE + u64::from(register)).read_volatile() }
    }
}

/// Switches this core's local APIC on, with everything but timer, NMI and its own errors masked.
pub(crate) fn init() {
    // SAFETY: every processor with long mode has the register.
    let base = unsafe { rdmsr(IA32_APIC_BASE) } & 0xfff | BASE | 1 << 11;
    // SAFETY: enables the APIC at its usual address.
    unsafe { wrmsr(IA32_APIC_BASE, base) };
    // Firmware that is in the mode itself wants it, whatever it says; and all cores are in the same one.
    let wanted = is_x2apic() || base & X2APIC_MODE != 0 || !super::iommu::refuses_x2apic();
    if cpu::has(feature::X2APIC) && wanted {
        // SAFETY: the processor has x2APIC mode.
        unsafe { wrmsr(IA32_APIC_BASE, base | X2APIC_MODE) };
        X2APIC.store(true, Relaxed);
    }
    write(SPURIOUS, 1 << 8 | low32(idt::SPURIOUS));
    // Firmware may have left a priority.
    hold(false);
    write(ERROR_STATUS, 0);
    write(LVT_ERROR, low32(idt::APIC_ERROR));
    let nmi = super::acpi::tables().nmi_input;
    for (input, register) in [(0, LVT_LINT0), (1, LVT_LINT1)] {
        write(register, if nmi == Some(input) { MODE_NMI } else { MASKED });
    }
    write(TIMER_DIVIDE, 0b1011);
    write(LVT_TIMER, MASKED | low32(idt::TIMER));
}

/// Whether identities of APICs may have 32 bits.
pub(crate) fn is_x2apic() -> bool {
    X2APIC.load(Relaxed)
}

/// Identity of this core's local APIC.
pub(crate) fn id() -> u32 {
    if X2APIC.load(Relaxed) { read(ID) } else { read(ID) >> 24 }
}

/// Sends something to another core. Interrupts are off, so nothing comes between the two halves.
pub(crate) fn send(apic_id: u32, command: u32) {
    if X2APIC.load(Relaxed) {
        // What was stored before must be seen by who is interrupted, and this write does not order it (Intel SDM vol. 3, 11.12.3).
        // SAFETY: orders memory accesses.
        unsafe { core::arch::asm!("mfence", "lfence", options(nostack, preserves_flags)) };
        // SAFETY: the interrupt command register in x2APIC mode.
        unsafe { wrmsr(0x800 + (ICR >> 4), u64::from(apic_id) << 32 | u64::from(command)) };
        return;
    }
    // The one before must have been sent; that takes no more than some bus cycles.
    for _ in 0..100_000 {
        if read(ICR) & 1 << 12 == 0 {
            break;
        }
        core::hint::spin_loop();
    }
    write(ICR_HIGH, apic_id << 24);
    write(ICR, command);
}

/// Acknowledges the interrupt in service.
pub(crate) fn end_of_interrupt() {
    write(EOI, 0);
}

/// What the local APIC found wrong since the last time, as its error status has it: messages with vectors that cannot be, sent or received.
pub(crate) fn take_errors() -> u32 {
    write(ERROR_STATUS, 0);
    read(ERROR_STATUS)
}

/// Whether a local APIC can be named in this mode. Without x2APIC mode the highest of the identities of 8 bits means all of them.
pub(crate) fn can_name(apic_id: u32) -> bool {
    apic_id < if is_x2apic() { u32::MAX } else { 0xff }
}

/// Lets in only what is above the devices' vectors, or everything (task priority; AMD APM vol. 2, 16.6.4).
pub(crate) fn hold(devices: bool) {
    let class: u64 = if devices { (idt::TIMER >> 4) - 1 } else { 0 };
    // SAFETY: the task priority says which interrupts come in, and nothing else.
    unsafe { core::arch::asm!("mov cr8, {}", in(reg) class, options(nomem, nostack, preserves_flags)) };
}

/// Unmasks the timer in the mode that the processor has.
pub(crate) fn start_timer() {
    let mode = if cpu::has(feature::TSC_DEADLINE) { MODE_DEADLINE } else { 0 };
    write(LVT_TIMER, low32(idt::TIMER) | mode);
    // The mode holds before the first deadline is written, which is another kind of write (Intel SDM vol. 3, 11.5.4.1).
    // SAFETY: orders memory accesses.
    unsafe { core::arch::asm!("mfence", options(nostack, preserves_flags)) };
}

/// Lets the timer run freely from `count`, for calibration.
pub(crate) fn timer_count_from(count: u32) {
    write(TIMER_INITIAL, count);
}

/// Present count of the timer.
pub(crate) fn timer_count() -> u32 {
    read(TIMER_CURRENT)
}

/// Arms the timer for an absolute tick of the time-stamp counter.
pub(crate) fn arm_deadline(tick: u64) {
    // SAFETY: the processor has the mode, checked by the caller.
    unsafe { wrmsr(x86::msr::IA32_TSC_DEADLINE, tick) };
}
