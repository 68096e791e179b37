// SPDX-License-Identifier: MIT OR Apache-2.0
//! Very many wait for one thing, and it goes: the kernel tells them in pieces, and all of them, whatever else goes between the pieces.
//!
//! The threads have no stacks: each makes one call, notes how it ended, and rests.

use crate::harness::{Failure, Outcome, Test};
use crate::make::{down_for, give, semaphore, up, used};
use crate::{check, equal};
use cloister_abi::arch::x86_64::HYPERCALL_BASE;
use cloister_abi::cap::{NONE, Perms, Selector};
use cloister_abi::hip::ROOT_PD;
use cloister_abi::hypercall::{Call, CreateEc, CreateSc, CreateSm, Drop, EcFlags, IpcCall, SmDown, SmUp};
use cloister_abi::status::Status;
use cloister_abi::utcb::Header;
use cloister_bare::domain::Domain;
use cloister_bare::entry::hip;
use cloister_bare::kernel::{call, selectors};
use cloister_bare::memory::{PAGE, addresses};
use cloister_bare::thread::{Context, Options, destroy, server};
use cloister_bare::time;
use core::arch::naked_asm;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

pub(crate) static TESTS: [Test; 7] = [
    ("crowd-at-a-semaphore-is-told", semaphore_goes),
    ("crowd-at-a-semaphore-goes-meanwhile", waiters_go),
    ("crowd-that-calls-is-told", server_goes),
    ("crowd-that-calls-goes-meanwhile", callers_go),
    ("crowd-that-calls-goes-on-in-time", server_wakes),
    ("crowd-behind-a-chain-is-told", middle_goes),
    ("crowd-goes-with-its-domain", domain_goes),
];

/// How many wait: more than are told in one piece.
const MANY: u32 = 520;
/// Below the thread that runs the tests.
const LOW: u32 = 5;

/// What they wait for or call.
static TARGET: AtomicU32 = AtomicU32::new(0);
/// Where they rest, and what the server waits for.
static REST: AtomicU32 = AtomicU32::new(0);
static GATE: AtomicU32 = AtomicU32::new(0);
static NEXT: AtomicU32 = AtomicU32::new(0);
/// Until when the server waits.
static UNTIL: AtomicU64 = AtomicU64::new(0);
/// How many were there, and how many were told that what they waited for has gone.
static CAME: AtomicU64 = AtomicU64::new(0);
static TOLD: AtomicU64 = AtomicU64::new(0);

/// Makes the call in `eax` with `TARGET`, notes an answer of `Aborted` or `BadCapability`, and rests.
#[unsafe(naked)]
extern "C" fn one_call() -> ! {
    naked_asm!(
        "lock inc qword ptr [rip + {came}]",
        "mov edi, [rip + {target}]",
        "xor esi, esi",
        "xor edx, edx",
        "syscall",
        "cmp eax, {aborted}",
        "je 2f",
        "cmp eax, {gone}",
        "jne 3f",
        "2: lock inc qword ptr [rip + {told}]",
        "3: mov edi, [rip + {rest}]",
        "xor esi, esi",
        "xor edx, edx",
        "mov eax, {down}",
        "syscall",
        "jmp 3b",
        came = sym CAME,
        target = sym TARGET,
        told = sym TOLD,
        rest = sym REST,
        aborted = const Status::Aborted as u64,
        gone = const Status::BadCapability as u64,
        down = const HYPERCALL_BASE + SmDown::NUMBER,
    )
}

#[unsafe(naked)]
extern "C" fn waits() -> ! {
    naked_asm!("mov eax, {call}", "jmp {one}", call = const HYPERCALL_BASE + SmDown::NUMBER, one = sym one_call)
}

#[unsafe(naked)]
extern "C" fn calls() -> ! {
    naked_asm!("mov eax, {call}", "jmp {one}", call = const HYPERCALL_BASE + IpcCall::NUMBER, one = sym one_call)
}

