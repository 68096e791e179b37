// SPDX-License-Identifier: MIT OR Apache-2.0
//! A semaphore against two numbers and a queue.

use crate::list::{Link, Linked};
use crate::semaphore::{Closed, Semaphore, Waiter, Waiting};
use crate::work::Work;
use core::cell::Cell;
use proptest::prelude::{Just, Strategy, any, prop_assert_eq, prop_oneof, proptest};
use std::collections::VecDeque;
use std::vec::Vec;

struct Thread {
    link: Link<Thread>,
    dead: Cell<bool>,
    /// What it was told last.
    told: Cell<Option<Option<u64>>>,
}

impl Linked<Waiting> for Thread {
    fn link(&self) -> &Link<Self> {
        &self.link
    }
}
impl Waiter for Thread {
    fn is_alive(&self) -> bool {
        !self.dead.get()
    }
    fn wake(&self, value: Option<u64>) {
        assert!(!self.link.is_linked() && (self.is_alive() || value.is_none()));
        assert_eq!(self.told.replace(Some(value)), None, "told twice");
    }
}

const THREADS: usize = 5;

#[derive(Default)]
struct Model {
    count: u64,
    word: u64,
    queue: VecDeque<usize>,
    closed: bool,
    dead: [bool; THREADS],
    told: [Option<Option<u64>>; THREADS],
}

impl Model {
    /// Who waits takes it; answers whether somebody did.
    fn pass(&mut self, value: u64) -> bool {
        while let Some(first) = self.queue.pop_front() {
            if !self.dead[first] {
                self.told[first] = Some(Some(value));
                return true;
            }
            self.told[first] = Some(None);
        }
        false
    }

    fn take(&mut self, most: u64) -> Option<u64> {
        let taken = if self.count == 0 { core::mem::take(&mut self.word) } else { self.count.min(most) };
        self.count -= taken.min(self.count);
        (taken != 0).then_some(taken)
    }
}

#[derive(Clone, Debug)]
enum Step {
    Up,
    Signal(u64),
    TakeOne,
    Take(u64),
    Wait(u64, usize),
    Forget(usize),
    Die(usize),
    Close(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let signal = (0..64u32).prop_map(|bit| Step::Signal(1 << bit));
    let most = || prop_oneof![Just(1), Just(u64::MAX), any::<u64>().prop_map(|most| most.max(1))];
    let wait = (most(), 0..THREADS).prop_map(|(most, who)| Step::Wait(most, who));
    let close = (0..3usize).prop_map(Step::Close);
    let step = prop_oneof![
        6 => Just(Step::Up),
        4 => signal,
        2 => Just(Step::TakeOne),
        2 => most().prop_map(Step::Take),
        8 => wait,
        2 => (0..THREADS).prop_map(Step::Forget),
        1 => (0..THREADS).prop_map(Step::Die),
        1 => close,
    ];
    proptest::collection::vec(step, 0..80)
}

proptest! {
    #[test]
    fn is_two_numbers_and_a_queue(first in prop_oneof![Just(0), 0..3u64, Just(u64::MAX)], steps in steps()) {
        let threads: [Thread; THREADS] = core::array::from_fn(|_| Thread { link: Link::none(), dead: Cell::default(), told: Cell::default() });
        let semaphore = Semaphore::new(first);
        let mut model = Model { count: first, ..Model::default() };
        for step in steps {
            match step {
                Step::Up => {
                    semaphore.up();
                    if !model.pass(1) {
                        model.count = model.count.saturating_add(1);
                    }
                }
                Step::Signal(bits) => {
                    semaphore.signal(bits);
                    if !model.pass(bits) {
                        model.word |= bits;
                    }
                }
                Step::TakeOne => {
                    prop_assert_eq!(semaphore.take_one(), model.count != 0);
                    model.count = model.count.saturating_sub(1);
                }
                Step::Take(most) => prop_assert_eq!(semaphore.take(most), model.take(most)),
                Step::Wait(most, who) if !model.queue.contains(&who) && !model.dead[who] => {
                    threads[who].told.set(None);
                    model.told[who] = None;
                    let answer = semaphore.take_or_wait(most, &threads[who]);
                    let taken = model.take(most);
                    let waits = taken.is_none() && !model.closed;
                    prop_assert_eq!(answer, if taken.is_none() && model.closed { Err(Closed) } else { Ok(taken) });
                    model.queue.extend(waits.then_some(who));
                }
                Step::Forget(who) => {
                    let waits = model.queue.contains(&who);
                    prop_assert_eq!(semaphore.forget(&threads[who]), waits);
                    model.queue.retain(|other| *other != who);
                }
                Step::Die(who) => {
                    threads[who].dead.set(true);
                    model.dead[who] = true;
                }
                Step::Close(pieces) => {
                    // As many as the piece has room for.
                    let more = model.queue.len() > pieces;
                    model.closed = true;
                    prop_assert_eq!(semaphore.close(&mut Work::of(pieces * Work::WAKE)), more);
                    for who in model.queue.drain(..pieces.min(model.queue.len())) {
                        model.told[who] = Some(None);
                    }
                }
                Step::Wait(..) => {}
            }
            for (who, thread) in threads.iter().enumerate() {
                prop_assert_eq!(thread.told.get(), model.told[who]);
                prop_assert_eq!(thread.link.is_linked(), model.queue.contains(&who));
            }
        }
    }
}
