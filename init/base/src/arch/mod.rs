// SPDX-License-Identifier: MIT OR Apache-2.0
//! What differs between architectures: the first instructions of a program and of a portal, and the clock.

#[cfg(target_arch = "x86_64")]
mod x86_64;
#[cfg(target_arch = "x86_64")]
pub use x86_64::{clock, portal_entry, relax};
