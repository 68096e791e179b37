// SPDX-License-Identifier: MIT OR Apache-2.0
//! Semaphore (SM): counter with a queue of waiting ECs; or a signal, whose ups set a bit in the word of another one; or an
//! interrupt. What it does, whoever uses it at the same time, is in `mechanism`; here is who waits, and how he hears of it.

use super::{Ec, Header, Object, Ref, Work, tell};
use crate::remote::{self, WAKE};
use cloister_abi::cap::Kind;
use cloister_abi::status::Status;
use cloister_mechanism::list::{Link, Linked};
use cloister_mechanism::semaphore::{Semaphore, Waiter, Waiting};
use core::sync::atomic::AtomicU32;

/// Semaphore (SM).
#[repr(C, align(64))]
pub(crate) struct Sm {
    header: Header,
    /// Counter, bits that signals have set, who waits.
    pub(crate) semaphore: Semaphore<Ec>,
    /// Semaphore to which this signal goes.
    pub(crate) target: Option<Ref<Sm>>,
    /// Bits it sets there.
    pub(crate) bits: u64,
    /// Core and vector of the interrupt that is bound; 0 for none. See [`crate::interrupt`].
    pub(crate) binding: AtomicU32,
}

const _: () = assert!(size_of::<Sm>() <= 128);

impl Linked<Waiting> for Ec {
    fn link(&self) -> &Link<Self> {
        &self.queue
    }
}

impl Waiter for Ec {
    fn is_alive(&self) -> bool {
        self.header().is_alive()
    }

    #[inline]
    fn wake(&self, value: Option<u64>) {
        self.awake.set(value.map_or((Status::Aborted, 0), |value| (Status::Success, value)));
        tell(self.header(), WAKE, &mut Work::of(0));
    }
}

impl Sm {
    /// A semaphore, or a signal if there is a target.
    pub(crate) const fn new(count: u64, target: Option<Ref<Self>>, bits: u64) -> Self {
        Self {
            header: Header::new(Kind::Sm),
            semaphore: Semaphore::new(count),
            target,
            bits,
            binding: AtomicU32::new(0),
        }
    }

    /// Counts up, or signals.
    #[inline]
    pub(crate) fn up(&self) {
        match &self.target {
            None => self.semaphore.up(),
            Some(target) => target.semaphore.signal(self.bits),
        }
    }

    /// Lets go who waits here, now that it is destroyed: as many as `work` allows, the others later.
    pub(crate) fn let_go(&self, work: &mut Work) {
        if self.semaphore.close(work) {
            remote::remind(&self.header);
        }
    }

    /// Lets all go who wait, soon, and unbinds the interrupt.
    pub(crate) fn kill(&self) {
        self.let_go(&mut Work::of(0));
        crate::interrupt::unbind(self);
        crate::arch::iommu::forget(self);
    }
}