/// Threads on all cores, at selectors of their own: EC and SC of each.
#[derive(Clone, Copy)]
struct Crowd {
    base: Selector,
    count: u32,
}

impl Crowd {
    fn new(pd: Selector, count: u32, entry: extern "C" fn() -> !, spread: bool) -> Result<Self, Status> {
        let base = selectors(2 * count);
        let cores = if spread { hip().cores } else { 1 };
        for index in 0..count {
            let (sel, core) = (base + 2 * index, u8::try_from(index % cores).unwrap_or_default());
            let flags = CreateEc::pack(EcFlags::GLOBAL, core, NONE);
            let ip = entry as *const () as u64;
            call(&CreateEc { sel, pd, flags, utcb: addresses(0), sp: 0, ip })?;
            call(&CreateSc { sel: sel + 1, pd, ec: sel, priority: LOW, quantum: 1000 })?;
        }
        Ok(Self { base, count })
    }

    /// Destroys every `step`-th of them, the SC or the EC first.
    fn thin(self, step: usize) {
        for sel in (self.base..self.base + 2 * self.count).step_by(2 * step) {
            let first = sel / 2 % 2;
            destroy(sel + first);
            destroy(sel + 1 - first);
        }
    }

    fn end(self) -> Result<(), Status> {
        self.thin(1);
        for base in (self.base..self.base + 2 * self.count).step_by(2) {
            call(&Drop { base, count: 2 })?;
        }
        Ok(())
    }
}

/// Sleeps until so many are there, or were told; false if that takes longer than it may.
fn reaches(count: &AtomicU64, wanted: u32) -> Result<bool, Failure> {
    let sm = semaphore(0)?;
    let mut rounds = 0;
    while count.load(Relaxed) < wanted.into() && rounds < 2_000 {
        equal!(down_for(sm, 5_000), Err(Status::Timeout));
        rounds += 1;
    }
    // Who has come makes its call now.
    equal!(down_for(sm, 20_000), Err(Status::Timeout));
    destroy(sm);
    Ok(count.load(Relaxed) >= wanted.into())
}

fn prepare() -> Result<(), Status> {
    [&CAME, &TOLD, &UNTIL].iter().for_each(|count| count.store(0, Relaxed));
    REST.store(semaphore(0)?, Relaxed);
    GATE.store(semaphore(0)?, Relaxed);
    Ok(())
}

fn clean() -> Result<(), Status> {
    for sm in [&REST, &GATE] {
        destroy(sm.load(Relaxed));
        call(&Drop { base: sm.load(Relaxed), count: 1 })?;
    }
    Ok(())
}

/// Threads at a semaphore.
fn waiters() -> Result<(Crowd, Selector), Failure> {
    prepare()?;
    let sm = semaphore(0)?;
    TARGET.store(sm, Relaxed);
    let crowd = Crowd::new(ROOT_PD, MANY, waits, true)?;
    check!(reaches(&CAME, MANY)?);
    equal!(TOLD.load(Relaxed), 0);
    Ok((crowd, sm))
}

fn semaphore_goes() -> Outcome {
    let (crowd, sm) = waiters()?;
    destroy(sm);
    check!(reaches(&TOLD, MANY)?);
    crowd.end()?;
    clean()?;
    Ok(())
}

/// Some of those who are to be told go first; and the semaphore by its last capability.
fn waiters_go() -> Outcome {
    let (crowd, sm) = waiters()?;
    call(&Drop { base: sm, count: 1 })?;
    crowd.thin(3);
    // Those that went on another core may have been told before.
    check!(reaches(&TOLD, MANY - MANY.div_ceil(3))?);
    crowd.end()?;
    clean()?;
    Ok(())
}

fn wait(_: u64, header: Header) -> Header {
    // Whatever ends the wait is an answer.
    let _ = call(&SmDown { sm: GATE.load(Relaxed), flags: 0, deadline: UNTIL.load(Relaxed) });
    header
}

fn ask(_: u64, header: Header) -> Header {
    cloister_bare::kernel::ipc(NEXT.load(Relaxed), header.words(), 0).unwrap_or(header)
}

