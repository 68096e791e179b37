// SPDX-License-Identifier: MIT OR Apache-2.0
//! A semaphore and several cores, in every order of steps. What wakes a thread is mail to its core, as in the kernel.

use crate::list::{Link, Linked};
use crate::mail::{Inbox, Letter, Mail};
use crate::semaphore::{Closed, Semaphore, Waiter, Waiting};
use crate::sync::explore;
use crate::work::Work;
use core::ptr::NonNull;
use loom::cell::Cell;
use loom::sync::atomic::{
    AtomicBool,
    Ordering::{Acquire, Relaxed, Release},
};
use loom::thread;
use std::sync::Arc;
use std::vec::Vec;

const WAKE: u32 = 1;
const KILL: u32 = 2;

/// A thread, which belongs to a core with that inbox.
struct Thread {
    link: Link<Thread>,
    mail: Mail<Thread>,
    inbox: Arc<Inbox<Thread>>,
    alive: AtomicBool,
    /// Written by who took it out of the queue, read when its core hears of that.
    told: Cell<Option<u64>>,
}

impl Linked<Waiting> for Thread {
    fn link(&self) -> &Link<Self> {
        &self.link
    }
}
impl Letter for Thread {
    fn mail(&self) -> &Mail<Self> {
        &self.mail
    }
}
impl Waiter for Thread {
    fn is_alive(&self) -> bool {
        self.alive.load(Relaxed)
    }
    fn wake(&self, value: Option<u64>) {
        self.told.set(value);
        self.inbox.send(self, WAKE);
    }
}

impl Thread {
    fn new(inbox: &Arc<Inbox<Thread>>) -> Self {
        Self {
            link: Link::none(),
            mail: Mail::none(),
            inbox: Arc::clone(inbox),
            alive: AtomicBool::new(true),
            told: Cell::new(None),
        }
    }

    /// It is destroyed by another core.
    fn destroy(&self) {
        self.alive.store(false, Relaxed);
        self.inbox.send(self, KILL);
    }
}

struct World {
    semaphore: Semaphore<Thread>,
    inbox: Arc<Inbox<Thread>>,
    threads: [Thread; 2],
    over: AtomicBool,
}
// SAFETY: loom checks that nobody uses a cell while another one writes it.
unsafe impl Sync for World {}
// SAFETY: as above.
unsafe impl Send for World {}

impl World {
    fn new(count: u64) -> Arc<Self> {
        let inbox = Arc::new(Inbox::empty());
        let threads = [Thread::new(&inbox), Thread::new(&inbox)];
        Arc::new(Self { semaphore: Semaphore::new(count), inbox, threads, over: AtomicBool::new(false) })
    }

    /// Takes the mail of the core that all threads belong to. Answers which of them were woken, with what.
    fn deliver(&self) -> Vec<(usize, Option<u64>)> {
        let mut woken = Vec::new();
        let handle = |thread: NonNull<Thread>, bits: u32| {
            let index = self.threads.iter().position(|other| core::ptr::eq(other, thread.as_ptr())).expect("ours");
            let thread = &self.threads[index];
            if bits & KILL != 0 {
                self.semaphore.forget(thread);
            }
            assert!(!thread.link.is_linked(), "told while it waits");
            if bits & WAKE != 0 && thread.is_alive() {
                woken.push((index, thread.told.get()));
            }
        };
        // SAFETY: one core takes, and the threads are part of the world.
        unsafe { self.inbox.take_all(handle) };
        woken
    }

    /// Waits until a thread is woken.
    fn wait(&self) -> Option<u64> {
        loop {
            match self.deliver().as_slice() {
                [] => thread::yield_now(),
                [(_, value)] => break *value,
                _ => panic!("woken twice"),
            }
        }
    }

    /// Others have done all they do: nobody is told anything more.
    fn quiet(&self) {
        assert!(self.deliver().is_empty(), "told without waiting");
    }
}

