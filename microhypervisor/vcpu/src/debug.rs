// SPDX-License-Identifier: MIT OR Apache-2.0
//! The debug registers, which neither extension switches but for DR7 (and DR6 in SVM). The host uses none.

use core::arch::asm;

/// Loads DR0 to DR3. DR7 must have no breakpoint enabled.
#[cold]
pub fn load(registers: &[u64; 4]) {
    let [dr0, dr1, dr2, dr3] = *registers;
    // SAFETY: the host enables no breakpoint, so the addresses mean nothing to it.
    unsafe {
        asm!(
            "mov dr0, {}",
            "mov dr1, {}",
            "mov dr2, {}",
            "mov dr3, {}",
            in(reg) dr0,
            in(reg) dr1,
            in(reg) dr2,
            in(reg) dr3,
            options(nostack, preserves_flags),
        );
    }
}

/// Answers DR0 to DR3, and switches all breakpoints off (an exit should have; emulators forget).
#[must_use]
pub(crate) fn save() -> [u64; 4] {
    let (dr0, dr1, dr2, dr3): (u64, u64, u64, u64);
    // SAFETY: the host uses no debug registers.
    unsafe {
        asm!(
            "mov dr7, {off}",
            "mov {}, dr0",
            "mov {}, dr1",
            "mov {}, dr2",
            "mov {}, dr3",
            out(reg) dr0,
            out(reg) dr1,
            out(reg) dr2,
            out(reg) dr3,
            off = in(reg) 0x400_u64,
            options(nostack, preserves_flags),
        );
    }
    [dr0, dr1, dr2, dr3]
}
