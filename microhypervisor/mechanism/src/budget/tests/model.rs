// SPDX-License-Identifier: MIT OR Apache-2.0
//! Against a model.

use crate::Exhausted;
use crate::budget::Budget;
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
