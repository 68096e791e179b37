// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the contract says about one architecture: registers of a hypercall, exception state, virtual-CPU state.

#[cfg(target_arch = "x86_64")]
pub mod x86_64;
#[cfg(target_arch = "x86_64")]
pub use x86_64 as current;
