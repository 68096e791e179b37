// SPDX-License-Identifier: MIT OR Apache-2.0
//! Port and memory-mapped I/O buses: which device answers at an address.
//!
//! A bus is a list of ranges, each with a device behind a lock. It is built when the VM is built and does not change
//! while the guest runs (PCI devices move behind the one range of their root), so that a lookup takes no lock and
//! allocates nothing: two loads for a port, a binary search over the few ranges of the memory bus.
//!
//! - this file: widths, and what a device implements;
//! - `port`, `memory`: the two buses; `ranges`: what they share.
//!
//! Neighbours: [`PortDevice`] and [`MmioDevice`] are what a device model implements; devices whose registers are all
//! one byte wide implement [`ByteDevice`] and are wrapped in [`Bytewise`].
//!
//! Values travel in registers, not in slices: an access is at most eight bytes and most are one.
//!
//! Rule: unclaimed reads give all ones, unclaimed writes vanish, as on a bus with pull-ups. An access that crosses
//! the end of a range is split into bytes, each answered by whoever owns it.

mod memory;
mod port;
mod ranges;
#[cfg(test)]
mod tests;

pub use memory::MmioBus;
pub use port::PortBus;

use crate::bits::{byte, lo8, lo16};
use crate::lock;
use std::sync::{Arc, Mutex};

/// How many bytes an access moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Width {
    /// 1 byte.
    Byte,
    /// 2 bytes.
    Word,
    /// 4 bytes.
    Dword,
    /// 8 bytes; never used by port I/O.
    Qword,
}

impl Width {
    /// The width of an access of `bytes` bytes, if there is one.
    #[must_use]
    pub const fn from_bytes(bytes: usize) -> Option<Self> {
        match bytes {
            1 => Some(Self::Byte),
            2 => Some(Self::Word),
            4 => Some(Self::Dword),
            8 => Some(Self::Qword),
            _ => None,
        }
    }

    /// Number of bytes.
    #[must_use]
    pub const fn bytes(self) -> u32 {
        match self {
            Self::Byte => 1,
            Self::Word => 2,
            Self::Dword => 4,
            Self::Qword => 8,
        }
    }

    /// All ones in this width: also the value of an unclaimed read.
    #[must_use]
    pub const fn mask(self) -> u64 {
        match self {
            Self::Byte => 0xff,
            Self::Word => 0xffff,
            Self::Dword => 0xffff_ffff,
            Self::Qword => u64::MAX,
        }
    }
}

/// A device on the port bus. `offset` counts from the base of the range that was hit.
pub trait PortDevice: Send {
    /// Answers a read; bits beyond `width` are ignored.
    fn read(&mut self, offset: u16, width: Width) -> u32;
    /// Takes a write; bits beyond `width` are zero.
    fn write(&mut self, offset: u16, width: Width, value: u32);
}

/// A device on the memory bus. `offset` counts from the base of the range that was hit.
pub trait MmioDevice: Send {
    /// Answers a read; bits beyond `width` are ignored.
    fn read(&mut self, offset: u64, width: Width) -> u64;
    /// Takes a write; bits beyond `width` are zero.
    fn write(&mut self, offset: u64, width: Width, value: u64);
}

/// A port device with byte-wide registers only; see [`Bytewise`].
pub trait ByteDevice: Send {
    /// Reads the register at `offset`.
    fn read_byte(&mut self, offset: u16) -> u8;
    /// Writes the register at `offset`.
    fn write_byte(&mut self, offset: u16, value: u8);
}

/// Puts a [`ByteDevice`] on the port bus: wider accesses become byte accesses at rising ports, as the ISA bus does.
#[derive(Debug, Clone)]
pub struct Bytewise<D>(pub D);

impl<D: ByteDevice> PortDevice for Bytewise<D> {
    fn read(&mut self, offset: u16, width: Width) -> u32 {
        if width == Width::Byte {
            return u32::from(self.0.read_byte(offset));
        }
        let mut value = 0u32;
        for i in 0..lo16(u64::from(width.bytes().min(4))) {
            let byte = self.0.read_byte(offset.wrapping_add(i));
            value |= u32::from(byte) << (u32::from(i).wrapping_mul(8));
        }
        value
    }

    fn write(&mut self, offset: u16, width: Width, value: u32) {
        if width == Width::Byte {
            return self.0.write_byte(offset, lo8(u64::from(value)));
        }
        for i in 0..lo16(u64::from(width.bytes().min(4))) {
            self.0.write_byte(offset.wrapping_add(i), byte(u64::from(value), u32::from(i)));
        }
    }
}

/// A [`ByteDevice`] that is shared: with the list of devices that act by themselves, or with the thread that types.
#[derive(Debug)]
pub struct Shared<D>(pub Arc<Mutex<D>>);

impl<D> Clone for Shared<D> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<D: ByteDevice> ByteDevice for Shared<D> {
    fn read_byte(&mut self, offset: u16) -> u8 {
        lock(&self.0).read_byte(offset)
    }

    fn write_byte(&mut self, offset: u16, value: u8) {
        lock(&self.0).write_byte(offset, value);
    }
}

/// Why a range could not be put on a bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BusError {
    /// The range is empty.
    Empty,
    /// The range goes beyond the end of the address space.
    TooHigh {
        /// First address of the range.
        base: u64,
    },
    /// The bus has as many ranges as it can.
    Full,
    /// Part of the range belongs to somebody else.
    Overlap {
        /// First address of the range that was to be added.
        base: u64,
        /// First address of the range that is there.
        with: u64,
    },
}

impl std::fmt::Display for BusError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Empty => write!(f, "an empty address range cannot be put on a bus"),
            Self::TooHigh { base } => write!(f, "the range at {base:#x} exceeds the address space"),
            Self::Full => write!(f, "the bus has no room for another address range"),
            Self::Overlap { base, with } => write!(f, "the range at {base:#x} overlaps the one at {with:#x}"),
        }
    }
}

impl std::error::Error for BusError {}

/// A range that swallows writes and reads all ones: POST code port 0x80, absent DMA page registers, probes of
/// hardware that the guest would log about.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sink;

impl PortDevice for Sink {
    fn read(&mut self, _offset: u16, _width: Width) -> u32 {
        u32::MAX
    }
    fn write(&mut self, _offset: u16, _width: Width, _value: u32) {}
}
