// SPDX-License-Identifier: MIT OR Apache-2.0
//! Scheduling context (SC): priority, time slice, time used. Bound to one global EC for life; what runs on its time is that EC, or who
//! that EC waits for (see [`Ec::leaf`]).

use super::{Ec, Header, Ref};
use crate::journey::{self, Journey};
use cloister_abi::cap::Kind;
use cloister_mechanism::list::{Link, Linked};
use cloister_mechanism::ready::Ready;
use core::cell::Cell;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU8, AtomicU64, Ordering};

/// Scheduling context (SC).
#[repr(C, align(64))]
pub(crate) struct Sc {
    header: Header,
    /// The EC whose time this is.
    pub(crate) ec: Ref<Ec>,
    /// Time slice, ticks.
    pub(crate) quantum: u64,
    /// What is left of the slice, ticks.
    pub(crate) left: Cell<u64>,
    /// Time used, ticks. Others read it.
    pub(crate) used: AtomicU64,
    /// In a run queue, or in the list of a blocked EC.
    link: Link<Sc>,
    /// Blocked EC in whose list it is.
    pub(crate) parked: Cell<Option<NonNull<Ec>>>,
    /// Priority.
    pub(crate) priority: u8,
    /// In the run queue.
    pub(crate) queued: Cell<bool>,
    /// Core where it is.
    core: AtomicU8,
    /// What it is there for.
    pub(crate) journey: Cell<Journey>,
}

/// Marks the list of SCs that wait for an EC to run again.
pub(crate) struct Parked;

impl Linked<Ready> for Sc {
    fn link(&self) -> &Link<Self> {
        &self.link
    }
}
impl Linked<Parked> for Sc {
    fn link(&self) -> &Link<Self> {
        &self.link
    }
}

const _: () = assert!(size_of::<Sc>() <= 192);

impl Sc {
    /// A scheduling context that is in no queue yet.
    pub(crate) fn new(ec: Ref<Ec>, priority: u8, quantum: u64) -> Self {
        Self {
            header: Header::new(Kind::Sc),
            core: AtomicU8::new(ec.core),
            ec,
            quantum,
            left: Cell::new(quantum),
            used: AtomicU64::new(0),
            link: Link::none(),
            parked: Cell::new(None),
            priority,
            journey: Cell::new(Journey::Home),
            queued: Cell::new(false),
        }
    }

    /// Takes it out of every queue; its EC has no time any more.
    pub(crate) fn kill(&self) {
        crate::sched::forget(self);
        journey::cancel(crate::percore::core(), self);
    }

    /// It goes to another core.
    pub(crate) fn set_core(&self, core: u8) {
        self.core.store(core, Ordering::Release);
    }

    /// Core where it is.
    pub(crate) fn core(&self) -> u8 {
        self.core.load(Ordering::Acquire)
    }
}
