// SPDX-License-Identifier: MIT OR Apache-2.0
//! News from other components, for a thread of a `std` program that waits for them.
//!
//! A program has no main loop that takes signals, as freestanding components have. Instead each receiver is a semaphore of
//! its own: hand [`Receiver::cap`] to a session's `signal_handler`, and let a thread wait.

use cloister_abi::hypercall::{DownFlags, SmDown};
use cloister_abi::status::Status;
use cloister_base::{Cap, Error, env, selectors, signal, time};
use core::time::Duration;

/// Something to wait on.
#[derive(Debug)]
pub struct Receiver {
    handle: u64,
    cap: Cap,
}

impl Receiver {
    /// Makes a receiver.
    ///
    /// # Errors
    /// What the PD session says.
    pub fn new() -> Result<Self, Error> {
        let made = env::pd().alloc_semaphore(0)?;
        Ok(Self { handle: made.handle, cap: made.cap })
    }

    /// The capability to hand to others: they can raise the signal, no more.
    #[must_use]
    pub const fn cap(&self) -> Cap {
        Cap::signal(self.cap.selector)
    }

    /// Raises it (for threads of the same program).
    pub fn raise(&self) {
        signal::up(self.cap.selector);
    }

    /// Waits for news; all that came until then count as one. `false` says that the time was over before any came.
    ///
    /// # Errors
    /// As the kernel says.
    pub fn wait(&self, timeout: Option<Duration>) -> Result<bool, Error> {
        let deadline = timeout.map_or(0, |timeout| {
            let nanoseconds = u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX);
            time::now().saturating_add(time::from_nanoseconds(nanoseconds)).max(1)
        });
        let down = SmDown { sm: self.cap.selector, flags: DownFlags::ZERO.bits(), deadline };
        // SAFETY: waits; nothing else happens.
        match unsafe { cloister_stubs::invoke(&down) } {
            Ok(_) => Ok(true),
            Err(Status::Timeout) => Ok(false),
            Err(other) => Err(Error::Kernel(other)),
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        selectors::drop_capability(self.cap.selector);
        // If the session is gone, so is the semaphore.
        let _ = env::pd().free_object(self.handle);
    }
}
