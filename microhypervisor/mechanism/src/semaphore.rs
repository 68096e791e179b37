// SPDX-License-Identifier: MIT OR Apache-2.0
//! The semaphore: a counter, a word of signals, and a queue of those who wait for either.
//!
//! All of that is behind one lock. Who counts up, or sets bits, either finds nobody waiting and leaves it there, or takes the first one out
//! of the queue: then it is his, with what he is to be told ([`Waiter::wake`], after the lock). Who wants to stop waiting asks to be
//! [taken out](Semaphore::forget); if somebody was faster, he waits on for what he will be told. So everything that is counted up is
//! taken once or still there, and who waits is told once. Who was destroyed but not yet taken out of the queue takes nothing, and is told.

use crate::list::{Linked, List};
use crate::sync::{Mutex, MutexGuard, constructor};
use crate::work::Work;

/// Marks the list of those who wait at a semaphore.
#[derive(Debug)]
pub struct Waiting;

/// Who waits.
pub trait Waiter: Linked<Waiting> {
    /// Whether it was not destroyed.
    fn is_alive(&self) -> bool;

    /// It is out of the queue, with that value; without one, since the semaphore is destroyed, or it is itself: from here on it must not look
    /// at the semaphore, whose memory may go. Called once for each time that it waited, unless it was
    /// [forgotten](Semaphore::forget), by whoever did that. Its memory stays until that one's handler ends.
    fn wake(&self, value: Option<u64>);
}

/// A semaphore was destroyed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed;

/// A semaphore.
#[derive(Debug)]
pub struct Semaphore<T>(Mutex<State<T>>);

#[derive(Debug)]
struct State<T> {
    count: u64,
    /// Bits that signals have set. They are taken all at once: to count a word down would make bits of others.
    word: u64,
    /// Who waits. If somebody does, count and word are 0.
    queue: List<T, Waiting>,
    /// It is being destroyed: nobody waits any more.
    closed: bool,
}

impl<T: Waiter> State<T> {
    /// Takes out the first who is alive. Others before him take nothing, but are told, so that they do not come back.
    fn first(&self) -> Option<&T> {
        core::iter::from_fn(|| self.queue.pop_front())
            // SAFETY: members of the queue are there, and who was found stays to the end of the handler.
            .map(|first| unsafe { first.as_ref() })
            .find(|first| {
                first.is_alive() || {
                    first.wake(None);
                    false
                }
            })
    }

    fn take(&mut self, most: u64) -> Option<u64> {
        if self.count == 0 {
            let bits = core::mem::take(&mut self.word);
            return (bits != 0).then_some(bits);
        }
        let taken = self.count.min(most);
        self.count -= taken;
        Some(taken)
    }
}

impl<T: Waiter> Semaphore<T> {
    constructor! {
        /// A semaphore with that counter.
        pub fn new(count: u64) -> Self {
            Self(Mutex::new(State { count, word: 0, queue: List::empty(), closed: false }))
        }
    }

    /// Counts up, or wakes the first who waits.
    #[inline]
    pub fn up(&self) {
        let mut state = self.0.lock();
        if !state.queue.is_empty() {
            return Self::pass(state, 1, |state, one| state.count += one);
        }
        state.count = state.count.saturating_add(1);
    }

    /// Sets bits in the word, or wakes the first who waits with them.
    pub fn signal(&self, bits: u64) {
        let mut state = self.0.lock();
        if !state.queue.is_empty() {
            return Self::pass(state, bits, |state, bits| state.word |= bits);
        }
        state.word |= bits;
    }

    /// Wakes the first who waits. If all of them were destroyed it is kept.
    #[cold]
    #[inline(never)]
    fn pass(mut state: MutexGuard<'_, State<T>>, value: u64, keep: fn(&mut State<T>, u64)) {
        let first: Option<*const T> = state.first().map(core::ptr::from_ref);
        let Some(first) = first else { return keep(&mut state, value) };
        drop(state);
        // SAFETY: it stays to the end of the handler.
        unsafe { &*first }.wake(Some(value));
    }

    /// Takes one of the counter, if it is not 0.
    #[inline]
    pub fn take_one(&self) -> bool {
        let mut state = self.0.lock();
        if state.count == 0 {
            return false;
        }
        state.count -= 1;
        true
    }

    /// Takes `most` of the counter, else the whole word of signals, if there is either.
    pub fn take(&self, most: u64) -> Option<u64> {
        self.0.lock().take(most)
    }

    /// Takes as [`Semaphore::take`], or lets `who` wait.
    ///
    /// # Errors
    /// It was destroyed.
    pub fn take_or_wait(&self, most: u64, who: &T) -> Result<Option<u64>, Closed> {
        let mut state = self.0.lock();
        let taken = state.take(most);
        if taken.is_none() {
            if state.closed {
                return Err(Closed);
            }
            state.queue.push_back(who);
        }
        Ok(taken)
    }

    /// Takes out one who waits. Answers false if he has been taken out by somebody else: if he lives, he is told, or will be.
    pub fn forget(&self, who: &T) -> bool {
        let state = self.0.lock();
        let waits = who.link().is_linked();
        state.queue.remove(who);
        waits
    }

    /// Destroys it: wakes all who wait, a piece of work of them. Answers whether there are more. From the first piece on nobody comes.
    pub fn close(&self, work: &mut Work) -> bool {
        loop {
            let mut state = self.0.lock();
            state.closed = true;
            if work.is_done() {
                return !state.queue.is_empty();
            }
            let Some(first) = state.queue.pop_front() else { return false };
            drop(state);
            // SAFETY: members of the queue are there, and who was found stays to the end of the handler.
            unsafe { first.as_ref() }.wake(None);
            work.spend(Work::WAKE);
        }
    }
}

#[cfg(test)]
mod tests;
