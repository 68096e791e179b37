// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sixteen components in a row, each of which serves its caller by calling the next one: the head's priority runs the tail, and when one
//! in the middle goes, all before it are told.

use crate::harness::{Outcome, Test};
use crate::make::{down, down_for, give, rest, semaphore, try_down, up};
use crate::{check, equal};
use cloister_abi::arch::x86_64::HYPERCALL_BASE;
use cloister_abi::cap::{Access, NONE, Perms, Selector};
use cloister_abi::hip::{MACHINE, ROOT_PD};
use cloister_abi::hypercall::{
    Call, CreateEc, CreatePd, CreatePt, Drop, EcFlags, IpcReply, MachineControl, MachineOp, PdInfo,
};
use cloister_abi::status::Status;
use cloister_abi::utcb::Header;
use cloister_bare::domain::Domain;
use cloister_bare::kernel::{call, ipc, message, selectors};
use cloister_bare::memory::{PAGE, pages};
use cloister_bare::thread::{Context, destroy, spawn};
use core::arch::naked_asm;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

pub(crate) static TESTS: [Test; 4] = [
    ("chain-of-16-answers", answers),
    ("chain-of-16-inherits-priority", inherits),
    ("chain-of-16-loses-its-middle-component", || cut(true)),
    ("chain-of-16-loses-its-middle-thread", || cut(false)),
];

/// Components in the row.
const LENGTH: u32 = 16;
/// The one that goes.
const MIDDLE: u32 = 8;
/// Selectors of a component here: PD, spaces, server, portal.
const SELECTORS: u32 = 6;
const SERVER: Selector = 4;
const PORTAL: Selector = 5;
/// What each component has at its own selectors.
const NEXT: Selector = 20;
const STARTED: Selector = 21;
const GATE: Selector = 22;
/// Address of the server's message page in its component.
const PAGE_AT: u64 = 0x6000_0000;
/// What a component adds to a status that it was answered.
const FAILED: u64 = 0x100;

/// Above the thread that runs the tests, and below it.
const HIGH: u32 = 120;
const MEDIUM: u32 = 40;
const LOW: u32 = 1;

/// What the last one does: turns it takes, or waits at the gate.
static TURNS: AtomicU64 = AtomicU64::new(0);
static SPUN: AtomicU64 = AtomicU64::new(0);
static OTHER: AtomicU64 = AtomicU64::new(0);

static HEAD: AtomicU32 = AtomicU32::new(0);
static DONE: AtomicU32 = AtomicU32::new(0);
/// What callers wait for, and what they were answered.
static GO: [AtomicU32; 3] = [const { AtomicU32::new(0) }; 3];
static RESULTS: [AtomicU64; 3] = [const { AtomicU64::new(0) }; 3];

/// The row, and what belongs to it.
#[derive(Clone, Copy, Debug)]
struct Chain {
    base: Selector,
    started: Selector,
    gate: Selector,
    clock: Selector,
}

/// A server's entry: the stack is where it was when it answered last.
#[unsafe(naked)]
extern "C" fn entry() -> ! {
    naked_asm!("call {link}", "mov rdi, rax", "mov eax, {reply}", "syscall", "ud2",
        link = sym link, reply = const HYPERCALL_BASE + IpcReply::NUMBER)
}

/// Calls the next one, and answers what that answered, with one added to the first word; the last one works or waits.
extern "C" fn link(index: u64, header: u64) -> u64 {
    let value = if index + 1 < u64::from(LENGTH) {
        ipc(NEXT, Header(header).words(), 0).map_or_else(|status| FAILED + status as u64, |_| message().get(0))
    } else {
        let _ = up(STARTED);
        if TURNS.load(Relaxed) == 0 {
            let _ = down(GATE);
        }
        while SPUN.load(Relaxed) < TURNS.load(Relaxed) {
            SPUN.fetch_add(1, Relaxed);
        }
        message().get(0)
    };
    message().set(0, if value < FAILED { value + 1 } else { value });
    Header::new(1, 0).0
}

