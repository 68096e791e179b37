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
        pub fn one() -> Self {
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

#[cfg(test)]
mod tests;
