// SPDX-License-Identifier: MIT OR Apache-2.0
//! What components say to each other: one trait per session, and the code that puts its calls into messages.
//!
//! An interface is written once, as a trait, with [`interface!`]. From it come the trait itself (what a server
//! implements), a client (a [`Transport`] with the same methods) and a server side (`dispatch`: decode, call, encode). So
//! the two ends can't disagree, and no component marshals by hand.
//!
//! Rules that hold for every message:
//!
//! * Word 0 of a request is the operation, word 0 of a reply is 0 or the code of an [`Error`]. Arguments follow in order;
//!   capabilities travel as typed items ([`Cap`] handed over, [`Object`] shown to the one who made it).
//! * Decoding is total. A message that is short, long, not UTF-8, or names an unknown operation or value is answered with
//!   an error, before the server's code sees anything of it.
//! * Nothing in here allocates, and nothing is `unsafe`: the Linux personality uses the clients below the program's
//!   allocator.
//!
//! Neighbours: `cloister-base` brings the transport over the microhypervisor's IPC, and the entrypoint; [`testing`] brings
//! one that calls a server in the same program, for tests on the host.
#![no_std]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::panic, clippy::expect_used)]

#[cfg(test)]
extern crate std;

mod args;
mod error;
#[macro_use]
mod interface;
mod sessions;
pub mod testing;
mod transport;
mod values;
pub mod wire;

#[cfg(test)]
#[expect(
    unreachable_pub,
    clippy::arithmetic_side_effects,
    reason = "a test declares an interface of its own; a panic in a test is its failure"
)]
mod tests;

pub use args::{argument, number};
pub use error::Error;
#[doc(hidden)]
pub use interface::{wire_finish, wire_reply};
pub use sessions::cpu::{
    Cpu, CpuClient, CpuInfo, CpuServer, Fault, Thread, ThreadClient, ThreadFlags, ThreadServer, ThreadStart,
};
pub use sessions::devices::{
    IoMem, IoMemClient, IoMemServer, IoPort, IoPortClient, IoPortServer, Irq, IrqClient, IrqServer,
};
pub use sessions::memory::{
    Attach, Dataspace, DataspaceClient, DataspaceInfo, DataspaceServer, RegionMap, RegionMapClient, RegionMapServer,
    Rights, Rm, RmClient, RmServer,
};
pub use sessions::parent::{
    Affinity, Parent, ParentClient, ParentServer, ParentSignal, RequestKind, Resources, SessionRequest,
    SessionResponse, id,
};
pub use sessions::pd::{Made, Pd, PdClient, PdServer, Quota};
pub use sessions::platform::{MachineInfo, Platform, PlatformClient, PlatformServer};
pub use sessions::rom::{Rom, RomClient, RomContent, RomServer};
pub use sessions::stream::{
    Log, LogClient, LogServer, Report, ReportClient, ReportServer, Terminal, TerminalClient, TerminalServer,
};
pub use sessions::timer::{Timer, TimerClient, TimerServer};
pub use sessions::vm::{Vm, VmClient, VmServer};
pub use transport::Transport;
pub use values::{Cap, Object};
pub use wire::{Decode, Decoder, Encode, Encoder};

/// Longest label, bytes.
pub const LABEL: usize = 160;
/// Longest name of a service, bytes.
pub const SERVICE: usize = 32;
/// Longest argument string of a session, bytes.
pub const ARGS: usize = 256;
/// Most bytes in one `read` or `write`.
pub const CHUNK: usize = 3072;
/// Most capabilities in one message: size of a server's receive window.
pub const WINDOW: u32 = 4;

/// Text of a bounded length, by value.
pub type Text<const N: usize> = heapless::String<N>;
/// Bytes of a bounded number, by value.
pub type Bytes<const N: usize> = heapless::Vec<u8, N>;