/// Threads that want to call a server which is waiting.
fn callers(server: Context, spread: bool) -> Result<Crowd, Failure> {
    TARGET.store(server.portal(0)?, Relaxed);
    let crowd = Crowd::new(ROOT_PD, MANY, calls, spread)?;
    check!(reaches(&CAME, MANY)?);
    equal!(TOLD.load(Relaxed), 0);
    Ok(crowd)
}

fn server_goes() -> Outcome {
    for spread in [false, true] {
        prepare()?;
        let server = server(wait, &Options::default())?;
        let crowd = callers(server, spread)?;
        server.destroy();
        check!(reaches(&TOLD, MANY)?);
        crowd.end()?;
        clean()?;
    }
    Ok(())
}

fn callers_go() -> Outcome {
    for spread in [false, true] {
        prepare()?;
        let server = server(wait, &Options::default())?;
        let crowd = callers(server, spread)?;
        // What waits for it goes on in pieces; some of these go before it is their turn; and then it goes itself.
        up(GATE.load(Relaxed))?;
        crowd.thin(3);
        server.destroy();
        crowd.thin(2);
        crowd.end()?;
        clean()?;
    }
    Ok(())
}

/// It is the time that lets the server go on, while somebody more urgent keeps asking: all who waited for the server are let go, and whoever asks is
/// answered.
fn server_wakes() -> Outcome {
    prepare()?;
    UNTIL.store(time::after(200_000), Relaxed);
    let server = server(wait, &Options::default())?;
    TARGET.store(server.portal(0)?, Relaxed);
    let crowd = Crowd::new(ROOT_PD, 4, calls, false)?;
    check!(reaches(&CAME, 4)?);
    let end = UNTIL.load(Relaxed) + (time::after(20_000) - time::now());
    while time::now() < end {
        used(ROOT_PD)?;
    }
    server.destroy();
    crowd.end()?;
    clean()?;
    Ok(())
}

/// The one that goes is between the crowd and the one that waits.
fn middle_goes() -> Outcome {
    prepare()?;
    let last = server(wait, &Options::default())?;
    NEXT.store(last.portal(0)?, Relaxed);
    let middle = server(ask, &Options::default())?;
    let crowd = callers(middle, false)?;
    middle.destroy();
    check!(reaches(&TOLD, MANY)?);
    crowd.end()?;
    last.destroy();
    clean()?;
    Ok(())
}

/// Tables of this program's selectors that are made for one more crowd.
const TABLES: u64 = (2 * MANY as u64).div_ceil(512) * PAGE;

/// All of it in a domain: its memory is back.
fn domain_goes() -> Outcome {
    prepare()?;
    let mut before = None;
    // Twice: the second time is watched.
    for _ in 0..2 {
        CAME.store(0, Relaxed);
        let domain = Domain::with_image(0x80_0000)?;
        let sm = selectors(1);
        call(&CreateSm { sel: sm, pd: domain.pd, count: 0, target: NONE, bit: 0 })?;
        TARGET.store(sm, Relaxed);
        give(domain.objects, sm, sm, Perms::SM_DOWN)?;
        let crowd = Crowd::new(domain.pd, MANY, waits, true)?;
        check!(reaches(&CAME, MANY)?);
        destroy(domain.pd);
        equal!(call(&SmUp { sm }), Err(Status::BadCapability));
        call(&Drop { base: domain.pd, count: 4 })?;
        call(&Drop { base: sm, count: 1 })?;
        crowd.end()?;
        let mut rounds = 0;
        while before.is_some_and(|before| used(ROOT_PD).is_ok_and(|now| now > before + TABLES)) && rounds < 100 {
            check!(reaches(&CAME, 0)?);
            rounds += 1;
        }
        let now = used(ROOT_PD)?;
        if let Some(before) = before.replace(now) {
            check!(now <= before + TABLES);
        }
    }
    clean()?;
    Ok(())
}
