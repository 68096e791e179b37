// SPDX-License-Identifier: MIT OR Apache-2.0
//! Exceptions of components' threads.
//!
//! They arrive at an entrypoint of their own, which is idle whenever core's main entrypoint may be busy with a call that was
//! preempted. It does no more than write the exception down, raise core's notification, and tell the kernel to keep the
//! thread stopped; the main entrypoint does the rest.

use cloister_abi::arch::current::exception::{ExceptionState, WORDS};
use cloister_abi::utcb::Header;
use cloister_base::{ObjectId, signal};
use cloister_session::Fault;
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicUsize, Ordering};

/// How many exceptions may wait to be looked at. More are stopped without a word.
const COUNT: usize = 64;

/// An exception of a thread.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Event {
    /// The thread's object.
    pub(crate) thread: ObjectId,
    /// What happened.
    pub(crate) fault: Fault,
}

struct Ring {
    events: UnsafeCell<[Option<Event>; COUNT]>,
    /// Number of events ever written (by the fault entrypoint) and read (by the main entrypoint).
    written: AtomicUsize,
    read: AtomicUsize,
}

// SAFETY: one thread writes places that are not waiting to be read, another one reads places that are; the counters say
// which is which.
unsafe impl Sync for Ring {}

impl Ring {
    /// The place of the event of that number.
    fn place(&self, number: usize) -> *mut Option<Event> {
        // SAFETY: the index is below the number of places.
        unsafe { self.events.get().cast::<Option<Event>>().add(number % COUNT) }
    }
}

static RING: Ring =
    Ring { events: UnsafeCell::new([None; COUNT]), written: AtomicUsize::new(0), read: AtomicUsize::new(0) };

/// Identity of the portal by which the main thread waits until the fault entrypoint is idle.
pub(crate) const SYNC: u64 = u64::MAX;

/// Takes one exception. For the fault entrypoint, out of its first instructions.
pub(crate) extern "sysv64" fn arrived(identity: u64, _: u64, stack: u64) -> ! {
    if identity == SYNC {
        // SAFETY: nothing on this stack is needed after the reply.
        unsafe { cloister_stubs::reply(Header::new(0, 0), stack) }
    }
    let page = cloister_stubs::utcb();
    // SAFETY: the page belongs to this thread.
    let message = unsafe { &raw mut (*page).words }.cast::<ExceptionState>();
    // SAFETY: an exception's message has as many words; any bits are a valid state.
    let state = unsafe { message.read() };
    record(identity, &state);
    let stopped = ExceptionState { rip: u64::MAX, ..state };
    // SAFETY: as above. An instruction pointer that cannot be keeps the thread stopped.
    unsafe { message.write(stopped) };
    // SAFETY: nothing on this stack is needed after the reply.
    unsafe { cloister_stubs::reply(Header::new(WORDS, 0), stack) }
}

fn record(identity: u64, state: &ExceptionState) {
    let written = RING.written.load(Ordering::Relaxed);
    if written.wrapping_sub(RING.read.load(Ordering::Acquire)) >= COUNT {
        return;
    }
    let fault =
        Fault { vector: state.vector, error: state.error, address: state.address, ip: state.rip, sp: state.rsp };
    let event = Event { thread: ObjectId::from_raw(identity), fault };
    // SAFETY: the place is not waiting to be read; only this thread writes.
    unsafe { RING.place(written).write(Some(event)) };
    RING.written.store(written.wrapping_add(1), Ordering::Release);
    signal::up(crate::NOTIFICATION);
}

/// Lets the fault entrypoint finish what it has begun.
///
/// It runs on the time of the thread that has the exception, and raising the notification puts the main thread before that. If
/// the thread were killed now, the entrypoint would have no time to become idle again, and the next exception would find it
/// busy. A call to it lends it the caller's time. For the main thread.
pub(crate) fn finish() {
    // It can't fail, and if it did, there would be nothing to be done about it here.
    let _ = cloister_stubs::call(crate::FAULT_SYNC, Header::new(0, 0));
}

/// The next exception that nobody looked at yet. For the main entrypoint.
pub(crate) fn next() -> Option<Event> {
    let read = RING.read.load(Ordering::Relaxed);
    if read == RING.written.load(Ordering::Acquire) {
        return None;
    }
    // SAFETY: the place waits to be read; only this thread reads.
    let event = unsafe { RING.place(read).read() };
    RING.read.store(read.wrapping_add(1), Ordering::Release);
    event
}

/// Name of an exception (Intel SDM vol. 3, table 6-1).
pub(crate) const fn name(vector: u64) -> &'static str {
    match vector {
        0 => "division error",
        1 => "debug exception",
        3 => "breakpoint",
        4 => "overflow",
        5 => "bound range exceeded",
        6 => "invalid opcode",
        7 => "device not available",
        11 => "segment not present",
        12 => "stack fault",
        13 => "general protection fault",
        14 => "page fault",
        16 => "floating-point error",
        17 => "alignment check",
        19 => "vector floating-point error",
        _ => "exception",
    }
}
