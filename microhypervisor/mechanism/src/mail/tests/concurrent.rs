// SPDX-License-Identifier: MIT OR Apache-2.0
//! By several cores at once, in every order of steps.

use crate::mail::{Inbox, Letter, Mail};
use crate::sync::explore;
use core::ptr::NonNull;
use loom::cell::UnsafeCell;
use loom::sync::atomic::{
    AtomicU32,
    Ordering::{AcqRel, Relaxed},
};
use loom::thread;
use std::sync::Arc;
use std::vec::Vec;

struct Node {
    mail: Mail<Node>,
    /// What the sender of a bit wrote before it sent: whoever takes the bit sees it.
    letters: [UnsafeCell<u32>; 3],
    /// References that the inbox has.
    kept: AtomicU32,
}
impl Letter for Node {
    fn mail(&self) -> &Mail<Self> {
        &self.mail
    }
    fn keep(&self) {
        self.kept.fetch_add(1, Relaxed);
    }
}

struct World {
    inbox: Inbox<Node>,
    nodes: [Node; 2],
    /// The receiver was told and did not look since.
    told: AtomicU32,
}
// SAFETY: loom checks that nobody uses a cell while another one writes it.
unsafe impl Sync for World {}
// SAFETY: as above.
unsafe impl Send for World {}

impl World {
    fn new() -> Arc<Self> {
        let node = || Node {
            mail: Mail::none(),
            letters: core::array::from_fn(|_| UnsafeCell::new(0)),
            kept: AtomicU32::new(0),
        };
        Arc::new(Self { inbox: Inbox::empty(), nodes: [node(), node()], told: AtomicU32::new(0) })
    }

    /// Starts a thread that sends these bits of these nodes, one after the other.
    fn sender(self: Arc<Self>, mails: &'static [(usize, usize)]) -> thread::JoinHandle<()> {
        let world = self;
        thread::spawn(move || {
            for &(node, bit) in mails {
                // SAFETY: each bit is sent once, and read by who takes it.
                world.nodes[node].letters[bit].with_mut(|word| unsafe { *word = 7 });
                if world.inbox.send(&world.nodes[node], 1 << bit) {
                    world.told.fetch_add(1, AcqRel);
                }
            }
        })
    }

    /// Takes and notes which bits came.
    fn take(&self, seen: &mut [u32; 2]) {
        self.told.swap(0, AcqRel);
        let note = |object: NonNull<Node>, bits: u32| {
            let index = self.nodes.iter().position(|node| core::ptr::eq(node, object.as_ptr())).expect("ours");
            assert_ne!(self.nodes[index].kept.fetch_sub(1, Relaxed), 0, "came without a reference");
            assert_ne!(bits, 0, "came without a reason");
            assert_eq!(seen[index] & bits, 0, "a bit came twice");
            seen[index] |= bits;
            for bit in (0..3).filter(|bit| bits >> bit & 1 != 0) {
                // SAFETY: the sender of this bit has written it and does not again.
                assert_eq!(self.nodes[index].letters[bit].with(|word| unsafe { *word }), 7);
            }
        };
        // SAFETY: one thread takes, and the nodes are part of the world.
        unsafe { self.inbox.take_all(note) };
    }

    /// Takes while others send, then the rest; all that was sent must have come, and nobody was left untold.
    fn run(self: Arc<Self>, senders: &[&'static [(usize, usize)]], want: [u32; 2]) {
        let senders: Vec<_> = senders.iter().map(|mails| Arc::clone(&self).sender(mails)).collect();
        let mut seen = [0; 2];
        self.take(&mut seen);
        for sender in senders {
            sender.join().expect("no panic");
        }
        assert!(self.told.load(Relaxed) != 0 || self.inbox.is_empty(), "the receiver was not told");
        self.take(&mut seen);
        assert_eq!(seen, want);
        assert!(self.inbox.is_empty());
        assert!(self.nodes.iter().all(|node| node.kept.load(Relaxed) == 0 && node.mail.bits() == 0));
    }
}

#[test]
fn two_ask_the_same_object() {
    explore(|| World::new().run(&[&[(0, 0)], &[(0, 1)]], [3, 0]));
}

#[test]
fn two_ask_two_objects() {
    explore(|| World::new().run(&[&[(0, 0), (1, 0)], &[(1, 1)]], [1, 3]));
}

#[test]
fn asked_again_while_it_is_taken() {
    explore(|| World::new().run(&[&[(0, 0), (1, 0), (0, 1)]], [3, 1]));
}
