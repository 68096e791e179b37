// SPDX-License-Identifier: MIT OR Apache-2.0
//! Exits: VMX's basic exit reasons (SDM vol. 3D, appendix C) into the contract's.
//!
//! Most mean one reason whatever else holds; these come out of one table. The rest is decided in [`classify_rest`]: what the
//! kernel ends itself (physical interrupts, exceptions that only guard the host, writes of control registers of which the
//! host owns bits) never reaches a monitor.

use crate::machine;
use crate::vcpu::{BLOCKED_NMI, CR0_CD, CR0_NW, Vcpu};
use crate::{vmcs, world};
use cloister_abi::arch::x86_64::vcpu::{Controls, Event, ExitReason, PortAccess};
use cloister_vcpu::limits::CR0_PG;
use cloister_vcpu::{Control, Exit, Field};

const ENTRIES: usize = 64;

/// Reasons that mean one thing, by number.
static SIMPLE: [Option<ExitReason>; ENTRIES] = simple_table();

const fn simple_table() -> [Option<ExitReason>; ENTRIES] {
    use ExitReason as R;
    const SIMPLE: [(usize, ExitReason); 18] = [
        (2, R::Shutdown),
        (7, R::InterruptWindow),
        (9, R::TaskSwitch),
        (10, R::Cpuid),
        (12, R::Hlt),
        (13, R::CacheControl),
        (15, R::Rdpmc),
        (16, R::Rdtsc),
        (18, R::Hypercall),
        (30, R::Port),
        (31, R::RdMsr),
        (32, R::WrMsr),
        (36, R::Mwait),
        (39, R::Mwait),
        (40, R::Pause),
        (51, R::Rdtsc),
        (54, R::CacheControl),
        (55, R::Xsetbv),
    ];
    let mut table = [None; ENTRIES];
    let mut index = 0;
    while index < SIMPLE.len() {
        let (number, reason) = SIMPLE[index];
        table[number] = Some(reason);
        index += 1;
    }
    table
}

/// Exception vectors that always exit: #DB and #AC because a guest can make their delivery an endless loop in the
/// processor's microcode (CVE-2015-8104, CVE-2015-5307), #MC because it is the host's.
pub(crate) const GUARD_EXCEPTIONS: u32 = 1 << DEBUG | 1 << ALIGNMENT | 1 << MACHINE_CHECK;
/// #BP.
pub(crate) const BREAKPOINT: u32 = 1 << 3;
const DEBUG: u64 = 1;
const INVALID_OPCODE: u8 = 6;
const PROTECTION: u8 = 13;
const ALIGNMENT: u64 = 17;
const MACHINE_CHECK: u64 = 18;

const EXCEPTION: u64 = 0;
const EXTERNAL_INTERRUPT: u64 = 1;
const INIT: u64 = 3;
const GETSEC: u64 = 11;
const CONTROL_REGISTER: u64 = 28;
const DEBUG_REGISTER: u64 = 29;
const ENTRY_MACHINE_CHECK: u64 = 41;
const EPT_VIOLATION: u64 = 48;
const PREEMPTION_TIMER: u64 = 52;
/// The entry failed: bit of the exit reason.
const ENTRY_FAILED: u64 = 1 << 31;
/// An IRET had let NMIs in before the exit: bit of the qualification and of the exception's information.
const NMI_UNBLOCKED: u64 = 1 << 12;
/// Type of an event beside those of the contract: INT1.
const PRIVILEGED_SOFTWARE: u64 = 5 << 8;
const TYPE: u64 = 7 << 8;
/// What an exit for #DB tells of DR6: breakpoints, debug-register access, single step.
const DR6_BITS: u64 = 0x600f;
const DR6_ACCESS: u64 = 1 << 13;
/// DR7: general detect.
const DR7_DETECT: u64 = 1 << 13;

/// The reason of the last exit, or that there is none for the monitor.
#[inline]
pub(crate) fn classify(vcpu: &mut Vcpu) -> Exit {
    let reason = vmcs::read(vmcs::EXIT_REASON);
    if vcpu.failed || reason & ENTRY_FAILED != 0 {
        return refused(vcpu, reason);
    }
    vcpu.launched = true;
    let vectoring = vmcs::read(vmcs::VECTORING_EVENT);
    vcpu.event = if vectoring & Event::VALID != 0 { interrupted(vectoring) } else { 0 };
    let simple = usize::try_from(reason).ok().and_then(|number| SIMPLE.get(number));
    match simple {
        Some(Some(reason)) => Exit::Monitor(*reason),
        _ => classify_rest(vcpu, reason & 0xffff, vectoring),
    }
}

/// The entry failed, so that nothing was delivered: the event waits for the next one, which the monitor decides on. The VMCS is
/// launched if it was before (SDM vol. 3C, 27.8).
#[cold]
fn refused(vcpu: &Vcpu, reason: u64) -> Exit {
    vmcs::write(vmcs::ENTRY_EVENT, 0);
    let is_check = !vcpu.failed && reason & 0xffff == ENTRY_MACHINE_CHECK;
    if is_check { Exit::MachineCheck } else { Exit::Monitor(ExitReason::InvalidState) }
}

