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
    use proptest::prelude::{prop_assert_eq, proptest};
    use std::collections::{BTreeMap, VecDeque};
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

    proptest! {
        /// The first of the highest priority, of what was put in, in front or at the back.
        #[test]
        fn is_a_queue_per_priority(steps in proptest::collection::vec((0..4u8, 0..12usize), 0..120)) {
            let priorities = [0, 0, 1, 63, 64, 64, 64, 100, 126, 127, 127, 127];
            let members: Vec<_> = priorities.into_iter().zip(0..).map(|(at, id)| Member(at, id, Link::new())).collect();
            let queue = ReadyQueue::new();
            let mut model: BTreeMap<u8, VecDeque<usize>> = BTreeMap::new();
            for (what, index) in steps {
                let (member, priority) = (&members[index], members[index].0);
                let waits = model.get(&priority).is_some_and(|members| members.contains(&index));
                match what {
                    0 | 1 if !waits => {
                        queue.insert(member, priority, what == 0);
                        let list = model.entry(priority).or_default();
                        if what == 0 { list.push_front(index) } else { list.push_back(index) }
                    }
                    2 => {
                        queue.remove(member, priority);
                        model.entry(priority).or_default().retain(|other| *other != index);
                    }
                    _ => {
                        let first = model.values_mut().next_back().and_then(VecDeque::pop_front);
                        // SAFETY: the members outlive the queue.
                        prop_assert_eq!(queue.pop().map(|member| unsafe { member.as_ref() }.1 as usize), first);
                    }
                }
                model.retain(|_, members| !members.is_empty());
                prop_assert_eq!(queue.highest(), model.keys().next_back().copied());
                for priority in 0..=127 {
                    prop_assert_eq!(queue.is_waiting(priority), model.contains_key(&priority));
                }
            }
        }
    }
}
