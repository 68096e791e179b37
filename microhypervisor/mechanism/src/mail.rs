// SPDX-License-Identifier: MIT OR Apache-2.0
//! Mail between cores: many send, one receives, and nobody waits for anybody.
//!
//! An object carries a [`Mail`], whose bits say what is asked of it. Who [sends](Inbox::send) adds bits; if there were none, the
//! object is pushed onto the receiver's inbox, otherwise it is there already and the bits travel with it. The receiver takes the whole
//! stack with one exchange and turns it around, so that objects come in the order in which they were sent first.
//!
//! Rule: while an object's bits are not 0 it is in an inbox (or about to be pushed by the one sender who found them 0), and only the
//! receiver makes them 0, after it has taken the object out and read its link. So an object is in one place at most, a link is
//! written by one side at a time, and a concurrent send either is seen with the bits taken or finds them 0 and pushes anew.
//! Since the stack is only ever taken whole, a head that went and came back (ABA) does no harm.
//!
//! An inbox does not own its members. [`Letter::keep`] is called before an object is pushed, so that it can count a reference, which
//! the receiver has to let go for each object that it takes. An object is always sent to the same inbox, until that has
//! been taken.

use crate::sync::{AtomicPtr, AtomicU32, Ordering, constructor};
use core::ptr::{NonNull, null_mut};

/// What an object carries to be sent.
#[derive(Debug)]
pub struct Mail<T> {
    next: AtomicPtr<T>,
    bits: AtomicU32,
}

impl<T> Mail<T> {
    constructor! {
        /// Nothing is asked.
        pub fn new() -> Self {
            Self { next: AtomicPtr::new(null_mut()), bits: AtomicU32::new(0) }
        }
    }

    /// What is asked and was not taken yet. It may change at once.
    pub fn bits(&self) -> u32 {
        self.bits.load(Ordering::Relaxed)
    }
}

impl<T> Default for Mail<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// What can be sent.
pub trait Letter: Sized {
    /// Its mail.
    fn mail(&self) -> &Mail<Self>;

    /// It is about to be put into an inbox: it must stay until it is taken.
    fn keep(&self) {}
}

/// An inbox.
#[derive(Debug)]
pub struct Inbox<T> {
    /// Sent and not taken, last first.
    head: AtomicPtr<T>,
    /// Taken and not yet handed out, first first. The receiver's alone.
    taken: AtomicPtr<T>,
}

impl<T: Letter> Inbox<T> {
    constructor! {
        /// An empty inbox.
        pub fn new() -> Self {
            Self { head: AtomicPtr::new(null_mut()), taken: AtomicPtr::new(null_mut()) }
        }
    }

    /// Whether nothing was sent that was not handed out. Something may come at once.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.head.load(Ordering::Relaxed).is_null() && self.taken.load(Ordering::Relaxed).is_null()
    }

    /// Asks something of an object: `bits`, at least one. Answers whether the receiver must be told, since nothing else is in the
    /// inbox of which it has been told.
    ///
    /// What was written before is seen by who takes the bits. Telling must order: a receiver that notices must find what was sent
    /// before it was told (an interrupt does so; a flag needs release and acquire).
    pub fn send(&self, object: &T, bits: u32) -> bool {
        debug_assert!(bits != 0);
        let mail = object.mail();
        if mail.bits.fetch_or(bits, Ordering::AcqRel) != 0 {
            return false;
        }
        object.keep();
        let this = NonNull::from(object).as_ptr();
        let mut head = self.head.load(Ordering::Relaxed);
        loop {
            mail.next.store(head, Ordering::Relaxed);
            match self.head.compare_exchange_weak(head, this, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return head.is_null(),
                Err(now) => head = now,
            }
        }
    }

    /// Takes what was sent, object by object, in the order of arrival, with what is asked of it. What comes meanwhile is for the next
    /// time, and so is what the iterator is dropped with.
    ///
    /// # Safety
    /// Called by the one receiver, and once at a time. What is in the inbox is alive ([`Letter::keep`]).
    pub unsafe fn take_all(&self) -> TakeAll<'_, T> {
        let mut sent = self.head.swap(null_mut(), Ordering::Acquire);
        let mut first = null_mut();
        while let Some(object) = NonNull::new(sent) {
            // SAFETY: what was in the inbox is alive, as the caller says, and its bits are not 0, so its link is the receiver's.
            let next = &unsafe { object.as_ref() }.mail().next;
            sent = next.load(Ordering::Relaxed);
            next.store(first, Ordering::Relaxed);
            first = object.as_ptr();
        }
        match self.last_taken() {
            // SAFETY: as above.
            Some(last) => unsafe { last.as_ref() }.mail().next.store(first, Ordering::Relaxed),
            None => self.taken.store(first, Ordering::Relaxed),
        }
        TakeAll { inbox: self }
    }

    /// Last of those that were taken and not handed out: there are some only if an iterator was dropped before its end.
    fn last_taken(&self) -> Option<NonNull<T>> {
        let mut last = NonNull::new(self.taken.load(Ordering::Relaxed))?;
        // SAFETY: what is taken and not handed out is alive, and its links are the receiver's.
        while let Some(next) = NonNull::new(unsafe { last.as_ref() }.mail().next.load(Ordering::Relaxed)) {
            last = next;
        }
        Some(last)
    }
}

