// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which selectors of the component's object space are in use.
//!
//! A bit map that any thread may use at any time, without a lock. The lowest free selector is taken, so that the kernel's
//! table of the object space stays small.

use crate::Error;
use cloister_abi::cap::Selector;
use cloister_abi::hypercall::Drop;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// The parent.
pub const PARENT: Selector = 1;
/// The PD session.
pub const PD: Selector = 2;
/// The CPU session.
pub const CPU: Selector = 3;
/// The LOG session.
pub const LOG: Selector = 4;
/// The binary's ROM session.
pub const BINARY: Selector = 5;
/// The notification semaphore, once somebody asked for it.
pub const NOTIFICATION: Selector = 6;
/// The entrypoint's thread.
pub const ENTRYPOINT: Selector = 7;
/// The portal from the main thread to the entrypoint.
pub const CONTROL: Selector = 8;
/// The semaphore on which session requests wait.
pub const READY: Selector = 9;
/// The first selector that is handed out.
pub const FIRST_FREE: Selector = 16;

/// How many selectors a component can use.
pub const COUNT: Selector = 1 << 16;

const BITS: u32 = u64::BITS;
const WORDS: usize = (COUNT / BITS) as usize;

/// A bit map of selectors.
#[derive(Debug)]
pub struct Selectors {
    used: [AtomicU64; WORDS],
    /// No word before this one has a free bit (a hint: may be too low).
    first: AtomicUsize,
}

static SELECTORS: Selectors = Selectors::new();

impl Selectors {
    /// All free but the reserved ones.
    #[must_use]
    pub const fn new() -> Self {
        let mut used = [const { AtomicU64::new(0) }; WORDS];
        used[0] = AtomicU64::new((1 << FIRST_FREE) - 1);
        Self { used, first: AtomicUsize::new(0) }
    }

    /// Takes `count` (1 to 64) selectors in a row.
    #[must_use]
    pub fn take(&self, count: u32) -> Option<Selector> {
        let row = u64::MAX.checked_shr(BITS.checked_sub(count)?)?;
        let start = self.first.load(Ordering::Relaxed);
        let mut full_so_far = true;
        for (index, word) in self.used.iter().enumerate().skip(start) {
            if let Some(bit) = take_in(word, row, count) {
                return u32::try_from(index).ok().map(|index| index * BITS + bit);
            }
            full_so_far &= word.load(Ordering::Relaxed) == u64::MAX;
            if full_so_far {
                self.first.store(index, Ordering::Relaxed);
            }
        }
        None
    }

    /// Gives `count` selectors back.
    pub fn give(&self, base: Selector, count: u32) {
        for selector in base..base.saturating_add(count).min(COUNT) {
            let index = (selector / BITS) as usize;
            self.used[index].fetch_and(!(1 << (selector % BITS)), Ordering::Relaxed);
            self.first.fetch_min(index, Ordering::Relaxed);
        }
    }

    /// How many are in use.
    #[must_use]
    pub fn in_use(&self) -> u32 {
        self.used.iter().map(|word| word.load(Ordering::Relaxed).count_ones()).sum()
    }
}

impl Default for Selectors {
    fn default() -> Self {
        Self::new()
    }
}

/// Takes the lowest run of `count` free bits of a word.
fn take_in(word: &AtomicU64, row: u64, count: u32) -> Option<u32> {
    let mut used = word.load(Ordering::Relaxed);
    loop {
        let bit = (0..=BITS - count).find(|bit| used & row << bit == 0)?;
        match word.compare_exchange_weak(used, used | row << bit, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => return Some(bit),
            Err(now) => used = now,
        }
    }
}

/// Takes `count` selectors in a row.
///
/// # Errors
/// [`Error::OutOfCaps`] if there are none.
pub fn allocate(count: u32) -> Result<Selector, Error> {
    SELECTORS.take(count).ok_or(Error::OutOfCaps { needed: u64::from(count), available: 0 })
}

/// Gives selectors back that name nothing. The reserved ones stay reserved.
pub fn release(base: Selector, count: u32) {
    if base >= FIRST_FREE {
        SELECTORS.give(base, count);
    }
}

/// How many selectors are in use.
#[must_use]
pub fn in_use() -> u32 {
    SELECTORS.in_use()
}

/// Drops the capability at a selector and gives the selector back.
pub fn drop_capability(selector: Selector) {
    // SAFETY: dropping a capability takes a right away and touches neither memory nor registers.
    let dropped = unsafe { cloister_stubs::invoke(&Drop { base: selector, count: 1 }) };
    // A selector that is not known to be empty is not used again.
    if dropped.is_ok() {
        release(selector, 1);
    }
}

#[cfg(test)]
mod tests {
    use super::{COUNT, FIRST_FREE, Selectors};
    use std::boxed::Box;
    use std::collections::BTreeSet;

    #[test]
    fn lowest_free_selector_is_taken() {
        let map = Box::new(Selectors::new());
        assert_eq!(map.take(1), Some(FIRST_FREE));
        assert_eq!(map.take(4), Some(FIRST_FREE + 1));
        map.give(FIRST_FREE, 1);
        assert_eq!(map.take(2), Some(FIRST_FREE + 5));
        assert_eq!(map.take(1), Some(FIRST_FREE));
    }

    #[test]
    fn a_row_does_not_cross_words() {
        let map = Box::new(Selectors::new());
        assert_eq!(map.take(46), Some(16));
        assert_eq!(map.take(4), Some(64));
        assert_eq!(map.take(2), Some(62));
        assert_eq!(map.take(0), None);
        assert_eq!(map.take(65), None);
    }

    #[test]
    fn all_are_handed_out_once() {
        let map = Box::new(Selectors::new());
        let mut seen = BTreeSet::new();
        while let Some(selector) = map.take(1) {
            assert!(seen.insert(selector));
        }
        assert_eq!(seen.len(), (COUNT - FIRST_FREE) as usize);
        assert_eq!(map.in_use(), COUNT);
        map.give(4000, 1);
        assert_eq!(map.take(1), Some(4000));
    }
}