/// The exit came while an event was being delivered: it is delivered again at the next entry, unless the monitor says
/// otherwise. Software interrupts, #BP and #OF come again by themselves when their instruction does. An NMI had not
/// begun to block others.
#[cold]
fn interrupted(vectoring: u64) -> u64 {
    let plain = vectoring & (Event::VALID | TYPE | 0xff);
    match vectoring & TYPE {
        Event::INTERRUPT => plain,
        Event::NMI => {
            vmcs::write(vmcs::INTERRUPTIBILITY, vmcs::read(vmcs::INTERRUPTIBILITY) & !BLOCKED_NMI);
            plain
        }
        Event::EXCEPTION if vectoring & Event::ERROR_VALID != 0 => {
            plain | Event::ERROR_VALID | vmcs::read(vmcs::VECTORING_ERROR) << 32
        }
        Event::EXCEPTION => plain,
        _ => 0,
    }
}

#[inline(never)]
fn classify_rest(vcpu: &mut Vcpu, reason: u64, vectoring: u64) -> Exit {
    match reason {
        EPT_VIOLATION => {
            block_again(vmcs::read(vmcs::QUALIFICATION), vectoring);
            Exit::Monitor(ExitReason::Memory)
        }
        // The host's timer, if it was for that, rings now as well.
        EXTERNAL_INTERRUPT | INIT | PREEMPTION_TIMER => Exit::Interrupt,
        EXCEPTION => exception(vcpu, vectoring),
        CONTROL_REGISTER => control_register(vcpu),
        DEBUG_REGISTER => debug_register(vcpu),
        GETSEC => {
            vcpu.event = Event::exception(INVALID_OPCODE, None).0;
            Exit::Resume
        }
        // VMCLEAR to VMXON, INVEPT, INVVPID, VMFUNC: a guest has no VMX.
        19..=27 | 50 | 53 | 59 => {
            vcpu.event = Event::exception(INVALID_OPCODE, None).0;
            Exit::Monitor(ExitReason::Virtualization)
        }
        _ => Exit::Monitor(ExitReason::Other),
    }
}

/// An IRET that had ended the blocking of NMIs will run once more (SDM vol. 3C, 28.2.3).
fn block_again(information: u64, vectoring: u64) {
    if information & NMI_UNBLOCKED != 0 && vectoring & Event::VALID == 0 {
        vmcs::write(vmcs::INTERRUPTIBILITY, vmcs::read(vmcs::INTERRUPTIBILITY) | BLOCKED_NMI);
    }
}

fn exception(vcpu: &mut Vcpu, vectoring: u64) -> Exit {
    let event = vmcs::read(vmcs::EXIT_EVENT);
    if event & TYPE == Event::NMI {
        world::take_nmi();
        return Exit::Interrupt;
    }
    block_again(event, vectoring);
    let wanted = vcpu.registers.controls.contains(Controls::DEBUG);
    match event & 0xff {
        MACHINE_CHECK => Exit::MachineCheck,
        DEBUG => {
            debug_exception(vcpu, event);
            if wanted { Exit::Monitor(ExitReason::Exception) } else { Exit::Resume }
        }
        ALIGNMENT => {
            vcpu.event = Event::exception(17, Some(0)).0;
            Exit::Resume
        }
        _ => Exit::Monitor(ExitReason::Exception),
    }
}

/// What the exit for a #DB kept from happening: the debug registers change, and the guest gets it unless the monitor does.
fn debug_exception(vcpu: &mut Vcpu, event: u64) {
    let found = vmcs::read(vmcs::QUALIFICATION) & DR6_BITS;
    vcpu.dr6 |= found;
    if found & DR6_ACCESS != 0 {
        vmcs::write(vmcs::GUEST_DR7, vmcs::read(vmcs::GUEST_DR7) & !DR7_DETECT);
    }
    if event & TYPE == PRIVILEGED_SOFTWARE {
        skip();
    }
    if !vcpu.registers.controls.contains(Controls::DEBUG) {
        vcpu.event = Event::exception(1, None).0;
    }
}

/// Goes past the instruction that exited.
fn skip() {
    vmcs::write(vmcs::GUEST_RIP, vmcs::read(vmcs::GUEST_RIP).wrapping_add(length()));
}

/// The guest writes bits of CR0 or CR4 that the host owns, to what the shadow has not. Of CR0 the shadow takes the new values, and
/// the instruction, run again, does not exit any more. Those of CR4 do not exist for the guest.
fn control_register(vcpu: &mut Vcpu) -> Exit {
    let qualification = vmcs::read(vmcs::QUALIFICATION);
    let value = vcpu.gpr(qualification >> 8);
    // MOV to the register, by its number.
    match qualification & 0x3f {
        0 if value & (CR0_NW | CR0_CD) != CR0_NW && value & (CR0_PG | 1) != CR0_PG => {
            let mask = vcpu.cr0_mask();
            vmcs::write(vmcs::CR0_SHADOW, vmcs::read(vmcs::CR0_SHADOW) & !mask | value & mask);
            Exit::Resume
        }
        0 | 4 => {
            vcpu.event = Event::exception(PROTECTION, Some(0)).0;
            Exit::Resume
        }
        _ => Exit::Monitor(ExitReason::Other),
    }
}

