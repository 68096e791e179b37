// SPDX-License-Identifier: MIT OR Apache-2.0
//! The Linux personality: what the system calls of a static Linux program mean inside a component.
//!
//! A `std` program's libc asks "the kernel" for memory, threads, locks, clocks and files. This crate answers, in the
//! program's own protection domain, below its `malloc`: nothing in here allocates, all tables have a fixed size. The
//! world is reached through one trait, [`Kernel`]; `cloister-linux` implements it with sessions and hypercalls, the tests with
//! ordinary memory and threads of the host.
//!
//! * [`Personality`] – the state, and [`Personality::call`], the one entry: number and arguments in, [`Outcome`] out
//! * [`memory`] – the address space: areas, what backs them, `brk`, `mmap`, `mprotect`, `mremap`
//! * [`threads`] – thread slots and futex queues
//! * [`files`] – descriptors, boot modules as files, line-buffered logs
//! * [`clock`] – ticks to nanoseconds and back
//! * [`random`] – the generator behind `getrandom`
//! * [`stack`] – the initial stack of a program (arguments, environment, auxiliary vector)
//!
//! Rule: a program's address is its own affair (it can only hurt itself), a length is checked before it is added to anything.
//! `docs/design/linux-abi.md` has the table of calls, what each means and where it deviates.
#![no_std]
#![deny(clippy::indexing_slicing, clippy::panic, clippy::expect_used)]
#![cfg_attr(test, allow(clippy::indexing_slicing, reason = "tests fail by panicking"))]
#![expect(unsafe_code, reason = "the lock hands out references to what it guards")]

#[cfg(test)]
extern crate std;

mod calls;
pub mod clock;
pub mod errno;
pub mod files;
mod kernel;
pub mod linux;
pub mod lock;
pub mod memory;
pub mod random;
pub mod stack;
#[cfg(test)]
mod testing;
pub mod threads;

pub use calls::{Outcome, Personality};
pub use errno::Errno;
pub use kernel::{Handle, Kernel, Prot, Rom, Start};