impl<T: Letter> Default for Inbox<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// What was sent.
#[derive(Debug)]
pub struct TakeAll<'a, T: Letter> {
    inbox: &'a Inbox<T>,
}

impl<T: Letter> Iterator for TakeAll<'_, T> {
    type Item = (NonNull<T>, u32);

    fn next(&mut self) -> Option<Self::Item> {
        let object = NonNull::new(self.inbox.taken.load(Ordering::Relaxed))?;
        // SAFETY: what is in the inbox is alive until it is handed out, as the caller of `take_all` says.
        let mail = unsafe { object.as_ref() }.mail();
        self.inbox.taken.store(mail.next.load(Ordering::Relaxed), Ordering::Relaxed);
        // From here on it can be sent anew, so its link is not ours any more.
        Some((object, mail.bits.swap(0, Ordering::AcqRel)))
    }
}

#[cfg(test)]
#[cfg(not(feature = "loom"))]
mod tests {
    use super::{Inbox, Letter, Mail};
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
}

#[cfg(test)]
#[cfg(feature = "loom")]
mod loom_tests {
    use super::{Inbox, Letter, Mail};
    use crate::sync::explore;
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
                mail: Mail::new(),
                letters: core::array::from_fn(|_| UnsafeCell::new(0)),
                kept: AtomicU32::new(0),
            };
            Arc::new(Self { inbox: Inbox::new(), nodes: [node(), node()], told: AtomicU32::new(0) })
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

        /// Takes at most so many and notes which bits came.
        fn take(&self, seen: &mut [u32; 2], most: usize) {
            self.told.swap(0, AcqRel);
            // SAFETY: one thread takes, and the nodes are part of the world.
            for (object, bits) in unsafe { self.inbox.take_all() }.take(most) {
                let index = self.nodes.iter().position(|node| core::ptr::eq(node, object.as_ptr())).expect("ours");
                assert_ne!(self.nodes[index].kept.fetch_sub(1, Relaxed), 0, "came without a reference");
                assert_ne!(bits, 0, "came without a reason");
                assert_eq!(seen[index] & bits, 0, "a bit came twice");
                seen[index] |= bits;
                for bit in (0..3).filter(|bit| bits >> bit & 1 != 0) {
                    // SAFETY: the sender of this bit has written it and does not again.
                    assert_eq!(self.nodes[index].letters[bit].with(|word| unsafe { *word }), 7);
                }
            }
        }

        /// Takes while others send, then the rest; all that was sent must have come, and nobody was left untold.
        fn run(self: Arc<Self>, senders: &[&'static [(usize, usize)]], most: usize, want: [u32; 2]) {
            let senders: Vec<_> = senders.iter().map(|mails| Arc::clone(&self).sender(mails)).collect();
            let mut seen = [0; 2];
            self.take(&mut seen, most);
            for sender in senders {
                sender.join().expect("no panic");
            }
            let told = self.told.load(Relaxed) != 0 || most != usize::MAX;
            assert!(told || self.inbox.is_empty(), "the receiver was not told");
            self.take(&mut seen, usize::MAX);
            assert_eq!(seen, want);
            assert!(self.inbox.is_empty());
            assert!(self.nodes.iter().all(|node| node.kept.load(Relaxed) == 0 && node.mail.bits() == 0));
        }
    }

    #[test]
    fn two_ask_the_same_object() {
        explore(|| World::new().run(&[&[(0, 0)], &[(0, 1)]], usize::MAX, [3, 0]));
    }

    #[test]
    fn two_ask_two_objects() {
        explore(|| World::new().run(&[&[(0, 0), (1, 0)], &[(1, 1)]], usize::MAX, [1, 3]));
    }

    #[test]
    fn asked_again_while_it_is_taken() {
        explore(|| World::new().run(&[&[(0, 0), (1, 0), (0, 1)]], usize::MAX, [3, 1]));
    }

    #[test]
    fn what_is_not_handed_out_comes_the_next_time() {
        explore(|| World::new().run(&[&[(0, 0), (1, 0), (0, 1)]], 1, [3, 1]));
    }
}
