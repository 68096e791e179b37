// SPDX-License-Identifier: MIT OR Apache-2.0
//! By several cores at once, in every order of steps.

use crate::refcount::{Fate, RefCount};
use crate::sync::explore;
use loom::cell::UnsafeCell;
use loom::sync::atomic::{
    AtomicBool, AtomicU32,
    Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst},
};
use loom::thread;
use std::sync::Arc;

/// An object, the capability to it, and two cores.
struct World {
    /// The capability holds a reference.
    capability: AtomicBool,
    count: RefCount,
    /// The object's memory; it is written when that is given back.
    memory: UnsafeCell<u32>,
    /// Whether each core has left the handler that it is in.
    left: [AtomicBool; 2],
    freed: AtomicU32,
}
// SAFETY: loom checks that nobody uses the memory while another one writes it.
unsafe impl Sync for World {}
// SAFETY: as above.
unsafe impl Send for World {}

impl World {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            capability: AtomicBool::new(true),
            count: RefCount::one(),
            memory: UnsafeCell::new(0),
            left: [AtomicBool::new(false), AtomicBool::new(false)],
            freed: AtomicU32::new(0),
        })
    }

    /// Looks the object up and takes a reference.
    fn look_up(&self) -> bool {
        let found = self.capability.load(Acquire);
        if found {
            self.count.acquire();
        }
        found
    }

    fn read(&self) {
        // SAFETY: loom checks it.
        self.memory.with(|word| assert_eq!(unsafe { *word }, 0, "used after it was given back"));
    }

    /// Lets a reference go. Core `own` has left its handler; the other one may be in one that looked up.
    fn release(&self, own: usize) {
        if !self.count.release() || !self.count.retire() {
            return;
        }
        while !self.left[1 - own].load(Acquire) {
            thread::yield_now();
        }
        let fate = loop {
            match self.count.reap() {
                // All have left their handlers for good.
                Fate::Again => {}
                fate => break fate,
            }
        };
        if fate == Fate::Gone {
            // SAFETY: loom checks it.
            self.memory.with_mut(|word| unsafe { *word = 1 });
            self.freed.fetch_add(1, Relaxed);
        }
    }

    /// Takes the capability away.
    fn remove(&self) -> bool {
        self.capability.swap(false, SeqCst)
    }

    fn leave(&self, own: usize) {
        self.left[own].store(true, Release);
    }

    fn end(&self) {
        assert_eq!(self.freed.load(Relaxed), 1, "given back once");
    }
}

#[test]
fn a_reference_taken_as_the_last_one_goes_keeps_the_memory() {
    explore(|| {
        let world = World::new();
        let other = Arc::clone(&world);
        let user = thread::spawn(move || {
            let found = other.look_up();
            other.leave(0);
            if found {
                other.read();
                other.release(0);
            }
        });
        world.leave(1);
        if world.remove() {
            world.release(1);
        }
        user.join().expect("no panic");
        world.end();
    });
}

#[test]
fn two_let_go_at_once() {
    explore(|| {
        let world = World::new();
        let other = Arc::clone(&world);
        let user = thread::spawn(move || {
            // Both look up, and both take the capability away: one of them does.
            let found = other.look_up();
            let removed = other.remove();
            other.leave(0);
            for _ in [found, removed].into_iter().filter(|held| *held) {
                other.read();
                other.release(0);
            }
        });
        let removed = world.remove();
        world.leave(1);
        if removed {
            world.read();
            world.release(1);
        }
        user.join().expect("no panic");
        world.end();
    });
}

/// Two capabilities to an object, and three cores, each of which is in a handler while its number is odd.
struct Handlers {
    capabilities: [AtomicBool; 2],
    count: RefCount,
    memory: UnsafeCell<u32>,
    cores: [AtomicU32; 3],
    freed: AtomicU32,
    again: Arc<std::sync::atomic::AtomicU32>,
}
// SAFETY: as above.
unsafe impl Sync for Handlers {}
// SAFETY: as above.
unsafe impl Send for Handlers {}

impl Handlers {
    /// Does something in a handler of a core; afterwards it waits for grace, if it has let the last reference go.
    fn handle(&self, own: usize, handler: impl FnOnce(&Self) -> bool) {
        self.cores[own].fetch_add(1, AcqRel);
        let last = handler(self);
        self.cores[own].fetch_add(1, AcqRel);
        if !last {
            return;
        }
        loop {
            self.quiesce(own);
            match self.count.reap() {
                Fate::Gone => {
                    // SAFETY: loom checks it.
                    self.memory.with_mut(|word| unsafe { *word = 1 });
                    self.freed.fetch_add(1, Relaxed);
                    break;
                }
                Fate::Again => _ = self.again.fetch_add(1, SeqCst),
                Fate::Alive => break,
            }
        }
    }

    /// Waits until each other core has left the handler that it is in.
    fn quiesce(&self, own: usize) {
        for core in self.cores.iter().enumerate().filter(|(core, _)| *core != own).map(|(_, core)| core) {
            let now = core.fetch_add(0, AcqRel);
            while now % 2 == 1 && core.load(Acquire) == now {
                thread::yield_now();
            }
        }
    }

    /// Takes a capability away; answers whether its reference was the last, and nobody waits for grace yet.
    fn remove(&self, which: usize) -> bool {
        self.capabilities[which].swap(false, AcqRel) && self.count.release() && self.count.retire()
    }
}

/// One core finds the object by its first capability and makes a second one, while that goes; another core finds it by the second one, which
/// goes too: whoever waits for grace waits once more, for him.
#[test]
fn what_is_found_by_a_late_reference_waits_again() {
    let again = Arc::new(std::sync::atomic::AtomicU32::new(0));
    let seen = Arc::clone(&again);
    explore(move || {
        let world = Arc::new(Handlers {
            capabilities: [AtomicBool::new(true), AtomicBool::new(false)],
            count: RefCount::one(),
            memory: UnsafeCell::new(0),
            cores: core::array::from_fn(|_| AtomicU32::new(0)),
            freed: AtomicU32::new(0),
            again: Arc::clone(&seen),
        });
        let (second, third) = (Arc::clone(&world), Arc::clone(&world));
        let second = thread::spawn(move || {
            second.handle(1, |world| {
                if world.capabilities[0].load(Acquire) {
                    world.count.acquire();
                    world.capabilities[1].swap(true, AcqRel);
                }
                false
            });
            second.handle(1, |world| world.remove(1));
        });
        let third = thread::spawn(move || {
            third.handle(2, |world| {
                if world.capabilities[1].load(Acquire) {
                    // SAFETY: loom checks it.
                    world.memory.with(|word| assert_eq!(unsafe { *word }, 0, "used after it was given back"));
                }
                false
            });
        });
        world.handle(0, |world| world.remove(0));
        second.join().expect("no panic");
        third.join().expect("no panic");
        assert_eq!(world.freed.load(Relaxed), 1, "given back once");
    });
    assert_ne!(again.load(SeqCst), 0, "it never came to that");
}
