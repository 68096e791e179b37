// SPDX-License-Identifier: MIT OR Apache-2.0
//! x86_64.

use core::arch::naked_asm;

/// Core starts here: `rdi` = address of the information page; the stack is ours to find.
#[cfg(target_os = "none")]
#[unsafe(no_mangle)]
#[unsafe(naked)]
unsafe extern "sysv64" fn _start() -> ! {
    naked_asm!(
        "lea rsp, [rip + {stack} + {size}]",
        "xor ebp, ebp",
        "call {main}",
        "ud2",
        stack = sym crate::MAIN_STACK,
        size = const crate::STACK,
        main = sym crate::started,
    )
}

/// An exception arrives here: `rdi` = identity, `rsi` = header, `rsp` = top of the stack.
#[unsafe(naked)]
unsafe extern "sysv64" fn fault() -> ! {
    naked_asm!("mov rdx, rsp", "xor ebp, ebp", "call {handler}", "ud2", handler = sym crate::faults::arrived)
}

/// The address of the first instruction at an exception.
pub(crate) fn fault_entry() -> u64 {
    let entry: unsafe extern "sysv64" fn() -> ! = fault;
    entry as usize as u64
}
