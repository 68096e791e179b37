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
//! A hypercall's handler is called from here, through the table of [`crate::syscall`], with core, EC and frame in registers: what a
//! Rust function in between would cost is a tenth of the shortest call.
//!
//! Sources: AMD APM vol. 2, 6.1 (SYSCALL), 8.9 (long-mode interrupts), 12.2 (TSS).

use crate::percore::Core;
use cloister_abi::arch::x86_64::HYPERCALL_BASE;
use cloister_abi::hypercall::CALLS;
use cloister_processor::mitigation::Actions;
use core::arch::global_asm;

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

impl Frame {
    /// So many registers.
    pub(crate) const WORDS: usize = size_of::<Self>() / 8;

    /// The registers in their order.
    pub(crate) const fn words(&self) -> [u64; Self::WORDS] {
        // SAFETY: the frame is nothing but words.
        unsafe { *core::ptr::from_ref(self).cast() }
    }
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
const _: () = assert!(core::mem::offset_of!(Core, head) == 0);

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
    .section .text.entry, "ax"
    .global entry_site, trap_site, clac_site, exit_user, entry_hook, trap_hook, exit_hook
    .balign 64
    .global entry_syscall
entry_syscall:
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
    mov rdx, rsp
entry_site:
    mov rdi, gs:[{this}]
    mov rsi, gs:[{current}]
    mov rsp, gs:[{stack}]
    sub rax, {base}
    cmp rax, {calls}
    jae 4f
    call [{handlers} + rax * 8]
2:  cmp dword ptr gs:[{pending}], 0
    jne 5f
exit_user:
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
4:  call {foreign}
    jmp 2b
5:  mov rdi, gs:[{this}]
    call {settle}
    jmp exit_user
    .balign 16
entry_trap:
clac_site:
    .byte 0x0f, 0x1f, 0x00          /* three bytes of nothing, or CLAC */
    test byte ptr [rsp + 3 * 8], 3
    jz 2f
    swapgs
    lfence                          /* nothing below runs ahead with the user's GS */
    push r11
    push rcx
    push_general
    cld
    mov rdi, rsp
trap_site:
    mov rsp, gs:[{stack}]
    call {user_trap}
    jmp exit_user
entry_trap_in_kernel:               /* with its end, known to the backtrace: RBP points to the frame */
2:  lfence                          /* as above, for who ran ahead to here and missed SWAPGS */
    kernel_trap_begin
    and rsp, -16
    call {kernel_trap}
    mov rsp, rbp
    kernel_trap_end
    /* Those with a stack of their own can come between an entry and its SWAPGS, when neither CS nor the value of GS base (which is the
       user's to choose) says whose GS it is. So the core is found at the end of the stack, where `Head::activate` put it, and GS base is
       set and put back as it was. */
    .balign 16
entry_own_stack:
    kernel_trap_begin
    rdgsbase rbx
    mov rax, [rsp + {frame}]
    wrgsbase rax
    lfence
    and rsp, -16
    call {kernel_trap}
    wrgsbase rbx
    mov rsp, rbp
    kernel_trap_end
entry_trap_in_kernel_end:
    /* Hooks: in place of one instruction of the ways in and out, on processors that need them (`patch`). They may use any register
       but those that are named, since all of the user's are saved, or about to be loaded. */
    .macro work_in
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
    .endm
entry_hook:                         /* keeps rax, rdx */
    mov r12, rax
    mov r13, rdx
    work_in
    mov rax, r12
    mov rdx, r13
    mov rdi, gs:[{this}]
    jmp entry_site + 9
trap_hook:                          /* keeps rdi */
    work_in
    mov rsp, gs:[{stack}]
    jmp trap_site + 9
exit_hook:
    test dword ptr [rip + {actions}], {entry_ibrs}
    jz 7f
    mov ecx, 0x48
    mov eax, [rip + {control_user}]
    xor edx, edx
    wrmsr
7:  test dword ptr [rip + {actions}], {verw}
    jz 8f
    verw word ptr [rip + exit_segment]
8:  mov rsp, gs:[{rsp0}]
    jmp exit_user + 9
exit_segment:
    .word {kernel_ss}
    /* One stub per vector, 16 bytes each; those with an error code do not push one. */
    .balign 16
    .global entry_vectors
entry_vectors:
    .set vector, 0
    .rept 256
    .balign 16
    .if (vector != 8) && (vector != 10) && (vector != 11) && (vector != 12) && (vector != 13) && (vector != 14) && (vector != 17) && (vector != 21) && (vector != 29) && (vector != 30)
    push 0
    .endif
    push vector
    .if (vector == 2) || (vector == 8) || (vector == 18)
    jmp entry_own_stack
    .else
    jmp entry_trap
    .endif
    .set vector, vector + 1
    .endr
    .global entry_first_exit
entry_first_exit:
    mov rsp, gs:[{stack}]
    call {settle_first}
    jmp exit_user
"#,
    scratch = const core::mem::offset_of!(super::percore::Head, scratch),
    stack = const core::mem::offset_of!(super::percore::Head, stack),
    rsp0 = const core::mem::offset_of!(super::percore::Head, tss) + 4,
    frame = const FRAME_SIZE,
    syscall = const SYSCALL,
    this = const core::mem::offset_of!(super::percore::Head, this),
    current = const core::mem::offset_of!(Core, current),
    pending = const core::mem::offset_of!(Core, pending),
    base = const HYPERCALL_BASE,
    calls = const CALLS.len(),
    handlers = sym crate::syscall::HANDLERS,
    foreign = sym crate::syscall::foreign,
    user_trap = sym super::trap::user_trap,
    kernel_trap = sym super::trap::kernel_trap,
    actions = sym super::speculation::ACTIONS,
    control_kernel = sym super::speculation::SPEC_CTRL_KERNEL,
    control_user = sym super::speculation::SPEC_CTRL_USER,
    entry_ibpb = const Actions::ENTRY_IBPB.bits(),
    entry_ibrs = const Actions::ENTRY_IBRS.bits(),
    verw = const Actions::VERW.bits(),
    kernel_ss = const super::percore::KERNEL_CS + 8,
    settle = sym crate::sched::settle,
    settle_first = sym crate::sched::settle_here,
);

