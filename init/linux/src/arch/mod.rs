// SPDX-License-Identifier: MIT OR Apache-2.0
//! The architecture's door: first instructions, entry of system calls, start and end of threads, registers.

#[cfg(target_arch = "x86_64")]
mod entry_x86_64;
#[cfg(target_arch = "x86_64")]
mod x86_64;
#[cfg(all(target_arch = "x86_64", not(feature = "on-linux")))]
pub(crate) use x86_64::thread_start;
#[cfg(target_arch = "x86_64")]
pub(crate) use x86_64::{
    Frame, auxiliary, entropy, entry_address, image_header, leave_stack, libc_start, prepare, prepare_thread, relocate,
    set_slot, set_thread_pointer, slot, thread_pointer,
};
