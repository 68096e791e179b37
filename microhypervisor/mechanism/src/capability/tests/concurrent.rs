// SPDX-License-Identifier: MIT OR Apache-2.0
//! What several cores do to a table at once, in every order of steps.
//!
//! Tables are of four places here, in two frames. An object is one as the kernel has them: with the count of [`crate::refcount`] and the
//! grace that look-ups have.

use crate::capability::{Refused, SELECTORS, SLOTS, Slots, Table, Target};
use crate::refcount::{Fate, RefCount};
use crate::sync::{AtomicU64, explore};
use crate::work::Work;
use crate::{Exhausted, Frames};
use core::ptr::NonNull;
use loom::cell::UnsafeCell;
use loom::sync::atomic::{
    AtomicBool, AtomicUsize,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
};
use loom::thread;
use std::boxed::Box;
use std::sync::Arc;

/// What is in a frame before it is zeroed: who sees a frame too early takes this for an object, and dies.
const GARBAGE: u64 = 64;

/// Frames of this model's size, counted.
struct Memory {
    used: AtomicUsize,
    limit: usize,
}

impl Frames for Memory {
    fn take(&self) -> Result<NonNull<u8>, Exhausted> {
        if self.used.fetch_add(1, AcqRel) >= self.limit {
            self.used.fetch_sub(1, AcqRel);
            return Err(Exhausted::Budget);
        }
        let slots: Box<Slots> = Box::new(core::array::from_fn(|_| AtomicU64::new(GARBAGE)));
        Ok(NonNull::from(Box::leak(slots)).cast())
    }
    unsafe fn give(&self, frame: NonNull<u8>) {
        self.used.fetch_sub(1, AcqRel);
        // SAFETY: `take` leaked it, and nobody uses it any more.
        drop(unsafe { Box::from_raw(frame.cast::<Slots>().as_ptr()) });
    }
    fn take_zeroed(&self) -> Result<NonNull<u8>, Exhausted> {
        let frame = self.take()?;
        // SAFETY: `take` made it so.
        unsafe { frame.cast::<Slots>().as_ref() }.iter().for_each(|slot| slot.store(0, Relaxed));
        Ok(frame)
    }
}

#[repr(align(64))]
struct Object {
    count: RefCount,
    /// The object's memory, written when that is given back.
    memory: UnsafeCell<u32>,
    /// The cores that have left the handler that they are in.
    left: [AtomicBool; 2],
    /// Somebody has let the last reference go, and memory waits for grace.
    dead: AtomicUsize,
}

// SAFETY: aligned; `World` keeps it to the end, and its memory is given back as the kernel does it.
unsafe impl Target for Object {
    fn is_alive(&self) -> bool {
        true
    }
    fn acquire(&self) {
        self.count.acquire();
    }
    fn release(&self) {
        if self.count.release() && self.count.retire() {
            self.dead.fetch_add(1, AcqRel);
        }
    }
}

impl Object {
    /// Core `own` has left its handler. If it has let the last reference go there, it waits for the other one and gives the memory back.
    fn leave(&self, own: usize) {
        self.left[own].store(true, Release);
        if self.dead.swap(0, AcqRel) == 0 {
            return;
        }
        while !self.left[1 - own].load(Acquire) {
            thread::yield_now();
        }
        loop {
            match self.count.reap() {
                Fate::Gone => {
                    break self.memory.with_mut(|word| {
                        // SAFETY: loom checks that nobody else uses it.
                        unsafe { *word += 1 }
                    });
                }
                Fate::Again => {}
                Fate::Alive => break,
            }
        }
    }

    fn read(&self) -> u32 {
        // SAFETY: loom checks that nobody writes it.
        self.memory.with(|word| unsafe { *word })
    }
}

struct World {
    memory: Memory,
    table: Table<Object>,
    object: Object,
}
// SAFETY: loom checks that nobody uses a cell while another one writes it.
unsafe impl Sync for World {}
// SAFETY: as above.
unsafe impl Send for World {}

impl World {
    fn new(limit: usize) -> Arc<Self> {
        let memory = Memory { used: AtomicUsize::new(0), limit };
        let root = memory.take_zeroed().expect("a frame");
        // SAFETY: the frame is the table's to the end.
        let table = unsafe { Table::new(root) };
        let object = Object {
            count: RefCount::one(),
            memory: UnsafeCell::new(0),
            left: [AtomicBool::new(false), AtomicBool::new(false)],
            dead: AtomicUsize::new(0),
        };
        Arc::new(Self { memory, table, object })
    }

    /// Puts in one more capability to the object, to which there is one reference at least.
    fn insert(&self, selector: u64) -> Result<(), Refused> {
        self.object.acquire();
        self.table.insert(&self.memory, selector, &self.object, 1)
    }

    fn empty(&self, units: usize) {
        while self.table.empty(&mut Work::of(units)) {}
    }

    /// All is over: so many references are left, and all memory comes back.
    fn end(&self, references: usize) {
        for _ in 1..references {
            assert!(!self.object.count.release(), "a reference is missing");
        }
        assert!(self.object.count.release(), "there are references too many");
        // SAFETY: nobody uses the table any more.
        while unsafe { self.table.take_apart(&self.memory, &mut Work::piece()) } {}
        assert_eq!(self.memory.used.load(Relaxed), 1, "the first level");
    }
}

