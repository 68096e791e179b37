// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who waits until when, on one core: a queue sorted by deadline. Taking the first takes constant time; inserting looks from the
//! front, since the soonest deadlines are the ones that come and go.

use crate::list::{Linked, List};
use core::ptr::NonNull;

/// Marks the link of a member of a timeout queue.
#[derive(Debug)]
pub struct Timeout;

/// What can wait for a time.
pub trait Deadline {
    /// When, in ticks.
    fn deadline(&self) -> u64;
}

/// The queue.
#[derive(Debug)]
pub struct TimeoutQueue<T> {
    list: List<T, Timeout>,
}

impl<T: Linked<Timeout> + Deadline> TimeoutQueue<T> {
    /// An empty queue.
    #[must_use]
    pub const fn new() -> Self {
        Self { list: List::new() }
    }

    /// Soonest deadline.
    #[must_use]
    pub fn soonest(&self) -> Option<u64> {
        // SAFETY: members of the list are alive.
        self.list.first().map(|member| unsafe { member.as_ref() }.deadline())
    }

    /// Puts in a member, behind those of the same deadline.
    pub fn insert(&self, member: &T) {
        let mut at = self.list.first();
        while let Some(other) = at {
            // SAFETY: members of the list are alive.
            let other = unsafe { other.as_ref() };
            if other.deadline() > member.deadline() {
                break;
            }
            at = self.list.next(other);
        }
        self.list.insert_before(member, at);
    }

    /// Takes out a member, if it is in.
    pub fn remove(&self, member: &T) {
        self.list.remove(member);
    }

    /// Takes out the first whose deadline has passed.
    pub fn pop_expired(&self, now: u64) -> Option<NonNull<T>> {
        if self.soonest()? > now {
            return None;
        }
        self.list.pop_front()
    }
}

impl<T: Linked<Timeout> + Deadline> Default for TimeoutQueue<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
#[cfg(not(feature = "loom"))]
mod tests {
    use super::{Deadline, Timeout, TimeoutQueue};
    use crate::list::{Link, Linked};
    use std::vec::Vec;

    struct Member(u64, u32, Link<Member>);
    impl Linked<Timeout> for Member {
        fn link(&self) -> &Link<Self> {
            &self.2
        }
    }
    impl Deadline for Member {
        fn deadline(&self) -> u64 {
            self.0
        }
    }

    #[test]
    fn expires_in_order_and_not_before() {
        let members: Vec<_> =
            [30, 10, 20, 10].into_iter().zip(0..).map(|(when, id)| Member(when, id, Link::new())).collect();
        let queue = TimeoutQueue::new();
        members.iter().for_each(|m| queue.insert(m));
        assert_eq!(queue.soonest(), Some(10));
        assert!(queue.pop_expired(9).is_none());
        // SAFETY: the members live to the end of the test.
        let order: Vec<u32> = core::iter::from_fn(|| queue.pop_expired(20).map(|m| unsafe { m.as_ref() }.1)).collect();
        assert_eq!(order, [1, 3, 2]);
        queue.remove(&members[0]);
        assert_eq!(queue.soonest(), None);
    }
}
