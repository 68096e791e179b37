// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a protection domain may use of the kernel's memory, in bytes.
//!
//! `used <= limit` holds always. Budget moves between domains; it is neither made nor lost.

use crate::Exhausted;
use crate::sync::{AtomicU64, Ordering::Relaxed, constructor};

/// A budget and what is used of it.
#[derive(Debug)]
pub struct Budget {
    limit: AtomicU64,
    used: AtomicU64,
}

impl Budget {
    constructor! {
        /// A budget of so many bytes, nothing used.
        pub fn new(limit: u64) -> Self {
            Self { limit: AtomicU64::new(limit), used: AtomicU64::new(0) }
        }
    }

    /// Bytes in all.
    #[must_use]
    pub fn limit(&self) -> u64 {
        self.limit.load(Relaxed)
    }

    /// Bytes used.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.used.load(Relaxed)
    }

    /// Uses some.
    ///
    /// # Errors
    /// `Budget` if not as much is left; nothing was changed.
    pub fn charge(&self, bytes: u64) -> Result<(), Exhausted> {
        self.used
            .fetch_update(Relaxed, Relaxed, |used| {
                used.checked_add(bytes).filter(|sum| *sum <= self.limit.load(Relaxed))
            })
            .map(|_| ())
            .map_err(|_| Exhausted::Budget)
    }

    /// Returns some that was charged.
    pub fn credit(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Relaxed);
    }

    /// Takes free budget away for good: it becomes somebody else's by [`Budget::grow`].
    ///
    /// # Errors
    /// `Budget` if not as much is free; nothing was changed.
    pub fn shrink(&self, bytes: u64) -> Result<(), Exhausted> {
        // Charging first keeps `used <= limit` true for whoever charges meanwhile.
        self.charge(bytes)?;
        self.limit.fetch_sub(bytes, Relaxed);
        self.credit(bytes);
        Ok(())
    }

    /// Adds budget that was taken from another one.
    pub fn grow(&self, bytes: u64) {
        self.limit.fetch_add(bytes, Relaxed);
    }
}

#[cfg(test)]
#[cfg(not(feature = "loom"))]
mod tests {
    use super::Budget;
    use crate::Exhausted;

    #[test]
    fn charges_up_to_the_limit() {
        let budget = Budget::new(100);
        assert_eq!(budget.charge(60), Ok(()));
        assert_eq!(budget.charge(41), Err(Exhausted::Budget));
        assert_eq!(budget.charge(u64::MAX), Err(Exhausted::Budget));
        assert_eq!(budget.charge(40), Ok(()));
        budget.credit(100);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn moves_only_what_is_free() {
        let (from, to) = (Budget::new(100), Budget::new(0));
        assert_eq!(from.charge(30), Ok(()));
        assert_eq!(from.shrink(71), Err(Exhausted::Budget));
        assert_eq!(from.shrink(70), Ok(()));
        to.grow(70);
        assert_eq!((from.limit(), from.used(), to.limit()), (30, 30, 70));
    }
}
