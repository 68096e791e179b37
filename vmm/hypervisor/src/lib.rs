// SPDX-License-Identifier: MIT OR Apache-2.0
//! The machine as the VMM sees it.
//!
//! A [`Hypervisor`] makes a [`Vm`]; a [`Vm`] maps guest memory and makes a [`Vcpu`]; a [`Vcpu`] runs until something
//! needs the VMM. Two back ends implement these traits: Linux/KVM (`cloister-hypervisor-kvm`) and the microhypervisor's
//! VM session (`cloister-hypervisor-cloister`). State travels in the structures of `kvm-bindings` on both, so that a
//! saved VM can move between them.
//!
//! **Accesses are answered in place.** A guest access to a port, to device memory or to an MSR does not come back as a
//! value that must be completed later: [`Vcpu::run`] takes the VMM's [`Bus`] and calls it. The two sides can then not
//! disagree about a half-done access, string I/O and read-modify-write instructions are plain loops over the bus, and the
//! back end fetches and writes back only the registers that the access touches. `run` returns after one exit, so that
//! the VMM looks at interrupts and timers in between. The rejected way, an `Exit` enum with `complete_*` methods, needs
//! a pending-completion state in both the VMM and each back end.
//!
//! **Time** is the host's time-stamp counter ([`arch::Tsc`]); a guest's TSC equals it unless an offset was set.
#![cfg_attr(
    not(test),
    deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::panic, clippy::expect_used)
)]
#![expect(unsafe_code, reason = "reading the time-stamp counter is an intrinsic that the compiler counts as unsafe")]

pub mod arch;
mod bus;
mod cpuid;
mod error;
mod exit;
mod machine;

pub use bus::{Bus, Fault, MsrResult};
pub use cpuid::{CpuidState, CpuidTable};
pub use error::Error;
pub use exit::{Access, Exit, Unhandled};
pub use kvm_bindings;
pub use machine::{Event, Hypervisor, Kick, MemoryRegion, Protection, Vcpu, Vm};
