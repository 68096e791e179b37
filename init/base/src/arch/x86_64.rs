// SPDX-License-Identifier: MIT OR Apache-2.0
//! x86_64.

use core::arch::{asm, naked_asm};

/// First instructions of every portal: `rdi` = identity, `rsi` = header of the message, `rsp` = top of the stack, which the
/// handler gets as third argument so that it can be reused for the next call. The handler does not return.
///
/// The address of this function is what [`crate::sessions::Pd::alloc_rpc`] wants as `entry`.
///
/// # Safety
/// Never called by code, only entered by the kernel.
#[unsafe(naked)]
pub unsafe extern "sysv64" fn portal_entry() -> ! {
    naked_asm!("mov rdx, rsp", "xor ebp, ebp", "call {handler}", "ud2", handler = sym crate::entry::portal_called)
}

/// Defines the first instructions of a freestanding program: `rsp` = somewhere in the stack, which is all theirs.
#[macro_export]
macro_rules! program_start {
    ($main:path) => {
        #[cfg(target_os = "none")]
        #[unsafe(no_mangle)]
        #[unsafe(naked)]
        unsafe extern "sysv64" fn _start() -> ! {
            core::arch::naked_asm!("xor ebp, ebp", "and rsp, -16", "call {main}", "ud2", main = sym $main)
        }
    };
}

/// Ticks of the time-stamp counter.
#[must_use]
pub fn clock() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: reads a counter.
    unsafe { asm!("rdtsc", out("eax") low, out("edx") high, options(nomem, nostack, preserves_flags)) };
    u64::from(high) << 32 | u64::from(low)
}

/// Tells the processor that this is a waiting loop.
pub fn relax() {
    core::hint::spin_loop();
}
