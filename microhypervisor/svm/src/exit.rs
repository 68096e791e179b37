// SPDX-License-Identifier: MIT OR Apache-2.0
//! Exits: SVM's exit codes (AMD APM vol. 2, appendix C) into the contract's reasons.
//!
//! Most codes mean one reason whatever else holds; these come out of one table, with the architectural length of the
//! instruction for processors that do not tell the next one. The rest is decided in [`classify_rest`]: what the kernel
//! ends itself (physical interrupts, exceptions that only guard the host, IRET after an NMI) never reaches a monitor.

use crate::machine::Machine;
use crate::vcpu::{ALL_DR, block_nmi};
use crate::vmcb::{Clean, INTERRUPT_SHADOW, Vmcb};
use cloister_abi::arch::x86_64::vcpu::{Controls, Event, ExitReason, PortAccess};
use cloister_vcpu::{Exit, Registers};

/// Exit code of the first entry of the table.
const FIRST: u64 = 0x60;
/// Number of entries of the table.
const ENTRIES: usize = 0x30;

/// A code that means one reason.
#[derive(Clone, Copy)]
struct Simple {
    reason: Option<ExitReason>,
    length: u8,
}

/// Codes from [`FIRST`] on.
static SIMPLE: [Simple; ENTRIES] = simple_table();

const fn simple_table() -> [Simple; ENTRIES] {
    use ExitReason as R;
    const BASE: usize = 0x60;
    const SIMPLE_CODES: [(usize, ExitReason, u8); 18] = [
        (0x64, R::InterruptWindow, 0),
        (0x6e, R::Rdtsc, 2),
        (0x6f, R::Rdpmc, 2),
        (0x72, R::Cpuid, 2),
        (0x76, R::CacheControl, 2),
        (0x77, R::Pause, 2),
        (0x78, R::Hlt, 1),
        (0x7b, R::Port, 0),
        (0x7d, R::TaskSwitch, 0),
        (0x7f, R::Shutdown, 0),
        (0x81, R::Hypercall, 3),
        (0x87, R::Rdtsc, 3),
        (0x89, R::CacheControl, 2),
        (0x8a, R::Mwait, 3),
        (0x8b, R::Mwait, 3),
        (0x8c, R::Mwait, 3),
        (0x8d, R::Xsetbv, 3),
        (0x7e, R::Other, 0),
    ];
    let mut table = [Simple { reason: None, length: 0 }; ENTRIES];
    let mut index = 0;
    while index < SIMPLE_CODES.len() {
        let (code, reason, length) = SIMPLE_CODES[index];
        table[code - BASE] = Simple { reason: Some(reason), length };
        index += 1;
    }
    table
}

fn simple(code: u64) -> Option<&'static Simple> {
    SIMPLE.get(usize::try_from(code.wrapping_sub(FIRST)).ok()?)
}

/// Exception vectors that always exit: #DB and #AC because a guest can make their delivery an endless loop in the
/// processor's microcode (CVE-2015-8104, CVE-2015-5307), #MC because it is the host's.
pub(crate) const GUARD_EXCEPTIONS: u32 = 1 << DEBUG | 1 << ALIGNMENT | 1 << MACHINE_CHECK;
const DEBUG: u64 = 1;
const BREAKPOINT: u64 = 3;
const INVALID_OPCODE: u8 = 6;
const ALIGNMENT: u64 = 17;
const MACHINE_CHECK: u64 = 18;

const EXCEPTION_FIRST: u64 = 0x40;
const MSR: u64 = 0x7c;
const NESTED_FAULT: u64 = 0x400;
const INVALID: u64 = u64::MAX;
/// Some write 32 bits of it only.
const INVALID_SHORT: u64 = u32::MAX as u64;

/// The reason of the exit that the block holds, or that there is none for the monitor.
#[inline]
pub(crate) fn classify(vmcb: &mut Vmcb, registers: &mut Registers) -> Exit {
    if vmcb.control.exit_event & Event::VALID != 0 {
        requeue(vmcb);
    }
    match simple(vmcb.control.exit_code) {
        Some(Simple { reason: Some(reason), .. }) => Exit::Monitor(*reason),
        _ => classify_rest(vmcb, registers),
    }
}

/// The exit came while an event was being delivered: it is delivered again at the next entry, unless the monitor says
/// otherwise. Software interrupts, #BP and #OF come again by themselves when their instruction does.
#[cold]
fn requeue(vmcb: &mut Vmcb) {
    let event = vmcb.control.exit_event;
    let vector = event & 0xff;
    vmcb.control.event = match event & 0x700 {
        Event::INTERRUPT | Event::NMI => event & 0xffff_ffff,
        Event::EXCEPTION if vector != BREAKPOINT && vector != BREAKPOINT + 1 => event,
        _ => 0,
    };
}

