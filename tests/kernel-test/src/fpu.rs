// SPDX-License-Identifier: MIT OR Apache-2.0
//! Floating-point and vector registers: each thread its own, and none for who did not ask.

use crate::harness::{Outcome, Test};
use crate::make::{down_for, rest, semaphore, up};
use crate::{check, equal};
use cloister_abi::hypercall::Yield;
use cloister_abi::status::Status;
use cloister_bare::kernel::call;
use cloister_bare::thread::{Context, Options, QUANTUM, prepare, start};
use core::arch::asm;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

pub(crate) static TESTS: [Test; 3] =
    [("fpu-registers-are-kept-apart", apart), ("fpu-starts-clean", clean), ("fpu-not-asked-for", not_asked_for)];

static DONE: AtomicU32 = AtomicU32::new(0);
static BAD: AtomicU64 = AtomicU64::new(0);

fn load(value: u64) {
    // SAFETY: this program is compiled without vector registers: they hold nothing of it.
    unsafe { asm!("movq xmm0, {0}", "movq xmm15, {0}", in(reg) value, options(nostack, nomem)) };
}

fn stored() -> (u64, u64) {
    let (first, last): (u64, u64);
    // SAFETY: reads registers.
    unsafe { asm!("movq {0}, xmm0", "movq {1}, xmm15", out(reg) first, out(reg) last, options(nostack, nomem)) };
    (first, last)
}

/// Loads registers, lets others run, and looks whether they are still there.
extern "C" fn user(value: u64) -> ! {
    for round in 0..50 {
        load(value + round);
        let _ = call(&Yield);
        if stored() != (value + round, value + round) {
            BAD.fetch_add(1, Ordering::Relaxed);
        }
    }
    let _ = up(DONE.load(Ordering::Relaxed));
    rest()
}

fn launch(code: extern "C" fn(u64) -> !, value: u64, fpu: bool) -> Result<Context, Status> {
    let mut thread = prepare(code, value, &Options { fpu, ..Options::default() })?;
    start(&mut thread, 10, QUANTUM)?;
    Ok(thread)
}

fn set_up() -> Result<u32, Status> {
    let done = semaphore(0)?;
    DONE.store(done, Ordering::Relaxed);
    BAD.store(0, Ordering::Relaxed);
    Ok(done)
}

fn apart() -> Outcome {
    let done = set_up()?;
    let threads = [launch(user, 1000, true)?, launch(user, 2000, true)?, launch(user, 3000, true)?];
    for _ in 0..3 {
        check!(down_for(done, 2_000_000).is_ok());
    }
    equal!(BAD.load(Ordering::Relaxed), 0);
    threads.iter().for_each(|thread| thread.destroy());
    Ok(())
}

extern "C" fn look(_: u64) -> ! {
    let mut mxcsr = 0u32;
    // SAFETY: stores a register into a local variable.
    unsafe { asm!("stmxcsr [{}]", in(reg) &raw mut mxcsr, options(nostack)) };
    if stored() != (0, 0) || mxcsr != 0x1f80 {
        BAD.fetch_add(1, Ordering::Relaxed);
    }
    let _ = up(DONE.load(Ordering::Relaxed));
    rest()
}

/// A new thread finds nothing of what another left.
fn clean() -> Outcome {
    let done = set_up()?;
    let first = launch(user, 0xdead, true)?;
    check!(down_for(done, 2_000_000).is_ok());
    let second = launch(look, 0, true)?;
    check!(down_for(done, 2_000_000).is_ok());
    equal!(BAD.load(Ordering::Relaxed), 0);
    first.destroy();
    second.destroy();
    Ok(())
}

/// Without the flag the first vector instruction is an exception; here nobody handles it.
fn not_asked_for() -> Outcome {
    let done = set_up()?;
    let thread = launch(look, 0, false)?;
    equal!(down_for(done, 20_000), Err(Status::Timeout));
    thread.destroy();
    Ok(())
}
