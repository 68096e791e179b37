// SPDX-License-Identifier: MIT OR Apache-2.0
//! Against a model.

use crate::mail::{Inbox, Letter, Mail};
use core::ptr::NonNull;
use proptest::prelude::{Just, Strategy, prop_assert_eq, prop_oneof, proptest};
use std::cell::Cell;
use std::vec::Vec;

struct Node {
    id: usize,
    kept: Cell<u32>,
    mail: Mail<Node>,
}
impl Letter for Node {
    fn mail(&self) -> &Mail<Self> {
        &self.mail
    }
    fn keep(&self) {
        self.kept.set(self.kept.get() + 1);
    }
}

const NODES: usize = 6;

#[derive(Clone, Debug)]
enum Step {
    Send(usize, u32),
    Take,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let send = (0..NODES, 0..4u32).prop_map(|(node, bit)| Step::Send(node, 1 << bit));
    proptest::collection::vec(prop_oneof![3 => send, 1 => Just(Step::Take)], 0..60)
}

proptest! {
    #[test]
    fn is_a_queue_of_objects_with_bits(steps in steps()) {
        let nodes: Vec<_> = (0..NODES).map(|id| Node { id, kept: Cell::new(0), mail: Mail::none() }).collect();
        let inbox = Inbox::empty();
        let mut model: Vec<(usize, u32)> = Vec::new();
        for step in steps {
            match step {
                Step::Send(id, bits) => {
                    let told = inbox.send(&nodes[id], bits);
                    prop_assert_eq!(told, model.is_empty());
                    match model.iter_mut().find(|(other, _)| *other == id) {
                        Some((_, old)) => *old |= bits,
                        None => model.push((id, bits)),
                    }
                }
                Step::Take => {
                    let mut got = Vec::new();
                    // SAFETY: the nodes outlive the inbox.
                    let note = |node: NonNull<Node>, bits| got.push((unsafe { node.as_ref() }.id, bits));
                    // SAFETY: as above; one thread.
                    unsafe { inbox.take_all(note) };
                    prop_assert_eq!(got, core::mem::take(&mut model));
                }
            }
            prop_assert_eq!(inbox.is_empty(), model.is_empty());
            for node in &nodes {
                let bits = model.iter().find(|(id, _)| *id == node.id).map_or(0, |(_, bits)| *bits);
                prop_assert_eq!(node.mail.bits(), bits);
            }
        }
    }
}

#[test]
fn keeps_an_object_once_each_time_it_is_put_in() {
    let node = Node { id: 0, kept: Cell::new(0), mail: Mail::none() };
    let inbox = Inbox::empty();
    for round in 1..4 {
        assert!(inbox.send(&node, 1));
        assert!(!inbox.send(&node, 2));
        assert_eq!(node.kept.get(), round);
        let mut bits = Vec::new();
        // SAFETY: the node outlives the inbox; one thread.
        unsafe { inbox.take_all(|_, each| bits.push(each)) };
        assert_eq!(bits, [3]);
    }
}
