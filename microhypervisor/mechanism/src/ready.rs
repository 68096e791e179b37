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
    pub const fn empty() -> Self {
        Self { queues: [const { List::empty() }; PRIORITIES], present: Cell::new(0) }
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

#[cfg(test)]
mod tests;
