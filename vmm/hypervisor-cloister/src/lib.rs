// SPDX-License-Identifier: MIT OR Apache-2.0
//! The microhypervisor as a back end of the VMM.
//!
//! A VM is a *VM session* ([`vm`]): core attaches dataspaces of the VMM to guest-physical memory and makes virtual CPUs. A
//! VCPU is then run without core, by a hypercall of the thread that owns it ([`calls`]); its state lies in a page shared
//! with the kernel ([`page`]).
//!
//! State is fetched lazily. For each reason of an exit the kernel is told which groups of registers to write back
//! ([`groups`]): those that nearly every exit of that kind needs. What else is needed is fetched by a further hypercall
//! when it is; what was changed is written back with the next run. So a port read costs the accumulator, and the memory exit of
//! an unknown instruction costs all of the registers, each once.
//!
//! - [`vcpu`]: entry, injection, the trait; `exits`: the answers to each kind of exit; `string`: string port I/O;
//!   [`memory`]: what the VMM attached, and instructions on device memory; `convert`, `msrs`: state in the
//!   structures of kvm-bindings; `cpuid`: what this machine can give a guest.
//!
//! Rules. The page is read and written by copies only, and only while the VCPU does not run. Nothing on the path of an
//! exit allocates, except the memory that the report of an unhandled exit takes. The guest is hostile: what it does ends
//! in an answer of the bus, an exception for it, or [`cloister_hypervisor::Exit::Unhandled`].
#![cfg_attr(
    not(test),
    deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::panic, clippy::expect_used)
)]
#![expect(unsafe_code, reason = "hypercalls, the state page shared with the kernel, and guest memory")]

pub mod calls;
mod convert;
mod cpuid;
mod exits;
pub mod groups;
pub mod memory;
mod msrs;
pub mod page;
mod string;
#[cfg(test)]
mod tests;
pub mod vcpu;
pub mod vm;

pub use calls::Kicker;
pub use memory::Memory;
pub use vcpu::CloisterVcpu;
pub use vm::{CloisterHypervisor, CloisterVm};
