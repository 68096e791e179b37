// SPDX-License-Identifier: MIT OR Apache-2.0
//! Threads and futexes: who exists, who waits for which word.
//!
//! A thread has a slot: its identifier, the word to clear when it ends, and what it waits for. A thread waits for one word at
//! a time, so the slots themselves are the futex queues: waking looks through the slots that wait, oldest first. With at
//! most [`SLOTS`] threads that is cheaper than hash buckets would be.
//!
//! A slot whose thread ended stays with its kernel thread, parked; the next `clone` takes it again. So threads come and go
//! without asking core, and capabilities are bounded by the largest number of threads that lived at once.
//!
//! Rule: what says that a wait is over is the flag in [`Wakeups`], set under the lock of the table; the semaphore only ends
//! the sleep. A wake-up of the semaphore that comes late finds a thread that looks at its flag and sleeps on.

use crate::errno::Errno;
use core::sync::atomic::{AtomicBool, Ordering};

/// Most threads at once.
pub const SLOTS: usize = 64;
/// Identifier of the program, and of its first thread.
pub const PID: u32 = 100;

/// A set of slots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slots(u64);

const _: () = assert!(SLOTS <= 64);

impl Slots {
    fn insert(&mut self, slot: usize) {
        self.0 |= 1 << slot;
    }

    fn remove(&mut self, slot: usize) {
        self.0 &= !(1 << slot);
    }

    /// The slots in it.
    pub fn iter(self) -> impl Iterator<Item = usize> {
        let mut left = self.0;
        core::iter::from_fn(move || {
            let slot = left.trailing_zeros();
            left &= left.checked_sub(1)?;
            usize::try_from(slot).ok()
        })
    }

    /// How many there are.
    #[must_use]
    pub const fn count(self) -> u32 {
        self.0.count_ones()
    }
}

/// One flag for each slot: its wait is over.
#[derive(Debug)]
pub struct Wakeups([AtomicBool; SLOTS]);

impl Wakeups {
    /// No wait is over.
    #[must_use]
    pub const fn new() -> Self {
        Self([const { AtomicBool::new(false) }; SLOTS])
    }

    /// Whether the wait of the thread of this slot is over.
    #[must_use]
    pub fn is_set(&self, slot: usize) -> bool {
        self.0.get(slot).is_some_and(|flag| flag.load(Ordering::Acquire))
    }

    fn set(&self, slot: usize, value: bool) {
        if let Some(flag) = self.0.get(slot) {
            flag.store(value, Ordering::Release);
        }
    }
}

impl Default for Wakeups {
    fn default() -> Self {
        Self::new()
    }
}

/// What a slot is used for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Use {
    #[default]
    Free,
    Running,
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    used: Use,
    tid: u32,
    clear_tid: u64,
    address: u64,
    bits: u32,
    order: u64,
}

/// The table.
#[derive(Debug)]
pub struct Threads {
    slots: [Slot; SLOTS],
    waiting: Slots,
    next_tid: u32,
    next_order: u64,
}

impl Threads {
    /// The first thread runs, in slot 0.
    #[must_use]
    pub const fn new() -> Self {
        const FREE: Slot = Slot { used: Use::Free, tid: 0, clear_tid: 0, address: 0, bits: 0, order: 0 };
        Self { slots: [FREE; SLOTS], waiting: Slots(0), next_tid: PID, next_order: 0 }
    }

    /// Takes a free slot for a thread; answers it and the thread's identifier.
    ///
    /// # Errors
    /// `AGAIN` if there are [`SLOTS`] threads already.
    pub fn create(&mut self, clear_tid: u64) -> Result<(usize, u32), Errno> {
        let tid = self.next_tid;
        let index = self.slots.iter().position(|slot| slot.used == Use::Free).ok_or(Errno::AGAIN)?;
        if let Some(slot) = self.slots.get_mut(index) {
            *slot = Slot { used: Use::Running, tid, clear_tid, ..Slot::default() };
        }
        // Identifiers need 30 bits at most: the rest of a futex word has other meanings.
        self.next_tid = if tid >= 0x3fff_ffff { PID + 1 } else { tid + 1 };
        Ok((index, tid))
    }

    /// The thread of this slot ended, or was never started. Answers the word to clear, 0 for none.
    pub fn end(&mut self, slot: usize) -> u64 {
        self.waiting.remove(slot);
        self.slots.get_mut(slot).map_or(0, |slot| core::mem::take(slot).clear_tid)
    }

    /// Identifier of the thread of this slot.
    #[must_use]
    pub fn tid(&self, slot: usize) -> u32 {
        self.slots.get(slot).map_or(0, |slot| slot.tid)
    }

    /// Number of threads.
    #[must_use]
    pub fn count(&self) -> usize {
        self.slots.iter().filter(|slot| slot.used == Use::Running).count()
    }

    /// Sets the word that is cleared when the thread ends.
    pub fn set_clear_tid(&mut self, slot: usize, address: u64) {
        if let Some(slot) = self.slots.get_mut(slot) {
            slot.clear_tid = address;
        }
    }

