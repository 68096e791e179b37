// SPDX-License-Identifier: MIT OR Apache-2.0
//! The end: what the kernel says when it cannot go on.
//!
//! A panic, or an exception in the kernel, prints what happened, on which core, the registers, and the callers by name; then the
//! machine is switched off. Nothing here takes a lock or allocates, and what is read of a stack was found to be mapped
//! first, so that it works in whatever state the kernel is. If it fails all the same, the panic inside the panic stops the core.

use crate::arch::backtrace::{self, Registers};
use crate::arch::{Frame, power, smp};
use crate::boot::option;
use crate::console::Console;
use crate::percore;
use core::fmt::{self, Write};
use core::hint::black_box;
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Number of the core that panics, plus one; 0 for none.
static PANICKING: AtomicUsize = AtomicUsize::new(0);

/// Only the first panic is told. Answers the number of this core.
fn begin() -> usize {
    // Before the first core is known as such there is no other, and no structure of it.
    let started = percore::count() > 0;
    let this = if started { usize::from(percore::core().id) } else { 0 };
    match PANICKING.compare_exchange(0, this + 1, Relaxed, Relaxed) {
        Ok(_) if started => smp::stop_others(),
        Ok(_) => {}
        Err(other) => {
            if other == this + 1 {
                let _ = writeln!(Console, "\n[kernel] panic inside the panic");
            }
            power::stop()
        }
    }
    this
}

fn end(start: Registers) -> ! {
    backtrace::print(start);
    power::off(0xee)
}

/// The kernel found that it is in error.
pub(crate) fn panicked(info: &PanicInfo<'_>) -> ! {
    let here = Registers::here();
    let core = begin();
    let _ = writeln!(Console, "[kernel] panic on core {core}: {info}");
    end(here)
}

/// The processor found that the kernel is in error.
pub(crate) fn exception(frame: &Frame) -> ! {
    let core = begin();
    let _ = writeln!(Console, "[kernel] panic on core {core}: {}", backtrace::Cause(frame));
    end(Registers::of(frame))
}

/// `crash=KIND` on the command line: ends the boot in one of the ways in which a kernel can end, to test what it says then.
pub(crate) fn test(cmdline: &str) {
    if let Some(kind) = option(cmdline, "crash=") {
        on_purpose(kind);
    }
}

#[inline(never)]
fn on_purpose(kind: &str) {
    match kind {
        "panic" => panic!("asked for on the command line"),
        "twice" => panic!("asked for, with an argument that {}", Broken),
        "fault" => crate::arch::backtrace::wild_access(),
        "overflow" => log::info!("never seen: {}", overflow(black_box(1))),
        _ => log::warn!("no such crash: {kind}"),
    }
}

/// Cannot be printed.
struct Broken;

impl fmt::Display for Broken {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        panic!("cannot be printed")
    }
}

/// Calls itself until the stack is at its end, or the counter overflows, which takes longer.
#[inline(never)]
fn overflow(depth: u64) -> u64 {
    if depth == 0 { 0 } else { black_box(overflow(black_box(depth.wrapping_add(1)))) + depth }
}
