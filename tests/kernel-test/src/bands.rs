// SPDX-License-Identifier: MIT OR Apache-2.0
//! Priorities come from above: nobody has one that his creator did not give him, whatever he makes, and with whose capabilities.

use crate::harness::{Outcome, Test};
use crate::make::{down_for, give, increment, rest, semaphore, up};
use crate::{check, equal, refused};
use cloister_abi::PRIORITIES;
use cloister_abi::cap::{Access, NONE, Perms, Selector};
use cloister_abi::hip::ROOT_PD;
use cloister_abi::hypercall::{CreateEc, CreatePd, CreateSc, Destroy, EcFlags};
use cloister_abi::status::Status;
use cloister_bare::domain::Domain;
use cloister_bare::kernel::{call, ipc, selector, selectors};
use cloister_bare::memory::{PAGE, addresses};
use cloister_bare::thread::{Context, Options, STACK_ORDER, destroy, prepare, spawn};
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

pub(crate) static TESTS: [Test; 5] = [
    ("band-is-within-the-payers", within),
    ("band-is-inherited", inherited),
    ("band-bounds-payer-and-thread", bounds),
    ("band-holds-a-hostile-component", hostile),
    ("band-is-left-by-a-call", calls),
];

/// All priorities.
const ALL: u32 = 128;
const _: () = assert!(ALL as usize == PRIORITIES);
/// Priorities of the component under test.
const BAND: u32 = 30;
const BUDGET: u64 = 0x10_0000;

fn banded(payer: Selector, budget: u64, priorities: u32) -> Result<Selector, Status> {
    let sel = selectors(4);
    call(&CreatePd { sel, pd: payer, budget, priorities })?;
    Ok(sel)
}

/// A thread of a PD that does not run yet, and stops at its first instruction when it does.
fn idle(pd: Selector) -> Result<Selector, Status> {
    let (sel, flags) = (selector(), CreateEc::pack(EcFlags::GLOBAL, 0, NONE));
    call(&CreateEc { sel, pd, flags, utcb: addresses(0), sp: 0, ip: PAGE })?;
    Ok(sel)
}

/// Whether a thread can have an SC of that priority on somebody's account.
fn can(pd: Selector, ec: Selector, priority: u32) -> Result<bool, Status> {
    let sel = selector();
    match call(&CreateSc { sel, pd, ec, priority, quantum: 1000 }) {
        Ok(_) => call(&Destroy { sel }).map(|_| true),
        Err(Status::BadParameter) => Ok(false),
        Err(other) => Err(other),
    }
}

fn within() -> Outcome {
    let sel = selectors(4);
    for priorities in [ALL + 1, 1 << 8, 1 << 31, u32::MAX] {
        refused!(BadParameter, CreatePd { sel, pd: ROOT_PD, budget: BUDGET, priorities });
    }
    let pd = banded(ROOT_PD, BUDGET, BAND)?;
    for priorities in [BAND + 1, ALL, u32::MAX] {
        refused!(BadParameter, CreatePd { sel, pd, budget: 0x8000, priorities });
    }
    // Nothing was taken for what was refused.
    let inner = banded(pd, BUDGET - 0x1_0000, BAND)?;
    refused!(BadParameter, CreatePd { sel, pd: inner, budget: 0x8000, priorities: BAND + 1 });
    let least = banded(inner, 0x8000, 1)?;
    refused!(BadParameter, CreatePd { sel, pd: least, budget: 0, priorities: 2 });
    destroy(pd);
    Ok(())
}

fn inherited() -> Outcome {
    let all = banded(ROOT_PD, BUDGET, 0)?;
    let ec = idle(all)?;
    check!(can(all, ec, ALL - 1)?);
    check!(!can(all, ec, ALL)?);
    let outer = banded(all, BUDGET / 2, BAND)?;
    let inner = banded(outer, BUDGET / 4, 0)?;
    let ec = idle(inner)?;
    check!(can(inner, ec, 0)?);
    check!(can(inner, ec, BAND - 1)?);
    check!(!can(inner, ec, BAND)?);
    destroy(all);
    Ok(())
}

/// Who pays must have the priority, and so must the thread's own PD.
fn bounds() -> Outcome {
    let (low, high) = (banded(ROOT_PD, BUDGET, BAND)?, banded(ROOT_PD, BUDGET, 2 * BAND)?);
    let (idle_low, idle_high) = (idle(low)?, idle(high)?);
    for (payer, ec, limit) in [
        (low, idle_low, BAND),
        (high, idle_low, BAND),
        (ROOT_PD, idle_low, BAND),
        (low, idle_high, BAND),
        (high, idle_high, 2 * BAND),
        (ROOT_PD, idle_high, 2 * BAND),
    ] {
        for priority in 0..ALL {
            equal!(can(payer, ec, priority)?, priority < limit);
        }
    }
    [low, high].into_iter().for_each(destroy);
    Ok(())
}