/// Runs on further cores, and on the one that threads belong to.
fn run<const N: usize>(world: &Arc<World>, others: [fn(&World); N], own: impl FnOnce(&World)) {
    let others = others.map(|other| {
        let world = Arc::clone(world);
        thread::spawn(move || other(&world))
    });
    own(world);
    others.into_iter().for_each(|other| other.join().expect("no panic"));
    world.quiet();
}

/// Nothing that was counted up is lost, or taken twice, whoever is first.
#[test]
fn who_waits_is_woken() {
    explore(|| {
        let world = World::new(0);
        run(&world, [|world| world.semaphore.up(), |world| world.semaphore.up()], |world| {
            for thread in &world.threads {
                let taken = world.semaphore.take_or_wait(1, thread).expect("open");
                assert_eq!(taken.or_else(|| world.wait()), Some(1));
            }
        });
        assert_eq!(world.semaphore.take(9), None);
    });
}

/// Who gives up has been woken, or what was counted up is still there.
#[test]
fn who_gives_up_loses_nothing() {
    explore(|| {
        let world = World::new(0);
        let mut taken = None;
        run(&world, [|world| world.semaphore.up()], |world| {
            taken = world.semaphore.take_or_wait(1, &world.threads[0]).expect("open");
            if taken.is_none() && !world.semaphore.forget(&world.threads[0]) {
                taken = world.wait();
                assert_eq!(taken, Some(1));
            }
        });
        assert_eq!(world.semaphore.take_one(), taken.is_none());
        assert!(!world.semaphore.take_one());
    });
}

/// Each bit comes once, with those that were set before it was taken.
#[test]
fn signals_come_once() {
    explore(|| {
        let world = World::new(0);
        run(&world, [|world| world.semaphore.signal(1), |world| world.semaphore.signal(4)], |world| {
            let mut bits = 0;
            while bits != 5 {
                let taken = world.semaphore.take_or_wait(u64::MAX, &world.threads[0]).expect("open");
                let taken = taken.or_else(|| world.wait()).expect("it is not destroyed");
                assert_eq!(bits & taken, 0, "a bit came twice");
                bits |= taken;
            }
        });
        assert_eq!(world.semaphore.take(1), None);
    });
}

/// Nobody waits for ever at a semaphore that is destroyed.
#[test]
fn destruction_wakes_all() {
    explore(|| {
        let world = World::new(0);
        let close = |world: &World| while world.semaphore.close(&mut Work::of(1)) {};
        run(&world, [close, |world| world.semaphore.up()], |world| {
            let mut taken = 0;
            for thread in &world.threads {
                let value = match world.semaphore.take_or_wait(1, thread) {
                    Err(Closed) => None,
                    Ok(None) => world.wait(),
                    Ok(value) => value,
                };
                taken += value.unwrap_or(0);
            }
            assert!(taken <= 1);
        });
        assert_eq!(world.semaphore.take_or_wait(2, &world.threads[0]).unwrap_or(None).unwrap_or(1), 1);
    });
}

/// A thread that was destroyed before the semaphore was counted up takes nothing: the next one does, or it stays.
#[test]
fn the_dead_take_nothing() {
    explore(|| {
        let world = World::new(0);
        for thread in &world.threads {
            assert_eq!(world.semaphore.take_or_wait(1, thread), Ok(None));
        }
        let other = |world: &World| {
            world.threads[0].destroy();
            world.semaphore.up();
            world.over.store(true, Release);
        };
        run(&world, [other], |world| {
            let mut woken = Vec::new();
            while !world.over.load(Acquire) {
                woken.extend(world.deliver());
                thread::yield_now();
            }
            woken.extend(world.deliver());
            assert_eq!(woken, [(1, Some(1))]);
        });
        assert_eq!(world.semaphore.take(9), None);
    });
    explore(|| {
        let world = World::new(0);
        assert_eq!(world.semaphore.take_or_wait(1, &world.threads[0]), Ok(None));
        let other = |world: &World| {
            world.threads[0].destroy();
            world.semaphore.up();
        };
        run(&world, [other], |world| assert!(world.deliver().is_empty()));
        assert_eq!(world.semaphore.take(9), Some(1));
    });
}
