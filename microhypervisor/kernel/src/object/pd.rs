// SPDX-License-Identifier: MIT OR Apache-2.0
//! Protection domain (PD): pays for kernel memory, and has an object space, a host space and a port space.
//!
//! Everything that a PD pays for is in its list, so that destroying it destroys all of it, PDs below it included. Its spaces and
//! it refer to each other; destruction cuts that.

use super::{Header, Owned, Ref, Space, View, Work, destroy};
use crate::memory::POOL;
use cloister_abi::cap::Kind;
use cloister_mechanism::budget::Budget;
use cloister_mechanism::list::List;
use cloister_mechanism::slab::Slab;
use cloister_mechanism::{Exhausted, Frames};
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};
use spin::Mutex;

/// Sizes of slots.
const SLABS: [usize; 4] = [128, 192, 576, 704];

/// The spaces that every PD has.
#[derive(Clone)]
pub(crate) struct Spaces {
    pub(crate) objects: Ref<Space>,
    pub(crate) host: Ref<Space>,
    pub(crate) ports: Ref<Space>,
}

/// Protection domain (PD).
#[repr(C, align(64))]
pub(crate) struct Pd {
    header: Header,
    budget: Budget,
    lock: Mutex<()>,
    slabs: [Slab; SLABS.len()],
    owned: List<Header, Owned>,
    spaces: Mutex<Option<Spaces>>,
    /// Its destruction has begun: nothing new is made on its account.
    closed: AtomicBool,
    /// How many priorities, from the lowest on, the SCs of its ECs and those that it pays for may have. At most as many as its payer
    /// has, so nobody has one that was not given to him from above.
    pub(crate) priorities: u32,
}

const _: () = assert!(size_of::<Pd>() <= SLABS[2]);

impl Pd {
    /// A PD without spaces, whose budget was taken from somebody.
    pub(crate) const fn new(budget: u64, priorities: u32) -> Self {
        Self {
            header: Header::new(Kind::Pd),
            budget: Budget::new(budget),
            lock: Mutex::new(()),
            slabs: [Slab::new(SLABS[0]), Slab::new(SLABS[1]), Slab::new(SLABS[2]), Slab::new(SLABS[3])],
            owned: List::empty(),
            spaces: Mutex::new(None),
            closed: AtomicBool::new(false),
            priorities,
        }
    }

    /// Its budget.
    pub(crate) const fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Its spaces, none once it is destroyed.
    pub(crate) fn spaces(&self) -> Option<Spaces> {
        self.spaces.lock().clone()
    }

    /// Gives it its spaces.
    pub(crate) fn set_spaces(&self, spaces: Spaces) {
        *self.spaces.lock() = Some(spaces);
    }

    fn slab(&self, size: usize) -> Option<&Slab> {
        SLABS.iter().position(|slot| *slot >= size).and_then(|index| self.slabs.get(index))
    }

    /// Memory for an object.
    pub(crate) fn allocate(&self, size: usize) -> Result<NonNull<u8>, Exhausted> {
        if self.closed.load(Relaxed) {
            return Err(Exhausted::Budget);
        }
        let slab = self.slab(size).ok_or(Exhausted::Pool)?;
        let _guard = self.lock.lock();
        slab.take(self)
    }

    /// Gives memory of an object back.
    ///
    /// # Safety
    /// It came from `allocate` with that size, and nothing points to it.
    pub(crate) unsafe fn deallocate(&self, place: NonNull<u8>, size: usize) {
        let Some(slab) = self.slab(size) else { return };
        let _guard = self.lock.lock();
        // SAFETY: the caller vouches for the slot.
        unsafe { slab.give(place, self) };
    }

    /// Puts an object on the list of what it pays for. Answers false if its destruction has begun, which may be through the list.
    pub(crate) fn adopt(&self, object: &Header) -> bool {
        let _guard = self.lock.lock();
        let open = !self.closed.load(Relaxed);
        if open {
            self.owned.push_front(object);
        }
        open
    }

    /// Begins its destruction: nothing comes onto the list any more. Answers what is first there.
    fn close(&self) -> Option<NonNull<Header>> {
        let _guard = self.lock.lock();
        self.closed.store(true, Relaxed);
        self.owned.first()
    }

    /// Takes it off.
    pub(crate) fn disown(&self, object: &Header) {
        let _guard = self.lock.lock();
        self.owned.remove(object);
    }

    /// Does a piece of the work of destroying what it pays for, PDs below it from the innermost outwards. Answers whether there is more.
    pub(crate) fn dismantle(&self) -> bool {
        let mut work = Work::piece();
        while !work.is_done() {
            let Some(mut object) = self.close() else {
                // The capabilities went with the object space, which is among what the PD pays for; page tables go with the
                // last reference to the host space.
                let spaces = self.spaces.lock().take();
                drop(spaces);
                return false;
            };
            // SAFETY: what is found on a list stays to the end of the handler, dead or alive.
            while let Some(below) = unsafe { inner(object) } {
                object = below;
                work.spend(Work::LOOK);
            }
            // SAFETY: as above.
            let header = unsafe { object.as_ref() };
            // A space that has much in it goes in pieces.
            if let View::Space(space) = header.view()
                && space.strip(&mut work)
            {
                return true;
            }
            work.spend(Work::OBJECT);
            destroy(header, &mut work);
        }
        true
    }

    /// Ends it. What it pays for refers to it, so there is nothing of that left, be it that the last reference has gone or that it was
    /// taken apart before.
    pub(crate) fn kill(&self) {
        while self.dismantle() {}
        // What nobody can use any more goes back to who gave it; the rest when the last object has gone.
        self.return_budget();
    }

    fn return_budget(&self) {
        let free = self.budget.free();
        if let Some(parent) = self.header.payer()
            && self.budget.shrink(free).is_ok()
        {
            parent.budget.grow(free);
        }
    }
}

impl Drop for Pd {
    fn drop(&mut self) {
        self.return_budget();
    }
}

impl Frames for Pd {
    fn take(&self) -> Result<NonNull<u8>, Exhausted> {
        if self.closed.load(Relaxed) {
            return Err(Exhausted::Budget);
        }
        self.budget.take(&POOL)
    }

    unsafe fn give(&self, frame: NonNull<u8>) {
        // SAFETY: the caller vouches for the frame.
        unsafe { self.budget.give(&POOL, frame) };
    }
}

/// The first object that an object pays for, if it is a PD that still pays for some.
///
/// # Safety
/// The object is alive.
unsafe fn inner(object: NonNull<Header>) -> Option<NonNull<Header>> {
    // SAFETY: the caller vouches for the object.
    let View::Pd(pd) = unsafe { object.as_ref() }.view() else { return None };
    // Its threads may still run between two goes, and must not make what the next go would find.
    pd.close()
}
