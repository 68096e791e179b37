// SPDX-License-Identifier: MIT OR Apache-2.0
//! The trace: each core notes what it does in a ring of its own. `trace=SIZE` on the command line switches it on.
//!
//! Off, it costs nothing: the way into the kernel and out of it is there once more with calls of functions of this module, which note what
//! happens around the real ones, and it is chosen at boot ([`Way`]). What lies off the fast paths asks [`is_on`]; running a guest
//! exists twice, compiled with and without.
//!
//! A ring is memory of the pool, written by its core alone with interrupts off, and read by anybody through `TraceControl`: a record is
//! written before it is counted, and a reader looks at the counter again after it has copied. Names of ECs are also kept in a ring of
//! their own, which events do not overwrite. `docs/spec/trace.md` has the format.

use crate::arch::{Frame, Way, cpu, timer, trap};
use crate::boot::{bytes, option};
use crate::memory::{POOL, physical};
use crate::object::{Ec, MessagePage, Vcpu};
use crate::percore::{CORES, Core, core};
use crate::syscall::{HANDLERS, Handler};
use crate::width::{index, low16};
use cloister_abi::arch::current::HYPERCALL_BASE;
use cloister_abi::hypercall::{CALLS, Call, IpcCall, IpcReply, VcpuRun};
use cloister_abi::trace::{Event, MAGIC, NAME, Record, VERSION, WORDS};
use cloister_mechanism::FRAME;
use cloister_vcpu::Exit;
use core::ptr::NonNull;
use core::sync::atomic::{
    AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering::Acquire, Ordering::Relaxed, Ordering::Release,
};

/// Frames of a ring of names.
const NAMES_FRAMES: usize = 8;
/// Records that one call reads at most.
const READ: usize = cloister_abi::utcb::WORDS / WORDS;
/// Detail of a foreign system call, which has no number.
const FOREIGN: u16 = 0xffff;

/// A ring: its header in atomic words, and the records behind it.
#[repr(C)]
pub(crate) struct Ring {
    magic: AtomicU64,
    version_core: AtomicU64,
    tsc_hz: AtomicU64,
    capacity: AtomicU64,
    written: AtomicU64,
    reserved: [AtomicU64; 3],
    records: [[AtomicU64; WORDS]; 0],
}

const HEADER: usize = size_of::<Ring>();
const _: () = assert!(HEADER == 64);

static ON: AtomicBool = AtomicBool::new(false);
/// The rings of each core: of its events, and of names.
static RINGS: [[AtomicPtr<Ring>; 2]; CORES] = [const { [const { AtomicPtr::new(core::ptr::null_mut()) }; 2] }; CORES];
/// Size of a ring of events, in frames.
static FRAMES: AtomicUsize = AtomicUsize::new(0);

/// Whether there is a trace.
#[inline]
pub(crate) fn is_on() -> bool {
    ON.load(Relaxed)
}

/// The ring of a core's events.
pub(crate) fn ring(core: usize) -> Option<&'static Ring> {
    rings(core)?.next()
}

/// Its rings.
fn rings(core: usize) -> Option<impl Iterator<Item = &'static Ring>> {
    // SAFETY: rings are kept for ever, and are atomic words.
    Some(RINGS.get(core)?.iter().filter_map(|ring| unsafe { ring.load(Acquire).as_ref() }))
}

/// Names an EC, in the rings of the core that does.
pub(crate) fn name(core: usize, ec: &Ec, text: &MessagePage, length: usize) -> bool {
    let mut name = [0; NAME];
    for (place, byte) in name.iter_mut().zip(text.bytes(length)) {
        *place = byte;
    }
    let parts = || (0..).zip(name.as_chunks::<8>().0).take(length.div_ceil(8));
    for ring in rings(core).into_iter().flatten() {
        parts().for_each(|(part, bytes)| {
            ring.push(Record::new(Event::Name, part, address(ec), u64::from_le_bytes(*bytes)))
        });
    }
    is_on()
}

