// SPDX-License-Identifier: MIT OR Apache-2.0
//! CPU: threads and entrypoints.

use crate::{Cap, Object};
use bitflags::bitflags;

bitflags! {
    /// Properties of a thread.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct ThreadFlags: u8 {
        /// It uses floating-point and vector registers.
        const FPU = 1 << 0;
    }
}
wire_flags!(ThreadFlags);

wire_struct! {
    /// How a thread starts.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct ThreadStart {
        /// Instruction pointer.
        pub ip: u64,
        /// Stack pointer.
        pub sp: u64,
        /// Core on which it runs.
        pub core: u32,
        /// Counts down from the session's own priority: 0 is as urgent as it gets.
        pub priority: u32,
        /// Its properties.
        pub flags: ThreadFlags,
    }
}

wire_struct! {
    /// What every component may know of the machine.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct CpuInfo {
        /// Cores on which the session's threads may run: 0 up to this number.
        pub cores: u32,
        /// Frequency of the time-stamp counter, Hz.
        pub tsc_hz: u64,
        /// Wall-clock time when the time-stamp counter was 0, nanoseconds since 1970-01-01; 0 if unknown.
        pub boot_time: u64,
        /// [`cloister_abi::hip::features`].
        pub features: u64,
    }
}

wire_struct! {
    /// An exception that stopped a thread for good.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Fault {
        /// Vector.
        pub vector: u64,
        /// Error code.
        pub error: u64,
        /// Faulting address of a page fault.
        pub address: u64,
        /// Instruction pointer.
        pub ip: u64,
        /// Stack pointer.
        pub sp: u64,
    }
}

interface! {
    /// A share of the machine's processors.
    pub trait Cpu, client CpuClient, server CpuServer {
        /// Creates a thread in a PD, which pays for it. It runs when [`Thread::start`] is called. Its kind: [`Thread`].
        1 => fn create_thread(pd: Object, name: &str, start: ThreadStart) -> Cap;
        /// Creates an entrypoint in a PD: a thread that answers calls on its callers' time. `ip` and `priority` of `start` say
        /// nothing: a call starts at its portal's entry. Its kind: [`Thread`].
        2 => fn create_entrypoint(pd: Object, name: &str, start: ThreadStart) -> Cap;
        /// Ends a thread or entrypoint.
        3 => fn kill(thread: Object) -> ();
        /// Facts about the machine.
        4 => fn info() -> CpuInfo;
        /// Sets the signal that is raised when any thread of the session is stopped by an exception.
        5 => fn exception_handler(handler: Option<Cap>) -> ();
        /// The first thread of this session that was stopped by an exception, if any.
        6 => fn fault() -> Option<Fault>;
    }
}

interface! {
    /// A thread.
    pub trait Thread, client ThreadClient, server ThreadServer {
        /// Starts it.
        1 => fn start() -> ();
        /// Time it has used, in ticks of the time-stamp counter.
        2 => fn time() -> u64;
        /// The exception that stopped it, if one did.
        3 => fn fault() -> Option<Fault>;
    }
}