/// Unless the monitor wants to see them, the debug registers become the guest's at its first access.
fn debug_register(vcpu: &mut Vcpu) -> Exit {
    if vcpu.registers.controls.contains(Controls::DR) {
        return Exit::Monitor(ExitReason::Dr);
    }
    vcpu.registers.debug = true;
    vcpu.set_primary(machine::MOV_DR, false);
    Exit::Resume
}

/// The three words of detail that go with a reason.
#[inline]
pub(crate) fn qualification(vcpu: &Vcpu, reason: ExitReason) -> [u64; 3] {
    match reason {
        ExitReason::Memory => [fault_bits(vmcs::read(vmcs::QUALIFICATION)), vmcs::read(vmcs::GUEST_PHYSICAL), 0],
        ExitReason::Port => [port(vcpu).0, vmcs::read(vmcs::GUEST_RIP).wrapping_add(length()), 0],
        ExitReason::Exception => {
            let event = vmcs::read(vmcs::EXIT_EVENT);
            let code = if event & Event::ERROR_VALID != 0 { vmcs::read(vmcs::EXIT_ERROR) } else { 0 };
            [event & 0x1f, code, vmcs::read(vmcs::QUALIFICATION)]
        }
        ExitReason::Dr => {
            let found = vmcs::read(vmcs::QUALIFICATION);
            [found & 7 | if found & 1 << 4 == 0 { 1 << 4 } else { 0 }, found >> 8 & 0xf, 0]
        }
        ExitReason::Other | ExitReason::TaskSwitch | ExitReason::InvalidState => [
            vmcs::read(vmcs::EXIT_REASON),
            vmcs::read(vmcs::QUALIFICATION),
            if vcpu.failed { vmcs::read(vmcs::INSTRUCTION_ERROR) } else { 0 },
        ],
        _ => [0; 3],
    }
}

/// An EPT violation (SDM vol. 3C, table 28-7) as the error code of a page fault, as SVM has it: present, write, user, fetch.
const fn fault_bits(qualification: u64) -> u64 {
    let present = if qualification >> 3 & 7 != 0 { 1 } else { 0 };
    present | qualification & 2 | 4 | (qualification & 4) << 2
}

/// The port access of an exit (SDM vol. 3C, table 28-5), and the details of string instructions (table 28-9). What a processor
/// leaves out of the latter is what the instruction has without prefixes.
fn port(vcpu: &Vcpu) -> PortAccess {
    let found = vmcs::read(vmcs::QUALIFICATION);
    let [_, _, low, high, ..] = found.to_le_bytes();
    let flag = |bit: u32, value: u64| if found & 1 << bit != 0 { value } else { 0 };
    let flags = flag(3, PortAccess::IN) | flag(4, PortAccess::STRING) | flag(5, PortAccess::REP);
    let is_in = flags & PortAccess::IN != 0;
    let (address_size, segment) = match (flags & PortAccess::STRING != 0, vcpu.has_string_details()) {
        (false, _) => (default_address_size(vcpu), 0),
        (true, false) => (default_address_size(vcpu), if is_in { 0 } else { 3 }),
        (true, true) => {
            let details = vmcs::read(vmcs::EXIT_INSTRUCTION);
            (2 << (details >> 7 & 3), if is_in { 0 } else { details >> 15 & 7 })
        }
    };
    PortAccess::new(u16::from_le_bytes([low, high]), flags, (found & 7) + 1, address_size, segment)
}

/// Address size of the code segment, bytes.
fn default_address_size(vcpu: &Vcpu) -> u64 {
    const CS_ACCESS: vmcs::Code = vmcs::GUEST_ACCESS + 2;
    let access = vmcs::read(CS_ACCESS);
    match (access & 1 << 13 != 0 && vcpu.get(Field::Efer) & 1 << 10 != 0, access & 1 << 14 != 0) {
        (true, _) => 8,
        (false, true) => 4,
        (false, false) => 2,
    }
}

/// Length of the instruction that exited, 0 if none did.
pub(crate) fn length() -> u64 {
    match vmcs::read(vmcs::EXIT_REASON) {
        10..=28 | 29..=32 | 36 | 39 | 40 | 50..=51 | 53..=59 => vmcs::read(vmcs::EXIT_LENGTH) & 0xf,
        EXCEPTION if vmcs::read(vmcs::EXIT_EVENT) & 0x400 != 0 => vmcs::read(vmcs::EXIT_LENGTH) & 0xf,
        _ => 0,
    }
}
