// SPDX-License-Identifier: MIT OR Apache-2.0
//! Against a model.

use crate::mail::{Inbox, Letter, Mail};
use proptest::prelude::{Strategy, prop_assert_eq, prop_oneof, proptest};
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
    /// Takes at most so many.
    Take(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let send = (0..NODES, 0..4u32).prop_map(|(node, bit)| Step::Send(node, 1 << bit));
    let take = (0..NODES + 1).prop_map(Step::Take);
    proptest::collection::vec(prop_oneof![3 => send, 1 => take], 0..60)
}

proptest! {
    #[test]
    fn is_a_queue_of_objects_with_bits(steps in steps()) {
        let nodes: Vec<_> = (0..NODES).map(|id| Node { id, kept: Cell::new(0), mail: Mail::new() }).collect();
        let inbox = Inbox::new();
        let mut model: Vec<(usize, u32)> = Vec::new();
        // How many of the model's are in the part that was taken from the stack.
        let mut taken = 0;
        for step in steps {
            match step {
                Step::Send(id, bits) => {
                    let told = inbox.send(&nodes[id], bits);
                    let must = model.iter().all(|(other, _)| *other != id) && model.len() == taken;
                    prop_assert_eq!(told, must);
                    match model.iter_mut().find(|(other, _)| *other == id) {
                        Some((_, old)) => *old |= bits,
                        None => model.push((id, bits)),
                    }
                }
                Step::Take(most) => {
                    // SAFETY: the nodes outlive the inbox; one thread.
                    let got: Vec<_> = unsafe { inbox.take_all() }.take(most)
                        // SAFETY: as above.
                        .map(|(node, bits)| (unsafe { node.as_ref() }.id, bits)).collect();
                    let want: Vec<_> = model.drain(..most.min(model.len())).collect();
                    prop_assert_eq!(got, want);
                    taken = model.len();
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
    let node = Node { id: 0, kept: Cell::new(0), mail: Mail::new() };
    let inbox = Inbox::new();
    for round in 1..4 {
        assert!(inbox.send(&node, 1));
        assert!(!inbox.send(&node, 2));
        assert_eq!(node.kept.get(), round);
        // SAFETY: the node outlives the inbox; one thread.
        let bits: Vec<u32> = unsafe { inbox.take_all() }.map(|(_, bits)| bits).collect();
        assert_eq!(bits, [3]);
    }
}
