// SPDX-License-Identifier: MIT OR Apache-2.0
//! The architecture door: the same names behind it for each machine.

#[cfg(target_arch = "x86_64")]
mod x86_64;

#[cfg(target_arch = "x86_64")]
pub use x86_64::{Tsc, cpuid};
