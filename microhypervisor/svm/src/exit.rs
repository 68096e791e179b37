// SPDX-License-Identifier: MIT OR Apache-2.0
//! Exits: SVM's exit codes (AMD APM vol. 2, appendix C) into the contract's reasons.
//!
//! Most codes mean one reason whatever else holds; these come out of one table. The rest is decided in `classify_rest`: what
//! the kernel ends itself (physical interrupts, exceptions that only guard the host, IRET after an NMI) never reaches a monitor.

use crate::vcpu::Vcpu;
use crate::vmcb::INTERRUPT_SHADOW;
use cloister_abi::arch::x86_64::vcpu::{Event, ExitReason, PortAccess};
use cloister_vcpu::{Control, Exit, Exits, Field, event};

const PORT: u64 = 0x7b;
const MSR: u64 = 0x7c;
const NESTED_FAULT: u64 = 0x400;
const INVALID: u64 = u64::MAX;
/// Some write 32 bits of it only.
const INVALID_SHORT: u64 = u32::MAX as u64;

impl Exits for Vcpu {
    /// The reason of the exit that the block holds, or that there is none for the monitor.
    #[inline]
    fn classify(&mut self) -> Exit {
        use ExitReason as R;
        let control = &mut self.vmcb.control;
        if control.exit_event & Event::VALID != 0 {
            control.event = event::repeated(control.exit_event);
        }
        Exit::Monitor(match control.exit_code {
            0x64 => R::InterruptWindow,
            0x6e | 0x87 => R::Rdtsc,
            0x6f => R::Rdpmc,
            0x72 => R::Cpuid,
            0x76 | 0x89 => R::CacheControl,
            0x77 => R::Pause,
            0x78 => R::Hlt,
            PORT => R::Port,
            0x7d => R::TaskSwitch,
            0x7e => R::Other,
            0x7f => R::Shutdown,
            0x81 => R::Hypercall,
            0x8a..=0x8c => R::Mwait,
            0x8d => R::Xsetbv,
            _ => return classify_rest(self),
        })
    }

    /// The three words of detail that go with a reason.
    #[inline]
    fn qualification(&mut self, reason: ExitReason) -> [u64; 3] {
        let control = &self.vmcb.control;
        let (code, first, second) = (control.exit_code, control.exit_info1, control.exit_info2);
        match reason {
            ExitReason::Port => [port(self, first).0, second, 0],
            ExitReason::Memory => [first & 0x1f, second, 0],
            ExitReason::Exception => [code & 0x1f, first & 0xffff_ffff, second],
            ExitReason::Dr => [code & 0x1f, first & 0xf, 0],
            ExitReason::Other | ExitReason::TaskSwitch => [code, first, second],
            _ => [0; 3],
        }
    }

    /// Length of the instruction that exited, 0 if nothing tells. On processors that do not tell the next one, it is the only
    /// one that the instruction can have.
    fn length(&mut self) -> u64 {
        let rip = self.get(Field::RIP);
        let control = &self.vmcb.control;
        let next = control.next_rip;
        match control.exit_code {
            _ if self.machine.next_rip && next != 0 => instruction(next, rip),
            PORT => instruction(control.exit_info2, rip),
            0x78 => 1,
            0x6e | 0x6f | 0x72 | 0x76 | 0x77 | 0x89 | MSR => 2,
            0x20..=0x3f | 0x81 | 0x87 | 0x8a..=0x8d => 3,
            _ => 0,
        }
    }
}

#[inline(never)]
fn classify_rest(vcpu: &mut Vcpu) -> Exit {
    let control = &mut vcpu.vmcb.control;
    match control.exit_code {
        NESTED_FAULT => Exit::Monitor(ExitReason::Memory),
        MSR if control.exit_info1 & 1 == 0 => Exit::Monitor(ExitReason::RdMsr),
        MSR => Exit::Monitor(ExitReason::WrMsr),
        0x60..=0x63 => Exit::Interrupt,
        0x20..=0x3f => vcpu.debug_register(),
        code @ 0x40..=0x5f => vcpu.exception(code - 0x40),
        // The IRET has not run yet. The interrupt shadow keeps everything off until it has.
        0x74 => {
            control.interrupt_state |= INTERRUPT_SHADOW;
            vcpu.block_nmi(false);
            Exit::Resume
        }
        // VMRUN, VMLOAD, VMSAVE, STGI, CLGI, SKINIT, INVLPGA: a guest has no SVM.
        0x7a | 0x80 | 0x82..=0x86 => {
            vcpu.undefined();
            Exit::Monitor(ExitReason::Virtualization)
        }
        // RDPRU, INVLPGB, MCOMMIT, TLBSYNC: not there for guests.
        0x8e | 0xa0 | 0xa1 | 0xa3 | 0xa4 => {
            vcpu.undefined();
            Exit::Resume
        }
        INVALID | INVALID_SHORT => {
            // What the processor kept of a state that it refused is nothing to build on: QEMU has written the virtual interrupt's word back
            // before it had read it, so that the guest's flags would hold the host's interrupts off at the next entry.
            control.clean = 0;
            vcpu.guard_interrupts();
            Exit::Monitor(ExitReason::InvalidState)
        }
        _ => Exit::Monitor(ExitReason::Other),
    }
}

/// The port access of an exit (APM vol. 2, 15.10.2). What a processor without decode assists leaves out is what the
/// instruction has without prefixes.
fn port(vcpu: &mut Vcpu, info: u64) -> PortAccess {
    let [_, _, low, high, ..] = info.to_le_bytes();
    let flag = |bit: u32, value: u64| if info & 1 << bit != 0 { value } else { 0 };
    let flags = flag(0, PortAccess::IN) | flag(2, PortAccess::STRING) | flag(3, PortAccess::REP);
    let address_size = match info >> 7 & 7 {
        0 => vcpu.address_size(),
        one_of_three => one_of_three << 1,
    };
    let segment = match (vcpu.machine.decode_assists, info & 1) {
        (true, _) => info >> 10 & 7,
        (false, 0) => 3,
        (false, _) => 0,
    };
    PortAccess::new(u16::from_le_bytes([low, high]), flags, info >> 4 & 7, address_size, segment)
}

/// Distance of two addresses if an instruction can be that long.
const fn instruction(next: u64, rip: u64) -> u64 {
    let length = next.wrapping_sub(rip);
    if length <= 15 { length } else { 0 }
}

#[cfg(test)]
mod tests;
