// SPDX-License-Identifier: MIT OR Apache-2.0
//! A lock that sleeps, for the personality's own tables.
//!
//! Threads of a program may have different priorities, so spinning could wait for ever on one core. State 0 is free, 1
//! taken, 2 taken and perhaps waited for. Who waits notes which lock it is in its thread's slot and sleeps on its own
//! semaphore; who unlocks a lock in state 2 wakes one such thread, which then competes and marks it 2 again, so that the next unlock wakes the
//! next. Wake-ups that come too late or twice are harmless: each waiter looks again.
//!
//! Rule: at most one lock is held at a time; a thread that holds one may call the kernel, and does not wait.

use crate::kernel::Kernel;
use crate::threads::SLOTS;
use core::cell::UnsafeCell;
use core::fmt;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

/// Which lock each thread waits for (its address; 0 for none). Shared by all locks of a personality.
#[derive(Debug)]
pub struct Waiters([AtomicUsize; SLOTS]);

impl Waiters {
    /// Nobody waits.
    #[must_use]
    pub const fn new() -> Self {
        Self([const { AtomicUsize::new(0) }; SLOTS])
    }

    fn set(&self, slot: usize, lock: usize) {
        if let Some(entry) = self.0.get(slot) {
            entry.store(lock, Ordering::SeqCst);
        }
    }

    fn first(&self, lock: usize) -> Option<usize> {
        self.0.iter().position(|entry| entry.load(Ordering::SeqCst) == lock)
    }
}

impl Default for Waiters {
    fn default() -> Self {
        Self::new()
    }
}

/// Something that one thread at a time may touch.
pub struct Lock<T> {
    state: AtomicU32,
    content: UnsafeCell<T>,
}

// SAFETY: the content is reached only through a guard, and there is one guard at a time.
unsafe impl<T: Send> Sync for Lock<T> {}

impl<T> fmt::Debug for Lock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lock").field("state", &self.state).finish_non_exhaustive()
    }
}

impl<T> Lock<T> {
    /// A free lock.
    pub const fn new(content: T) -> Self {
        Self { state: AtomicU32::new(0), content: UnsafeCell::new(content) }
    }

    /// Takes the lock, sleeping while another thread has it.
    pub fn lock<'a, K: Kernel>(&'a self, kernel: &'a K, waiters: &'a Waiters) -> Guard<'a, T, K> {
        if self.state.compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed).is_err() {
            let slot = kernel.current();
            waiters.set(slot, self.name());
            while self.state.swap(2, Ordering::SeqCst) != 0 {
                kernel.wait(None);
            }
            waiters.set(slot, 0);
        }
        Guard { lock: self, kernel, waiters }
    }

    fn name(&self) -> usize {
        core::ptr::from_ref(&self.state).addr()
    }
}

/// The lock is held while this lives.
pub struct Guard<'a, T, K: Kernel> {
    lock: &'a Lock<T>,
    kernel: &'a K,
    waiters: &'a Waiters,
}

impl<T, K: Kernel> fmt::Debug for Guard<'_, T, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Guard")
    }
}

impl<T, K: Kernel> Deref for Guard<'_, T, K> {
    type Target = T;
    fn deref(&self) -> &T {
        // SAFETY: this guard is the only one.
        unsafe { &*self.lock.content.get() }
    }
}

impl<T, K: Kernel> DerefMut for Guard<'_, T, K> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: this guard is the only one, and it is borrowed uniquely.
        unsafe { &mut *self.lock.content.get() }
    }
}

impl<T, K: Kernel> Drop for Guard<'_, T, K> {
    fn drop(&mut self) {
        if self.lock.state.swap(0, Ordering::SeqCst) == 2
            && let Some(slot) = self.waiters.first(self.lock.name())
        {
            self.kernel.wake(slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Lock, Waiters};
    use crate::testing::Machine;
    use std::sync::Arc;

    #[test]
    fn many_threads_count_to_the_sum() {
        let shared = Arc::new((Machine::new(), Waiters::new(), Lock::new(0_u64)));
        let threads: std::vec::Vec<_> = (0..4)
            .map(|slot| {
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || {
                    Machine::become_thread(slot);
                    for round in 0..2000 {
                        let mut guard = shared.2.lock(&shared.0, &shared.1);
                        let before = *guard;
                        if round % 16 == 0 {
                            std::thread::yield_now();
                        }
                        *guard = before + 1;
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(*shared.2.lock(&shared.0, &shared.1), 8000);
    }
}
