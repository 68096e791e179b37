// SPDX-License-Identifier: MIT OR Apache-2.0
//! Speculation: reads what the processor is, lets [`cloister_processor::mitigation`] decide what is done where, and does it.
//!
//! What must be done on entry and exit is not in the way of processors that need nothing: at boot, one of several ways in and
//! out is chosen ([`super::entry`]). What is done when address spaces change or guests run is behind a test of [`WAYS`], which never changes
//! after boot.

use super::cpu;
use super::entry::Way;
use cloister_processor::barrier::{Actions, List, Point, Step, list, spec_ctrl, steps};
use cloister_processor::mitigation::decide;
use core::arch::{asm, naked_asm};
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};
use x86::msr::{IA32_EFER, rdmsr, wrmsr};

const AUTO_IBRS: u64 = 1 << 21;

/// What is done, as bits of [`Actions`]. The ways in and out look at it, too.
pub(super) static ACTIONS: AtomicU32 = AtomicU32::new(0);
/// SPEC_CTRL in the kernel, and in user mode.
pub(super) static SPEC_CTRL_KERNEL: AtomicU32 = AtomicU32::new(0);
/// See [`SPEC_CTRL_KERNEL`].
pub(super) static SPEC_CTRL_USER: AtomicU32 = AtomicU32::new(0);

/// What is to be done on all other paths. Plain words, since a test of an atomic one is an instruction more.
struct Ways {
    switch: List,
    enter_guest: List,
    /// The return stack is filled.
    leave_guest: bool,
    monitor: List,
}

/// See [`Ways`].
struct Fixed(UnsafeCell<Ways>);
// SAFETY: written at boot, before a second core runs, and only read since.
unsafe impl Sync for Fixed {}

const NOTHING: List = [None; 3];
static WAYS: Fixed =
    Fixed(UnsafeCell::new(Ways { switch: NOTHING, enter_guest: NOTHING, leave_guest: false, monitor: NOTHING }));

#[inline(always)]
fn ways() -> &'static Ways {
    // SAFETY: nothing writes after boot.
    unsafe { &*WAYS.0.get() }
}

/// Whether there is something to do.
#[inline(always)]
fn is_any(list: &List) -> bool {
    list[0].is_some()
}

/// Decides, and chooses the way in and out. Called once, on the boot core, before there is one.
pub(crate) fn init(cmdline: &str) {
    let plan = decide(cpu::features(), cmdline);
    ACTIONS.store(plan.actions.bits(), Relaxed);
    let [user, kernel] = spec_ctrl(plan.actions);
    SPEC_CTRL_USER.store(user, Relaxed);
    SPEC_CTRL_KERNEL.store(kernel, Relaxed);
    let has = |point| steps(plan.actions, point).next().is_some();
    let at = |point| list(plan.actions, point);
    let ways = Ways {
        switch: at(Point::Switch),
        enter_guest: at(Point::EnterGuest),
        leave_guest: has(Point::LeaveGuest),
        monitor: at(Point::Monitor),
    };
    // SAFETY: the boot core alone runs, and nobody has looked yet.
    unsafe { *WAYS.0.get() = ways };
    Way::choose(match (has(Point::Entry), has(Point::Exit)) {
        (true, _) => Way::BOTH,
        (false, true) => Way::OUT,
        (false, false) => Way::PLAIN,
    });
    log::info!("speculation: {plan}");
}

/// Sets this core's registers.
pub(crate) fn init_core() {
    carry_out(&list(Actions::from_bits_truncate(ACTIONS.load(Relaxed)), Point::Start));
}

/// Does what is to be done at a point.
#[cold]
fn carry_out(list: &List) {
    for step in list.iter().map_while(|step| *step) {
        match step {
            // SAFETY: register and bits are there by CPUID, or the plan would not have them.
            Step::Write(register, value) => unsafe { wrmsr(register, value.into()) },
            Step::AutomaticIbrs => {
                // SAFETY: the register exists in long mode.
                let efer = unsafe { rdmsr(IA32_EFER) };
                // SAFETY: the bit is there by CPUID.
                unsafe { wrmsr(IA32_EFER, efer | AUTO_IBRS) };
            }
            Step::FillReturnStack => fill_return_stack(),
            Step::HideRegisters => crate::percore::core().hide_fpu(),
            Step::Overwrite => {
                let segment = super::percore::KERNEL_CS + 8;
                // SAFETY: asks about a segment; that it overwrites buffers is what it is for.
                unsafe { asm!("verw word ptr [{}]", in(reg) &raw const segment, options(nostack, readonly)) };
            }
        }
    }
}

/// Another address space is about to be loaded, for the EC that is current.
///
/// This is on the way of each call to another component: a function that may be called there costs all of them the saving of registers (8
/// instructions), so it is one that the compiler does not see.
#[inline]
pub(crate) fn switch() {
    if is_any(&ways().switch) {
        // SAFETY: keeps all registers, and expects nothing of the stack but that there is some.
        unsafe { asm!("call {}", sym switch_keeping_registers) };
    }
}

extern "C" fn switch_steps() {
    carry_out(&ways().switch);
}

/// [`switch_steps`] for callers that do not know that they call.
#[unsafe(naked)]
extern "C" fn switch_keeping_registers() {
    naked_asm!(
        "push rbp",
        "mov rbp, rsp",
        "push rax",
        "push rcx",
        "push rdx",
        "push rsi",
        "push rdi",
        "push r8",
        "push r9",
        "push r10",
        "push r11",
        "and rsp, -16",
        "call {steps}",
        "lea rsp, [rbp - 9 * 8]",
        "pop r11",
        "pop r10",
        "pop r9",
        "pop r8",
        "pop rdi",
        "pop rsi",
        "pop rdx",
        "pop rcx",
        "pop rax",
        "pop rbp",
        "ret",
        steps = sym switch_steps,
    )
}

/// A guest is about to be entered.
#[inline]
pub(crate) fn enter_guest() {
    if is_any(&ways().enter_guest) {
        carry_out(&ways().enter_guest);
    }
}

/// A guest has exited: before anything returns.
#[inline(always)]
pub(crate) fn leave_guest() {
    if ways().leave_guest {
        fill_return_stack();
    }
}

/// The monitor of a guest that ran goes on.
#[inline]
pub(crate) fn return_to_monitor() {
    if is_any(&ways().monitor) {
        carry_out(&ways().monitor);
    }
}

/// Puts 32 harmless entries into the return-stack buffer.
#[inline(always)]
fn fill_return_stack() {
    // SAFETY: pushes return addresses and takes them off again; each call's target is the one after its trap.
    unsafe {
        asm!(
            "2: call 3f",
            "int3",
            "3: call 4f",
            "int3",
            "4: dec {count:e}",
            "jnz 2b",
            "add rsp, 32 * 8",
            "lfence",
            count = inout(reg) 16u32 => _,
        );
    }
}
