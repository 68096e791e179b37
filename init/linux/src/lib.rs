// SPDX-License-Identifier: MIT OR Apache-2.0
//! The Linux personality as part of a program: an ordinary `std` program that depends on this crate runs as a component.
//!
//! The program is a static one at a fixed address for the stock gnu target, and starts here instead of in its libc. Its
//! build script says
//!
//! ```text
//! println!("cargo:rustc-link-arg-bins=-Wl,-e,cloister_start");
//! ```
//!
//! and it is compiled with `-C target-feature=+crt-static -C relocation-model=static`. The very same file runs on Linux:
//! the start finds out where it is (the shortest hypercall means nothing to Linux) and jumps to libc's own start there.
//!
//! On Cloister the kernel bounces libc's system calls to the entry in [`arch`], which saves what Linux would keep and hands
//! them to the personality ([`program`]); that answers them with sessions ([`world`]). Nothing in here allocates:
//! the program's `malloc` stands on it.
//!
//! A program that knows where it runs ([`is_cloister`]) uses the framework beside `std`: [`env`] has its sessions,
//! [`session`] opens others, [`signal::Receiver`] waits for news in a thread of its own, [`memory::behind`] finds the dataspace
//! behind memory.
#![no_std]
#![expect(unsafe_code, reason = "first instructions of a program, entry of system calls, the program's memory")]

mod access;
mod arch;
#[cfg(feature = "on-linux")]
mod host;
pub mod memory;
mod program;
pub mod signal;
mod start;
#[cfg(not(feature = "on-linux"))]
mod world;

pub use cloister_base::{self as base, Cap, Error, Link, Object, dataspace, env, rom, session, sessions};
pub use start::is_cloister;
