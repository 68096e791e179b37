// SPDX-License-Identifier: MIT OR Apache-2.0
//! What lies where in the hostile component, and the record that it shares with its supervisor.
//!
//! The component has the program's code and constants, but none of its variables: all that it writes lies in the pages
//! named here, of which the supervisor sees the first ones, the [`Record`], at the same address. A slot is a thread's or a server's
//! place: stack, message page, numbers. The slot follows from the address of the message page, so that a thread whose registers were
//! lost finds itself again, and two never share a stack: the kernel maps only one message page at an address.

use cloister_abi::hypercall::CALLS;
use core::sync::atomic::{AtomicU8, AtomicU32, AtomicU64};

/// Bytes of a page.
pub(crate) const PAGE: u64 = cloister_bare::memory::PAGE;

/// Threads and servers that have a place of their own.
pub(crate) const SLOTS: usize = 1024;
/// Cores that the component runs on.
pub(crate) const CORES: usize = 2;
/// Selectors of which the component remembers what it put there.
pub(crate) const KNOWN: usize = 256;
/// Virtual CPUs with a place for their state page.
pub(crate) const STATES: u64 = 16;

/// Where the [`Record`] is, and log2 of its pages.
pub(crate) const RECORD: u64 = 0x5000_0000;
pub(crate) const RECORD_ORDER: u32 = 4;
/// Stacks, one after the other.
pub(crate) const STACK_AREA: u64 = 0x4080_0000;
pub(crate) const STACK_BITS: u32 = 13;
pub(crate) const STACK_AREA_ORDER: u32 = 11;
/// A large page to do with as one likes, and small ones.
pub(crate) const LARGE: u64 = 0x5020_0000;
pub(crate) const SMALL: u64 = 0x5040_0000;
pub(crate) const SMALL_ORDER: u32 = 6;
/// Message pages.
pub(crate) const UTCBS: u64 = 0x6000_0000;
pub(crate) const UTCB_BITS: u32 = 12;
/// State pages of virtual CPUs.
pub(crate) const STATE_AREA: u64 = 0x6100_0000;
/// Nothing is here at first.
pub(crate) const WINDOW: u64 = 0x7000_0000;

/// First selector that is the component's to fill; what it was given lies below.
pub(crate) const DYNAMIC: u64 = 32;

/// What the component is given, by selector.
pub(crate) mod given {
    /// Its PD.
    pub(crate) const PD: u64 = 1;
    /// Its object space.
    pub(crate) const OBJECTS: u64 = 2;
    /// Its memory.
    pub(crate) const HOST: u64 = 3;
    /// Its ports.
    pub(crate) const PORTS: u64 = 4;
    /// A portal of the victim's.
    pub(crate) const VICTIM: u64 = 5;
    /// A portal of the supervisor's.
    pub(crate) const SUPERVISOR: u64 = 6;
    /// A portal that repairs threads that crashed.
    pub(crate) const REPAIR: u64 = 8;
    /// A semaphore at which the victim waits: up only.
    pub(crate) const BELL: u64 = 9;
    /// A semaphore of the victim's that it holds without any permission.
    pub(crate) const LOCKED: u64 = 10;
    /// A semaphore that both sides use.
    pub(crate) const SHARED: u64 = 11;
    /// The SC of its first thread, whose time it may read.
    pub(crate) const SC: u64 = 12;
    /// A guest space and a virtual CPU.
    pub(crate) const GUEST: u64 = 13;
    pub(crate) const VCPU: u64 = 14;
}

/// What the component believes to be at a selector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Thing {
    Pd = 1,
    Server,
    Thread,
    Started,
    Sc,
    Portal,
    Handler,
    Semaphore,
    Signal,
    Vcpu,
    Guest,
    Host,
    Objects,
    Ports,
}

/// Number under which system calls are counted that are no hypercalls.
pub(crate) const FOREIGN: usize = CALLS.len();
/// Statuses, and one for all that is none.
pub(crate) const ANSWERS: usize = 16;
/// Word of [`Record::complaint`] in which the call's number is, plus one.
pub(crate) const COMPLAINT: usize = 9;

/// What component and supervisor share.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Record {
    /// What all numbers of this component follow from.
    pub(crate) seed: AtomicU64,
    /// Ticks of the time-stamp counter in a microsecond.
    pub(crate) ticks: AtomicU64,
    /// Cores on which it may run.
    pub(crate) cores: AtomicU32,
    /// Number of slots that were taken.
    pub(crate) next: AtomicU32,
    /// Slots of the first threads.
    pub(crate) first: [AtomicU32; CORES],
    /// Calls made, by slot.
    pub(crate) made: [AtomicU64; SLOTS],
    /// State of the generator of numbers, by slot.
    pub(crate) random: [AtomicU64; SLOTS],
    /// What the last call took along, by slot.
    pub(crate) mark: [AtomicU64; SLOTS],
    /// Digest of all calls and answers, by slot.
    pub(crate) digest: [AtomicU64; SLOTS],
    /// How often each call got each answer.
    pub(crate) seen: [[AtomicU32; ANSWERS]; FOREIGN + 1],
    /// What is believed to be at a selector ([`Thing`]).
    pub(crate) things: [AtomicU8; KNOWN],
    /// Number that belongs to it: place of a state page.
    pub(crate) places: [AtomicU8; KNOWN],
    /// Faults that were repaired.
    pub(crate) faults: AtomicU64,
    /// Calls whose threads did not find back.
    pub(crate) strayed: AtomicU64,
    /// The first answer that the reference does not list: arguments, slot, status, result, number plus one.
    pub(crate) complaint: [AtomicU64; COMPLAINT + 1],
}

const _: () = assert!(size_of::<Record>() <= (PAGE as usize) << RECORD_ORDER);

/// The record, in the component and in its supervisor.
pub(crate) fn record() -> &'static Record {
    let record: *const Record = core::ptr::with_exposed_provenance(RECORD as usize);
    // SAFETY: mapped by the supervisor before anything else happens, for ever; all of it is atomic, and any bits are valid.
    unsafe { &*record }
}

/// The tick so many microseconds from now.
pub(crate) fn after(micros: u64) -> u64 {
    cloister_bare::time::now()
        .wrapping_add(record().ticks.load(core::sync::atomic::Ordering::Relaxed).wrapping_mul(micros))
}

/// The next slot.
pub(crate) fn take_slot() -> u64 {
    u64::from(record().next.fetch_add(1, core::sync::atomic::Ordering::Relaxed)) % SLOTS as u64
}
