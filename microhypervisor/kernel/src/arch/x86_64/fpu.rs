// SPDX-License-Identifier: MIT OR Apache-2.0
//! Floating-point and vector state: saving, restoring, and letting nobody but its owner see it.
//!
//! The unit is switched lazily: CR0.TS is set while the current EC does not own the state in the registers. AMD APM vol. 2,
//! 11.5 (XSAVE); vol. 1, 11.4.

use super::cpu::{self, feature};
use crate::width::low32;
use core::arch::asm;
use core::ptr::NonNull;

/// Lets floating-point instructions trap, or not.
#[inline]
pub(crate) fn set_trap(trap: bool) {
    if trap {
        // SAFETY: sets TS and nothing else.
        unsafe { asm!("mov {tmp}, cr0", "or {tmp}, 8", "mov cr0, {tmp}", tmp = out(reg) _, options(nomem, nostack)) };
    } else {
        // SAFETY: clears TS and nothing else.
        unsafe { asm!("clts", options(nomem, nostack, preserves_flags)) };
    }
}

/// Initial state in an area that is zeroed: control words as after reset (x87 0x37f, MXCSR 0x1f80).
pub(crate) fn initialize(area: NonNull<u8>) {
    // SAFETY: the area is a frame, the legacy region is its first 512 bytes, and the x87 control word its first two.
    unsafe { area.cast::<u16>().write(0x37f) };
    // SAFETY: as above, with MXCSR at byte 24.
    unsafe { area.as_ptr().wrapping_add(24).cast::<u32>().write(0x1f80) };
}

/// Saves the registers to an area.
///
/// # Safety
/// The area is a frame of the owner of what is in the registers; the trap is off.
pub(crate) unsafe fn save(area: NonNull<u8>, mask: u64) {
    if cpu::has(feature::XSAVE) {
        let (low, high) = (low32(mask), low32(mask >> 32));
        // SAFETY: the area is 64-byte aligned and large enough for all components that XCR0 enables.
        unsafe {
            asm!("xsave64 [{}]", in(reg) area.as_ptr(), in("eax") low, in("edx") high, options(nostack, preserves_flags))
        };
    } else {
        // SAFETY: the area is 16-byte aligned and larger than 512 bytes.
        unsafe { asm!("fxsave64 [{}]", in(reg) area.as_ptr(), options(nostack, preserves_flags)) };
    }
}

/// Loads the registers from an area.
///
/// # Safety
/// The area holds state that `save` or `initialize` wrote; the trap is off.
pub(crate) unsafe fn restore(area: NonNull<u8>, mask: u64) {
    if cpu::has(feature::XSAVE) {
        let (low, high) = (low32(mask), low32(mask >> 32));
        // SAFETY: as `save`; the header was zeroed at first and written by XSAVE since.
        unsafe {
            asm!("xrstor64 [{}]", in(reg) area.as_ptr(), in("eax") low, in("edx") high, options(nostack, preserves_flags))
        };
    } else {
        // SAFETY: as `save`.
        unsafe { asm!("fxrstor64 [{}]", in(reg) area.as_ptr(), options(nostack, preserves_flags)) };
    }
}
