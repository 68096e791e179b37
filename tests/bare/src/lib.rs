// SPDX-License-Identifier: MIT OR Apache-2.0
//! A root task without the framework, for programs that test or measure the kernel itself.
//!
//! * [`entry`] – where the kernel starts the program, and how the program ends
//! * [`console`] – lines on the kernel's debug console
//! * [`kernel`] – hypercalls, and calls with arguments that no structure can hold
//! * [`memory`] – pages of the machine, mapped or to be mapped
//! * [`thread`] – threads and servers with stacks of their own
//! * [`domain`] – further protection domains that share the program's image
//! * [`documented`] – what calls may answer by the reference, and what they did
//! * [`guest`] – a guest of a few pages with one virtual CPU
//!
//! Rule: this library asks the kernel for what the tests need and hides nothing of it: selectors are numbers, failures are the
//! kernel's status. It holds everything in the machine, so it is as trusted as a root task is.
#![no_std]
#![expect(unsafe_code, reason = "system calls, threads and shared pages are the subject")]
#![expect(clippy::cast_possible_truncation, reason = "addresses have 64 bits here")]

pub mod console;
pub mod documented;
pub mod domain;
pub mod entry;
pub mod guest;
pub mod kernel;
pub mod memory;
pub mod thread;
pub mod time;
