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
        pub fn none() -> Self {
            Self { next: AtomicPtr::new(null_mut()), bits: AtomicU32::new(0) }
        }
    }

    /// What is asked and was not taken yet. It may change at once.
    pub fn bits(&self) -> u32 {
        self.bits.load(Ordering::Relaxed)
    }
}

/// What can be sent.
pub trait Letter: Sized {
    /// Its mail.
    fn mail(&self) -> &Mail<Self>;

    /// It is about to be put into an inbox: it must stay until it is taken.
    fn keep(&self) {}
}

/// An inbox: what was sent and not taken, last first.
#[derive(Debug)]
pub struct Inbox<T>(AtomicPtr<T>);

impl<T: Letter> Inbox<T> {
    constructor! {
        /// An empty inbox.
        pub fn empty() -> Self {
            Self(AtomicPtr::new(null_mut()))
        }
    }

    /// Whether nothing was sent that was not taken. Something may come at once.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.0.load(Ordering::Relaxed).is_null()
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
        let mut head = self.0.load(Ordering::Relaxed);
        loop {
            mail.next.store(head, Ordering::Relaxed);
            match self.0.compare_exchange_weak(head, this, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return head.is_null(),
                Err(now) => head = now,
            }
        }
    }

    /// Takes what was sent and hands it out, object by object, in the order of arrival, with what is asked of it. What comes meanwhile is
    /// for the next time.
    ///
    /// # Safety
    /// Called by the one receiver. What is in the inbox is alive ([`Letter::keep`]).
    pub unsafe fn take_all(&self, mut handle: impl FnMut(NonNull<T>, u32)) {
        // SAFETY: what was in the inbox is alive, as the caller says.
        let mail = |object: NonNull<T>| unsafe { &*object.as_ptr() }.mail();
        let mut sent = self.0.swap(null_mut(), Ordering::Acquire);
        let mut first = null_mut();
        while let Some(object) = NonNull::new(sent) {
            // Its bits are not 0, so its link is the receiver's.
            let next = &mail(object).next;
            sent = next.load(Ordering::Relaxed);
            next.store(first, Ordering::Relaxed);
            first = object.as_ptr();
        }
        while let Some(object) = NonNull::new(first) {
            first = mail(object).next.load(Ordering::Relaxed);
            // From here on it can be sent anew, so its link is not ours any more.
            let bits = mail(object).bits.swap(0, Ordering::AcqRel);
            handle(object, bits);
        }
    }
}

#[cfg(test)]
mod tests;
