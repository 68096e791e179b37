// SPDX-License-Identifier: MIT OR Apache-2.0
//! The debug registers, which neither extension switches but for DR7 (and DR6 in SVM). The host uses none.

use x86::debugregs::{BREAKPOINT_REGS, Dr7, dr7_write};

/// Loads DR0 to DR3. DR7 must have no breakpoint enabled.
#[cold]
pub fn load(registers: &[u64]) {
    for (place, value) in BREAKPOINT_REGS.iter().zip(registers) {
        // SAFETY: the host enables no breakpoint, so the addresses mean nothing to it.
        unsafe { place.write(usize::try_from(*value).unwrap_or(0)) };
    }
}

/// Saves DR0 to DR3, and switches all breakpoints off (an exit should have; emulators forget).
pub(crate) fn save(registers: &mut [u64]) {
    // SAFETY: the host uses no debug registers.
    unsafe { dr7_write(Dr7(0x400)) };
    for (place, value) in BREAKPOINT_REGS.iter().zip(registers) {
        // SAFETY: as above.
        *value = unsafe { place.dr() } as u64;
    }
}
