// SPDX-License-Identifier: MIT OR Apache-2.0
//! Exceptions and interrupts, from user mode and in the kernel.

use super::entry::Frame;
use super::{apic, cpu, idt, iommu, machine_check, nmi, power};
use crate::flood::Flood;
use crate::percore::core;
use crate::width::low8;
use crate::{exception, interrupt, remote, sched};
use cloister_abi::arch::x86_64::exception::ExceptionState;
use core::sync::atomic::Ordering;

const NMI: u64 = 2;
const DEVICE_NOT_AVAILABLE: u64 = 7;
const GENERAL_PROTECTION: u64 = 13;
/// Vector of page faults.
pub(crate) const PAGE_FAULT: u64 = 14;
const MACHINE_CHECK: u64 = 18;

/// Tells of an interrupt that nobody asked for.
fn unexpected(vector: u64) {
    static FLOOD: Flood = Flood::new();
    FLOOD.tell(|count| log::warn!("{count} interrupts that nobody asked for, now at vector {vector:#x}"));
}

/// Tells of errors that the local APIC found.
fn apic_errors() {
    static FLOOD: Flood = Flood::new();
    let errors = apic::take_errors();
    FLOOD.tell(|count| log::warn!("core {}: error of the local APIC, status {errors:#x} ({count})", core().id));
    apic::end_of_interrupt();
}

fn hardware_interrupt(vector: u64) {
    // The handler looks at what others may destroy.
    core().remote.set_idle(false);
    match vector {
        idt::TIMER => {
            apic::end_of_interrupt();
            interrupt::release(core());
            sched::alarm();
            machine_check::poll();
        }
        idt::WORK => {
            apic::end_of_interrupt();
            remote::interrupted(core());
        }
        idt::IOMMU => iommu::interrupt(),
        idt::APIC_ERROR => apic_errors(),
        idt::SPURIOUS => {}
        idt::FIRST_DEVICE..idt::TIMER => {
            if !interrupt::arrived(core(), low8(vector)) {
                unexpected(vector);
            }
        }
        // Legacy controllers, masked: a spurious interrupt of theirs needs no end.
        0x20..0x30 => {}
        _ => {
            unexpected(vector);
            apic::end_of_interrupt();
        }
    }
}

/// An exception or interrupt in user mode: the registers are in the current EC's frame.
pub(crate) extern "C" fn user_trap(frame: &mut Frame) {
    cpu::protect_users();
    let core = core();
    if frame.vector >= idt::EXCEPTIONS {
        hardware_interrupt(frame.vector);
    } else if let Some(ec) = core.current() {
        let handled = match frame.vector {
            DEVICE_NOT_AVAILABLE => core.take_fpu(ec),
            // IN and OUT trap if the bitmap of the EC's ports is not loaded; code 0 is theirs among others.
            GENERAL_PROTECTION if frame.error == 0 => core.load_ports(ec),
            _ => false,
        };
        if !handled {
            exception::raise(core, ec, frame);
        }
    }
    if core.is_pending() {
        sched::settle(core);
    }
}

/// An exception or interrupt in the kernel: interrupts are expected where they are let in, all else is an error of the kernel.
pub(crate) extern "C" fn kernel_trap(frame: &mut Frame) {
    match frame.vector {
        NMI if core().stopping.load(Ordering::SeqCst) => power::stop(),
        NMI => nmi::raised(frame.rip),
        MACHINE_CHECK => machine_check::raised("raised", frame.rip),
        vector if vector >= idt::EXCEPTIONS => hardware_interrupt(vector),
        _ => crate::crash::exception(frame),
    }
}

/// The address at which a page fault happened, if it is one.
pub(crate) fn fault_address(frame: &Frame) -> Option<u64> {
    // SAFETY: reads a control register.
    (frame.vector == PAGE_FAULT).then(|| unsafe { x86::controlregs::cr2() } as u64)
}

/// Copies registers from one structure to another that has them by the same names.
macro_rules! copy {
    ($from:ident to $to:ident: $($register:ident)+) => { $($to.$register = $from.$register;)+ };
}

/// State of an EC at an exception, for its handler.
pub(crate) fn exception_state(frame: &Frame, fs_base: u64) -> ExceptionState {
    let address = fault_address(frame).unwrap_or(0);
    let mut state = ExceptionState { address, fs_base, ..ExceptionState::default() };
    copy!(frame to state: vector error rip rsp rflags rax rbx rcx rdx rsi rdi rbp);
    state.r8_r15 = [frame.r8, frame.r9, frame.r10, frame.r11, frame.r12, frame.r13, frame.r14, frame.r15];
    state
}

/// Takes over what a handler changed. Only arithmetic flags, direction, alignment check and single step are the EC's own.
pub(crate) fn set_exception_state(frame: &mut Frame, state: &ExceptionState) {
    const OWN_FLAGS: u64 = 0x4_0dd5;
    copy!(state to frame: rip rsp rax rbx rcx rdx rsi rdi rbp);
    frame.rflags = frame.rflags & !OWN_FLAGS | state.rflags & OWN_FLAGS;
    [frame.r8, frame.r9, frame.r10, frame.r11, frame.r12, frame.r13, frame.r14, frame.r15] = state.r8_r15;
    // Return by IRET whatever the way in was.
    frame.vector = super::entry::FRESH;
}
