// SPDX-License-Identifier: MIT OR Apache-2.0
//! Guests that run on another core: brought out of a loop, robbed of their memory, destroyed.

use crate::cores::another;
use crate::guest_guards::needed;
use crate::harness::{Outcome, Test};
use crate::make::{down_for, rest, semaphore, up};
use crate::{check, equal, refused};
use cloister_abi::arch::x86_64::vcpu::ExitReason;
use cloister_abi::cap::Selector;
use cloister_abi::hypercall::{Revoke, VcpuKick, VcpuRun, VcpuSync};
use cloister_abi::status::Status;
use cloister_bare::guest::Guest;
use cloister_bare::kernel::call;
use cloister_bare::thread::{Context, destroy, spawn_on};
use cloister_bare::time;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

pub(crate) static TESTS: [Test; 5] = [
    ("cores-vcpu-is-its-cores", own),
    ("cores-vcpu-kicked", kicked),
    ("cores-vcpu-kicked-late-and-early", kicked_at_any_time),
    ("cores-guest-memory-revoked", revoked),
    ("cores-vcpu-destroyed", destroyed),
];

/// Where the guest counts.
const COUNTER: u64 = 0x9000;
/// Page of it.
const COUNTER_PAGE: u64 = 9;
/// `inc byte [COUNTER]; jmp` back to it
const COUNT: [u8; 6] = [0xfe, 0x06, 0x00, 0x90, 0xeb, 0xfa];
/// What an error is told as, beside exit reasons.
const FAILED: u64 = 0x100;
const PRIORITY: u32 = 60;
/// Microseconds in which the other core must have done something, on a busy host.
const PATIENCE: u64 = 10_000_000;

static VCPU: AtomicU32 = AtomicU32::new(0);
static GO: AtomicU32 = AtomicU32::new(0);
static DONE: AtomicU32 = AtomicU32::new(0);
static RESULT: AtomicU64 = AtomicU64::new(0);

/// Runs the VCPU each time it is told to.
extern "C" fn runner(_: u64) -> ! {
    while down_for(GO.load(Relaxed), PATIENCE).is_ok() {
        let result = match call(&VcpuRun { vcpu: VCPU.load(Relaxed) }) {
            Ok((reason, _)) => reason,
            Err(status) => FAILED + status as u64,
        };
        RESULT.store(result, Relaxed);
        let _ = up(DONE.load(Relaxed));
    }
    rest()
}

/// A guest on the last core that counts for ever, and the thread there that runs it.
struct Elsewhere {
    guest: Guest,
    thread: Context,
    go: Selector,
    done: Selector,
}

impl Elsewhere {
    fn new() -> Result<Self, crate::harness::Failure> {
        needed()?;
        let core = another()?;
        let (guest, go, done) = (Guest::real_on(core.into(), &COUNT)?, semaphore(0)?, semaphore(0)?);
        VCPU.store(guest.vcpu, Relaxed);
        GO.store(go, Relaxed);
        DONE.store(done, Relaxed);
        Ok(Self { guest, thread: spawn_on(core, runner, 0, PRIORITY)?, go, done })
    }

    fn count(&self) -> u8 {
        self.guest.read(COUNTER)
    }

    /// Lets it run, and waits until it does.
    fn start(&self) -> Outcome {
        let before = self.count();
        up(self.go)?;
        let end = time::after(PATIENCE);
        while self.count() == before {
            check!(time::now() < end);
        }
        Ok(())
    }

    /// How the run has ended.
    fn result(&self) -> Result<u64, Status> {
        down_for(self.done, PATIENCE)?;
        Ok(RESULT.load(Relaxed))
    }

    fn end(self) {
        self.thread.destroy();
        self.guest.destroy();
        destroy(self.go);
        destroy(self.done);
    }
}

/// Only threads of its core run a VCPU and read its state.
fn own() -> Outcome {
    let elsewhere = Elsewhere::new()?;
    let vcpu = elsewhere.guest.vcpu;
    refused!(BadCore, VcpuRun { vcpu });
    refused!(BadCore, VcpuSync { vcpu, groups: 0 });
    elsewhere.end();
    Ok(())
}

/// A guest in a loop leaves it each time it is kicked from here, and where it was is told.
fn kicked() -> Outcome {
    let mut elsewhere = Elsewhere::new()?;
    for _ in 0..50 {
        elsewhere.start()?;
        call(&VcpuKick { vcpu: elsewhere.guest.vcpu })?;
        equal!(elsewhere.result()?, ExitReason::Kicked as u64);
        check!((0..6).contains(&(elsewhere.guest.state().rip - cloister_bare::guest::CODE)));
        let count = elsewhere.count();
        let end = time::after(100);
        while time::now() < end {}
        equal!(elsewhere.count(), count);
    }
    elsewhere.end();
    Ok(())
}

/// A kick that comes while the guest is about to be entered is not lost.
fn kicked_at_any_time() -> Outcome {
    let elsewhere = Elsewhere::new()?;
    for round in 0..500 {
        up(elsewhere.go)?;
        let end = time::now() + 97 * round;
        while time::now() < end {}
        call(&VcpuKick { vcpu: elsewhere.guest.vcpu })?;
        equal!(elsewhere.result()?, ExitReason::Kicked as u64);
    }
    elsewhere.end();
    Ok(())
}

/// When its memory was taken away, the guest writes to it no more, whatever its processor remembers.
fn revoked() -> Outcome {
    for _ in 0..20 {
        let mut elsewhere = Elsewhere::new()?;
        elsewhere.start()?;
        call(&Revoke { space: elsewhere.guest.space, base: COUNTER_PAGE, order: 0 })?;
        let last = elsewhere.count();
        let end = time::after(100);
        while time::now() < end {}
        equal!(elsewhere.count(), last);
        equal!(elsewhere.result()?, ExitReason::Memory as u64);
        equal!(elsewhere.guest.state().qualification[1], COUNTER);
        elsewhere.end();
    }
    Ok(())
}

/// A VCPU, or the memory of its guest, is destroyed while it runs.
fn destroyed() -> Outcome {
    for round in 0..20 {
        let elsewhere = Elsewhere::new()?;
        elsewhere.start()?;
        if round % 2 == 0 {
            destroy(elsewhere.guest.vcpu);
            equal!(elsewhere.result()?, FAILED + Status::Aborted as u64);
        } else {
            destroy(elsewhere.guest.space);
            let last = elsewhere.count();
            // It finds no memory, or that there is nothing to run in.
            let told = [ExitReason::Memory as u64, FAILED + Status::Aborted as u64];
            check!(told.contains(&elsewhere.result()?));
            equal!(elsewhere.count(), last);
        }
        elsewhere.end();
    }
    Ok(())
}
