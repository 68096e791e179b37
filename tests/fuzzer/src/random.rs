// SPDX-License-Identifier: MIT OR Apache-2.0
//! Numbers without pattern that follow from a seed.

use crate::layout::{SLOTS, record};
use core::sync::atomic::Ordering::Relaxed;

/// Spreads the bits of a number.
pub(crate) const fn mix(value: u64) -> u64 {
    let value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ value >> 31
}

/// The numbers of one slot. They go on where they were when its thread is started anew.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Random(pub(crate) usize);

impl Random {
    /// The next number.
    pub(crate) fn next(self) -> u64 {
        let state = &record().random[self.0 % SLOTS];
        let value = state.load(Relaxed).wrapping_add(0x9e37_79b9_7f4a_7c15);
        state.store(value, Relaxed);
        mix(value)
    }

    /// A number below `count`, which is not 0.
    pub(crate) fn below(self, count: u64) -> u64 {
        (self.next() >> 11) % count.max(1)
    }

    /// True once in so many times.
    pub(crate) fn once_in(self, count: u64) -> bool {
        self.below(count) == 0
    }

    /// One of these.
    pub(crate) fn of<T: Copy, const N: usize>(self, choice: [T; N]) -> T {
        const { assert!(N > 0) };
        choice[(self.below(N as u64) as usize) % N]
    }
}
