// SPDX-License-Identifier: MIT OR Apache-2.0
//! By several cores at once, in every order of steps.

use crate::budget::Budget;
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

/// All four at once: one charges and credits, one takes budget away and brings it back, and a third is granted no more than there is.
#[test]
fn nobody_is_granted_what_is_elsewhere() {
    explore(|| {
        let budget = Arc::new(Budget::new(10));
        let (first, second) = (Arc::clone(&budget), Arc::clone(&budget));
        let user = thread::spawn(move || {
            if first.charge(4).is_ok() {
                first.credit(4);
            }
        });
        let mover = thread::spawn(move || {
            if second.shrink(5).is_ok() {
                second.grow(5);
            }
        });
        let granted = if budget.charge(6).is_ok() { 6 } else { 0 };
        assert!(budget.free() <= 10 - granted);
        user.join().expect("no panic");
        mover.join().expect("no panic");
        assert_eq!((budget.limit(), budget.used(), budget.free()), (10, granted, 10 - granted));
    });
}
