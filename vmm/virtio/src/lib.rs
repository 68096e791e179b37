// SPDX-License-Identifier: MIT OR Apache-2.0
//! PCI and virtio 1.2 for a PC guest.
//!
//! - [`pci`]: the root bus with its configuration space, BARs, MSI-X and the host bridge;
//! - [`transport`]: the modern virtio PCI transport ([`VirtioPci`]), the same for each device;
//! - [`queue`]: a virtqueue whose descriptor chains are checked once and then used;
//! - [`device`]: the trait [`VirtioDevice`] that a device implements; [`rng`] and [`console`] do.
//!
//! Neighbours: `cloister-devices` has the buses on which the root sits and the interrupt fabric behind it; guest
//! memory is `vm-memory`'s, rings are `virtio-queue`'s.
//!
//! Rule: the driver is hostile. Whatever it writes to registers, rings or descriptors ends in an answer, in an ignored
//! write, or in the status DEVICE_NEEDS_RESET (virtio 1.2 section 2.1.1); never in a panic, nor in unbounded work.
#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::panic, clippy::expect_used, clippy::unwrap_used)]
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

pub mod console;
pub mod device;
pub mod pci;
pub mod queue;
pub mod rng;
#[cfg(test)]
mod testing;
pub mod transport;

pub use device::{DeviceError, Queues, VirtioDevice};
pub use transport::VirtioPci;

/// Guest memory as devices see it.
pub type Ram = vm_memory::GuestMemoryMmap<()>;