impl Chain {
    /// Room for the row: what this program needs for it is not given back.
    fn room() -> Result<(Self, u64), Status> {
        let (stacks, _) = pages(LENGTH.ilog2())?;
        let chain = Self {
            base: selectors(LENGTH * SELECTORS),
            started: semaphore(0)?,
            gate: semaphore(0)?,
            clock: semaphore(0)?,
        };
        Ok((chain, stacks))
    }

    const fn of(self, index: u32) -> Selector {
        self.base + index * SELECTORS
    }

    /// Makes it, from its end.
    fn make(self, stacks: u64) -> Result<(), Status> {
        for index in (0..LENGTH).rev() {
            let pd = self.of(index);
            let (domain, stack) =
                (Domain { pd, objects: pd + 1, host: pd + 2, ports: pd + 3 }, stacks + u64::from(index) * PAGE);
            call(&CreatePd { sel: pd, pd: ROOT_PD, budget: 0x8_0000, priorities: 0 })?;
            domain.share_image()?;
            domain.share(stack, PAGE, Access::READ | Access::WRITE)?;
            let flags = CreateEc::pack(EcFlags::empty(), 0, NONE);
            call(&CreateEc { sel: pd + SERVER, pd, flags, utcb: PAGE_AT, sp: stack + PAGE, ip: 0 })?;
            let ip = entry as *const () as u64;
            call(&CreatePt { sel: pd + PORTAL, pd, ec: pd + SERVER, ip, id: index.into() })?;
            give(domain.objects, self.started, STARTED, Perms::SM_UP)?;
            give(domain.objects, self.gate, GATE, Perms::SM_DOWN)?;
            if index + 1 < LENGTH {
                give(domain.objects, self.of(index + 1) + PORTAL, NEXT, Perms::PT_CALL)?;
            }
        }
        HEAD.store(self.base + PORTAL, Relaxed);
        while try_down(self.started).is_ok() {}
        Ok(())
    }

    fn end(self) -> Result<(), Status> {
        (0..LENGTH).for_each(|index| destroy(self.of(index)));
        call(&Drop { base: self.base, count: LENGTH * SELECTORS }).map(drop)
    }
}

/// Budget and used of the own account, and what is free in the pool.
fn account() -> Result<(u64, u64, u64), Status> {
    let (limit, used) = call(&PdInfo { pd: ROOT_PD })?;
    let (_, free) = call(&MachineControl { machine: MACHINE, operation: MachineOp::Memory as u64, value: 0 })?;
    Ok((limit, used, free))
}

/// Does it twice: after the first time nothing may be missing any more.
fn twice(body: impl Fn(Chain) -> Outcome) -> Outcome {
    let (chain, stacks) = Chain::room()?;
    let mut before = None;
    for _ in 0..2 {
        chain.make(stacks)?;
        body(chain)?;
        chain.end()?;
        for _ in 0..100 {
            if before.is_some_and(|before| account().is_ok_and(|now| now == before)) {
                break;
            }
            let _ = down_for(chain.clock, 1000);
        }
        let now = account()?;
        if let Some(before) = before.replace(now) {
            equal!(now, before);
        }
    }
    Ok(())
}

fn answers() -> Outcome {
    twice(|_| {
        TURNS.store(1, Relaxed);
        SPUN.store(0, Relaxed);
        message().set(0, 5);
        equal!(ipc(HEAD.load(Relaxed), 1, 0)?, Header::new(1, 0));
        equal!(message().get(0), 5 + u64::from(LENGTH));
        Ok(())
    })
}

