// SPDX-License-Identifier: MIT OR Apache-2.0
//! Into the kernel and out of it.
//!
//! There is one kernel stack per core and no kernel stack per EC: on entry from user mode the registers go straight into the
//! [`Frame`] of the current EC (the processor pushes there by TSS.RSP0, the `syscall` path does the same by hand), then
//! Rust runs on the core's stack, and on return the frame of whichever EC is current *then* is loaded. Switching ECs is
//! therefore a matter of changing TSS.RSP0.
//!
//! Interrupts are off in the kernel but for two places: the idle loop, and the moment after a guest was left because of an
//! interrupt. They come in as frames on the kernel stack and only note what happened (`kernel_trap`).
//!
//! All of it is there several times ([`Way`]): with and without what some processors need against their own speculation, and with the
//! functions of the trace around the kernel's own. At boot one is chosen, so that nothing pays for what it does not use, and
//! the kernel's code is never written.
//!
//! A hypercall's handler is called from here, through the table of [`crate::syscall`], with core, EC and frame in registers: what a
//! Rust function in between would cost is a tenth of the shortest call.
//!
//! Sources: AMD APM vol. 2, 6.1 (SYSCALL), 8.9 (long-mode interrupts), 12.2 (TSS).

use super::percore::Head;
use crate::percore::Core;
use crate::trace;
use cloister_abi::arch::x86_64::HYPERCALL_BASE;
use cloister_abi::hypercall::CALLS;
use cloister_processor::barrier::Actions;
use core::arch::global_asm;
use core::mem::offset_of;
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Registers of an EC while it is not running. The processor and the entry code write it from its end downwards.
#[derive(Debug, Default)]
#[repr(C, align(16))]
pub(crate) struct Frame {
    pub(crate) r15: u64,
    pub(crate) r14: u64,
    pub(crate) r13: u64,
    pub(crate) r12: u64,
    pub(crate) rbx: u64,
    pub(crate) rbp: u64,
    pub(crate) r10: u64,
    pub(crate) r9: u64,
    pub(crate) r8: u64,
    pub(crate) rdi: u64,
    pub(crate) rsi: u64,
    pub(crate) rdx: u64,
    pub(crate) rax: u64,
    pub(crate) rcx: u64,
    pub(crate) r11: u64,
    /// Vector, or [`SYSCALL`]: says how the EC entered and so how it is resumed.
    pub(crate) vector: u64,
    pub(crate) error: u64,
    pub(crate) rip: u64,
    pub(crate) cs: u64,
    pub(crate) rflags: u64,
    pub(crate) rsp: u64,
    pub(crate) ss: u64,
}

/// Value of [`Frame::vector`] for an EC that entered by `syscall`.
pub(crate) const SYSCALL: u64 = 0x100;
/// Bytes of the instruction by which it entered.
pub(crate) const SYSCALL_LENGTH: u64 = 2;
/// Value of [`Frame::vector`] for an EC that has not run yet.
pub(crate) const FRESH: u64 = 0x101;

const FRAME_SIZE: usize = size_of::<Frame>();
const _: () = assert!(FRAME_SIZE == 176);
// The core's structure begins with its head, where GS points.
const _: () = assert!(offset_of!(Core, head) == 0);

