// SPDX-License-Identifier: MIT OR Apache-2.0
//! Executes the one x86 instruction by which a guest touched device memory.
//!
//! A nested page fault says at which guest-physical address the guest missed, and (without decode assists, which the
//! emulated machines that we test on do not have) nothing of the instruction. [`emulate`] fetches it through the guest's
//! own page tables, decodes it and executes it against [`Machine`]: guest memory on one side, device memory on the
//! other. The VCPU's registers travel in a [`Cpu`], plain data that each hypervisor back end fills and reads back;
//! [`Cpu::changed`] says what has to be written back.
//!
//! - `cpu`: registers and their widths; `walk`: guest page tables; `fetch`: instruction bytes;
//! - `quick`: the commonest moves, without a full decoder; `memory`: operands in memory; `execute`, `arithmetic`,
//!   `string`: all others, decoded by iced-x86.
//!
//! Device memory is accessed in place, in the order in which the instruction does it, by its own widths. The rejected
//! way, to return an access and be called again with its result, would put half-done instructions into the state of the
//! VMM, for nothing: the caller has the device bus at hand.
//!
//! Rules.
//! - The guest is hostile: it may change the instruction, or the page tables, between the exit and the fetch. So every
//!   access is checked against the page tables as the processor would (user/supervisor, write, SMAP), and the address of
//!   the exit is used as a short cut only when direction and form of the instruction agree with the exit.
//! - What is not known ends in [`Error::Unsupported`] with the bytes, and without effect.
//! - An instruction has its effects, or faults; repeated string instructions do as many steps as stay in a page.
//!
//! Not modelled: segment limits (the processor has checked the access that led here), protection keys, debug registers,
//! instructions on vector registers.
#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::panic, clippy::expect_used, clippy::unwrap_used)]
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

mod arithmetic;
mod cpu;
mod execute;
mod fetch;
mod machine;
mod memory;
mod quick;
mod string;
#[cfg(test)]
mod tests;
mod walk;

pub use cpu::{Changed, Cpu, Gpr, Segment, SegmentName, flag};
pub use machine::{DeviceMemory, Machine, RamAndDevices};
pub use walk::{Access, translate};

/// What is known of the exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Miss {
    /// Guest-physical address that was accessed.
    pub gpa: u64,
    /// True if it was a write (or a read-modify-write).
    pub write: bool,
}

/// An exception that the guest must get instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exception {
    /// General protection, error code 0: an address that is not canonical.
    GeneralProtection,
    /// Stack fault, error code 0: the same, through the stack segment.
    Stack,
    /// Page fault.
    Page {
        /// Linear address, for CR2.
        address: u64,
        /// Error code (SDM volume 3 section 4.7).
        code: u32,
    },
}

/// How the instruction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is done; RIP is behind it. If `trap`, the trap flag was set: the guest must get a debug exception.
    Done {
        /// A single-step trap is due.
        trap: bool,
    },
    /// A repeated string instruction did some of its steps; RIP is at it. Run the guest: it goes on by itself.
    Partial,
    /// It has no effect but this exception.
    Fault(Exception),
}

/// Why an instruction could not be executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The instruction is none of those that are known.
    Unsupported {
        /// RIP of the instruction.
        rip: u64,
        /// Its bytes, as far as they were fetched.
        bytes: [u8; 15],
        /// Number of bytes fetched.
        len: u8,
        /// What is not known of it.
        reason: &'static str,
    },
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self::Unsupported { rip, bytes, len, reason } = self;
        write!(f, "cannot emulate the instruction at {rip:#x} ({reason}):")?;
        bytes.iter().take(usize::from(*len)).try_for_each(|b| write!(f, " {b:02x}"))
    }
}

impl std::error::Error for Error {}

/// Why an instruction stops on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    Fault(Exception),
    Unsupported(&'static str),
}

impl From<Exception> for Stop {
    fn from(exception: Exception) -> Self {
        Self::Fault(exception)
    }
}

/// Executes the instruction at RIP, which missed at `miss`.
///
/// # Errors
/// [`Error::Unsupported`]: nothing has happened, and the guest can't go on.
pub fn emulate(cpu: &mut Cpu, machine: &mut impl Machine, miss: Miss) -> Result<Outcome, Error> {
    let bytes = match fetch::fetch(cpu, machine) {
        Ok(bytes) => bytes,
        Err(exception) => return Ok(Outcome::Fault(exception)),
    };
    if let Some(outcome) = quick::execute(cpu, machine, miss, &bytes) {
        return Ok(outcome);
    }
    match execute::execute(cpu, machine, &bytes) {
        Ok(outcome) => Ok(outcome),
        Err(Stop::Fault(exception)) => Ok(Outcome::Fault(exception)),
        Err(Stop::Unsupported(reason)) => {
            Err(Error::Unsupported { rip: cpu.rip, bytes: bytes.all(), len: bytes.len(), reason })
        }
    }
}
