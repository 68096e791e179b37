// SPDX-License-Identifier: MIT OR Apache-2.0
//! Objects that nobody refers to any more, and how their memory is given back: at a point where no hypercall is under way, no earlier than each
//! core has left the handler that it was in when the last reference went, and in pieces.

use super::{Header, Object, View, Work, finish};
use crate::percore::{self, Core};
use crate::remote;
use cloister_mechanism::list::{Link, Linked, List};
use cloister_mechanism::refcount::Fate;
use core::cell::Cell;

/// Marks the list of objects whose memory can be given back.
struct Unreferenced;

impl Linked<Unreferenced> for Header {
    fn link(&self) -> &Link<Self> {
        &self.link
    }
}

/// A core's dead: objects that nobody refers to, whose memory waits for grace.
///
/// Grace costs every other core an interrupt. So that nobody can make them busy by creating and destroying, memory is given back when so
/// many wait ([`BATCH`]), when one has waited so long ([`PATIENCE`]), when somebody wants to know or needs memory, or when the core has nothing
/// else to do. A core that is alone need not wait.
pub(crate) struct Graveyard {
    list: List<Header, Unreferenced>,
    count: Cell<u32>,
    /// The last piece of work left some of them.
    behind: Cell<bool>,
}

/// How many dead objects wait at most.
const BATCH: u32 = 32;
/// How long they wait at most, microseconds.
const PATIENCE: u64 = 1_000;
/// Time for others between two pieces of work, microseconds.
pub(crate) const GAP: u64 = 20;

impl Graveyard {
    /// Nobody is dead.
    pub(crate) const fn new() -> Self {
        Self { list: List::empty(), count: Cell::new(0), behind: Cell::new(false) }
    }

    /// Whether nobody is.
    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub(super) fn add(&self, core: &Core, header: &Header) {
        self.list.push_back(header);
        self.count.set(self.count.get() + 1);
        if percore::count() == 1 || self.count.get() >= BATCH {
            core.request(percore::REAP);
        } else if self.count.get() == 1 {
            core.postpone(PATIENCE);
        }
    }

    /// Whether there was more than what one piece of work could give back: the rest comes soon.
    pub(crate) fn is_behind(&self) -> bool {
        self.behind.get()
    }

    /// Leaves some for the next piece of work.
    fn leave(&self, core: &Core, header: &Header) {
        self.list.push_back(header);
        self.count.set(self.count.get() + 1);
        if !self.behind.replace(true) {
            core.postpone(GAP);
        }
    }

    /// All of them, after a time of grace.
    fn take(&self) -> List<Header, Unreferenced> {
        let dead = List::empty();
        if !self.is_empty() {
            // Who looked them up before the last reference went may still be at it.
            remote::quiesce();
        }
        while let Some(header) = self.list.pop_front() {
            // SAFETY: members of the graveyard have no references, so they are ours alone.
            dead.push_back(unsafe { header.as_ref() });
        }
        self.count.set(0);
        self.behind.set(false);
        dead
    }
}

/// Gives back the memory of objects that nobody refers to any more, as much as one piece of work allows. No reference of a hypercall may be
/// in use.
pub(crate) fn reap(core: &Core) {
    let mut work = Work::piece();
    let mut batch = core.graveyard.take();
    loop {
        let Some(header) = batch.pop_front() else {
            // What those have let go; what was left waits.
            if core.graveyard.is_empty() || core.graveyard.is_behind() {
                return;
            }
            batch = core.graveyard.take();
            continue;
        };
        // SAFETY: members of the graveyard have no references, so they are ours alone.
        let dead = unsafe { header.as_ref() };
        if work.is_done() {
            core.graveyard.leave(core, dead);
            continue;
        }
        work.spend(Work::OBJECT);
        match dead.refs.reap() {
            Fate::Gone => {}
            Fate::Again => {
                core.graveyard.add(core, dead);
                continue;
            }
            Fate::Alive => continue,
        }
        let more = match dead.view() {
            // SAFETY: nobody refers to it, and grace is over.
            View::Space(space) => unsafe { space.take_apart(&mut work) },
            _ => false,
        };
        if more {
            core.graveyard.leave(core, dead);
            continue;
        }
        let payer = dead.payer.get();
        // SAFETY: as above.
        let size = unsafe { finish(header) };
        let Some(payer) = payer else { continue };
        // SAFETY: the object held a reference to its payer, which is let go only below.
        let payer = unsafe { payer.as_ref() };
        // SAFETY: the slot came from this payer with this size, and the object in it was dropped.
        unsafe { payer.deallocate(header.cast(), size) };
        payer.header().release();
    }
}
