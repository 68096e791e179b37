// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a back end can fail with. None of these is the guest's doing: a guest's mistakes are exits.

use core::fmt;

/// A failed operation of a back end.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Error {
    /// The host refused a call.
    Host {
        /// Which call.
        call: &'static str,
        /// Its status: a negative Linux error number or a microhypervisor status.
        status: i64,
    },
    /// A service that the VMM uses refused a call.
    Session {
        /// What was asked for.
        call: &'static str,
        /// The refusal in words.
        why: String,
    },
    /// The host lacks something that the VMM needs.
    Unsupported(&'static str),
    /// A region can't be mapped as asked.
    Region {
        /// Its guest-physical start.
        address: u64,
        /// Its size in bytes.
        size: u64,
        /// What is wrong.
        reason: &'static str,
    },
    /// The VM's quota does not cover what was asked.
    Quota {
        /// What was asked for, in bytes.
        wanted: u64,
        /// What there is, in bytes.
        available: u64,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host { call, status } => write!(f, "{call} failed with status {status}"),
            Self::Session { call, why } => write!(f, "{call} was refused: {why}"),
            Self::Unsupported(what) => write!(f, "the host lacks {what}"),
            Self::Region { address, size, reason } => {
                write!(f, "guest memory {address:#x} + {size:#x} can't be mapped: {reason}")
            }
            Self::Quota { wanted, available } => {
                write!(f, "{wanted} bytes wanted but the quota has {available} bytes")
            }
        }
    }
}

impl std::error::Error for Error {}
