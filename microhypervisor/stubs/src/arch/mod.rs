// SPDX-License-Identifier: MIT OR Apache-2.0
//! The architecture's door: the system-call instruction and the thread pointer.

#[cfg(target_arch = "x86_64")]
mod x86_64;
#[cfg(target_arch = "x86_64")]
pub(crate) use x86_64::{reply, syscall, utcb};