unsafe extern "C" {
    static entry_site: [u8; SITE];
    static trap_site: [u8; SITE];
    static exit_user: [u8; SITE];
    static clac_site: [u8; 3];
    static entry_hook: u8;
    static trap_hook: u8;
    static exit_hook: u8;
    /// Entry of the `syscall` instruction.
    pub(crate) fn entry_syscall();
    /// 256 entries of 16 bytes.
    pub(crate) fn entry_vectors();
    /// Leaves the boot stack for good: lets the scheduler choose, and runs that EC.
    pub(crate) fn entry_first_exit() -> !;
}

/// Bytes of the instructions that hooks replace: a load from GS with a 32-bit displacement.
const SITE: usize = 9;

/// Puts hooks into the ways in and out, and CLAC into that of traps.
///
/// # Safety
/// Text is writable, and nothing but the caller runs.
pub(crate) unsafe fn patch(entry: bool, exit: bool, clac: bool) {
    let sites = [
        (entry, &raw const entry_site, &raw const entry_hook),
        (entry, &raw const trap_site, &raw const trap_hook),
        (exit, &raw const exit_user, &raw const exit_hook),
    ];
    for (_, site, hook) in sites.into_iter().filter(|(wanted, ..)| *wanted) {
        // SAFETY: the labels are in this file, and the sites as long as said.
        let old = unsafe { site.read_volatile() };
        assert!(old[..4] == [0x65, 0x48, 0x8b, old[3]], "the entry code is not what its hooks replace");
        let distance = (hook.addr() as u64).wrapping_sub(site.addr() as u64 + 5).to_le_bytes();
        let [a, b, c, d, ..] = distance;
        // SAFETY: the caller says that text is writable. What is left of the old instruction is jumped over.
        unsafe { site.cast_mut().write_volatile([0xe9, a, b, c, d, 0xcc, 0xcc, 0xcc, 0xcc]) };
    }
    if clac {
        // SAFETY: as above.
        unsafe { (&raw const clac_site).cast_mut().write_volatile([0x0f, 0x01, 0xca]) };
    }
}
