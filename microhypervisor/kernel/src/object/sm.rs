// SPDX-License-Identifier: MIT OR Apache-2.0
//! Semaphore (SM): counter with a queue of waiting ECs; or a signal, whose ups set a bit in the word of another one; or an
//! interrupt.

use super::{Ec, Header, Object, Ref};
use cloister_abi::cap::Kind;
use cloister_abi::status::Status;
use cloister_mechanism::list::List;
use core::cell::Cell;
use core::sync::atomic::AtomicU32;

/// Marks the list of ECs that wait at a semaphore.
#[derive(Debug)]
pub(crate) struct Waiting;

/// Semaphore (SM).
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Sm {
    header: Header,
    /// Counter, or word of signals.
    pub(crate) count: Cell<u64>,
    /// Who waits.
    pub(crate) queue: List<Ec, Waiting>,
    /// Semaphore to which this signal goes.
    pub(crate) target: Option<Ref<Sm>>,
    /// Bits it sets there.
    pub(crate) bits: u64,
    /// Core and vector of the interrupt that is bound; 0 for none. See [`crate::interrupt`].
    pub(crate) binding: AtomicU32,
}

// SAFETY: `repr(C)`, header first.
unsafe impl Object for Sm {
    const KIND: Kind = Kind::Sm;
}

const _: () = assert!(size_of::<Sm>() <= 128);

impl Sm {
    /// A semaphore, or a signal if there is a target.
    pub(crate) const fn new(count: u64, target: Option<Ref<Self>>, bits: u64) -> Self {
        Self {
            header: Header::new(Kind::Sm),
            count: Cell::new(count),
            queue: List::new(),
            target,
            bits,
            binding: AtomicU32::new(0),
        }
    }

    /// Counts up, or signals.
    #[inline]
    pub(crate) fn up(&self) {
        match &self.target {
            None => match self.queue.pop_front() {
                // SAFETY: members of the queue are alive.
                Some(ec) => unsafe { ec.as_ref() }.wake(Status::Success, 1),
                None => self.count.set(self.count.get().saturating_add(1)),
            },
            Some(target) => target.signal(self.bits),
        }
    }

    /// Sets bits in the word.
    fn signal(&self, bits: u64) {
        if !self.header.is_alive() {
            return;
        }
        match self.queue.pop_front() {
            // SAFETY: members of the queue are alive.
            Some(ec) => unsafe { ec.as_ref() }.wake(Status::Success, bits),
            None => self.count.set(self.count.get() | bits),
        }
    }

    /// Wakes all who wait, and unbinds the interrupt.
    pub(crate) fn kill(&self) {
        while let Some(ec) = self.queue.pop_front() {
            // SAFETY: members of the queue are alive.
            unsafe { ec.as_ref() }.wake(Status::Aborted, 0);
        }
        crate::interrupt::unbind(self);
    }
}
