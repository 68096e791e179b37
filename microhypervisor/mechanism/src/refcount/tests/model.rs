// SPDX-License-Identifier: MIT OR Apache-2.0
//! Against a model.

use crate::refcount::{Fate, RefCount};
use proptest::prelude::{any, prop_assert_eq, proptest};

proptest! {
    /// References come and go, some of them during the grace period: the memory goes once, when there are none.
    #[test]
    fn memory_goes_once(takes in proptest::collection::vec(any::<bool>(), 0..40)) {
        let count = RefCount::one();
        let (mut held, mut listed, mut touched, mut gone) = (1u32, false, false, false);
        for take in takes.into_iter().chain([false; 44]) {
            if take && !gone {
                count.acquire();
                held += 1;
            } else if held > 0 {
                held -= 1;
                touched |= listed && held == 0;
                if count.release() {
                    prop_assert_eq!((held, listed), (0, false));
                    prop_assert_eq!(count.retire(), true);
                    listed = true;
                }
            } else if listed {
                let fate = count.reap();
                let again = if touched { Fate::Again } else { Fate::Gone };
                prop_assert_eq!(fate, if held == 0 { again } else { Fate::Alive });
                gone = fate == Fate::Gone;
                listed = fate == Fate::Again;
                touched = false;
            }
        }
        prop_assert_eq!((held, gone), (0, true));
    }
}