/// Runs both on a core each.
fn both(world: &Arc<World>, first: impl Fn(&World) + Send + 'static, second: impl Fn(&World)) {
    let other = Arc::clone(world);
    let thread = thread::spawn(move || first(&other));
    second(world);
    thread.join().expect("no panic");
}

/// Whoever wins, no capability is left, and no reference of one that was refused; also where the frame is being made.
#[test]
fn nothing_comes_into_a_table_that_is_emptied() {
    explore(|| {
        let world = World::new(3);
        both(&world, |world| _ = world.insert(2), |world| world.empty(100));
        assert!((0..SELECTORS).all(|selector| world.table.get(selector.into()).is_none()));
        world.end(1);
    });
    explore(|| {
        let world = World::new(3);
        world.insert(1).expect("there is room");
        both(&world, |world| _ = world.insert(1), |world| world.empty(1));
        assert!((0..SELECTORS).all(|selector| world.table.get(selector.into()).is_none()));
        world.end(1);
    });
}

#[test]
fn two_empty_a_table_at_once() {
    explore(|| {
        let world = World::new(3);
        for selector in [0, 1, 3] {
            world.insert(selector).expect("there is room");
        }
        both(&world, |world| world.empty(40), |world| world.empty(2));
        assert_eq!(world.insert(0), Err(Refused::Closed));
        assert_eq!(world.insert(3), Err(Refused::Closed));
        world.end(1);
    });
}

/// Two put something at the same place while it is removed: each capability's reference goes once.
#[test]
fn a_place_is_changed_by_two() {
    explore(|| {
        let world = World::new(2);
        world.insert(0).expect("there is room");
        let change = |world: &World| {
            world.insert(0).expect("there is room");
            world.table.remove(1);
        };
        both(&world, change, |world| {
            world.table.remove(0);
            world.insert(0).expect("there is room");
        });
        assert!(world.table.get(0).is_some());
        world.end(2);
    });
}

/// Both need the same frames; there is memory for them once. Nobody takes some that he does not use.
#[test]
fn frames_are_made_once() {
    explore(|| {
        let world = World::new(3);
        let last = 2 * SLOTS as u64 - 1;
        let prepare = move |world: &World| {
            world.table.prepare(&world.memory, 0, last).expect("there is memory");
            assert!(world.table.get(0).is_none());
        };
        both(&world, prepare, move |world| {
            world.insert(last).expect("there is memory");
            assert!(world.table.get(last).is_some_and(|found| found.allows(1)));
            world.table.remove(last);
        });
        assert_eq!(world.memory.used.load(Relaxed), 3);
        world.end(1);
    });
}

/// Who looks while a frame comes finds nothing there, or what was put in.
#[test]
fn a_frame_is_empty_when_it_comes() {
    explore(|| {
        let world = World::new(2);
        let looks = |world: &World| {
            assert!(world.table.get(2).is_none());
            assert!(world.table.get(3).is_none_or(|found| found.perms() == 1));
        };
        both(&world, looks, |world| world.insert(3).expect("there is memory"));
        world.end(2);
    });
}

/// Where memory is short, whoever fails leaves nothing behind.
#[test]
fn frames_run_out() {
    explore(|| {
        let world = World::new(2);
        let last = 2 * SLOTS as u64 - 1;
        let full = Err(Refused::Exhausted(Exhausted::Budget));
        both(
            &world,
            move |world| assert_eq!(world.table.prepare(&world.memory, 0, last), full),
            move |world| {
                if world.insert(last).is_err() {
                    // The other one had it for a moment.
                    world.insert(last).unwrap_or_default();
                }
            },
        );
        let there = usize::from(world.table.get(last).is_some());
        assert!(world.memory.used.load(Relaxed) <= 2);
        world.end(1 + there);
    });
}

/// A look-up takes no reference. While the last capability goes, what it found stays as long as its core is in the handler, and longer if
/// it takes a reference there.
#[test]
fn what_is_found_stays_to_the_end_of_the_handler() {
    explore(|| {
        let world = World::new(3);
        world.insert(0).expect("there is room");
        // The capability's reference is the last.
        assert!(!world.object.count.release());
        let finder = |world: &World| {
            if let Some(found) = world.table.get(0) {
                assert_eq!(found.target().read(), 0, "used after it was given back");
                if world.table.delegate(0, &world.table, &world.memory, 2, 1) == Ok(true) {
                    assert_eq!(found.target().read(), 0, "used after it was given back");
                }
            }
            world.object.leave(0);
        };
        both(&world, finder, |world| {
            world.table.remove(0);
            world.object.leave(1);
        });
        let there = world.table.get(2).is_some();
        assert_eq!(world.object.read(), u32::from(!there), "given back once, when nobody refers to it");
        // SAFETY: nobody uses the table any more.
        while unsafe { world.table.take_apart(&world.memory, &mut Work::piece()) } {}
    });
}