impl Ring {
    fn place(&self, number: u64) -> &[AtomicU64; WORDS] {
        let capacity = self.capacity.load(Relaxed).max(1);
        let first = self.records.as_ptr().cast::<[AtomicU64; WORDS]>();
        // SAFETY: the ring was made with room for so many records behind its header.
        unsafe { &*first.wrapping_add(index(number % capacity)) }
    }

    /// Adds a record. Only its own core does.
    fn push(&self, record: Record) {
        let number = self.written.load(Relaxed);
        let record = Record { time: cpu::ticks(), what: record.what | number << 32, ..record };
        for (place, word) in self.place(number).iter().zip(record.to_words()) {
            place.store(word, Relaxed);
        }
        self.written.store(number + 1, Release);
    }

    /// Copies records into a message. Answers the number of the first one, and how many.
    pub(crate) fn read(&self, from: u64, to: &MessagePage) -> (u64, u64) {
        let oldest = || self.written.load(Acquire).saturating_sub(self.capacity.load(Relaxed).saturating_sub(1));
        let written = self.written.load(Acquire);
        let first = from.max(oldest());
        let count = written.saturating_sub(first).min(READ as u64);
        for (number, word) in (first..first + count).zip((0..).step_by(WORDS)) {
            let mut words = [0; WORDS];
            for (copy, place) in words.iter_mut().zip(self.place(number)) {
                *copy = place.load(Relaxed);
            }
            to.put_words(word, &words);
        }
        // The core may have gone on and overwritten what was just read; then the caller tries again from there.
        if first < oldest() { (oldest(), 0) } else { (first, count) }
    }
}

/// Switches the trace on if the command line says so. Called at boot, before there is a way into the kernel.
pub(crate) fn init(cmdline: &str) {
    let Some(size) = option(cmdline, "trace=") else { return };
    let Some(frames) = bytes(size).map(|bytes| index(bytes).div_ceil(FRAME)).filter(|frames| *frames > 0) else {
        return log::warn!("no trace: {size} is no size");
    };
    FRAMES.store(frames, Relaxed);
    if add_core(0) {
        Way::choose(Way::TRACED);
        ON.store(true, Relaxed);
    }
}

/// Makes the rings of a core. Called at boot, before that core runs anything; does nothing if there is no trace.
pub(crate) fn add_core(core: usize) -> bool {
    let frames = FRAMES.load(Relaxed);
    let Some(places) = RINGS.get(core).filter(|_| frames > 0) else { return false };
    for (place, frames) in places.iter().zip([frames, NAMES_FRAMES]) {
        let Ok(memory) = POOL.reserve(frames) else {
            log::warn!("no trace of core {core}: the kernel's pool has no {} KiB for it", frames * FRAME / 1024);
            return false;
        };
        // SAFETY: fresh frames of this size, kept for ever.
        unsafe { memory.write_bytes(0, frames * FRAME) };
        // SAFETY: zeroed, large enough, and atomic words.
        let ring = unsafe { memory.cast::<Ring>().as_ref() };
        ring.magic.store(MAGIC, Relaxed);
        ring.version_core.store(u64::from(VERSION) | (core as u64) << 32, Relaxed);
        ring.capacity.store(((frames * FRAME - HEADER) / size_of::<Record>()) as u64, Relaxed);
        place.store(memory.cast().as_ptr(), Release);
    }
    true
}

/// Tells where the rings are, for tools that look into the machine from outside. Called at boot, when time is known.
pub(crate) fn announce() {
    for (core, ring) in (0..CORES).flat_map(|core| rings(core).into_iter().flatten().map(move |ring| (core, ring))) {
        ring.tsc_hz.store(timer::tsc_hz(), Relaxed);
        let size = HEADER + index(ring.capacity.load(Relaxed)) * size_of::<Record>();
        log::info!("trace: core {core} at {:#x}, {size} bytes", physical(NonNull::from(ring)));
    }
}

fn address<T>(object: &T) -> u64 {
    core::ptr::from_ref(object).addr() as u64
}

fn optional(ec: Option<&Ec>) -> u64 {
    ec.map_or(0, address)
}