/// Calls the head each time it is told to.
extern "C" fn caller(place: u64) -> ! {
    let Some((go, result)) = usize::try_from(place).ok().and_then(|place| Some((GO.get(place)?, RESULTS.get(place)?)))
    else {
        rest()
    };
    loop {
        let _ = down(go.load(Relaxed));
        message().set(0, 5);
        let answer = ipc(HEAD.load(Relaxed), 1, 0);
        result.store(answer.map_or_else(|status| FAILED + status as u64, |_| message().get(0)), Relaxed);
        let _ = up(DONE.load(Relaxed));
    }
}

extern "C" fn competitor(_: u64) -> ! {
    loop {
        OTHER.fetch_add(1, Relaxed);
    }
}

/// Callers that wait to be told to call, and a semaphore that counts their answers.
fn callers(priorities: [u32; 3]) -> Result<([Context; 3], Selector), Status> {
    let done = semaphore(0)?;
    DONE.store(done, Relaxed);
    for go in &GO {
        go.store(semaphore(0)?, Relaxed);
    }
    let [a, b, c] = priorities;
    Ok(([spawn(caller, 0, a)?, spawn(caller, 1, b)?, spawn(caller, 2, c)?], done))
}

fn go(place: usize) -> Result<(), Status> {
    RESULTS[place].store(0, Relaxed);
    up(GO[place].load(Relaxed))
}

/// An unimportant thread's call is at the end of the row. Somebody of medium importance takes all its time. The more important caller
/// at the head lends the end its own, all along the row.
fn inherits() -> Outcome {
    let (chain, stacks) = Chain::room()?;
    chain.make(stacks)?;
    let (threads, done) = callers([LOW; 3])?;
    TURNS.store(2_000_000, Relaxed);
    SPUN.store(0, Relaxed);
    go(0)?;
    down_for(chain.started, 5_000_000)?;
    check!(SPUN.load(Relaxed) < TURNS.load(Relaxed));
    OTHER.store(0, Relaxed);
    let medium = spawn(competitor, 0, MEDIUM)?;
    // The medium one runs while nobody above it has anything to do, and the unimportant one does not.
    let spun = SPUN.load(Relaxed);
    // An emulator on a busy machine may leave the core without time for a while.
    for _ in 0..500 {
        equal!(down_for(chain.clock, 3_000), Err(Status::Timeout));
        if OTHER.load(Relaxed) > 0 {
            break;
        }
    }
    let other = OTHER.load(Relaxed);
    check!(other > 0);
    equal!(SPUN.load(Relaxed), spun);
    message().set(0, 7);
    equal!(ipc(HEAD.load(Relaxed), 1, 0)?, Header::new(1, 0));
    equal!(message().get(0), 7 + u64::from(LENGTH));
    equal!(SPUN.load(Relaxed), TURNS.load(Relaxed));
    equal!(OTHER.load(Relaxed), other);
    medium.destroy();
    down_for(done, 5_000_000)?;
    equal!(RESULTS[0].load(Relaxed), 5 + u64::from(LENGTH));
    threads.iter().for_each(Context::destroy);
    chain.end()?;
    Ok(())
}

/// The end of the row waits; one caller is in the row, two wait for their turn at its head. Then a link in the middle goes.
fn cut(whole: bool) -> Outcome {
    let (threads, done) = callers([HIGH, HIGH - 1, LOW])?;
    TURNS.store(0, Relaxed);
    twice(|chain| {
        (0..threads.len()).try_for_each(go)?;
        equal!(try_down(chain.started), Ok(1));
        equal!(try_down(done), Err(Status::Timeout));
        destroy(if whole { chain.of(MIDDLE) } else { chain.of(MIDDLE) + SERVER });
        for _ in 0..threads.len() {
            down_for(done, 1_000_000)?;
        }
        // Who was in the row; and who came when the link was gone already.
        let told = [Status::Aborted, Status::BadCapability, Status::BadCapability].map(|status| FAILED + status as u64);
        equal!(RESULTS.each_ref().map(|result| result.load(Relaxed)), told);
        Ok(())
    })?;
    threads.iter().for_each(Context::destroy);
    Ok(())
}
