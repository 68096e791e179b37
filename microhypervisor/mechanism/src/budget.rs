// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a protection domain may use of the kernel's memory, in bytes.
//!
//! Budget moves between domains; it is neither made nor lost. What decides is one word, what is free: a limit and what is used of it in
//! two words let somebody charge by a limit that another one had lowered meanwhile (found by loom). The limit is for information.

use crate::Exhausted;
use crate::sync::{
    AtomicU64,
    Ordering::{AcqRel, Acquire, Relaxed},
    constructor,
};

/// A budget and what is used of it.
#[derive(Debug)]
pub struct Budget {
    free: AtomicU64,
    limit: AtomicU64,
}

impl Budget {
    constructor! {
        /// A budget of so many bytes, nothing used.
        pub fn new(limit: u64) -> Self {
            Self { free: AtomicU64::new(limit), limit: AtomicU64::new(limit) }
        }
    }

    /// Bytes in all.
    #[must_use]
    pub fn limit(&self) -> u64 {
        self.limit.load(Relaxed)
    }

    /// Bytes used. While budget moves, that which moves may count as used.
    #[must_use]
    pub fn used(&self) -> u64 {
        let free = self.free.load(Acquire);
        self.limit().saturating_sub(free)
    }

    /// Bytes not used.
    #[must_use]
    pub fn free(&self) -> u64 {
        self.free.load(Acquire)
    }

    /// Uses some.
    ///
    /// # Errors
    /// `Budget` if not as much is left; nothing was changed.
    pub fn charge(&self, bytes: u64) -> Result<(), Exhausted> {
        self.free
            .fetch_update(AcqRel, Acquire, |free| free.checked_sub(bytes))
            .map(|_| ())
            .map_err(|_| Exhausted::Budget)
    }

    /// Returns some that was charged.
    pub fn credit(&self, bytes: u64) {
        self.free.fetch_add(bytes, AcqRel);
    }

    /// Takes free budget away for good: it becomes somebody else's by [`Budget::grow`].
    ///
    /// # Errors
    /// `Budget` if not as much is free; nothing was changed.
    pub fn shrink(&self, bytes: u64) -> Result<(), Exhausted> {
        self.charge(bytes)?;
        self.limit.fetch_sub(bytes, AcqRel);
        Ok(())
    }

    /// Adds budget that was taken from another one.
    pub fn grow(&self, bytes: u64) {
        // First the limit, so that it never is below what is free.
        self.limit.fetch_add(bytes, AcqRel);
        self.credit(bytes);
    }
}

#[cfg(test)]
#[cfg(not(feature = "loom"))]
mod tests {
    use super::Budget;
    use crate::Exhausted;
    use proptest::prelude::{prop_assert_eq, proptest};

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

    proptest! {
        /// Domains charge, credit and move: the sum of limits stays, and nobody uses more than his.
        #[test]
        fn budget_is_neither_made_nor_lost(steps in proptest::collection::vec((0..4u8, 0..3usize, 0..3usize, 0..400u64), 0..80)) {
            let budgets = [Budget::new(1000), Budget::new(0), Budget::new(300)];
            let mut model = [(1000u64, 0u64), (0, 0), (300, 0)];
            for (what, from, to, bytes) in steps {
                let free = model[from].0 - model[from].1;
                match what {
                    0 => {
                        prop_assert_eq!(budgets[from].charge(bytes).is_ok(), bytes <= free);
                        model[from].1 += if bytes <= free { bytes } else { 0 };
                    }
                    1 => {
                        let bytes = bytes.min(model[from].1);
                        budgets[from].credit(bytes);
                        model[from].1 -= bytes;
                    }
                    _ => {
                        prop_assert_eq!(budgets[from].shrink(bytes).is_ok(), bytes <= free);
                        if bytes <= free {
                            budgets[to].grow(bytes);
                            model[from].0 -= bytes;
                            model[to].0 += bytes;
                        }
                    }
                }
                for (budget, (limit, used)) in budgets.iter().zip(model) {
                    prop_assert_eq!((budget.limit(), budget.used()), (limit, used));
                }
                prop_assert_eq!(budgets.iter().map(Budget::limit).sum::<u64>(), 1300);
            }
        }
    }
}

#[cfg(test)]
#[cfg(feature = "loom")]
mod loom_tests {
    use super::Budget;
    use crate::sync::explore;
    use loom::thread;
    use std::sync::Arc;

    /// Two charge while a third takes some away: what was granted fits into what is left.
    #[test]
    fn charging_and_shrinking_at_once_keep_the_limit() {
        explore(|| {
            let budget = Arc::new(Budget::new(10));
            let charge = |bytes: u64| {
                let budget = Arc::clone(&budget);
                thread::spawn(move || if budget.charge(bytes).is_ok() { bytes } else { 0 })
            };
            let (first, second) = (charge(7), charge(2));
            let taken = if budget.shrink(4).is_ok() { 4 } else { 0 };
            let used = first.join().expect("no panic") + second.join().expect("no panic");
            assert_eq!((budget.limit(), budget.used()), (10 - taken, used));
            assert!(used <= 10 - taken, "{used} of {}", 10 - taken);
        });
    }

    /// Two move budget in opposite directions while one of them is charged: the sum stays.
    #[test]
    fn moving_to_and_fro_keeps_the_sum() {
        explore(|| {
            let pair = Arc::new((Budget::new(5), Budget::new(5)));
            let other = Arc::clone(&pair);
            let mover = thread::spawn(move || {
                if other.1.shrink(3).is_ok() {
                    other.0.grow(3);
                }
            });
            let charged = pair.0.charge(4).is_ok();
            if pair.0.shrink(2).is_ok() {
                pair.1.grow(2);
            }
            if charged {
                pair.0.credit(4);
            }
            mover.join().expect("no panic");
            assert_eq!(pair.0.limit() + pair.1.limit(), 10);
            assert_eq!((pair.0.used(), pair.1.used()), (0, 0));
        });
    }
}
