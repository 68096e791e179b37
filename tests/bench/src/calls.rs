// SPDX-License-Identifier: MIT OR Apache-2.0
//! System calls without stubs, and the shortest of several.

use cloister_abi::arch::x86_64::HYPERCALL_BASE;
use cloister_abi::hypercall::{Args, Call, IpcReply};
use cloister_bare::time::now;
use core::arch::{asm, naked_asm};

/// How often a path is walked.
const ROUNDS: usize = 20;

/// A hypercall whose registers are ready.
#[inline(always)]
pub(crate) fn syscall(number: u64, args: &Args) -> (u64, u64) {
    let (status, first): (u64, u64);
    // SAFETY: the callers' hypercalls take nothing away that is in use.
    unsafe {
        asm!("syscall", inlateout("rax") number => status, inlateout("rdi") args[0] => first,
            inlateout("rsi") args[1] => _, in("rdx") args[2], in("r10") args[3], in("r8") args[4], in("r9") args[5],
            lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    (status, first)
}

/// Number of a hypercall as its register has it.
pub(crate) const fn number<C: Call>() -> u64 {
    HYPERCALL_BASE + C::NUMBER
}

/// Instructions between two readings of the counter that have nothing between them.
fn nothing() -> u64 {
    let mut least = u64::MAX;
    for _ in 0..ROUNDS {
        let start = now();
        least = least.min(now() - start);
    }
    least
}

/// Instructions of the shortest of several walks; `prepare` is not counted. A walk that fails counts as 0.
pub(crate) fn shortest<C: Call>(mut prepare: impl FnMut() -> C) -> u64 {
    let mut least = u64::MAX;
    for _ in 0..ROUNDS {
        let args = prepare().encode();
        let number = number::<C>();
        let start = now();
        let (status, _) = syscall(number, &args);
        let length = now() - start;
        if status != 0 {
            return 0;
        }
        least = least.min(length);
    }
    least - nothing()
}

/// Entry of a portal that answers with what it got.
#[unsafe(naked)]
pub(crate) extern "C" fn echo() -> ! {
    naked_asm!("mov rdi, rsi", "mov eax, {reply}", "syscall", "ud2", reply = const number::<IpcReply>())
}
