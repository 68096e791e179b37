// SPDX-License-Identifier: MIT OR Apache-2.0
//! The run queue of one core: a queue per priority and a bit per queue that is not empty. All operations take constant time.

use crate::list::{Linked, List};
use core::cell::Cell;
use core::ptr::NonNull;

/// Number of priorities.
pub const PRIORITIES: usize = 128;

/// Marks the link of a member of a run queue.
#[derive(Debug)]
pub struct Ready;

/// A run queue.
#[derive(Debug)]
pub struct ReadyQueue<T> {
    queues: [List<T, Ready>; PRIORITIES],
    present: Cell<u128>,
}

impl<T: Linked<Ready>> ReadyQueue<T> {
    /// An empty run queue.
    #[must_use]
    pub const fn new() -> Self {
        Self { queues: [const { List::new() }; PRIORITIES], present: Cell::new(0) }
    }

    /// Highest priority that somebody waits in.
    #[must_use]
    pub fn highest(&self) -> Option<u8> {
        let bits = self.present.get();
        #[expect(clippy::cast_possible_truncation, reason = "below 128")]
        (bits != 0).then(|| (127 - bits.leading_zeros()) as u8)
    }

    /// Whether somebody waits in that priority.
    #[must_use]
    pub fn is_waiting(&self, priority: u8) -> bool {
        self.present.get() >> priority & 1 != 0
    }

    /// Puts in a member: at the back, or in front if its time slice is not over. The priority must be below [`PRIORITIES`].
    pub fn insert(&self, member: &T, priority: u8, front: bool) {
        let Some(queue) = self.queues.get(usize::from(priority)) else { return };
        if front {
            queue.push_front(member);
        } else {
            queue.push_back(member);
        }
        self.present.set(self.present.get() | 1 << priority);
    }

    /// Takes out a member of that priority, if it is in.
    pub fn remove(&self, member: &T, priority: u8) {
        let Some(queue) = self.queues.get(usize::from(priority)) else { return };
        queue.remove(member);
        if queue.is_empty() {
            self.present.set(self.present.get() & !(1 << priority));
        }
    }

    /// Takes out the first of the highest priority.
    pub fn pop(&self) -> Option<NonNull<T>> {
        let priority = self.highest()?;
        let queue = self.queues.get(usize::from(priority))?;
        let first = queue.pop_front();
        if queue.is_empty() {
            self.present.set(self.present.get() & !(1 << priority));
        }
        first
    }
}

impl<T: Linked<Ready>> Default for ReadyQueue<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
#[cfg(not(feature = "loom"))]
mod tests {
    use super::{Ready, ReadyQueue};
    use crate::list::{Link, Linked};
    use std::vec::Vec;

    struct Member(u8, u32, Link<Member>);
    impl Linked<Ready> for Member {
        fn link(&self) -> &Link<Self> {
            &self.2
        }
    }

    #[test]
    fn highest_first_and_in_order() {
        let members: Vec<_> = [(3, 0), (127, 1), (3, 2), (0, 3), (64, 4)]
            .into_iter()
            .map(|(priority, id)| Member(priority, id, Link::new()))
            .collect();
        let queue = ReadyQueue::new();
        members.iter().for_each(|m| queue.insert(m, m.0, false));
        assert_eq!(queue.highest(), Some(127));
        assert!(queue.is_waiting(3) && !queue.is_waiting(4));
        // SAFETY: the members live to the end of the test.
        let order: Vec<u32> = core::iter::from_fn(|| queue.pop().map(|m| unsafe { m.as_ref() }.1)).collect();
        assert_eq!(order, [1, 4, 0, 2, 3]);
        assert_eq!(queue.highest(), None);
    }

    #[test]
    fn removal_clears_the_priority() {
        let member = Member(5, 0, Link::new());
        let queue = ReadyQueue::new();
        queue.insert(&member, 5, true);
        queue.remove(&member, 5);
        assert_eq!(queue.highest(), None);
        assert!(queue.pop().is_none());
    }
}
