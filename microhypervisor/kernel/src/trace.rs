// SPDX-License-Identifier: MIT OR Apache-2.0
//! The trace: each core notes what it does in a ring of its own. `trace=SIZE` on the command line switches it on.
//!
//! Off, it costs nothing: at boot the calls in the entry code are redirected to functions of this module, which note what happens
//! around the real ones ([`hooks`]), and only if it is switched on. What lies off the fast paths asks [`is_on`]; running a guest
//! exists twice, compiled with and without.
//!
//! A ring is memory of the pool, written by its core alone with interrupts off, and read by anybody through `TraceControl`: a record is
//! written before it is counted, and a reader looks at the counter again after it has copied. `docs/spec/trace.md` has the format.

use crate::arch::hooks::{self, Callee};
use crate::arch::{Frame, cpu, timer, trap};
use crate::memory::{POOL, physical};
use crate::object::{Ec, MessagePage, Vcpu};
use crate::percore::{CORES, Core, core};
use crate::syscall::{HANDLERS, Handler};
use crate::width::{index, low16};
use cloister_abi::arch::current::HYPERCALL_BASE;
use cloister_abi::hypercall::{CALLS, Call, IpcCall, IpcReply, VcpuRun};
use cloister_abi::trace::{Event, MAGIC, Record, VERSION, WORDS};
use cloister_mechanism::FRAME;
use cloister_vcpu::Exit;
use core::ptr::NonNull;
use core::sync::atomic::{
    AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering::Acquire, Ordering::Relaxed, Ordering::Release,
};

/// Longest name of an EC, bytes.
pub(crate) const NAME: usize = 32;
/// Records that one call reads at most.
const READ: usize = cloister_abi::utcb::WORDS / WORDS;
/// Detail of a foreign system call, which has no number.
const FOREIGN: u16 = 0xffff;

/// A ring: `cloister_abi::trace::Ring` as atomic words, and the records behind it.
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
const _: () = assert!(HEADER == size_of::<cloister_abi::trace::Ring>());

static ON: AtomicBool = AtomicBool::new(false);
static RINGS: [AtomicPtr<Ring>; CORES] = [const { AtomicPtr::new(core::ptr::null_mut()) }; CORES];
/// Size of a ring, in frames.
static FRAMES: AtomicUsize = AtomicUsize::new(0);

/// Whether there is a trace.
#[inline]
pub(crate) fn is_on() -> bool {
    ON.load(Relaxed)
}

/// The ring of a core.
pub(crate) fn ring(core: usize) -> Option<&'static Ring> {
    let ring = RINGS.get(core)?.load(Acquire);
    // SAFETY: rings are kept for ever, and are atomic words.
    NonNull::new(ring).map(|ring| unsafe { ring.as_ref() })
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
    pub(crate) fn read(&self, from: u64, to: MessagePage) -> (u64, u64) {
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

    /// Names an EC.
    pub(crate) fn name(&self, ec: &Ec, text: MessagePage, length: usize) {
        let mut name = [0; NAME];
        for (place, byte) in name.iter_mut().zip(text.bytes(length)) {
            *place = byte;
        }
        for (part, bytes) in (0..).zip(name.as_chunks::<8>().0).take(length.div_ceil(8)) {
            self.push(Record::new(Event::Name, part, address(ec), u64::from_le_bytes(*bytes)));
        }
    }
}

/// Switches the trace on if the command line says so. Called at boot, before the kernel's code becomes read-only.
pub(crate) fn init(cmdline: &str) {
    let Some(size) = cmdline.split_ascii_whitespace().find_map(|word| word.strip_prefix("trace=")) else { return };
    let unit = size.len() - size.trim_end_matches(['K', 'M']).len();
    let bytes = size[..size.len() - unit].parse::<usize>().ok().and_then(|count| {
        count.checked_mul(match &size[size.len() - unit..] {
            "K" => 1 << 10,
            "M" => 1 << 20,
            _ => 1,
        })
    });
    let Some(frames) = bytes.map(|bytes| bytes.div_ceil(FRAME)).filter(|frames| *frames > 0) else {
        return log::warn!("no trace: {size} is no size");
    };
    FRAMES.store(frames, Relaxed);
    if add_core(0) {
        let traced: [(Callee, Callee); 5] = [
            (Callee::Table(HANDLERS.as_ptr().addr() as u64), Callee::Table(TRACED.as_ptr().addr() as u64)),
            (
                Callee::Function(crate::syscall::foreign as *const () as u64),
                Callee::Function(foreign as *const () as u64),
            ),
            (Callee::Function(crate::sched::settle as *const () as u64), Callee::Function(settle as *const () as u64)),
            (Callee::Function(trap::user_trap as *const () as u64), Callee::Function(user_trap as *const () as u64)),
            (
                Callee::Function(trap::kernel_trap as *const () as u64),
                Callee::Function(kernel_trap as *const () as u64),
            ),
        ];
        for (from, to) in traced {
            // SAFETY: at boot, before there are page tables of the kernel's own; each pair has one type.
            if unsafe { hooks::redirect(from, to) } == 0 {
                log::warn!("the trace misses something: {from:?} is not called");
            }
        }
        ON.store(true, Relaxed);
    }
}

/// Makes the ring of a core. Called at boot, before that core runs anything; does nothing if there is no trace.
pub(crate) fn add_core(core: usize) -> bool {
    let frames = FRAMES.load(Relaxed);
    let Some(place) = RINGS.get(core).filter(|_| frames > 0) else { return false };
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
    true
}

/// Tells where the rings are, for tools that look into the machine from outside. Called at boot, when time is known.
pub(crate) fn announce() {
    for (core, ring) in (0..CORES).filter_map(|core| Some((core, ring(core)?))) {
        ring.tsc_hz.store(timer::tsc_hz(), Relaxed);
        let size = FRAMES.load(Relaxed) * FRAME;
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

/// The table of handlers that goes in place of the real one.
static TRACED: [Handler; CALLS.len()] = [call; CALLS.len()];

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
            IpcCall::NUMBER => note(Event::IpcCall, 0, this, now),
            IpcReply::NUMBER => note(Event::IpcReply, 0, this, now),
            _ => {}
        }
    }
    note_switch(core, this);
    note(Event::CallExit, detail, this, frame.rax);
}

extern "C" fn foreign(core: &Core, ec: &Ec, frame: &mut Frame) {
    note(Event::CallEnter, FOREIGN, address(ec), frame.rax);
    crate::syscall::foreign(core, ec, frame);
    note(Event::CallExit, FOREIGN, address(ec), 0);
}

extern "C" fn settle(core: &Core) {
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

extern "C" fn user_trap(frame: &mut Frame) {
    let (core, vector) = (core(), low16(frame.vector));
    let before = optional(core.current());
    note(Event::TrapEnter, vector, before, place(frame));
    trap::user_trap(frame);
    note_switch(core, before);
    note(Event::TrapExit, vector, before, 0);
}

extern "C" fn kernel_trap(frame: &mut Frame) {
    let vector = low16(frame.vector);
    note(Event::TrapEnter, vector, 0, place(frame));
    trap::kernel_trap(frame);
    note(Event::TrapExit, vector, 0, 0);
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
