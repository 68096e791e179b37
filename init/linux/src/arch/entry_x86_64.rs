// SPDX-License-Identifier: MIT OR Apache-2.0
//! x86_64 instructions: the start of the program, the entry of bounced system calls, start and end of threads.
//!
//! A system call of Linux keeps all registers but `rax`, `rcx` and `r11`, vector registers included, and does not touch the
//! 128 bytes below the stack pointer (System V ABI, section 3.2.2). The kernel bounces it with the stack as it was. So
//! the entry goes below the red zone, pushes a [`super::Frame`], saves the vector state (the code of the personality, and
//! `memcpy` with it, use vector registers), and calls Rust. `rcx` and `r11` come back as Linux leaves them: return
//! address and flags.
//!
//! The vector state is saved by XSAVE where the processor has it on, else by FXSAVE. SSE, AVX and AVX-512 are saved, not
//! the x87 registers and not AMX: nothing in here uses them.

use cloister_abi::arch::x86_64::HYPERCALL_BASE;
use cloister_abi::utcb::Utcb;
use core::arch::global_asm;
use core::mem::offset_of;

/// Word of the message page's thread-local words that holds the slot of the thread.
pub(super) const SLOT_WORD: usize = 5;
/// Where that word is in the page.
const SLOT: usize = offset_of!(Utcb, tls) + 8 * SLOT_WORD;

// The program's entry. Linux: rsp points at the arguments, rdx is for libc. Linux answers -ENOSYS to the shortest hypercall,
// the microhypervisor 0.
global_asm!(
    ".weak _start",
    ".global cloister_start",
    ".type cloister_start,@function",
    "cloister_start:",
    "xor ebp, ebp",
    "mov r12, rdx",
    "mov r13, rsp",
    "mov eax, {null}",
    "xor edi, edi",
    "xor esi, esi",
    "syscall",
    "test rax, rax",
    "jnz cloister_start_on_linux",
    "and rsp, -16",
    "call {boot}",
    // The stack of the program, as Linux would have made it; and no function for libc to call at its end.
    "mov rsp, rax",
    "xor edx, edx",
    "xor ebp, ebp",
    "jmp qword ptr [rip + _start@GOTPCREL]",
    ".size cloister_start, . - cloister_start",
    null = const HYPERCALL_BASE,
    boot = sym crate::start::boot,
);

#[cfg(not(feature = "on-linux"))]
global_asm!("cloister_start_on_linux:", "mov rdx, r12", "jmp qword ptr [rip + _start@GOTPCREL]");

#[cfg(feature = "on-linux")]
global_asm!(
    "cloister_start_on_linux:",
    "and rsp, -16",
    "call {boot}",
    "mov rsp, rax",
    "xor edx, edx",
    "jmp qword ptr [rip + _start@GOTPCREL]",
    boot = sym crate::host::boot,
);

/// One entry of bounced system calls; they differ in how the vector state is saved.
macro_rules! entry {
    ($name:literal, [$($save:literal),*], [$($restore:literal),*]) => {
        global_asm!(
            concat!(".global ", $name),
            concat!(".type ", $name, ",@function"),
            concat!($name, ":"),
            "lea rsp, [rsp - 128]",
            "push qword ptr gs:[{foreign_return}]",
            "push qword ptr gs:[{foreign_flags}]",
            "push rdi", "push rsi", "push rdx", "push r10", "push r8", "push r9",
            "push rbx", "push rbp", "push r12", "push r13", "push r14", "push r15",
            "cld",
            "mov rbp, rsp",
            "mov rbx, rax",
            $($save,)*
            "mov rdi, rbx",
            "mov rsi, rbp",
            "call {dispatch}",
            "mov rbx, rax",
            $($restore,)*
            "mov rax, rbx",
            "mov rsp, rbp",
            "jmp cloister_resume",
            concat!(".size ", $name, ", . - ", $name),
            foreign_return = const offset_of!(Utcb, foreign_return),
            foreign_flags = const offset_of!(Utcb, foreign_flags),
            dispatch = sym crate::program::dispatch,
        );
    };
}

// XSAVE leaves bytes 8 to 63 of the header (at 512) as they are; XRSTOR wants them to be 0.
entry!(
    "cloister_entry_xsave",
    [
        "mov rcx, qword ptr [rip + cloister_vector_state]",
        "sub rsp, rcx",
        "and rsp, -64",
        "xor eax, eax",
        "mov [rsp + 512], rax",
        "mov [rsp + 520], rax",
        "mov [rsp + 528], rax",
        "mov [rsp + 536], rax",
        "mov [rsp + 544], rax",
        "mov [rsp + 552], rax",
        "mov [rsp + 560], rax",
        "mov [rsp + 568], rax",
        "xor edx, edx",
        "mov eax, dword ptr [rip + cloister_vector_state + 8]",
        "xsave64 [rsp]"
    ],
    ["xor edx, edx", "mov eax, dword ptr [rip + cloister_vector_state + 8]", "xrstor64 [rsp]"]
);
entry!("cloister_entry_fxsave", ["sub rsp, 512", "and rsp, -64", "fxsave64 [rsp]"], ["fxrstor64 [rsp]"]);

// Size and mask of the vector state, set once at the start.
global_asm!(
    ".pushsection .bss.cloister_vector_state,\"aw\",@nobits",
    ".balign 16",
    ".global cloister_vector_state",
    "cloister_vector_state:",
    ".zero 16",
    ".popsection",
);

// rsp: a frame; rax: the result. Goes on behind the system call.
global_asm!(
    "cloister_resume:",
    "pop r15",
    "pop r14",
    "pop r13",
    "pop r12",
    "pop rbp",
    "pop rbx",
    "pop r9",
    "pop r8",
    "pop r10",
    "pop rdx",
    "pop rsi",
    "pop rdi",
    "mov r11, [rsp]",
    "popfq",
    "pop rcx",
    "lea rsp, [rsp + 128]",
    "jmp rcx",
);

// First instructions of a thread. rsp: a `super::ThreadBlock`.
global_asm!(
    ".global cloister_thread",
    "cloister_thread:",
    "pop rax",
    "mov gs:[{foreign_entry}], rax",
    "pop rax",
    "mov gs:[{slot}], rax",
    "pop rax",
    "wrfsbase rax",
    "ldmxcsr [rsp]",
    "fldcw [rsp + 4]",
    "lea rsp, [rsp + 8]",
    "xor eax, eax",
    "jmp cloister_resume",
    foreign_entry = const offset_of!(Utcb, foreign_entry),
    slot = const SLOT,
);

// A thread that ended leaves its stack for the rest of its message page, and comes back when its slot is used again.
global_asm!(
    ".global cloister_leave",
    "cloister_leave:",
    "mov rsp, gs:[0]",
    "add rsp, 4096",
    "xor ebp, ebp",
    "call {ended}",
    "mov rsp, rax",
    "jmp cloister_thread",
    ended = sym crate::program::thread_ended,
);
