// SPDX-License-Identifier: MIT OR Apache-2.0
//! Virtual CPUs: the guards of their calls, and their ends.

use crate::harness::{Failure, Outcome, Test};
use crate::make::{EMPTY, down_for, limited, rest, semaphore, up};
use crate::{check, equal, refused};
use cloister_abi::USER_END;
use cloister_abi::arch::x86_64::vcpu::{ExitReason, Groups};
use cloister_abi::cap::{Perms, Selector, SpaceKind};
use cloister_abi::hip::{ROOT_EC, ROOT_HOST, ROOT_PD, features};
use cloister_abi::hypercall::{CreateSpace, CreateVcpu, VcpuKick, VcpuRun, VcpuSync};
use cloister_abi::status::Status;
use cloister_bare::entry::hip;
use cloister_bare::guest::Guest;
use cloister_bare::kernel::{call, selector};
use cloister_bare::memory::addresses;
use cloister_bare::thread::{destroy, spawn};
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

pub(crate) static TESTS: [Test; 6] = [
    ("vcpu-create-guards", create),
    ("vcpu-call-guards", calls),
    ("vcpu-is-busy", busy),
    ("vcpu-destroyed-while-running", destroyed),
    ("vcpu-runner-destroyed", runner_destroyed),
    ("vcpu-guest-space-destroyed", space_destroyed),
];

/// Whether guests can run here.
pub(crate) fn supported() -> bool {
    hip().features & (features::SVM | features::VMX) != 0
}

/// Leaves a test that needs guests, where there are none.
pub(crate) fn needed() -> Result<(), Failure> {
    if supported() { Ok(()) } else { Err(Failure::Skipped("no guests here")) }
}

/// What is mapped in a space that was destroyed can be taken back no more: nobody runs in it.
fn space_destroyed() -> Outcome {
    needed()?;
    // `hlt`
    let guest = Guest::real(&[0xf4])?;
    equal!(call(&VcpuRun { vcpu: guest.vcpu })?.0, ExitReason::Hlt as u64);
    destroy(guest.space);
    refused!(Aborted, VcpuRun { vcpu: guest.vcpu });
    destroy(guest.vcpu);
    Ok(())
}

fn create() -> Outcome {
    needed()?;
    let guest = selector();
    call(&CreateSpace { sel: guest, pd: ROOT_PD, kind: SpaceKind::Guest as u64 })?;
    let sel = selector();
    let good = CreateVcpu { sel, pd: ROOT_PD, guest, host: ROOT_HOST, address: addresses(0), core: 0 };
    refused!(BadCapability, CreateVcpu { pd: EMPTY, ..good });
    refused!(BadCapability, CreateVcpu { pd: limited(ROOT_PD, Perms::PD_OBJECTS)?, ..good });
    refused!(BadCapability, CreateVcpu { guest: EMPTY, ..good });
    refused!(BadCapability, CreateVcpu { guest: ROOT_HOST, ..good });
    refused!(BadCapability, CreateVcpu { guest: limited(guest, Perms::ALL.difference(Perms::SPACE_ASSIGN))?, ..good });
    refused!(BadCapability, CreateVcpu { host: guest, ..good });
    refused!(BadCapability, CreateVcpu { host: limited(ROOT_HOST, Perms::SPACE_TAKE)?, ..good });
    for address in [0, 1, 0x1008, USER_END, 1 << 47, !0xfff] {
        refused!(BadParameter, CreateVcpu { address, ..good });
    }
    refused!(Busy, CreateVcpu { address: 0x40_0000, ..good });
    refused!(BadCore, CreateVcpu { core: 77, ..good });
    call(&good)?;
    refused!(Busy, CreateVcpu { sel: selector(), ..good });
    destroy(sel);
    // The state page's place is free again.
    call(&good)?;
    destroy(sel);
    destroy(guest);
    refused!(BadCapability, good);
    Ok(())
}

