// SPDX-License-Identifier: MIT OR Apache-2.0
//! By several cores at once, in every order of steps.

use crate::refcount::{Fate, RefCount};
use crate::sync::explore;
use loom::cell::UnsafeCell;
use loom::sync::atomic::{
    AtomicBool, AtomicU32,
    Ordering::{Acquire, Relaxed, Release, SeqCst},
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
            count: RefCount::new(),
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