#[inline(never)]
fn classify_rest(vmcb: &mut Vmcb, registers: &mut Registers) -> Exit {
    match vmcb.control.exit_code {
        NESTED_FAULT => Exit::Monitor(ExitReason::Memory),
        MSR if vmcb.control.exit_info1 & 1 == 0 => Exit::Monitor(ExitReason::RdMsr),
        MSR => Exit::Monitor(ExitReason::WrMsr),
        0x60..=0x63 => Exit::Interrupt,
        0x20..=0x3f => debug_register(vmcb, registers),
        code @ EXCEPTION_FIRST..=0x5f => exception(code - EXCEPTION_FIRST, vmcb, registers),
        // The IRET has not run yet. The interrupt shadow keeps everything off until it has.
        0x74 => {
            block_nmi(vmcb, false);
            vmcb.control.interrupt_state |= INTERRUPT_SHADOW;
            Exit::Resume
        }
        // VMRUN, VMLOAD, VMSAVE, STGI, CLGI, SKINIT, INVLPGA: a guest has no SVM.
        0x7a | 0x80 | 0x82..=0x86 => {
            inject_invalid_opcode(vmcb);
            Exit::Monitor(ExitReason::Virtualization)
        }
        // RDPRU, INVLPGB, MCOMMIT, TLBSYNC: not there for guests.
        0x8e | 0xa0 | 0xa1 | 0xa3 | 0xa4 => {
            inject_invalid_opcode(vmcb);
            Exit::Resume
        }
        INVALID | INVALID_SHORT => {
            // What the processor kept of a state that it refused is nothing to build on.
            vmcb.control.clean = 0;
            Exit::Monitor(ExitReason::InvalidState)
        }
        _ => Exit::Monitor(ExitReason::Other),
    }
}

fn inject_invalid_opcode(vmcb: &mut Vmcb) {
    vmcb.control.event = Event::exception(INVALID_OPCODE, None).0;
}

/// Unless the monitor wants to see them, the debug registers become the guest's at its first access.
fn debug_register(vmcb: &mut Vmcb, registers: &mut Registers) -> Exit {
    if registers.controls.contains(Controls::DR) {
        return Exit::Monitor(ExitReason::Dr);
    }
    registers.debug = true;
    vmcb.control.intercept_dr &= !ALL_DR;
    vmcb.control.clean &= !Clean::INTERCEPTS.bits();
    Exit::Resume
}

fn exception(vector: u64, vmcb: &mut Vmcb, registers: &Registers) -> Exit {
    let wanted = registers.controls.contains(Controls::DEBUG);
    match vector {
        MACHINE_CHECK => Exit::MachineCheck,
        DEBUG if !wanted => {
            vmcb.control.event = Event::exception(1, None).0;
            Exit::Resume
        }
        ALIGNMENT => {
            vmcb.control.event = Event::exception(17, Some(0)).0;
            Exit::Resume
        }
        _ => Exit::Monitor(ExitReason::Exception),
    }
}

/// The three words of detail that go with a reason.
#[inline]
pub(crate) fn qualification(vmcb: &Vmcb, reason: ExitReason, machine: &Machine) -> [u64; 3] {
    let control = &vmcb.control;
    match reason {
        ExitReason::Port => [port(vmcb, machine).0, control.exit_info2, 0],
        ExitReason::Memory => [control.exit_info1 & 0x1f, control.exit_info2, 0],
        ExitReason::Exception => [control.exit_code & 0x1f, control.exit_info1 & 0xffff_ffff, control.exit_info2],
        ExitReason::Dr => [control.exit_code & 0x1f, control.exit_info1 & 0xf, 0],
        ExitReason::Other | ExitReason::TaskSwitch => [control.exit_code, control.exit_info1, control.exit_info2],
        _ => [0; 3],
    }
}

/// The port access of an exit (APM vol. 2, 15.10.2). What a processor without decode assists leaves out is what the
/// instruction has without prefixes.
fn port(vmcb: &Vmcb, machine: &Machine) -> PortAccess {
    let info = vmcb.control.exit_info1;
    let [_, _, low, high, ..] = info.to_le_bytes();
    let flag = |bit: u32, value: u64| if info & 1 << bit != 0 { value } else { 0 };
    let flags = flag(0, PortAccess::IN) | flag(2, PortAccess::STRING) | flag(3, PortAccess::REP);
    let address_size = match info >> 7 & 7 {
        0 => default_address_size(vmcb),
        one_of_three => one_of_three << 1,
    };
    let segment = match (machine.decode_assists, info & 1) {
        (true, _) => info >> 10 & 7,
        (false, 0) => 3,
        (false, _) => 0,
    };
    PortAccess::new(u16::from_le_bytes([low, high]), flags, info >> 4 & 7, address_size, segment)
}

/// Address size of the code segment, bytes.
fn default_address_size(vmcb: &Vmcb) -> u64 {
    let long = vmcb.save.cs.attributes & 1 << 9 != 0 && vmcb.save.efer & 1 << 10 != 0;
    let wide = vmcb.save.cs.attributes & 1 << 10 != 0;
    match (long, wide) {
        (true, _) => 8,
        (false, true) => 4,
        (false, false) => 2,
    }
}

/// Length of the instruction that exited, 0 if nothing tells.
pub(crate) fn length(vmcb: &Vmcb, machine: &Machine) -> u64 {
    let control = &vmcb.control;
    if machine.next_rip && control.next_rip != 0 {
        return instruction(control.next_rip, vmcb.save.rip);
    }
    match control.exit_code {
        0x7b => instruction(control.exit_info2, vmcb.save.rip),
        MSR => 2,
        0x20..=0x3f => 3,
        code => simple(code).map_or(0, |entry| u64::from(entry.length)),
    }
}

/// Distance of two addresses if an instruction can be that long.
const fn instruction(next: u64, rip: u64) -> u64 {
    let length = next.wrapping_sub(rip);
    if length <= 15 { length } else { 0 }
}

#[cfg(test)]
mod tests;
