// SPDX-License-Identifier: MIT OR Apache-2.0
//! Core's bookkeeping, without the machine, so that it is tested on the host.
//!
//! * [`Accounts`] – who has how much RAM and how many capabilities; quota is only ever moved, never made
//! * [`Physical`] – which physical memory is free
//! * [`Regions`] – what lies where in an address space
//! * [`chunks`] – how a range is cut into the pieces that the kernel maps
//!
//! Neighbour: `cloister-core`, which does to the machine what these say.
#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod acpi;

mod accounts;
mod chunks;
mod physical;
mod ranges;
mod regions;

pub use accounts::{AccountId, Accounts};
pub use chunks::{Chunk, chunks};
pub use physical::{Extent, Physical};
pub use ranges::Ranges;
pub use regions::{Piece, Region, Regions};

/// Bytes of a page.
pub const PAGE: u64 = 4096;

/// Rounds up to whole pages; nothing if that is more than there can be.
#[must_use]
pub const fn pages(size: u64) -> Option<u64> {
    size.checked_next_multiple_of(PAGE)
}