global_asm!(
    r#"
    /* The registers of a frame below `rcx` and `r11`, which `syscall` takes for itself. */
    .macro push_general
    .irp register, rax, rdx, rsi, rdi, r8, r9, r10, rbp, rbx, r12, r13, r14, r15
    push \register
    .endr
    .endm
    .macro pop_general
    .irp register, r15, r14, r13, r12, rbx, rbp, r10, r9, r8, rdi, rsi, rdx, rax
    pop \register
    .endr
    .endm
    /* What begins and ends a trap that stays on the stack it came in on. */
    .macro kernel_trap_begin
    push r11
    push rcx
    push_general
    cld
    mov rdi, rsp
    mov rbp, rsp
    .endm
    .macro kernel_trap_end
    pop_general
    pop rcx
    pop r11
    add rsp, 16
    iretq
    .endm
    /* What some processors need on the way in: while the user's registers are saved, so that it may use eax, ecx and edx. No branch runs
       ahead of it. */
    .macro work_in wanted
    .if \wanted
    test dword ptr [rip + {actions}], {entry_ibpb}
    jz 7f
    mov ecx, 0x49
    mov eax, 1
    xor edx, edx
    wrmsr
7:  test dword ptr [rip + {actions}], {entry_ibrs}
    jz 8f
    mov ecx, 0x48
    mov eax, [rip + {control_kernel}]
    xor edx, edx
    wrmsr
8:  lfence
    .endif
    .endm
    /* The same on the way out, before they are loaded. */
    .macro work_out wanted
    .if \wanted
    test dword ptr [rip + {actions}], {entry_ibrs}
    jz 7f
    mov ecx, 0x48
    mov eax, [rip + {control_user}]
    xor edx, edx
    wrmsr
7:  test dword ptr [rip + {actions}], {verw}
    jz 8f
    verw word ptr [rip + entry_segment]
8:
    .endif
    .endm
    /* A way: its name, whether it works on the way in and out, and what it calls. */
    .macro entry_way name, in, out, handlers, foreign, settle, user_trap, kernel_trap
    .section .text.entry, "ax"
    .balign 64
entry_syscall_\name:
    swapgs
    mov gs:[{scratch}], rsp
    mov rsp, gs:[{rsp0}]
    mov [rsp - 5 * 8], rcx
    mov rcx, gs:[{scratch}]
    mov [rsp - 3 * 8], r11
    mov [rsp - 2 * 8], rcx
    mov qword ptr [rsp - 7 * 8], {syscall}
    sub rsp, 9 * 8
    push_general
    work_in \in
    .if \in
    mov rax, [rsp + {rax}]
    .endif
    mov rdx, rsp
    mov rdi, gs:[{this}]
    mov rsi, gs:[{current}]
    mov rsp, gs:[{stack}]
    sub rax, {base}
    cmp rax, {calls}
    jae 4f
    call [\handlers + rax * 8]
2:  cmp dword ptr gs:[{pending}], 0
    jne 5f
entry_exit_\name:
    work_out \out
    mov rsp, gs:[{rsp0}]
    sub rsp, {frame}
    pop_general
    cmp qword ptr [rsp + 2 * 8], {syscall}
    jne 1f
    mov rcx, [rsp + 4 * 8]
    mov r11, [rsp + 6 * 8]
    mov rsp, [rsp + 7 * 8]
    swapgs
    sysretq
1:  pop rcx
    pop r11
    add rsp, 16
    swapgs
    iretq
4:  call \foreign
    jmp 2b
5:  mov rdi, gs:[{this}]
    call \settle
    jmp entry_exit_\name
entry_first_exit_\name:
    mov rsp, gs:[{stack}]
    call {settle_first}
    jmp entry_exit_\name
    .balign 16
entry_trap_\name:
    test byte ptr [rsp + 3 * 8], 3
    jz 2f
    swapgs
    lfence                          /* nothing below runs ahead with the user's GS */
    push r11
    push rcx
    push_general
    cld
    work_in \in
    mov rdi, rsp
    mov rsp, gs:[{stack}]
    call \user_trap
    jmp entry_exit_\name
entry_trap_in_kernel_\name:         /* up to the vectors, known to the backtrace: RBP points to the frame */
2:  lfence                          /* as above, for who ran ahead to here and missed SWAPGS */
    kernel_trap_begin
    and rsp, -16
    call \kernel_trap
    mov rsp, rbp
    kernel_trap_end
    /* Those with a stack of their own can come between an entry and its SWAPGS, when neither CS nor the value of GS base (which is the
       user's to choose) says whose GS it is. So the core is found at the end of the stack, where `Head::prepare` put it, and GS base is
       set and put back as it was. */
    .balign 16
6:  kernel_trap_begin
    rdgsbase rbx
    mov rax, [rsp + {frame}]
    wrgsbase rax
    lfence
    and rsp, -16
    call \kernel_trap
    wrgsbase rbx
    mov rsp, rbp
    kernel_trap_end
    /* One stub per vector, 16 bytes each; those with an error code do not push one. */
    .balign 16
entry_vectors_\name:
    .set vector, 0
    .rept 256
    .balign 16
    .if (vector != 8) && (vector != 10) && (vector != 11) && (vector != 12) && (vector != 13) && (vector != 14) && (vector != 17) && (vector != 21) && (vector != 29) && (vector != 30)
    push 0
    .endif
    push vector
    .if (vector == 2) || (vector == 8) || (vector == 18)
    jmp 6b
    .else
    jmp entry_trap_\name
    .endif
    .set vector, vector + 1
    .endr
    .section .rodata.entry, "a"
    .quad entry_syscall_\name, entry_vectors_\name, entry_first_exit_\name
    .endm
    .section .rodata.entry, "a"
entry_segment:
    .word {kernel_ss}
    .balign 8
    .global entry_ways
entry_ways:
    entry_way plain, 0, 0, {handlers}, {foreign}, {settle}, {user_trap}, {kernel_trap}
    entry_way out, 0, 1, {handlers}, {foreign}, {settle}, {user_trap}, {kernel_trap}
    entry_way both, 1, 1, {handlers}, {foreign}, {settle}, {user_trap}, {kernel_trap}
    entry_way traced, 1, 1, {traced}, {traced_foreign}, {traced_settle}, {traced_user_trap}, {traced_kernel_trap}
    /* What other assembly expects that names no section. */
    .text
"#,
    scratch = const offset_of!(Head, scratch),
    stack = const offset_of!(Head, stack),
    rsp0 = const offset_of!(Head, tss) + 4,
    rax = const offset_of!(Frame, rax),
    frame = const FRAME_SIZE,
    syscall = const SYSCALL,
    this = const offset_of!(Head, this),
    current = const offset_of!(Core, current),
    pending = const offset_of!(Core, pending),
    base = const HYPERCALL_BASE,
    calls = const CALLS.len(),
    handlers = sym crate::syscall::HANDLERS,
    foreign = sym crate::syscall::foreign,
    settle = sym crate::sched::settle,
    user_trap = sym super::trap::user_trap,
    kernel_trap = sym super::trap::kernel_trap,
    traced = sym trace::TRACED,
    traced_foreign = sym trace::foreign,
    traced_settle = sym trace::settle,
    traced_user_trap = sym trace::user_trap,
    traced_kernel_trap = sym trace::kernel_trap,
    actions = sym super::speculation::ACTIONS,
    control_kernel = sym super::speculation::SPEC_CTRL_KERNEL,
    control_user = sym super::speculation::SPEC_CTRL_USER,
    entry_ibpb = const Actions::ENTRY_IBPB.bits(),
    entry_ibrs = const Actions::ENTRY_IBRS.bits(),
    verw = const Actions::VERW.bits(),
    kernel_ss = const super::percore::KERNEL_CS + 8,
    settle_first = sym crate::sched::settle_here,
);

