// SPDX-License-Identifier: MIT OR Apache-2.0
//! Signals: news without content, that merge.

use crate::{Cap, Error, env};
use cloister_abi::cap::Selector;
use cloister_abi::hypercall::{DownFlags, IrqAck, SmDown, SmUp};
use cloister_abi::status::Status;
use core::sync::atomic::{AtomicU64, Ordering};

/// A signal of this component: whoever gets its capability can set its bit of the notification word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signal {
    /// Its bit.
    pub bit: u32,
    /// Its name towards the PD session.
    pub handle: u64,
    /// Its capability with all rights.
    cap: Cap,
}

static BITS: AtomicU64 = AtomicU64::new(0);

impl Signal {
    /// Makes a signal, with a bit of its own as long as there are any (64).
    ///
    /// # Errors
    /// What the PD session says; [`Error::OutOfCaps`] if all bits are in use.
    pub fn new() -> Result<Self, Error> {
        let bit = take_bit().ok_or(Error::OutOfCaps { needed: 1, available: 0 })?;
        match env::pd().alloc_signal(bit) {
            Ok(made) => Ok(Self { bit, handle: made.handle, cap: made.cap }),
            Err(error) => {
                BITS.fetch_and(!(1 << bit), Ordering::Relaxed);
                Err(error)
            }
        }
    }

    /// The capability to hand to others: they can raise the signal, no more.
    #[must_use]
    pub const fn cap(&self) -> Cap {
        Cap::signal(self.cap.selector)
    }

    /// The capability with all rights: an interrupt can be bound to it.
    #[must_use]
    pub const fn owner_cap(&self) -> Cap {
        self.cap
    }

    /// Whether the signal is among these.
    #[must_use]
    pub const fn is_in(&self, bits: u64) -> bool {
        bits >> self.bit & 1 == 1
    }

    /// Raises it.
    pub fn raise(&self) {
        up(self.cap.selector);
    }

    /// Lets the next interrupt come, if one is bound to the signal.
    ///
    /// # Errors
    /// As the kernel says.
    pub fn acknowledge(&self) -> Result<(), Error> {
        // SAFETY: unmasks an interrupt that only sets the signal's bit.
        unsafe { cloister_stubs::invoke(&IrqAck { sm: self.cap.selector }) }.map(|_| ()).map_err(Error::Kernel)
    }

    /// Frees the signal and its bit.
    ///
    /// # Errors
    /// What the PD session says.
    pub fn free(self) -> Result<(), Error> {
        crate::selectors::drop_capability(self.cap.selector);
        BITS.fetch_and(!(1 << self.bit), Ordering::Relaxed);
        env::pd().free_object(self.handle)
    }
}

fn take_bit() -> Option<u32> {
    let mut bits = BITS.load(Ordering::Relaxed);
    loop {
        let bit = bits.trailing_ones();
        if bit >= u64::BITS {
            return None;
        }
        match BITS.compare_exchange_weak(bits, bits | 1 << bit, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => return Some(bit),
            Err(now) => bits = now,
        }
    }
}

/// Counts a semaphore up, or raises a signal. Whether anybody is there to see it does not matter to who does it.
pub fn up(semaphore: Selector) {
    // SAFETY: wakes somebody, at most.
    let _ = unsafe { cloister_stubs::invoke(&SmUp { sm: semaphore }) };
}

/// Counts a semaphore down, waiting until the deadline (ticks, 0 for ever). Whether it could be counted down.
///
/// # Errors
/// As the kernel says, but for the deadline.
pub fn down(semaphore: Selector, deadline: u64) -> Result<bool, Error> {
    // SAFETY: waits; nothing else happens.
    match unsafe { cloister_stubs::invoke(&SmDown { sm: semaphore, flags: 0, deadline }) } {
        Ok(_) => Ok(true),
        Err(Status::Timeout) => Ok(false),
        Err(other) => Err(Error::Kernel(other)),
    }
}

/// Takes the whole word of a notification semaphore, waiting until the deadline (ticks, 0 for ever) while it is 0.
///
/// # Errors
/// As the kernel says, but for the deadline, at which the word is 0.
pub fn take(semaphore: Selector, deadline: u64) -> Result<u64, Error> {
    // SAFETY: waits; nothing else happens.
    match unsafe { cloister_stubs::invoke(&SmDown { sm: semaphore, flags: DownFlags::ZERO.bits(), deadline }) } {
        Ok((word, _)) => Ok(word),
        Err(Status::Timeout) => Ok(0),
        Err(other) => Err(Error::Kernel(other)),
    }
}
