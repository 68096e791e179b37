// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a guest finds before its first instruction.
//!
//! [`layout`] says what lies where in guest-physical memory; [`linux`] loads a bzImage and its initial ramdisk by the
//! 64-bit Linux boot protocol; [`acpi`] writes the tables that describe the machine; [`cpu`] gives the first VCPU the
//! state that the protocol wants; [`cpuid`] decides which processor features the guest sees.
//!
//! The kernel image comes from whoever configures the VM, so it is read as hostile input: a wrong image is an
//! [`Error`] with names and sizes.
#![cfg_attr(
    not(test),
    deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::panic, clippy::expect_used)
)]

pub mod acpi;
pub mod cpu;
pub mod cpuid;
mod error;
pub mod layout;
pub mod linux;

pub use error::Error;