/// A way into the kernel and out of it, as `entry_way` lists it.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Way {
    /// Entry of the `syscall` instruction.
    pub(super) syscall: u64,
    /// 256 entries of 16 bytes.
    pub(super) vectors: u64,
    first_exit: extern "C" fn() -> !,
}

impl Way {
    /// What processors need that need nothing.
    pub(super) const PLAIN: usize = 0;
    /// Work on the way out.
    pub(super) const OUT: usize = 1;
    /// Work on both ways.
    pub(super) const BOTH: usize = 2;
    /// The trace, and work on both ways where the processor needs it.
    pub(crate) const TRACED: usize = 3;

    /// Chooses one, at boot, before there is one in use.
    pub(crate) fn choose(way: usize) {
        CHOSEN.store(way, Relaxed);
    }

    /// The one that was chosen.
    pub(super) fn chosen() -> &'static Self {
        // SAFETY: the table above, which nobody writes.
        let all = unsafe { &entry_ways };
        &all[CHOSEN.load(Relaxed)]
    }
}

static CHOSEN: AtomicUsize = AtomicUsize::new(Way::PLAIN);

unsafe extern "C" {
    static entry_ways: [Way; 4];
}

/// Leaves the boot stack for good: lets the scheduler choose, and runs that EC.
///
/// # Safety
/// The core's structure is complete, and nothing on this stack is needed any more.
pub(crate) unsafe fn first_exit() -> ! {
    (Way::chosen().first_exit)()
}