fn note(event: Event, detail: u16, first: u64, second: u64) {
    if let Some(ring) = ring(usize::from(core().id)) {
        ring.push(Record::new(event, detail, first, second));
    }
}

/// Notes another EC, if it is one.
fn note_switch(core: &Core, before: u64) {
    let now = core.current();
    if optional(now) != before {
        note(Event::Switch, 0, optional(now), now.map_or(0, |ec| address(&*ec.pd)));
    }
}

/// The table of handlers that is used in place of the real one, as the functions below are.
pub(crate) static TRACED: [Handler; CALLS.len()] = [call; CALLS.len()];

/// A hypercall.
pub(crate) extern "C" fn call(core: &Core, ec: &Ec, frame: &mut Frame) {
    let number = frame.rax.wrapping_sub(HYPERCALL_BASE);
    let (detail, this) = (low16(number), address(ec));
    note(Event::CallEnter, detail, this, frame.rdi);
    if number == VcpuRun::NUMBER {
        crate::guest::enter::<true>(core, ec, frame);
    } else if let Some(handle) = HANDLERS.get(index(number)) {
        handle(core, ec, frame);
    }
    let now = optional(core.current());
    if now != this {
        match number {
            IpcCall::NUMBER => note(Event::IpcCall, u16::from(core.id), this, now),
            IpcReply::NUMBER => note(Event::IpcReply, u16::from(core.id), this, now),
            _ => {}
        }
    }
    note_switch(core, this);
    note(Event::CallExit, detail, this, frame.rax);
}

pub(crate) extern "C" fn foreign(core: &Core, ec: &Ec, frame: &mut Frame) {
    note(Event::CallEnter, FOREIGN, address(ec), frame.rax);
    crate::syscall::foreign(core, ec, frame);
    note(Event::CallExit, FOREIGN, address(ec), 0);
}

pub(crate) extern "C" fn settle(core: &Core) {
    let before = optional(core.current());
    note(Event::SettleEnter, 0, 0, 0);
    crate::sched::settle(core);
    note_switch(core, before);
    note(Event::SettleExit, 0, 0, 0);
}

/// Where it happened: the address that faulted if there is one, else the instruction.
fn place(frame: &Frame) -> u64 {
    trap::fault_address(frame).unwrap_or(frame.rip)
}

pub(crate) extern "C" fn user_trap(frame: &mut Frame) {
    let (core, vector) = (core(), low16(frame.vector));
    let before = optional(core.current());
    note(Event::TrapEnter, vector, before, place(frame));
    trap::user_trap(frame);
    note_switch(core, before);
    note(Event::TrapExit, vector, before, 0);
}

pub(crate) extern "C" fn kernel_trap(frame: &mut Frame) {
    let vector = low16(frame.vector);
    note(Event::TrapEnter, vector, 0, place(frame));
    trap::kernel_trap(frame);
    note(Event::TrapExit, vector, 0, 0);
}

/// Notes a call that has come from another core, or its reply.
pub(crate) fn crossed(event: Event, from: &Ec, to: &Ec) {
    if is_on() {
        note(event, u16::from(from.core), address(from), address(to));
    }
}

/// Notes that the core is idle while `wait` waits.
pub(crate) fn idle(wait: impl FnOnce()) {
    let on = is_on();
    if on {
        note(Event::Switch, 0, 0, 0);
        note(Event::IdleEnter, 0, 0, 0);
    }
    wait();
    if on {
        note(Event::IdleExit, 0, 0, 0);
    }
}

/// Notes that a guest is entered.
pub(crate) fn guest_enter(vcpu: &Vcpu, ec: &Ec) {
    note(Event::GuestEnter, 0, address(vcpu), address(ec));
}

/// Notes that it exited.
pub(crate) fn guest_exit(vcpu: &Vcpu, ec: &Ec, exit: &Exit) {
    let detail = match exit {
        Exit::Monitor(reason) => low16(*reason as u64),
        Exit::Interrupt => 0xfffe,
        _ => 0xffff,
    };
    note(Event::GuestExit, detail, address(vcpu), address(ec));
}
