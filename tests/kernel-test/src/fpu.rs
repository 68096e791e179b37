// SPDX-License-Identifier: MIT OR Apache-2.0
//! Floating-point and vector registers: each thread its own, and none for who did not ask.

use crate::guest_guards::needed;
use crate::harness::{Failure, Outcome, Test};
use crate::make::{down_for, rest, semaphore, up};
use crate::{check, equal};
use cloister_abi::arch::x86_64::vcpu::{ExitReason, Groups};
use cloister_abi::hypercall::Yield;
use cloister_abi::status::Status;
use cloister_bare::guest::Guest;
use cloister_bare::kernel::call;
use cloister_bare::thread::{Context, Options, QUANTUM, prepare, start};
use core::arch::asm;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

pub(crate) static TESTS: [Test; 6] = [
    ("fpu-registers-are-kept-apart", apart),
    ("fpu-starts-clean", clean),
    ("fpu-not-asked-for", not_asked_for),
    ("fpu-upper-halves-are-kept-apart", upper_halves),
    ("fpu-clean-in-a-used-place", used_place),
    ("fpu-of-guests-and-threads-apart", guests),
];

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
        let _ = call(&Yield {});
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

/// Whether the processor and the kernel offer the registers of 256 bits.
fn has_avx() -> bool {
    let leaf = core::arch::x86_64::__cpuid(1);
    if leaf.ecx >> 27 & 3 != 3 {
        return false;
    }
    let low: u32;
    // SAFETY: XGETBV is there, as CPUID just said.
    unsafe { asm!("xgetbv", in("ecx") 0, out("eax") low, out("edx") _, options(nostack, nomem)) };
    low & 6 == 6
}

fn load_upper(value: u64) {
    // SAFETY: as `load`; the caller has looked for AVX.
    unsafe { asm!("movq xmm1, {}", "vinsertf128 ymm9, ymm9, xmm1, 1", in(reg) value, options(nostack, nomem)) };
}

fn stored_upper() -> u64 {
    let value: u64;
    // SAFETY: as above.
    unsafe { asm!("vextractf128 xmm1, ymm9, 1", "movq {}, xmm1", out(reg) value, options(nostack, nomem)) };
    value
}

/// As [`user`], with the upper half of a register. What it finds at first must be nothing.
extern "C" fn upper_user(value: u64) -> ! {
    if stored_upper() != 0 {
        BAD.fetch_add(1, Ordering::Relaxed);
    }
    for round in 0..50 {
        load_upper(value + round);
        let _ = call(&Yield {});
        if stored_upper() != value + round {
            BAD.fetch_add(1, Ordering::Relaxed);
        }
    }
    let _ = up(DONE.load(Ordering::Relaxed));
    rest()
}

fn upper_halves() -> Outcome {
    if !has_avx() {
        return Err(Failure::Skipped("no AVX"));
    }
    let done = set_up()?;
    let threads = [launch(upper_user, 1000, true)?, launch(upper_user, 2000, true)?, launch(user, 3000, true)?];
    for _ in 0..3 {
        check!(down_for(done, 2_000_000).is_ok());
    }
    equal!(BAD.load(Ordering::Relaxed), 0);
    threads.iter().for_each(|thread| thread.destroy());
    Ok(())
}

/// A thread that is destroyed while its state is in the registers, and another one after it in the same place of the kernel's memory.
fn used_place() -> Outcome {
    let done = set_up()?;
    for round in 0..20 {
        let thread = launch(user, 0xdead_0000 + round, true)?;
        check!(down_for(done, 2_000_000).is_ok());
        thread.destroy();
        let thread = launch(look, 0, true)?;
        check!(down_for(done, 2_000_000).is_ok());
        thread.destroy();
    }
    equal!(BAD.load(Ordering::Relaxed), 0);
    Ok(())
}

/// A guest that tells in RAX what it finds in a register, puts RBX there, halts, and does so again.
fn teller() -> Result<Guest, Status> {
    Guest::long(&[
        0x66, 0x48, 0x0f, 0x7e, 0xc0, // movq rax, xmm0
        0x66, 0x48, 0x0f, 0x6e, 0xc3, // movq xmm0, rbx
        0xf4, // hlt
        0xeb, 0xf3, // jmp to the beginning
    ])
}

/// Runs two guests in turn, with registers of its own. Answers in [`BAD`] how often something was another's.
extern "C" fn runner(_: u64) -> ! {
    if run_guests().is_err() {
        BAD.fetch_add(1000, Ordering::Relaxed);
    }
    let _ = up(DONE.load(Ordering::Relaxed));
    rest()
}

fn run_guests() -> Result<(), Status> {
    let mut guests = [teller()?, teller()?];
    let mut expected = [0; 2];
    for round in 1..40 {
        let own = 0x0e00_0000 + round;
        load(own);
        for (index, guest) in (1..).zip(&mut guests) {
            let place = &mut expected[usize::from(index > 1)];
            let next = 0x6e00_0000 + 0x1000 * index + round;
            guest.state().gpr[3] = next;
            guest.state().load |= (Groups::GPR_ACDB | Groups::RIP).bits();
            let halted = guest.run()? == ExitReason::Hlt;
            if !halted || guest.state().gpr[0] != *place || stored() != (own, own) {
                BAD.fetch_add(1, Ordering::Relaxed);
            }
            *place = next;
            guest.skip();
        }
        let _ = call(&Yield {});
    }
    guests.iter().for_each(Guest::destroy);
    Ok(())
}

fn guests() -> Outcome {
    needed()?;
    let done = set_up()?;
    let threads = [launch(runner, 0, true)?, launch(runner, 0, true)?, launch(user, 9000, true)?];
    for _ in 0..3 {
        check!(down_for(done, 4_000_000).is_ok());
    }
    equal!(BAD.load(Ordering::Relaxed), 0);
    threads.iter().for_each(|thread| thread.destroy());
    // What a guest leaves is nothing to a thread that starts, even where a guest's VCPU was.
    let last = launch(look, 0, true)?;
    check!(down_for(done, 2_000_000).is_ok());
    equal!(BAD.load(Ordering::Relaxed), 0);
    last.destroy();
    Ok(())
}
