// SPDX-License-Identifier: MIT OR Apache-2.0
//! Why a call did not do what it says. One type for all sessions, so that a wrapper passes an answer on as it is.
//!
//! On the wire: word 0 is the code (never 0), words 1 and 2 are details.

use crate::wire::{Decode, Decoder, Encode, Encoder};
use cloister_abi::status::Status;

/// Why not. The variants say who is to blame: the message, the arguments, the account, or the other side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The message is short, long, or has a value that its type has not. The sender is to blame.
    Malformed,
    /// The interface has no operation of that number.
    NoSuchOperation,
    /// The portal leads to an object that is gone.
    NoSuchObject,
    /// The message does not fit.
    TooLong,
    /// The RAM quota does not suffice. Bytes.
    OutOfRam {
        /// What it takes.
        needed: u64,
        /// What is left.
        available: u64,
    },
    /// The capability quota does not suffice.
    OutOfCaps {
        /// What it takes.
        needed: u64,
        /// What is left.
        available: u64,
    },
    /// The request is understood and refused: no route, no permission.
    Denied,
    /// An argument is out of range, misaligned or wraps, or a capability is not of the kind that is wanted.
    Invalid,
    /// What was asked for is taken: an address range, a device, an identifier.
    Conflict,
    /// What was asked for does not exist: a ROM, a service, an identifier.
    NotFound,
    /// The machine or this server cannot do it.
    Unsupported,
    /// Not now: the other side is not ready.
    NotReady,
    /// The server is gone.
    ServerGone,
    /// The kernel refused.
    Kernel(Status),
}

impl Error {
    /// Code and details as on the wire.
    #[must_use]
    pub const fn to_raw(self) -> [u64; 3] {
        match self {
            Self::Malformed => [1, 0, 0],
            Self::NoSuchOperation => [2, 0, 0],
            Self::NoSuchObject => [3, 0, 0],
            Self::TooLong => [4, 0, 0],
            Self::OutOfRam { needed, available } => [5, needed, available],
            Self::OutOfCaps { needed, available } => [6, needed, available],
            Self::Denied => [7, 0, 0],
            Self::Invalid => [8, 0, 0],
            Self::Conflict => [9, 0, 0],
            Self::NotFound => [10, 0, 0],
            Self::Unsupported => [11, 0, 0],
            Self::NotReady => [12, 0, 0],
            Self::ServerGone => [13, 0, 0],
            Self::Kernel(status) => [14, status as u64, 0],
        }
    }

    /// The error of that code and these details. An unknown code says that the other side talks nonsense.
    #[must_use]
    pub fn from_raw(raw: [u64; 3]) -> Self {
        let [code, first, second] = raw;
        match code {
            2 => Self::NoSuchOperation,
            3 => Self::NoSuchObject,
            4 => Self::TooLong,
            5 => Self::OutOfRam { needed: first, available: second },
            6 => Self::OutOfCaps { needed: first, available: second },
            7 => Self::Denied,
            8 => Self::Invalid,
            9 => Self::Conflict,
            10 => Self::NotFound,
            11 => Self::Unsupported,
            12 => Self::NotReady,
            13 => Self::ServerGone,
            14 => Status::from_raw(first).map_or(Self::Malformed, Self::Kernel),
            _ => Self::Malformed,
        }
    }
}

impl Encode for Error {
    fn encode(&self, message: &mut Encoder<'_>) -> Result<(), Error> {
        self.to_raw().into_iter().try_for_each(|word| message.word(word))
    }
}

impl<'m> Decode<'m> for Error {
    fn decode(message: &mut Decoder<'m>) -> Result<Self, Error> {
        Ok(Self::from_raw([message.word()?, message.word()?, message.word()?]))
    }
}

/// What the kernel's answer to an IPC means for a client.
impl From<Status> for Error {
    fn from(status: Status) -> Self {
        match status {
            Status::BadCapability | Status::Aborted => Self::ServerGone,
            other => Self::Kernel(other),
        }
    }
}

impl core::fmt::Display for Error {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Malformed => f.write_str("malformed message"),
            Self::NoSuchOperation => f.write_str("no such operation"),
            Self::NoSuchObject => f.write_str("the object is gone"),
            Self::TooLong => f.write_str("message too long"),
            Self::OutOfRam { needed, available } => {
                write!(f, "out of RAM quota: {needed} bytes needed, {available} available")
            }
            Self::OutOfCaps { needed, available } => {
                write!(f, "out of capability quota: {needed} needed, {available} available")
            }
            Self::Denied => f.write_str("denied"),
            Self::Invalid => f.write_str("invalid argument"),
            Self::Conflict => f.write_str("in use"),
            Self::NotFound => f.write_str("not found"),
            Self::Unsupported => f.write_str("not supported"),
            Self::NotReady => f.write_str("not ready"),
            Self::ServerGone => f.write_str("the server is gone"),
            Self::Kernel(status) => write!(f, "kernel: {status}"),
        }
    }
}

impl core::error::Error for Error {}
