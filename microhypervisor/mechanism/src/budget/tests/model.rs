// SPDX-License-Identifier: MIT OR Apache-2.0
//! Against a model.

use crate::budget::Budget;
use crate::pool::Pool;
use crate::{Exhausted, FRAME};
use core::ptr::NonNull;
use proptest::prelude::{any, prop_assert_eq, proptest};
use std::alloc::{Layout, alloc, dealloc};
use std::vec::Vec;

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

proptest! {
    /// Two domains, which were promised more or less than there is, take frames and give them back. Each is told what is used up, and whoever
    /// is refused is not charged.
    #[test]
    fn frames_are_charged_to_who_takes_them(
        promised in proptest::array::uniform2(0..8u64),
        steps in proptest::collection::vec((0..2usize, any::<bool>(), any::<usize>()), 0..100),
    ) {
        const FRAMES: usize = 8;
        let layout = Layout::from_size_align(FRAMES * FRAME, FRAME).expect("layout");
        // SAFETY: the layout is not empty.
        let memory = NonNull::new(unsafe { alloc(layout) }).expect("memory");
        let pool = Pool::empty();
        // SAFETY: freed when the pool is used no more.
        unsafe { pool.fill(memory, FRAMES) };
        let budgets = promised.map(|frames| Budget::new(frames * FRAME as u64 + 5));
        let mut held: [Vec<NonNull<u8>>; 2] = Default::default();
        for (who, take, which) in steps {
            let free = FRAMES - held[0].len() - held[1].len();
            if take {
                match budgets[who].take(&pool) {
                    Ok(frame) => held[who].push(frame),
                    Err(Exhausted::Budget) => prop_assert_eq!(held[who].len() as u64, promised[who]),
                    Err(Exhausted::Pool) => prop_assert_eq!(free, 0),
                }
            } else if !held[who].is_empty() {
                let frame = held[who].swap_remove(which % held[who].len());
                // SAFETY: taken above.
                unsafe { budgets[who].give(&pool, frame) };
            }
            for (budget, held) in budgets.iter().zip(&held) {
                prop_assert_eq!(budget.used(), (held.len() * FRAME) as u64);
            }
            prop_assert_eq!(pool.available(), (FRAMES - held[0].len() - held[1].len()) as u64);
        }
        // SAFETY: allocated above.
        unsafe { dealloc(memory.as_ptr(), layout) };
    }
}
