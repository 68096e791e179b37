// SPDX-License-Identifier: MIT OR Apache-2.0
//! Keeping the log readable, and the machine usable, when something that is worth a line happens without end.
//!
//! The first [`FIRST`] times are told, then each time that the count is a power of two: whatever happens, at most some seventy
//! lines. A limit by time was rejected: it still lets a component write for ever at the kernel's expense.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Times that are all told.
const FIRST: u64 = 8;

/// How often something happened.
pub(crate) struct Flood(AtomicU64);

impl Flood {
    /// Never so far.
    pub(crate) const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// It happened: tells it, with how often it did so far, unless that was done often enough.
    pub(crate) fn tell(&self, say: impl FnOnce(u64)) {
        let count = self.0.fetch_add(1, Relaxed) + 1;
        if count <= FIRST || count.is_power_of_two() {
            say(count);
        }
    }
}
