// SPDX-License-Identifier: MIT OR Apache-2.0
//! Against a model.

use crate::timeout::{Deadline, TimeoutQueue, Timer};
use core::cell::Cell;
use core::ptr::NonNull;
use proptest::prelude::{Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest};
use std::collections::BTreeSet;
use std::vec::Vec;

std::thread_local! {
    /// Members looked at by the operation.
    static STEPS: Cell<u32> = const { Cell::new(0) };
}

pub(in crate::timeout) fn step() {
    STEPS.set(STEPS.get() + 1);
}

struct Member {
    when: Cell<u64>,
    id: usize,
    timer: Timer<Member>,
}
impl Deadline for Member {
    fn deadline(&self) -> u64 {
        self.when.get()
    }
    fn timer(&self) -> &Timer<Self> {
        &self.timer
    }
}

fn members(count: usize) -> Vec<Member> {
    (0..count).map(|id| Member { when: Cell::new(0), id, timer: Timer::none() }).collect()
}

fn id(member: Option<NonNull<Member>>) -> Option<usize> {
    member.map(|member| crate::timeout::at(member).id)
}

/// Most steps that an operation on so many members may take.
fn bound(count: usize) -> u32 {
    // Two ways down to the right, once to merge and once to balance, and one way up.
    5 * (count + 1).ilog2() + 5
}

/// Number of members below, if ranks, parents and order are right.
fn sound(member: Option<NonNull<Member>>, parent: Option<NonNull<Member>>) -> usize {
    let Some(this) = member else { return 0 };
    let timer = &crate::timeout::at(this).timer;
    assert_eq!(timer.parent.get(), parent);
    assert!(parent.is_none_or(|parent| !crate::timeout::before(crate::timeout::at(this), crate::timeout::at(parent))));
    let (left, right) = (timer.left.get(), timer.right.get());
    assert!(crate::timeout::rank(left) >= crate::timeout::rank(right));
    assert_eq!(timer.rank.get(), crate::timeout::rank(right) + 1);
    1 + sound(left, member) + sound(right, member)
}

#[derive(Clone, Debug)]
enum Step {
    Insert(usize, u64),
    Remove(usize),
    Expire(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let insert = (any::<usize>(), 0..40u64).prop_map(|(id, when)| Step::Insert(id, when));
    let remove = any::<usize>().prop_map(Step::Remove);
    let expire = (0..40u64).prop_map(Step::Expire);
    proptest::collection::vec(prop_oneof![6 => insert, 3 => remove, 1 => expire], 0..300)
}

proptest! {
    #[test]
    fn is_a_sorted_set(steps in steps()) {
        let members = members(64);
        let queue = TimeoutQueue::empty();
        // By deadline, then by when it came.
        let mut model: BTreeSet<(u64, usize, usize)> = BTreeSet::new();
        for (turn, step) in steps.into_iter().enumerate() {
            STEPS.set(0);
            let count = model.len();
            match step {
                Step::Insert(id, when) => {
                    let member = &members[id % 64];
                    queue.remove(member);
                    model.retain(|(_, _, other)| *other != member.id);
                    member.when.set(when);
                    STEPS.set(0);
                    queue.insert(member);
                    model.insert((when, turn, member.id));
                }
                Step::Remove(id) => {
                    // A waker forgets the deadline before it takes the member out.
                    members[id % 64].when.set(0);
                    queue.remove(&members[id % 64]);
                    model.retain(|(_, _, other)| *other != id % 64);
                }
                Step::Expire(now) => {
                    let first = model.first().copied().filter(|(when, ..)| *when <= now);
                    prop_assert_eq!(id(queue.pop_expired(now)), first.map(|(.., id)| id));
                    first.map(|first| model.remove(&first));
                }
            }
            prop_assert!(STEPS.get() <= bound(count), "{} steps with {count} members", STEPS.get());
            prop_assert_eq!(queue.soonest(), model.first().map(|(when, ..)| *when));
            prop_assert_eq!(sound(queue.root.get(), None), model.len());
        }
        while let Some(first) = model.pop_first() {
            prop_assert_eq!(id(queue.pop_expired(u64::MAX)), Some(first.2));
        }
        prop_assert!(queue.pop_expired(u64::MAX).is_none());
    }
}

#[test]
fn no_operation_takes_long_among_many() {
    const COUNT: usize = 100_000;
    let members = members(COUNT);
    // Ascending, descending, and in no order.
    for key in [|at: u64| at, |at: u64| u64::MAX - at, |at: u64| at.wrapping_mul(0x9e37_79b9_7f4a_7c15)] {
        let queue = TimeoutQueue::empty();
        let (mut most, mut sum) = ([0; 3], [0u64; 3]);
        let mut note = |what: usize| {
            let steps = STEPS.take();
            most[what] = steps.max(most[what]);
            sum[what] += u64::from(steps);
        };
        for member in &members {
            member.when.set(key(member.id as u64));
            queue.insert(member);
            note(0);
        }
        for member in members.iter().filter(|member| member.id % 2 == 0) {
            queue.remove(member);
            note(1);
        }
        while queue.pop_expired(u64::MAX).is_some() {
            note(2);
        }
        std::println!("steps among {COUNT}: most {most:?}, in all {sum:?} (insert, remove, take the first)");
        assert!(most.iter().all(|most| *most <= bound(COUNT)), "{most:?}");
    }
}
