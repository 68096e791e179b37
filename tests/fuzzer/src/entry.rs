// SPDX-License-Identifier: MIT OR Apache-2.0
//! First instructions of the hostile component's threads and servers, and faults from which they come back.
//!
//! Nothing is expected of the registers: the slot follows from the address of the message page, and the stack from the slot.

use crate::layout::{SLOTS, STACK_AREA, STACK_BITS, UTCB_BITS, UTCBS};
use cloister_abi::arch::x86_64::HYPERCALL_BASE;
use cloister_abi::hypercall::{Args, Call, IpcReply};
use core::arch::{asm, naked_asm};

const REPLY: u64 = HYPERCALL_BASE + IpcReply::NUMBER;
const FIRST_STACK: u64 = STACK_AREA + (1 << STACK_BITS);
/// Bytes of [`thread`], about.
pub(crate) const LENGTH: u64 = 64;
/// What `rbx` is while a fault is expected; `r12` is then where to go on.
pub(crate) const EXPECTED: u64 = 0x0bad_cafe_0bad_cafe;

/// A thread's start, and its new start after a crash. A server's crash is a reply without words; its portals go on.
#[unsafe(naked)]
pub(crate) extern "C" fn thread() -> ! {
    naked_asm!(
        "mov eax, {reply}", "xor edi, edi", "syscall",
        "mov rax, gs:[0]", "mov ecx, {utcbs}", "sub rax, rcx", "shr rax, {utcb_bits}", "and eax, {last}",
        "mov edi, eax", "shl rax, {stack_bits}", "mov ecx, {stack}", "lea rsp, [rax + rcx]", "xor ebp, ebp",
        "cld", "call {run}", "ud2",
        reply = const REPLY, utcbs = const UTCBS, utcb_bits = const UTCB_BITS, last = const SLOTS - 1,
        stack_bits = const STACK_BITS, stack = const FIRST_STACK, run = sym crate::hostile::run,
    )
}

/// Entry of portals: `rdi` is the identity, `rsi` the header; both go on to the function, with the slot.
macro_rules! portal {
    ($name:ident, $function:path) => {
        #[unsafe(naked)]
        pub(crate) extern "C" fn $name() -> ! {
            naked_asm!(
                "mov rax, gs:[0]", "mov ecx, {utcbs}", "sub rax, rcx", "shr rax, {utcb_bits}", "and eax, {last}",
                "mov edx, eax", "shl rax, {stack_bits}", "mov ecx, {stack}", "lea rsp, [rax + rcx]", "xor ebp, ebp",
                "cld", "call {function}", "mov rdi, rax", "mov eax, {reply}", "syscall", "ud2",
                reply = const REPLY, utcbs = const UTCBS, utcb_bits = const UTCB_BITS, last = const SLOTS - 1,
                stack_bits = const STACK_BITS, stack = const FIRST_STACK, function = sym $function,
            )
        }
    };
}
portal!(server, crate::hostile::serve);
portal!(handler, crate::hostile::repair);

/// Where system calls go that are no hypercalls: back.
#[unsafe(naked)]
pub(crate) extern "C" fn foreign() -> ! {
    naked_asm!("jmp gs:[64]")
}

/// Does what no component may, in one of ten ways, perhaps at an address; a handler that repairs lets it return.
#[unsafe(naked)]
pub(crate) extern "C" fn provoke(way: u64, address: u64) {
    naked_asm!(
        "push rbx", "push r12", "mov rbx, {expected}", "lea r12, [rip + 90f]", "and edi, 15",
        "cmp edi, 1", "je 71f", "cmp edi, 2", "je 72f", "cmp edi, 3", "je 73f", "cmp edi, 4", "je 74f",
        "cmp edi, 5", "je 75f", "cmp edi, 6", "je 76f", "cmp edi, 7", "je 77f", "cmp edi, 8", "je 78f", "cmp edi, 9", "je 79f",
        "mov rax, [rsi]", "jmp 90f",
        "71:", "mov [rsi], rax", "jmp 90f",
        "72:", "ud2",
        "73:", "int3", "jmp 90f",
        "74:", "xor edx, edx", "xor ecx, ecx", "div ecx", "jmp 90f",
        "75:", "cli", "jmp 90f",
        "76:", "jmp rsi",
        "77:", "int 0x80", "jmp 90f",
        "78:", "mov edx, esi", "in al, dx", "jmp 90f",
        "79:", "vmmcall", "jmp 90f",
        "90:", "pop r12", "pop rbx", "ret",
        expected = const EXPECTED,
    )
}

/// A system call with any number; the answer as the registers have it, and a mark that came back in a register that the kernel keeps. A
/// thread whose stack or registers others have spoiled, and which came here by a return address that is not its own, has another mark.
#[inline(never)]
pub(crate) fn syscall(number: u64, args: &Args, mark: u64) -> [u64; 3] {
    let (status, first, back): (u64, u64, u64);
    // SAFETY: what the call does to this component is what it is for; the supervisor checks what it did to others.
    unsafe {
        asm!("syscall", inlateout("rax") number => status, inlateout("rdi") args[0] => first,
            inlateout("rsi") args[1] => _, in("rdx") args[2], in("r10") args[3], in("r8") args[4], in("r9") args[5],
            inlateout("r12") mark => back, lateout("rcx") _, lateout("r11") _);
    }
    [status, first, back]
}
