// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a protection domain may use of the kernel's memory, in bytes.
//!
//! Budget moves between domains; it is neither made nor lost. What decides is one word, what is free: a limit and what is used of it in
//! two words let somebody charge by a limit that another one had lowered meanwhile (found by loom). The limit is for information.

use crate::pool::Pool;
use crate::sync::{
    AtomicU64,
    Ordering::{AcqRel, Acquire, Relaxed},
    constructor,
};
use crate::{Exhausted, FRAME};
use core::ptr::NonNull;

/// A budget and what is used of it.
#[derive(Debug)]
pub struct Budget {
    free: AtomicU64,
    limit: AtomicU64,
}

impl Budget {
    constructor! {
        /// A budget of so many bytes, nothing used.
        pub fn new(limit: u64) -> Self {
            Self { free: AtomicU64::new(limit), limit: AtomicU64::new(limit) }
        }
    }

    /// Bytes in all.
    #[must_use]
    pub fn limit(&self) -> u64 {
        self.limit.load(Relaxed)
    }

    /// Bytes used. While budget moves, that which moves may count as used.
    #[must_use]
    pub fn used(&self) -> u64 {
        let free = self.free.load(Acquire);
        self.limit().saturating_sub(free)
    }

    /// Bytes not used.
    #[must_use]
    pub fn free(&self) -> u64 {
        self.free.load(Acquire)
    }

    /// Uses some.
    ///
    /// # Errors
    /// `Budget` if not as much is left; nothing was changed.
    pub fn charge(&self, bytes: u64) -> Result<(), Exhausted> {
        self.free
            .fetch_update(AcqRel, Acquire, |free| free.checked_sub(bytes))
            .map(|_| ())
            .map_err(|_| Exhausted::Budget)
    }

    /// Returns some that was charged.
    pub fn credit(&self, bytes: u64) {
        self.free.fetch_add(bytes, AcqRel);
    }

    /// Takes a frame of a pool and charges it.
    ///
    /// # Errors
    /// The budget or the pool is used up; nothing was charged.
    pub fn take(&self, pool: &Pool) -> Result<NonNull<u8>, Exhausted> {
        self.charge(FRAME as u64)?;
        pool.take().inspect_err(|_| self.credit(FRAME as u64))
    }

    /// Gives a frame back to its pool and credits it.
    ///
    /// # Safety
    /// As [`Pool::give`], and it was taken on this budget.
    pub unsafe fn give(&self, pool: &Pool, frame: NonNull<u8>) {
        // SAFETY: the caller vouches for the frame.
        unsafe { pool.give(frame) };
        self.credit(FRAME as u64);
    }

    /// Takes free budget away for good: it becomes somebody else's by [`Budget::grow`].
    ///
    /// # Errors
    /// `Budget` if not as much is free; nothing was changed.
    pub fn shrink(&self, bytes: u64) -> Result<(), Exhausted> {
        self.charge(bytes)?;
        self.limit.fetch_sub(bytes, AcqRel);
        Ok(())
    }

    /// Adds budget that was taken from another one.
    pub fn grow(&self, bytes: u64) {
        // First the limit, so that it never is below what is free.
        self.limit.fetch_add(bytes, AcqRel);
        self.credit(bytes);
    }
}

#[cfg(test)]
mod tests;
