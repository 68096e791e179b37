// SPDX-License-Identifier: MIT OR Apache-2.0
//! Against a model.

use crate::list::{Link, Linked};
use crate::ready::{Ready, ReadyQueue};
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
        .map(|(priority, id)| Member(priority, id, Link::none()))
        .collect();
    let queue = ReadyQueue::empty();
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
    let member = Member(5, 0, Link::none());
    let queue = ReadyQueue::empty();
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
        let members: Vec<_> = priorities.into_iter().zip(0..).map(|(at, id)| Member(at, id, Link::none())).collect();
        let queue = ReadyQueue::empty();
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