fn calls() -> Outcome {
    needed()?;
    let guest = Guest::real(&[0xf4])?;
    let vcpu = guest.vcpu;
    refused!(BadCapability, VcpuRun { vcpu: EMPTY });
    refused!(BadCapability, VcpuRun { vcpu: ROOT_EC });
    refused!(BadCapability, VcpuRun { vcpu: limited(vcpu, Perms::ALL.difference(Perms::VCPU_RUN))? });
    refused!(BadCapability, VcpuKick { vcpu: EMPTY });
    refused!(BadCapability, VcpuKick { vcpu: limited(vcpu, Perms::ALL.difference(Perms::VCPU_KICK))? });
    refused!(BadCapability, VcpuSync { vcpu: EMPTY, groups: 0 });
    refused!(BadCapability, VcpuSync { vcpu: limited(vcpu, Perms::ALL.difference(Perms::VCPU_RUN))?, groups: 0 });
    for groups in [u64::MAX, 1 << 23, 1 << 63] {
        refused!(BadParameter, VcpuSync { vcpu, groups });
    }
    call(&VcpuSync { vcpu, groups: Groups::all().bits() })?;
    guest.destroy();
    refused!(BadCapability, VcpuRun { vcpu });
    refused!(BadCapability, VcpuKick { vcpu });
    refused!(BadCapability, VcpuSync { vcpu, groups: 0 });
    Ok(())
}

static VCPU: AtomicU32 = AtomicU32::new(0);
static DONE: AtomicU32 = AtomicU32::new(0);
static RESULT: AtomicU64 = AtomicU64::new(0);

extern "C" fn runner(_: u64) -> ! {
    let result = match call(&VcpuRun { vcpu: VCPU.load(Ordering::Relaxed) }) {
        Ok((reason, _)) => reason,
        Err(status) => 0x100 + status as u64,
    };
    RESULT.store(result, Ordering::Relaxed);
    let _ = up(DONE.load(Ordering::Relaxed));
    rest()
}

/// A guest in an endless loop, and a less important thread that runs it.
fn endless() -> Result<(Guest, cloister_bare::thread::Context, Selector), Status> {
    let guest = Guest::real(&[0xeb, 0xfe])?;
    let done = semaphore(0)?;
    VCPU.store(guest.vcpu, Ordering::Relaxed);
    DONE.store(done, Ordering::Relaxed);
    let thread = spawn(runner, 0, 5)?;
    // A busy host may let it wait for long.
    while call(&VcpuSync { vcpu: guest.vcpu, groups: 0 }) != Err(Status::Busy) {
        let _ = down_for(done, 1_000);
    }
    Ok((guest, thread, done))
}

fn busy() -> Outcome {
    needed()?;
    let (mut guest, thread, done) = endless()?;
    refused!(Busy, VcpuRun { vcpu: guest.vcpu });
    refused!(Busy, VcpuSync { vcpu: guest.vcpu, groups: 0 });
    call(&VcpuKick { vcpu: guest.vcpu })?;
    check!(down_for(done, 1_000_000).is_ok());
    equal!(RESULT.load(Ordering::Relaxed), ExitReason::Kicked as u64);
    equal!(guest.state().reason, ExitReason::Kicked as u64);
    equal!(guest.state().rip, cloister_bare::guest::CODE);
    thread.destroy();
    guest.destroy();
    Ok(())
}

fn destroyed() -> Outcome {
    needed()?;
    let (guest, thread, done) = endless()?;
    destroy(guest.vcpu);
    check!(down_for(done, 1_000_000).is_ok());
    equal!(RESULT.load(Ordering::Relaxed), 0x100 + Status::Aborted as u64);
    thread.destroy();
    destroy(guest.space);
    Ok(())
}

/// The thread goes in the middle of a run; another can run the VCPU then.
fn runner_destroyed() -> Outcome {
    needed()?;
    let (mut guest, thread, _) = endless()?;
    thread.destroy();
    guest.state().deadline = cloister_bare::time::after(1_000);
    equal!(guest.run()?, ExitReason::Deadline);
    guest.destroy();
    Ok(())
}
