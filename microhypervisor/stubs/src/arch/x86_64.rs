// SPDX-License-Identifier: MIT OR Apache-2.0
//! x86_64: `syscall` with the registers of [`cloister_abi::arch::x86_64`], and the UTCB through GS.

use cloister_abi::arch::x86_64::HYPERCALL_BASE;
use cloister_abi::hypercall::{Args, Results};
use cloister_abi::utcb::Utcb;
use core::arch::asm;

/// Makes the system call.
///
/// # Safety
/// As [`crate::invoke`].
#[inline]
pub(crate) unsafe fn syscall(number: u64, args: &Args) -> Results {
    let (status, first, second): (u64, u64, u64);
    // SAFETY: the kernel keeps all registers but those named here; what the call does is the caller's word.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") HYPERCALL_BASE + number => status,
            inlateout("rdi") args[0] => first,
            inlateout("rsi") args[1] => second,
            in("rdx") args[2],
            in("r10") args[3],
            in("r8") args[4],
            in("r9") args[5],
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    [status, first, second]
}

/// Makes a system call that does not return.
///
/// # Safety
/// As [`crate::reply`].
#[inline]
pub(crate) unsafe fn reply(number: u64, args: &Args, stack: u64) -> ! {
    // SAFETY: the caller gives up its stack. Should the kernel refuse the reply, the trap ends the thread.
    unsafe {
        asm!(
            "mov rsp, {stack}",
            "syscall",
            "ud2",
            stack = in(reg) stack,
            in("rax") HYPERCALL_BASE + number,
            in("rdi") args[0],
            options(noreturn),
        );
    }
}

/// Address of the UTCB: the first word of the page is its own address.
#[inline]
pub(crate) fn utcb() -> *mut Utcb {
    let address: u64;
    // SAFETY: the kernel points GS base at the UTCB of every EC.
    unsafe { asm!("mov {}, gs:[0]", out(reg) address, options(nostack, preserves_flags, readonly)) };
    core::ptr::with_exposed_provenance_mut(usize::try_from(address).unwrap_or(0))
}
