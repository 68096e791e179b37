// SPDX-License-Identifier: MIT OR Apache-2.0
//! Against a model.

use crate::list::{Link, Linked, List};
use proptest::prelude::{prop_assert_eq, proptest};
use std::collections::VecDeque;
use std::vec::Vec;

struct Node(u32, Link<Node>);
struct Tag;
impl Linked<Tag> for Node {
    fn link(&self) -> &Link<Self> {
        &self.1
    }
}

fn drain(list: &List<Node, Tag>) -> Vec<u32> {
    // SAFETY: the nodes outlive the list in each test.
    core::iter::from_fn(|| list.pop_front().map(|n| unsafe { n.as_ref() }.0)).collect()
}

#[test]
fn keeps_order_and_removes_anywhere() {
    let nodes: Vec<_> = (0..6).map(|n| Node(n, Link::none())).collect();
    for gone in 0..6 {
        let list = List::empty();
        nodes.iter().for_each(|n| list.push_back(n));
        list.remove(&nodes[gone]);
        list.remove(&nodes[gone]);
        let want: Vec<u32> = (0..6).filter(|n| *n as usize != gone).collect();
        assert_eq!(drain(&list), want);
        assert!(list.is_empty());
    }
}

proptest! {
    #[test]
    fn is_a_sequence(steps in proptest::collection::vec((0..4u8, 0..8usize), 0..100)) {
        let nodes: Vec<_> = (0..8).map(|n| Node(n, Link::none())).collect();
        let list = List::empty();
        let mut model: VecDeque<usize> = VecDeque::new();
        for (what, node) in steps {
            let place = model.iter().position(|member| *member == node);
            match (what, place) {
                (0, None) => {
                    list.push_back(&nodes[node]);
                    model.push_back(node);
                }
                (1, None) => {
                    list.push_front(&nodes[node]);
                    model.push_front(node);
                }
                (2, place) => {
                    list.remove(&nodes[node]);
                    place.map(|place| model.remove(place));
                }
                _ => {
                    // SAFETY: the nodes outlive the list.
                    let first = list.pop_front().map(|node| unsafe { node.as_ref() }.0 as usize);
                    prop_assert_eq!(first, model.pop_front());
                }
            }
            let mut at = list.first();
            for want in &model {
                // SAFETY: as above.
                let member = at.map(|node| unsafe { node.as_ref() });
                prop_assert_eq!(member.map(|member| member.0 as usize), Some(*want));
                at = member.and_then(|member| member.1.next.get());
            }
            prop_assert_eq!((at, list.is_empty()), (None, model.is_empty()));
            for (index, node) in nodes.iter().enumerate() {
                prop_assert_eq!(node.1.is_linked(), model.contains(&index));
            }
        }
    }
}
