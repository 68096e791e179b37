// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who waits until when, on one core: a leftist heap through the members themselves, by deadline; among equals who came first is first.
//!
//! A component may let as many threads wait as it can pay for, so no operation may take longer than it could promise: finding the
//! soonest takes constant time, putting in and taking out any member at most some 2 log n steps *each time*. That is
//! why it is none of the simpler ones: a sorted list costs what others put in, pairing and skew heaps keep their bounds only on
//! average, and a wheel of slots has to search for the soonest. A leftist heap needs nothing but three pointers and a rank.
//!
//! The *rank* of a member is the length of the shortest way down to a missing child. The left child's is never below the right
//! child's, so the way down to the right is at most log2(n + 1) long: heaps are merged along it, and all else is merging. Ranks change
//! upwards from where a member was taken out only as long as each is one above the one below, which is as short.

use core::cell::Cell;
use core::ptr::NonNull;

/// Place of an object in a timeout queue.
#[derive(Debug)]
pub struct Timer<T> {
    parent: Tie<T>,
    left: Tie<T>,
    right: Tie<T>,
    /// Number of the insertion, to tell who came first.
    turn: Cell<u32>,
    /// 0 if it is in no queue.
    rank: Cell<u8>,
}

type Tie<T> = Cell<Option<NonNull<T>>>;

impl<T> Timer<T> {
    /// In no queue.
    #[must_use]
    pub const fn none() -> Self {
        Self {
            parent: Cell::new(None),
            left: Cell::new(None),
            right: Cell::new(None),
            turn: Cell::new(0),
            rank: Cell::new(0),
        }
    }
}

/// What can wait for a time.
pub trait Deadline: Sized {
    /// When, in ticks. It does not change while the object is in a queue.
    fn deadline(&self) -> u64;

    /// Its place in the queue.
    fn timer(&self) -> &Timer<Self>;
}

/// The queue. It does not own its members: who puts one in keeps it alive until it is out again.
#[derive(Debug)]
pub struct TimeoutQueue<T> {
    root: Tie<T>,
    turns: Cell<u32>,
}

/// A member.
fn at<'a, T>(member: NonNull<T>) -> &'a T {
    // SAFETY: members of the queue are alive, and ties name members alone.
    unsafe { member.as_ref() }
}

fn rank<T: Deadline>(member: Option<NonNull<T>>) -> u8 {
    member.map_or(0, |member| at(member).timer().rank.get())
}

/// Whether `a` comes before `b`.
fn before<T: Deadline>(a: &T, b: &T) -> bool {
    let (first, second) = (a.deadline(), b.deadline());
    // Turns wrap around; those of members are closer to each other than that.
    first < second || (first == second && a.timer().turn.get().wrapping_sub(b.timer().turn.get()) > u32::MAX / 2)
}

/// Puts the children of a member in order and answers whether its rank changed.
fn balance<T: Deadline>(member: &T) -> bool {
    #[cfg(all(test, not(feature = "loom")))]
    step();
    let timer = member.timer();
    if rank(timer.left.get()) < rank(timer.right.get()) {
        timer.left.swap(&timer.right);
    }
    let now = rank(timer.right.get()) + 1;
    timer.rank.replace(now) != now
}

/// Makes one heap of two whose roots have no parents. Answers its root.
fn merge<T: Deadline>(a: Option<NonNull<T>>, b: Option<NonNull<T>>) -> Option<NonNull<T>> {
    let (mut a, mut b) = (a, b);
    // The last member of the merged way down to the right, whose right child is missing.
    let mut last: Option<NonNull<T>> = None;
    let mut root = None;
    loop {
        let next = match (a, b) {
            (Some(x), Some(y)) => {
                #[cfg(all(test, not(feature = "loom")))]
                step();
                if before(at(y), at(x)) {
                    (a, b) = (b, a);
                }
                a
            }
            (rest, None) | (None, rest) => rest,
        };
        match last {
            Some(last) => at(last).timer().right.set(next),
            None => root = next,
        }
        if let Some(next) = next {
            at(next).timer().parent.set(last);
        }
        let (Some(next), Some(_)) = (a, b) else { break };
        last = Some(next);
        a = at(next).timer().right.get();
    }
    while let Some(member) = last {
        balance(at(member));
        last = at(member).timer().parent.get();
    }
    root
}

impl<T: Deadline> TimeoutQueue<T> {
    /// An empty queue.
    #[must_use]
    pub const fn empty() -> Self {
        Self { root: Cell::new(None), turns: Cell::new(0) }
    }

    /// Soonest deadline.
    #[inline]
    #[must_use]
    pub fn soonest(&self) -> Option<u64> {
        self.root.get().map(|root| at(root).deadline())
    }

    /// Puts in a member, behind those of the same deadline. It must not be in a queue.
    pub fn insert(&self, member: &T) {
        let timer = member.timer();
        debug_assert!(timer.rank.get() == 0);
        timer.turn.set(self.turns.get());
        self.turns.set(self.turns.get().wrapping_add(1));
        timer.rank.set(1);
        self.root.set(merge(self.root.get(), Some(NonNull::from(member))));
    }

    /// Takes out a member, if it is in.
    pub fn remove(&self, member: &T) {
        let timer = member.timer();
        if timer.rank.replace(0) == 0 {
            return;
        }
        let (left, right) = (timer.left.take(), timer.right.take());
        for child in [left, right].into_iter().flatten() {
            at(child).timer().parent.set(None);
        }
        let rest = merge(left, right);
        let parent = timer.parent.take();
        if let Some(rest) = rest {
            at(rest).timer().parent.set(parent);
        }
        let Some(above) = parent else { return self.root.set(rest) };
        let above = at(above).timer();
        let was_left = above.left.get() == Some(NonNull::from(member));
        if was_left { &above.left } else { &above.right }.set(rest);
        let mut next = parent;
        while let Some(member) = next.map(at)
            && balance(member)
        {
            next = member.timer().parent.get();
        }
    }

    /// Takes out the first whose deadline has passed.
    pub fn pop_expired(&self, now: u64) -> Option<NonNull<T>> {
        let first = self.root.get().filter(|first| at(*first).deadline() <= now)?;
        self.remove(at(first));
        Some(first)
    }
}

#[cfg(test)]
#[cfg(not(feature = "loom"))]
use tests::model::step;

#[cfg(test)]
mod tests;
