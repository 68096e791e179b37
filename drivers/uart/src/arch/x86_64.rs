// SPDX-License-Identifier: MIT OR Apache-2.0
//! x86_64: `in` and `out`.

use core::arch::asm;

/// Reads a port.
///
/// # Safety
/// The port belongs to this component, and reading it has no effect on memory.
pub(crate) unsafe fn read(port: u16) -> u8 {
    let value;
    // SAFETY: the caller's word.
    unsafe { asm!("in al, dx", in("dx") port, out("al") value, options(nomem, nostack, preserves_flags)) };
    value
}

/// Writes a port.
///
/// # Safety
/// The port belongs to this component, and writing it has no effect on memory.
pub(crate) unsafe fn write(port: u16, value: u8) {
    // SAFETY: the caller's word.
    unsafe { asm!("out dx, al", in("dx") port, in("al") value, options(nomem, nostack, preserves_flags)) };
}
