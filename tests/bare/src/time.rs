// SPDX-License-Identifier: MIT OR Apache-2.0
//! The time-stamp counter.

use core::arch::asm;

/// Time-stamp counter of the core.
#[inline]
#[must_use]
pub fn now() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: reads a counter.
    unsafe { asm!("rdtsc", out("eax") low, out("edx") high, options(nostack, preserves_flags)) };
    u64::from(high) << 32 | u64::from(low)
}

/// Ticks in so many microseconds.
#[must_use]
pub fn micros(count: u64) -> u64 {
    (crate::entry::hip().tsc_hz / 1_000_000).max(1) * count
}

/// The tick so many microseconds from now.
#[must_use]
pub fn after(count: u64) -> u64 {
    now() + micros(count)
}
