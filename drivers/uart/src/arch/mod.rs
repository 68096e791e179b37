// SPDX-License-Identifier: MIT OR Apache-2.0
//! Access to I/O ports.

#[cfg(target_arch = "x86_64")]
mod x86_64;
#[cfg(target_arch = "x86_64")]
pub(crate) use x86_64::{read, write};
