// SPDX-License-Identifier: MIT OR Apache-2.0
//! Semaphore (SM): counter with a queue of waiting ECs; or a signal, whose ups set a bit in the word of another one; or an
//! interrupt.

use super::{Ec, Header, Object, Ref, Work};
use crate::percore::{self, core};
use crate::remote::{self, WAKE};
use cloister_abi::cap::Kind;
use cloister_abi::status::Status;
use cloister_mechanism::list::List;
use core::cell::Cell;
use core::sync::atomic::AtomicU32;
use spin::{Mutex, MutexGuard};

/// Marks the list of ECs that wait at a semaphore.
#[derive(Debug)]
pub(crate) struct Waiting;

/// Semaphore (SM).
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Sm {
    header: Header,
    lock: Mutex<()>,
    /// Counter.
    count: Cell<u64>,
    /// Bits that signals have set. They are taken all at once: to count a word down would make bits of others.
    word: Cell<u64>,
    /// Who waits.
    queue: List<Ec, Waiting>,
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
            lock: Mutex::new(()),
            count: Cell::new(count),
            word: Cell::new(0),
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
            None => {
                let guard = self.lock.lock();
                if self.queue.is_empty() {
                    return self.count.set(self.count.get().saturating_add(1));
                }
                self.wake_first(guard, Status::Success, 1);
            }
            Some(target) => target.signal(self.bits),
        }
    }

    /// Sets bits in the word.
    fn signal(&self, bits: u64) {
        if !self.header.is_alive() {
            return;
        }
        let guard = self.lock.lock();
        if self.queue.is_empty() {
            return self.word.set(self.word.get() | bits);
        }
        self.wake_first(guard, Status::Success, bits);
    }

    /// Takes one of the counter, if it is not 0.
    #[inline]
    pub(crate) fn take_one(&self) -> bool {
        let _guard = self.lock.lock();
        let count = self.count.get();
        if count != 0 {
            self.count.set(count - 1);
        }
        count != 0
    }

    /// Takes `most` of the counter, else the whole word of signals, if there is either.
    pub(crate) fn take(&self, most: u64) -> Option<u64> {
        let _guard = self.lock.lock();
        self.take_locked(most)
    }

    /// [`Self::take`], by who has the lock.
    fn take_locked(&self, most: u64) -> Option<u64> {
        let count = self.count.get();
        let taken = if count == 0 { self.word.take() } else { count.min(most) };
        self.count.set(count.saturating_sub(taken));
        (taken != 0).then_some(taken)
    }

    /// Takes as [`Self::take`], or lets an EC of this core wait.
    ///
    /// # Errors
    /// The semaphore was destroyed meanwhile.
    pub(crate) fn take_or_wait(&self, most: u64, ec: &Ec) -> Result<Option<u64>, Status> {
        let _guard = self.lock.lock();
        if let Some(taken) = self.take_locked(most) {
            return Ok(Some(taken));
        }
        // Whoever destroys it wakes all who wait after that.
        if !self.header.is_alive() {
            return Err(Status::Aborted);
        }
        self.queue.push_back(ec);
        Ok(None)
    }

    /// Takes an EC out of those that wait. Answers false if somebody else has let it go, which it will hear of.
    pub(crate) fn forget(&self, ec: &Ec) -> bool {
        let _guard = self.lock.lock();
        let waits = ec.is_queued();
        if waits {
            self.queue.remove(ec);
        }
        waits
    }

    /// Lets the first go that waits, if there is one.
    #[cold]
    fn wake_first(&self, guard: MutexGuard<'_, ()>, status: Status, value: u64) -> bool {
        let ec = loop {
            let Some(first) = self.queue.pop_front() else { return false };
            // SAFETY: members of the queue are there, and what was found stays to the end of the handler.
            let ec = unsafe { first.as_ref() };
            if ec.header().is_alive() {
                break ec;
            }
            // One that was destroyed on another core, which has yet to hear of that, takes nothing. But it must not come back here when
            // it hears.
            ec.awake.set((Status::Aborted, 0));
            tell(ec);
        };
        drop(guard);
        ec.awake.set((status, value));
        tell(ec);
        true
    }

    /// Lets go who waits here, now that it is destroyed: as many as `work` allows, the others later.
    pub(crate) fn let_go(&self, work: &mut Work) {
        while self.wake_first(self.lock.lock(), Status::Aborted, 0) {
            work.spend(Work::WAKE);
            if work.is_done() {
                return remote::remind(&self.header);
            }
        }
    }

    /// Lets all go who wait, soon, and unbinds the interrupt.
    pub(crate) fn kill(&self) {
        let guard = self.lock.lock();
        let nobody = self.queue.is_empty();
        drop(guard);
        if !nobody {
            remote::remind(&self.header);
        }
        crate::interrupt::unbind(self);
        crate::arch::iommu::forget(self);
    }
}

/// Lets an EC know, on its core, that it waits no more.
fn tell(ec: &Ec) {
    match percore::get(ec.core) {
        Some(home) if home.id != core().id => remote::send(home, ec.header(), WAKE),
        _ => ec.woken(),
    }
}
