// SPDX-License-Identifier: MIT OR Apache-2.0
//! Counted references to objects that are looked up without a lock.
//!
//! Who finds an object in a table does not count a reference, but may begin to: even just after the last one went, since its look-up
//! came before. So memory returns no earlier than everybody has left the handler in which he looked up (a *grace period*), and then
//! only if nobody has begun to refer to the object meanwhile; otherwise it waits for the new last reference. If that has gone, too, others
//! may have found the object through it, and another grace period has to pass. The word has the count, a bit that says that the object
//! is on somebody's list of those that wait for grace, on which it must be once only, and one for references that came and went there.
//!
//! The life of an object: [`RefCount::acquire`] and [`RefCount::release`]; who is told that his was the last one destroys the object
//! while he still holds it, then calls [`RefCount::retire`] and, if told so, puts it on his list; after the grace
//! period [`RefCount::reap`] says whether its memory can go.

use crate::sync::{AtomicU32, Ordering, constructor};

/// It is on a list.
const LISTED: u32 = 1 << 31;
/// While it was on the list, a last reference has gone again.
const TOUCHED: u32 = 1 << 30;

/// What becomes of an object after its grace period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Nobody refers to it, for ever: its memory can go.
    Gone,
    /// It must go back onto the list, for another grace period.
    Again,
    /// Somebody refers to it, and will be told that his is the last reference.
    Alive,
}

/// A count of references.
#[derive(Debug)]
pub struct RefCount(AtomicU32);

impl RefCount {
    constructor! {
        /// One reference.
        pub fn new() -> Self {
            Self(AtomicU32::new(1))
        }
    }

    /// Takes one reference more. The caller has one, or has looked the object up since the last grace period began.
    #[inline]
    pub fn acquire(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Lets a reference go. Answers true if it is the last one: then it is still held, until [`RefCount::retire`].
    #[inline]
    #[must_use]
    pub fn release(&self) -> bool {
        self.step(|count| (count != 1).then(|| less(count))).is_err()
    }

    /// Lets the last reference go. Answers true if the object must be put on a list to wait for grace; false if it is on one, or if
    /// somebody has a reference now.
    #[must_use]
    pub fn retire(&self) -> bool {
        self.step(|count| Some(if count == 1 { LISTED } else { less(count) })) == Ok(1)
    }

    /// The grace period is over, and the object is off the list.
    #[must_use]
    pub fn reap(&self) -> Fate {
        let found = self.step(|count| {
            let references = count & !(LISTED | TOUCHED);
            Some(if references == 0 { LISTED } else { references })
        });
        match found {
            Ok(LISTED) => Fate::Gone,
            Ok(count) if count & !(LISTED | TOUCHED) == 0 => Fate::Again,
            _ => Fate::Alive,
        }
    }

    #[inline]
    fn step(&self, change: impl FnMut(u32) -> Option<u32>) -> Result<u32, u32> {
        self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, change)
    }
}

/// One reference less.
const fn less(count: u32) -> u32 {
    if count & !TOUCHED == LISTED | 1 { LISTED | TOUCHED } else { count - 1 }
}

impl Default for RefCount {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
#[cfg(not(feature = "loom"))]
mod tests {
    use super::{Fate, RefCount};
    use proptest::prelude::{any, prop_assert_eq, proptest};

    proptest! {
        /// References come and go, some of them during the grace period: the memory goes once, when there are none.
        #[test]
        fn memory_goes_once(takes in proptest::collection::vec(any::<bool>(), 0..40)) {
            let count = RefCount::new();
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
}

#[cfg(test)]
#[cfg(feature = "loom")]
mod loom_tests {
    use super::{Fate, RefCount};
    use crate::sync::explore;
    use loom::cell::UnsafeCell;
    use loom::sync::atomic::{
        AtomicBool, AtomicU32,
        Ordering::{Acquire, Relaxed, Release, SeqCst},
    };
    use loom::thread;
    use std::sync::Arc;

    /// An object, the capability to it, and two cores.
    struct World {
        /// The capability holds a reference.
        capability: AtomicBool,
        count: RefCount,
        /// The object's memory; it is written when that is given back.
        memory: UnsafeCell<u32>,
        /// Whether each core has left the handler that it is in.
        left: [AtomicBool; 2],
        freed: AtomicU32,
    }
    // SAFETY: loom checks that nobody uses the memory while another one writes it.
    unsafe impl Sync for World {}
    // SAFETY: as above.
    unsafe impl Send for World {}

    impl World {
        fn new() -> Arc<Self> {
            Arc::new(Self {
                capability: AtomicBool::new(true),
                count: RefCount::new(),
                memory: UnsafeCell::new(0),
                left: [AtomicBool::new(false), AtomicBool::new(false)],
                freed: AtomicU32::new(0),
            })
        }

        /// Looks the object up and takes a reference.
        fn look_up(&self) -> bool {
            let found = self.capability.load(Acquire);
            if found {
                self.count.acquire();
            }
            found
        }

        fn read(&self) {
            // SAFETY: loom checks it.
            self.memory.with(|word| assert_eq!(unsafe { *word }, 0, "used after it was given back"));
        }

        /// Lets a reference go. Core `own` has left its handler; the other one may be in one that looked up.
        fn release(&self, own: usize) {
            if !self.count.release() || !self.count.retire() {
                return;
            }
            while !self.left[1 - own].load(Acquire) {
                thread::yield_now();
            }
            let fate = loop {
                match self.count.reap() {
                    // All have left their handlers for good.
                    Fate::Again => {}
                    fate => break fate,
                }
            };
            if fate == Fate::Gone {
                // SAFETY: loom checks it.
                self.memory.with_mut(|word| unsafe { *word = 1 });
                self.freed.fetch_add(1, Relaxed);
            }
        }

        /// Takes the capability away.
        fn remove(&self) -> bool {
            self.capability.swap(false, SeqCst)
        }

        fn leave(&self, own: usize) {
            self.left[own].store(true, Release);
        }

        fn end(&self) {
            assert_eq!(self.freed.load(Relaxed), 1, "given back once");
        }
    }

    #[test]
    fn a_reference_taken_as_the_last_one_goes_keeps_the_memory() {
        explore(|| {
            let world = World::new();
            let other = Arc::clone(&world);
            let user = thread::spawn(move || {
                let found = other.look_up();
                other.leave(0);
                if found {
                    other.read();
                    other.release(0);
                }
            });
            world.leave(1);
            if world.remove() {
                world.release(1);
            }
            user.join().expect("no panic");
            world.end();
        });
    }

    #[test]
    fn two_let_go_at_once() {
        explore(|| {
            let world = World::new();
            let other = Arc::clone(&world);
            let user = thread::spawn(move || {
                // Both look up, and both take the capability away: one of them does.
                let found = other.look_up();
                let removed = other.remove();
                other.leave(0);
                for _ in [found, removed].into_iter().filter(|held| *held) {
                    other.read();
                    other.release(0);
                }
            });
            let removed = world.remove();
            world.leave(1);
            if removed {
                world.read();
                world.release(1);
            }
            user.join().expect("no panic");
            world.end();
        });
    }
}
