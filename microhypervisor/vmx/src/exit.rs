// SPDX-License-Identifier: MIT OR Apache-2.0
//! Exits: VMX's basic exit reasons (SDM vol. 3D, appendix C) into the contract's.
//!
//! Most mean one reason whatever else holds; these come out of one table. The rest is decided in `classify_rest`: what the
//! kernel ends itself (physical interrupts, exceptions that only guard the host, writes of control registers of which the
//! host owns bits) never reaches a monitor.

use crate::vcpu::{BLOCKED_NMI, CR0_CD, CR0_NW, Vcpu, unblock};
use crate::{vmcs, world};
use cloister_abi::arch::x86_64::vcpu::{Event, ExitReason, PortAccess};
use cloister_vcpu::limits::CR0_PG;
use cloister_vcpu::{Control, Exit, Exits, Field, event};
use x86::vmx::vmcs::{control, guest, ro};

/// The entry failed: bit of the exit reason.
const ENTRY_FAILED: u64 = 1 << 31;
/// An IRET had let NMIs in before the exit: bit of the qualification and of the exception's information.
const NMI_UNBLOCKED: u64 = 1 << 12;
/// Type of an event beside those of the contract: INT1.
const PRIVILEGED_SOFTWARE: u64 = 5 << 8;
/// What an exit for #DB tells of DR6: breakpoints, debug-register access, single step.
const DR6_BITS: u64 = 0x600f;
const DR6_ACCESS: u64 = 1 << 13;
/// DR7: general detect.
const DR7_DETECT: u64 = 1 << 13;

impl Exits for Vcpu {
    /// The reason of the last exit, or that there is none for the monitor.
    #[inline]
    fn classify(&mut self) -> Exit {
        use ExitReason as R;
        let reason = vmcs::read(ro::EXIT_REASON);
        if self.failed || reason & ENTRY_FAILED != 0 {
            return refused(self, reason);
        }
        self.launched = true;
        let vectoring = vmcs::read(ro::IDT_VECTORING_INFO);
        *self.registers.place(Field::EVENT) = if vectoring & Event::VALID != 0 { interrupted(vectoring) } else { 0 };
        Exit::Monitor(match reason & 0xffff {
            2 => R::Shutdown,
            7 => R::InterruptWindow,
            9 => R::TaskSwitch,
            10 => R::Cpuid,
            12 => R::Hlt,
            13 | 54 => R::CacheControl,
            15 => R::Rdpmc,
            16 | 51 => R::Rdtsc,
            18 => R::Hypercall,
            30 => R::Port,
            31 => R::RdMsr,
            32 => R::WrMsr,
            36 | 39 => R::Mwait,
            40 => R::Pause,
            55 => R::Xsetbv,
            reason => return classify_rest(self, reason, vectoring),
        })
    }

    /// The three words of detail that go with a reason.
    #[inline]
    fn qualification(&mut self, reason: ExitReason) -> [u64; 3] {
        match reason {
            ExitReason::Memory => {
                [fault_bits(vmcs::read(ro::EXIT_QUALIFICATION)), vmcs::read(ro::GUEST_PHYSICAL_ADDR_FULL), 0]
            }
            ExitReason::Port => [port(self).0, vmcs::read(guest::RIP).wrapping_add(self.length()), 0],
            ExitReason::Exception => {
                let event = vmcs::read(ro::VMEXIT_INTERRUPTION_INFO);
                let code =
                    if event & Event::ERROR_VALID != 0 { vmcs::read(ro::VMEXIT_INTERRUPTION_ERR_CODE) } else { 0 };
                [event & 0x1f, code, vmcs::read(ro::EXIT_QUALIFICATION)]
            }
            ExitReason::Dr => {
                let found = vmcs::read(ro::EXIT_QUALIFICATION);
                [found & 7 | if found & 1 << 4 == 0 { 1 << 4 } else { 0 }, found >> 8 & 0xf, 0]
            }
            ExitReason::Other | ExitReason::TaskSwitch | ExitReason::InvalidState => [
                vmcs::read(ro::EXIT_REASON),
                vmcs::read(ro::EXIT_QUALIFICATION),
                if self.failed { vmcs::read(ro::VM_INSTRUCTION_ERROR) } else { 0 },
            ],
            _ => [0; 3],
        }
    }

    /// Length of the instruction that exited, 0 if none did.
    fn length(&mut self) -> u64 {
        match vmcs::read(ro::EXIT_REASON) & 0xffff {
            10..=28 | 29..=32 | 36 | 39 | 40 | 50..=51 | 53..=59 => vmcs::read(ro::VMEXIT_INSTRUCTION_LEN) & 0xf,
            0 if vmcs::read(ro::VMEXIT_INTERRUPTION_INFO) & 0x400 != 0 => vmcs::read(ro::VMEXIT_INSTRUCTION_LEN) & 0xf,
            _ => 0,
        }
    }
}

/// The entry failed, so that nothing was delivered: the event waits for the next one, which the monitor decides on. The VMCS is
/// launched if it was before (SDM vol. 3C, 27.8).
#[cold]
fn refused(vcpu: &Vcpu, reason: u64) -> Exit {
    vmcs::write(control::VMENTRY_INTERRUPTION_INFO_FIELD, 0);
    // The entry was given up for a machine check.
    let is_check = !vcpu.failed && reason & 0xffff == 41;
    if is_check { Exit::MachineCheck } else { Exit::Monitor(ExitReason::InvalidState) }
}

/// The exit came while an event was being delivered. An NMI had not begun to block others.
#[cold]
fn interrupted(vectoring: u64) -> u64 {
    let error = if vectoring & Event::ERROR_VALID != 0 { vmcs::read(ro::IDT_VECTORING_ERR_CODE) } else { 0 };
    if vectoring & event::TYPE == Event::NMI {
        unblock(BLOCKED_NMI);
    }
    event::repeated(vectoring & 0xffff_ffff | error << 32)
}

