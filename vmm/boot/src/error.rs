// SPDX-License-Identifier: MIT OR Apache-2.0
//! Why a guest can't be started.

use core::fmt;

/// Why a guest can't be started. Each names the thing at fault and the numbers that don't fit.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Error {
    /// The kernel image is not one that the 64-bit Linux boot protocol can start.
    Kernel(String),
    /// The kernel image ends before its header says that it does.
    KernelTruncated {
        /// Bytes that the header announces.
        announced: u64,
        /// Bytes that there are.
        found: u64,
    },
    /// Something does not fit into guest memory.
    DoesNotFit {
        /// What: "kernel", "initrd", ...
        what: &'static str,
        /// Bytes needed.
        needed: u64,
        /// Bytes of guest memory that could hold it.
        available: u64,
    },
    /// The command line is longer than the kernel takes.
    CommandLine {
        /// Bytes given.
        given: u64,
        /// Bytes that the kernel takes.
        limit: u64,
    },
    /// Guest memory could not be written at an address that the layout gives; the VM's memory is too small.
    Memory {
        /// What was being written.
        what: &'static str,
        /// The guest-physical address.
        address: u64,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kernel(why) => write!(f, "kernel image: {why}"),
            Self::KernelTruncated { announced, found } => {
                write!(f, "kernel image is truncated: its header announces {announced} bytes, it has {found} bytes")
            }
            Self::DoesNotFit { what, needed, available } => {
                write!(f, "{what} does not fit: it needs {needed} bytes, guest memory has {available} bytes for it")
            }
            Self::CommandLine { given, limit } => {
                write!(f, "kernel command line has {given} bytes, the kernel takes {limit}")
            }
            Self::Memory { what, address } => write!(f, "no guest memory at {address:#x} for the {what}"),
        }
    }
}

impl std::error::Error for Error {}