/// What a hostile component has at its own selectors.
const OWN_PD: Selector = 100;
const OWN_EC: Selector = 101;
const DONE: Selector = 102;
/// A PD of the same band with which it conspires.
const FRIEND: Selector = 103;
const NEW: Selector = 110;

/// How often it got what it should not, should, and how often it was told something else.
static TOO_MUCH: AtomicU64 = AtomicU64::new(0);
static GRANTED: AtomicU64 = AtomicU64::new(0);
static STRANGE: AtomicU64 = AtomicU64::new(0);

/// Tries to get a priority for its other thread, by all PDs that it has or can make.
extern "C" fn climb(_: u64) -> ! {
    for priorities in (0..=ALL + 1).chain([u32::MAX]) {
        for payer in [OWN_PD, FRIEND] {
            let made = call(&CreatePd { sel: NEW, pd: payer, budget: 0x1_0000, priorities });
            note(made.map(drop), priorities <= BAND);
            for payer in [payer, NEW] {
                for priority in [0, BAND - 1, BAND, 64, ALL - 1] {
                    let sc = CreateSc { sel: NEW + 4, pd: payer, ec: OWN_EC, priority, quantum: 1 };
                    let band = if payer == NEW && priorities != 0 { priorities } else { BAND };
                    if made.is_ok() || payer != NEW {
                        note(call(&sc).map(drop), priority < band);
                        let _ = call(&Destroy { sel: NEW + 4 });
                    }
                }
            }
            destroy(NEW);
        }
    }
    let _ = up(DONE);
    rest()
}

fn note(answer: Result<(), Status>, allowed: bool) {
    let counter = match answer {
        Ok(()) if !allowed => &TOO_MUCH,
        Ok(()) => &GRANTED,
        Err(Status::BadParameter) if !allowed => return,
        Err(_) => &STRANGE,
    };
    counter.fetch_add(1, Relaxed);
}

/// A thread of a domain that runs a function of this program there.
fn inmate(domain: Domain, function: extern "C" fn(u64) -> !) -> Result<Context, Status> {
    let thread = prepare(function, 0, &Options { pd: domain.pd, ..Options::default() })?;
    let size = PAGE << STACK_ORDER;
    domain.share(thread.stack - size, size, Access::READ | Access::WRITE)?;
    Ok(thread)
}

fn hostile() -> Outcome {
    [&TOO_MUCH, &GRANTED, &STRANGE].iter().for_each(|counter| counter.store(0, Relaxed));
    let (pd, friend) = (banded(ROOT_PD, BUDGET, BAND)?, banded(ROOT_PD, BUDGET, BAND)?);
    let domain = Domain { pd, objects: pd + 1, host: pd + 2, ports: pd + 3 };
    domain.share_image()?;
    let (thread, other) = (inmate(domain, climb)?, idle(friend)?);
    let done = semaphore(0)?;
    for (sel, to) in [(pd, OWN_PD), (other, OWN_EC), (done, DONE), (friend, FRIEND)] {
        give(domain.objects, sel, to, Perms::ALL)?;
    }
    let sel = selector();
    call(&CreateSc { sel, pd, ec: thread.ec, priority: BAND - 1, quantum: 1000 })?;
    check!(down_for(done, 10_000_000).is_ok());
    [pd, friend, done].into_iter().for_each(destroy);
    equal!(TOO_MUCH.load(Relaxed), 0);
    equal!(STRANGE.load(Relaxed), 0);
    check!(GRANTED.load(Relaxed) > 100);
    Ok(())
}

static TURNS: AtomicU64 = AtomicU64::new(0);

extern "C" fn compete(_: u64) -> ! {
    loop {
        TURNS.fetch_add(1, Relaxed);
    }
}

/// A call lends the caller's priority, also to a component that could not have it on its own: who is between the two does not get in.
fn calls() -> Outcome {
    let pd = banded(ROOT_PD, BUDGET, 1)?;
    let domain = Domain { pd, objects: pd + 1, host: pd + 2, ports: pd + 3 };
    domain.share_image()?;
    let server = domain.server(increment)?;
    let portal = server.portal(7)?;
    TURNS.store(0, Relaxed);
    let between = spawn(compete, 0, BAND)?;
    let answer = ipc(portal, 0, 0);
    let turns = TURNS.load(Relaxed);
    between.destroy();
    destroy(pd);
    check!(answer.is_ok());
    equal!(turns, 0);
    Ok(())
}