#[inline(never)]
fn classify_rest(vcpu: &mut Vcpu, reason: u64, vectoring: u64) -> Exit {
    match reason {
        // EPT violation.
        48 => {
            block_again(vmcs::read(ro::EXIT_QUALIFICATION), vectoring);
            Exit::Monitor(ExitReason::Memory)
        }
        // External interrupt, INIT, preemption timer; the host's timer, if it was for that, rings now as well.
        1 | 3 | 52 => Exit::Interrupt,
        // Exception or NMI, control register, debug register.
        0 => exception(vcpu, vectoring),
        28 => control_register(vcpu),
        29 => vcpu.debug_register(),
        // GETSEC, ENCLS: not there for guests.
        11 | 60 => {
            vcpu.undefined();
            Exit::Resume
        }
        // VMCLEAR to VMXON, INVEPT, INVVPID, VMFUNC: a guest has no VMX.
        19..=27 | 50 | 53 | 59 => {
            vcpu.undefined();
            Exit::Monitor(ExitReason::Virtualization)
        }
        _ => Exit::Monitor(ExitReason::Other),
    }
}

/// An IRET that had ended the blocking of NMIs will run once more (SDM vol. 3C, 28.2.3).
fn block_again(information: u64, vectoring: u64) {
    if information & NMI_UNBLOCKED != 0 && vectoring & Event::VALID == 0 {
        vmcs::write(guest::INTERRUPTIBILITY_STATE, vmcs::read(guest::INTERRUPTIBILITY_STATE) | BLOCKED_NMI);
    }
}

fn exception(vcpu: &mut Vcpu, vectoring: u64) -> Exit {
    let event = vmcs::read(ro::VMEXIT_INTERRUPTION_INFO);
    if event & event::TYPE == Event::NMI {
        world::take_nmi();
        return Exit::Interrupt;
    }
    block_again(event, vectoring);
    if event & 0xff == 1 {
        debug_exception(vcpu, event);
    }
    vcpu.exception(event & 0xff)
}

/// What the exit for a #DB kept from happening: the debug registers change.
fn debug_exception(vcpu: &mut Vcpu, event: u64) {
    let found = vmcs::read(ro::EXIT_QUALIFICATION) & DR6_BITS;
    *vcpu.registers.place(Field::DR6) |= found;
    if found & DR6_ACCESS != 0 {
        vmcs::write(guest::DR7, vmcs::read(guest::DR7) & !DR7_DETECT);
    }
    if event & event::TYPE == PRIVILEGED_SOFTWARE {
        let next = vmcs::read(guest::RIP).wrapping_add(vcpu.length());
        vmcs::write(guest::RIP, next);
    }
}

/// The guest writes bits of CR0 or CR4 that the host owns, to what the shadow has not. The shadow takes the new values, and the
/// instruction, run again, does not exit any more. Bits that do not exist for a guest are as reserved ones.
fn control_register(vcpu: &mut Vcpu) -> Exit {
    let qualification = vmcs::read(ro::EXIT_QUALIFICATION);
    let value = vcpu.get(Field::gpr((qualification >> 8 & 15) as usize));
    // MOV to the register, by its number; half a register outside of 64-bit mode.
    let value = if vcpu.address_size() == 8 { value } else { value & 0xffff_ffff };
    let (shadow, mask, exists) = match qualification & 0x3f {
        0 => {
            let exists = value & (CR0_NW | CR0_CD) != CR0_NW && value & (CR0_PG | 1) != CR0_PG;
            (control::CR0_READ_SHADOW, vcpu.cr0_mask(), exists)
        }
        4 => (control::CR4_READ_SHADOW, vcpu.cr4_mask(), value & !vcpu.machine.limits.cr4 == 0),
        _ => return Exit::Monitor(ExitReason::Other),
    };
    if exists {
        vmcs::write(shadow, vmcs::read(shadow) & !mask | value & mask);
    } else {
        vcpu.set(Field::EVENT, Event::exception(13, Some(0)).0);
    }
    Exit::Resume
}

/// An EPT violation (SDM vol. 3C, table 28-7) as the error code of a page fault, as SVM has it: present, write, user, fetch.
const fn fault_bits(qualification: u64) -> u64 {
    let present = if qualification >> 3 & 7 != 0 { 1 } else { 0 };
    present | qualification & 2 | 4 | (qualification & 4) << 2
}

/// The port access of an exit (SDM vol. 3C, table 28-5), and the details of string instructions (table 28-9). What a processor
/// leaves out of the latter is what the instruction has without prefixes.
fn port(vcpu: &mut Vcpu) -> PortAccess {
    let found = vmcs::read(ro::EXIT_QUALIFICATION);
    let [_, _, low, high, ..] = found.to_le_bytes();
    let flag = |bit: u32, value: u64| if found & 1 << bit != 0 { value } else { 0 };
    let flags = flag(3, PortAccess::IN) | flag(4, PortAccess::STRING) | flag(5, PortAccess::REP);
    let is_in = flags & PortAccess::IN != 0;
    let (address_size, segment) = match (flags & PortAccess::STRING != 0, vcpu.machine.string_details) {
        (false, _) => (vcpu.address_size(), 0),
        (true, false) => (vcpu.address_size(), if is_in { 0 } else { 3 }),
        (true, true) => {
            let details = vmcs::read(ro::VMEXIT_INSTRUCTION_INFO);
            (2 << (details >> 7 & 3), if is_in { 0 } else { details >> 15 & 7 })
        }
    };
    PortAccess::new(u16::from_le_bytes([low, high]), flags, (found & 7) + 1, address_size, segment)
}
