// SPDX-License-Identifier: MIT OR Apache-2.0
//! The Cloister microhypervisor.
//!
//! Protection domains, execution and scheduling contexts, portals, semaphores, virtual CPUs, and the spaces between which
//! capabilities, memory and ports are delegated: mechanisms, and no policy. The contract is `cloister-abi`; the data structures
//! that need no machine are in `cloister-mechanism`, tested on the host; what one architecture needs is behind [`arch`].
//!
//! A hypercall comes in through `arch::entry`, is decoded in [`syscall`], acts on [`object`]s, and leaves through
//! [`sched::settle`] if it left work behind. The kernel is not preemptible, runs with interrupts off on one stack per core, and does
//! a bounded amount of work per call.
#![no_std]
#![no_main]
#![expect(unsafe_code, reason = "the kernel: page tables, control registers, objects in raw memory")]

mod arch;
mod boot;
mod console;
mod crash;
mod exception;
mod flood;
mod guest;
mod interrupt;
mod ipc;
mod journey;
mod memory;
mod object;
mod percore;
mod remote;
mod sched;
mod symbols;
mod syscall;
mod trace;
mod width;

use core::panic::PanicInfo;

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    crash::panicked(info)
}