    /// The thread of this slot begins to wait.
    pub fn enqueue(&mut self, wakeups: &Wakeups, slot: usize, address: u64, bits: u32) {
        wakeups.set(slot, false);
        self.next_order += 1;
        let order = self.next_order;
        if let Some(slot) = self.slots.get_mut(slot) {
            (slot.address, slot.bits, slot.order) = (address, bits, order);
        }
        self.waiting.insert(slot);
    }

    /// The thread of this slot gives up waiting. `false` says that it was woken meanwhile.
    pub fn dequeue(&mut self, wakeups: &Wakeups, slot: usize) -> bool {
        self.waiting.remove(slot);
        !wakeups.is_set(slot)
    }

    /// Ends the wait of at most `count` threads, oldest first; the caller wakes them once it let go of the table.
    pub fn wake(&mut self, wakeups: &Wakeups, address: u64, count: u32, bits: u32) -> Slots {
        let mut woken = Slots::default();
        while woken.count() < count
            && let Some(slot) = self.oldest(address, bits)
        {
            self.waiting.remove(slot);
            wakeups.set(slot, true);
            woken.insert(slot);
        }
        woken
    }

    /// Lets at most `count` threads that wait for one word wait for another; answers how many did.
    pub fn requeue(&mut self, from: u64, to: u64, count: u32) -> u32 {
        let mut moved = 0;
        while moved < count
            && from != to
            && let Some(index) = self.oldest(from, u32::MAX)
        {
            self.next_order += 1;
            if let Some(slot) = self.slots.get_mut(index) {
                (slot.address, slot.order) = (to, self.next_order);
            }
            moved += 1;
        }
        moved
    }

    fn oldest(&self, address: u64, bits: u32) -> Option<usize> {
        let waiting = self.waiting.iter().filter_map(|index| Some((index, self.slots.get(index)?)));
        let matching = waiting.filter(|(_, slot)| slot.address == address && slot.bits & bits != 0);
        matching.min_by_key(|(_, slot)| slot.order).map(|(index, _)| index)
    }
}

impl Default for Threads {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::{PID, SLOTS, Threads, Wakeups};
    use crate::errno::Errno;
    use std::vec::Vec;

    fn four() -> (Threads, Wakeups) {
        let mut threads = Threads::new();
        for slot in 0..4 {
            assert_eq!(threads.create(0).unwrap().0, slot);
        }
        (threads, Wakeups::new())
    }

    #[test]
    fn slots_run_out_and_come_back() {
        let mut threads = Threads::new();
        for slot in 0..SLOTS {
            assert_eq!(threads.create(7), Ok((slot, PID + u32::try_from(slot).unwrap())));
        }
        assert_eq!(threads.create(0), Err(Errno::AGAIN));
        assert_eq!(threads.end(5), 7);
        let (slot, tid) = threads.create(0).unwrap();
        assert_eq!(slot, 5);
        assert_ne!(tid, PID + 5, "identifiers are not used again soon");
        assert_eq!(threads.count(), SLOTS);
    }

    #[test]
    fn the_oldest_waiter_is_woken_first() {
        let (mut threads, wakeups) = four();
        for slot in [2, 0, 3, 1] {
            threads.enqueue(&wakeups, slot, 0x1000, u32::MAX);
        }
        for expected in [2, 0, 3, 1] {
            let woken: Vec<_> = threads.wake(&wakeups, 0x1000, 1, u32::MAX).iter().collect();
            assert_eq!(woken, [expected]);
            assert!(wakeups.is_set(expected));
        }
        assert_eq!(threads.wake(&wakeups, 0x1000, 1, u32::MAX).count(), 0);
    }

    #[test]
    fn bits_and_addresses_select() {
        let (mut threads, wakeups) = four();
        threads.enqueue(&wakeups, 0, 0x1000, 1);
        threads.enqueue(&wakeups, 1, 0x1000, 2);
        threads.enqueue(&wakeups, 2, 0x1004, u32::MAX);
        let woken: Vec<_> = threads.wake(&wakeups, 0x1000, u32::MAX, 2).iter().collect();
        assert_eq!(woken, [1]);
    }

    #[test]
    fn requeued_threads_wait_for_the_other_word() {
        let (mut threads, wakeups) = four();
        for slot in 0..4 {
            threads.enqueue(&wakeups, slot, 0x1000, u32::MAX);
        }
        assert_eq!(threads.wake(&wakeups, 0x1000, 1, u32::MAX).count(), 1);
        assert_eq!(threads.requeue(0x1000, 0x2000, 2), 2);
        assert_eq!(threads.wake(&wakeups, 0x2000, u32::MAX, u32::MAX).iter().collect::<Vec<_>>(), [1, 2]);
        assert_eq!(threads.wake(&wakeups, 0x1000, u32::MAX, u32::MAX).iter().collect::<Vec<_>>(), [3]);
    }

    #[test]
    fn giving_up_tells_whether_it_was_too_late() {
        let (mut threads, wakeups) = four();
        threads.enqueue(&wakeups, 0, 0x1000, u32::MAX);
        assert!(threads.dequeue(&wakeups, 0));
        assert_eq!(threads.wake(&wakeups, 0x1000, 1, u32::MAX).count(), 0);
        threads.enqueue(&wakeups, 0, 0x1000, u32::MAX);
        assert_eq!(threads.wake(&wakeups, 0x1000, 1, u32::MAX).count(), 1);
        assert!(!threads.dequeue(&wakeups, 0));
    }
}
