// SPDX-License-Identifier: MIT OR Apache-2.0
//! System calls that are not hypercalls, and what they and flags can do to a return from the kernel.

use crate::equal;
use crate::harness::{Outcome, Test};
use cloister_abi::status::Status;
use cloister_bare::kernel::message;
use core::arch::{asm, naked_asm};

pub(crate) static TESTS: [Test; 5] = [
    ("foreign-call-without-entry", without),
    ("foreign-call-is-bounced", bounced),
    ("foreign-entry-must-be-the-components", bad_entry),
    ("system-call-keeps-registers", keeps),
    ("system-call-with-odd-flags", odd_flags),
];

/// Makes the system call 39 with an argument; answers what comes in `rax`.
fn foreign(argument: u64) -> u64 {
    let answer;
    // SAFETY: the entry that is registered, if any, returns behind the instruction.
    unsafe {
        asm!("syscall", inout("rax") 39u64 => answer, in("rdi") argument, out("rcx") _, out("r11") _, out("r10") _);
    }
    answer
}

/// Answers number and argument: `rax * 1000 + rdi`. The return address is word 8 of the message page.
#[unsafe(naked)]
extern "C" fn entry() {
    naked_asm!("imul rax, rax, 1000", "add rax, rdi", "jmp gs:[64]")
}

fn without() -> Outcome {
    message().set_foreign_entry(0);
    equal!(foreign(1), Status::BadHypercall as u64);
    Ok(())
}

fn bounced() -> Outcome {
    message().set_foreign_entry(entry as *const () as u64);
    equal!(foreign(7), 39_007);
    let (back, flags) = message().foreign();
    let here = foreign as *const () as u64;
    crate::check!(back > 0x40_0000 && back.abs_diff(here) < 0x10_0000);
    equal!(flags & 0x202, 0x202);
    message().set_foreign_entry(0);
    Ok(())
}

fn bad_entry() -> Outcome {
    for entry in [1 << 47, 0xffff_8000_0000_0000, u64::MAX, cloister_abi::USER_END] {
        message().set_foreign_entry(entry);
        equal!(foreign(7), Status::BadHypercall as u64);
    }
    message().set_foreign_entry(0);
    Ok(())
}

/// All registers but those of the result and `rcx`, `r11` come back as they were.
fn keeps() -> Outcome {
    let (rdx, r8, r9, r10, r12, r13, r14, r15): (u64, u64, u64, u64, u64, u64, u64, u64);
    // SAFETY: the call does nothing.
    unsafe {
        asm!("syscall", inout("rax") 0x434c_0000u64 => _, lateout("rdi") _, lateout("rsi") _,
            inout("rdx") 1u64 => rdx, inout("r8") 2u64 => r8, inout("r9") 3u64 => r9, inout("r10") 4u64 => r10,
            inout("r12") 5u64 => r12, inout("r13") 6u64 => r13, inout("r14") 7u64 => r14, inout("r15") 8u64 => r15,
            out("rcx") _, out("r11") _);
    }
    equal!([rdx, r8, r9, r10, r12, r13, r14, r15], [1, 2, 3, 4, 5, 6, 7, 8]);
    Ok(())
}

/// Direction, alignment-check and nested-task flags are the component's own affair.
fn odd_flags() -> Outcome {
    for flags in [0x400u64, 0x4000, 0x4_0000, 0x4_4cd5] {
        let after: u64;
        // SAFETY: the flags are put back before anything else happens.
        unsafe {
            asm!("pushfq", "or [rsp], r8", "popfq", "syscall", "pushfq", "pop r9",
                "push 0x202", "popfq", in("r8") flags, out("r9") after,
                inout("rax") 0x434c_0000u64 => _, out("rdi") _, out("rsi") _, out("rcx") _, out("r11") _);
        }
        equal!(after & flags, flags);
        equal!(after & 0x3200, 0x200);
    }
    Ok(())
}
