// SPDX-License-Identifier: MIT OR Apache-2.0
//! The trace: what a core did, as records of fixed size in a ring of its own.
//!
//! A header of 64 bytes is followed by room for so many [`Record`]s. Record number n (counted from 0) lies at place n modulo that
//! number. Numbers are little-endian. `docs/spec/trace.md` has header and records by tables.

/// First eight bytes of a ring: "CLSTRTRC".
pub const MAGIC: u64 = u64::from_le_bytes(*b"CLSTRTRC");
/// Version of records and rings.
pub const VERSION: u32 = 1;
/// Words of a record.
pub const WORDS: usize = 4;
/// Longest name of an EC, bytes.
pub const NAME: usize = 64;

/// Something that happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Record {
    /// Time-stamp counter of the core.
    pub time: u64,
    /// [`Event`] in bits 0 to 7, detail in bits 16 to 31, number of the record in bits 32 to 63.
    pub what: u64,
    /// By event.
    pub first: u64,
    /// By event.
    pub second: u64,
}

const _: () = assert!(size_of::<Record>() == 8 * WORDS);

impl Record {
    /// A record without time and number.
    #[must_use]
    pub const fn new(event: Event, detail: u16, first: u64, second: u64) -> Self {
        Self { time: 0, what: event as u64 | (detail as u64) << 16, first, second }
    }

    /// As words.
    #[must_use]
    pub const fn to_words(self) -> [u64; WORDS] {
        [self.time, self.what, self.first, self.second]
    }
}

numbered! {
    /// Kinds of events. An object is named by its address in the kernel, a number that means nothing else.
    pub enum Event: u64 {
        /// A hypercall begins. Detail: its number, 0xffff for a foreign system call. First: the calling EC; second: the first argument.
        CallEnter = 1,
        /// Its handler has ended; if it waits, that says [`Event::Switch`]. Detail as before. First: the calling EC; second: the status.
        CallExit = 2,
        /// Another EC is current. First: the EC, 0 for none; second: its PD.
        Switch = 3,
        /// A call was handed over. Detail: the caller's core; first: the caller; second: the callee.
        IpcCall = 4,
        /// A reply was handed over. Detail: the callee's core; first: the callee; second: the caller.
        IpcReply = 5,
        /// A guest is entered. First: the VCPU; second: the EC that runs it.
        GuestEnter = 6,
        /// It exited. Detail: the exit reason for its monitor, 0xfffe: an interrupt, 0xffff: nothing that concerns the monitor. First: the VCPU;
        /// second: the EC.
        GuestExit = 7,
        /// An exception or interrupt. Detail: the vector. First: the EC that was interrupted, 0 if it was the kernel; second: the address of a
        /// page fault, else the instruction pointer.
        TrapEnter = 8,
        /// It was handled. Detail and first as before.
        TrapExit = 9,
        /// The scheduler takes over.
        SettleEnter = 10,
        /// It has decided.
        SettleExit = 11,
        /// The core waits for an interrupt.
        IdleEnter = 12,
        /// It was woken.
        IdleExit = 13,
        /// The name of an EC. Detail: which part, from 0. First: the EC; second: eight bytes of the name, NUL-padded.
        Name = 14,
    }
}

numbered! {
    /// Operations of [`crate::hypercall::TraceControl`].
    pub enum TraceOp: u64 {
        /// Copies records of core `argument` into the message words, from record number `value` on. Answers the number of the first one
        /// copied, which is larger if that one was overwritten, and how many.
        Read = 0,
        /// Names the EC at selector `argument` by the first `value` bytes of the message words, 64 at most.
        Name = 1,
    }
}
