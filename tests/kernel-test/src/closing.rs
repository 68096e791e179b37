// SPDX-License-Identifier: MIT OR Apache-2.0
//! An account that is being destroyed: nothing new is made on it that outlives it, whoever is at it on another core, and its memory is
//! another's only when nobody is.

use crate::cores::another;
use crate::guest_guards::needed;
use crate::harness::{Outcome, Test, alive};
use crate::make::{down_for, rest, semaphore, up, used};
use crate::{check, equal, refused};
use cloister_abi::cap::{NONE, Selector, SpaceKind};
use cloister_abi::hip::{ROOT_HOST, ROOT_PD};
use cloister_abi::hypercall::{CreateEc, CreatePd, CreateSm, CreateSpace, CreateVcpu, Destroy, Drop, EcFlags};
use cloister_abi::status::Status;
use cloister_bare::kernel::{call, selector, selectors};
use cloister_bare::memory::{PAGE, addresses};
use cloister_bare::thread::{destroy, spawn_on};
use cloister_bare::time;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};

pub(crate) static TESTS: [Test; 3] = [
    ("closing-account-takes-nothing", takes_nothing),
    ("closing-account-while-another-core-creates", while_another_creates),
    ("closing-account-waits-for-those-at-it", waits),
];

const PRIORITY: u32 = 60;
/// Microseconds in which the other core must have done something, on a busy host.
const PATIENCE: u64 = 10_000_000;
/// Of the accounts here.
const BUDGET: u64 = 0x10_0000;

/// Where the account comes and goes; the first selector for what is made on it; a guest's memory.
static PLACE: AtomicU32 = AtomicU32::new(0);
static MADE: AtomicU32 = AtomicU32::new(0);
static GUEST: AtomicU32 = AtomicU32::new(0);
/// The other core begins, and has ended.
static GO: AtomicU32 = AtomicU32::new(0);
static DONE: AtomicU32 = AtomicU32::new(0);
static STOP: AtomicBool = AtomicBool::new(false);
/// How many were made; how many calls were answered.
static COUNT: AtomicU64 = AtomicU64::new(0);
static CALLS: AtomicU64 = AtomicU64::new(0);
/// Of the PDs, ECs or state pages.
static ADDRESS: AtomicU64 = AtomicU64::new(0);

/// Makes something on an account: a semaphore, a domain, an EC, a guest's memory.
fn make(way: u64, pd: Selector, index: u32) -> Result<(), Status> {
    // A domain takes four.
    let sel = MADE.load(Relaxed) + 4 * index;
    match way {
        0 => call(&CreateSm { sel, pd, count: 0, target: NONE, bit: 0 }),
        1 => call(&CreatePd { sel, pd, budget: 0x8000, priorities: 0 }),
        2 => {
            let (flags, utcb) =
                (CreateEc::pack(EcFlags::empty(), 0, NONE), ADDRESS.load(Relaxed) + PAGE * u64::from(index));
            call(&CreateEc { sel, pd, flags, utcb, sp: 0, ip: 0x1000 })
        }
        _ => call(&CreateSpace { sel, pd, kind: SpaceKind::Guest as u64 }),
    }
    .map(drop)
}

const WAYS: u64 = 4;
/// So many at once at most.
const MOST: u32 = 100;

/// Takes selectors, and lets the tables grow that stay.
fn place() -> Result<(), Status> {
    let (sel, made) = (selectors(4), selectors(4 * MOST));
    for sel in [sel, sel + 3, made, made + 4 * MOST - 1] {
        call(&CreateSm { sel, pd: ROOT_PD, count: 0, target: NONE, bit: 0 })?;
        call(&Drop { base: sel, count: 1 })?;
    }
    PLACE.store(sel, Relaxed);
    MADE.store(made, Relaxed);
    ADDRESS.store(0x5000_0000, Relaxed);
    Ok(())
}

/// Between two pieces of its destruction an account is there still, and so are those below it.
fn takes_nothing() -> Outcome {
    place()?;
    let (outer, inner) = (PLACE.load(Relaxed), selectors(4));
    call(&CreatePd { sel: outer, pd: ROOT_PD, budget: 2 * BUDGET, priorities: 0 })?;
    call(&CreatePd { sel: inner, pd: outer, budget: BUDGET, priorities: 0 })?;
    let sel = selectors(3_000);
    for sel in sel..sel + 3_000 {
        call(&CreateSm { sel, pd: inner, count: 0, target: NONE, bit: 0 })?;
    }
    let mut pieces = 0;
    while call(&Destroy { sel: outer }) == Err(Status::Again) {
        for way in 0..WAYS {
            for pd in [outer, inner] {
                let why = make(way, pd, 0);
                check!(matches!(why, Err(Status::OutOfBudget | Status::BadCapability)));
            }
        }
        pieces += 1;
        check!(pieces < 1_000);
    }
    check!(pieces > 10);
    for sel in [sel, sel + 1_500, sel + 2_999, inner, outer] {
        refused!(BadCapability, Destroy { sel });
    }
    for base in (sel..sel + 3_000).step_by(500) {
        call(&Drop { base, count: 500 })?;
    }
    for base in [outer, inner] {
        call(&Drop { base, count: 4 })?;
    }
    Ok(())
}

/// Makes things until the account is gone.
extern "C" fn maker(_: u64) -> ! {
    for round in 0.. {
        let _ = crate::make::down(GO.load(Relaxed));
        let mut count = 0;
        while count < MOST {
            match make(round % WAYS, PLACE.load(Relaxed), count) {
                Ok(()) => count += 1,
                Err(Status::BadCapability) => break,
                Err(_) => {}
            }
            COUNT.store(count.into(), Relaxed);
        }
        let _ = up(DONE.load(Relaxed));
    }
    rest()
}

/// What another core makes on an account while it is destroyed goes with it, all of it.
fn while_another_creates() -> Outcome {
    let core = another()?;
    place()?;
    let (go, done) = (semaphore(0)?, semaphore(0)?);
    GO.store(go, Relaxed);
    DONE.store(done, Relaxed);
    let thread = spawn_on(core, maker, 0, PRIORITY)?;
    let mut before = 0;
    let end = time::after(3_000_000);
    for round in 0..800 {
        if round == 2 * WAYS {
            before = used(ROOT_PD)?;
        } else if round > 2 * WAYS && time::now() > end {
            break;
        }
        one_account(round)?;
        alive();
    }
    thread.destroy();
    destroy(go);
    destroy(done);
    settles(before)
}

fn one_account(round: u64) -> Outcome {
    let (sel, made) = (PLACE.load(Relaxed), MADE.load(Relaxed));
    COUNT.store(0, Relaxed);
    call(&CreatePd { sel, pd: ROOT_PD, budget: BUDGET, priorities: 0 })?;
    up(GO.load(Relaxed))?;
    let deadline = time::after(PATIENCE);
    while COUNT.load(Relaxed) < round % 16 {
        check!(time::now() < deadline);
    }
    destroy(sel);
    down_for(DONE.load(Relaxed), PATIENCE)?;
    let count = u32::try_from(COUNT.load(Relaxed)).unwrap_or(MOST);
    for index in 0..count {
        refused!(BadCapability, Destroy { sel: made + 4 * index });
    }
    call(&Drop { base: sel, count: 4 })?;
    call(&Drop { base: made, count: 4 * MOST })?;
    Ok(())
}

/// Nothing is used that was not before, as soon as other cores have done what they were asked.
fn settles(before: u64) -> Outcome {
    let deadline = time::after(PATIENCE);
    while used(ROOT_PD)? > before && time::now() < deadline {}
    check!(used(ROOT_PD)? <= before);
    Ok(())
}

/// A VCPU on that account: what takes longest to make.
fn vcpu(pd: Selector) -> CreateVcpu {
    let [sel, guest] = [&MADE, &GUEST].map(|place| place.load(Relaxed));
    CreateVcpu { sel, pd, guest, host: ROOT_HOST, address: ADDRESS.load(Relaxed), core: 0 }
}

/// Makes them as fast as it can.
extern "C" fn customer(_: u64) -> ! {
    while !STOP.load(Relaxed) {
        let new = vcpu(PLACE.load(Relaxed));
        let answer = call(&new);
        // It came while the account was there.
        COUNT.fetch_add(u64::from(answer != Err(Status::BadCapability)), Relaxed);
        if answer.is_ok() {
            destroy(new.sel);
            let _ = call(&Drop { base: new.sel, count: 1 });
        }
        CALLS.fetch_add(1, Relaxed);
    }
    let _ = up(DONE.load(Relaxed));
    rest()
}

/// Who looked an account up before it went is at it for as long as his call takes. Only then is its memory another's: an heir in its place
/// pays for nothing that was asked of the one before.
fn waits() -> Outcome {
    needed()?;
    let last = another()?;
    place()?;
    let (done, guest, heir) = (semaphore(0)?, selector(), selectors(4));
    call(&CreateSpace { sel: guest, pd: ROOT_PD, kind: SpaceKind::Guest as u64 })?;
    DONE.store(done, Relaxed);
    GUEST.store(guest, Relaxed);
    ADDRESS.store(addresses(0), Relaxed);
    COUNT.store(0, Relaxed);
    STOP.store(false, Relaxed);
    // Tables grow that stay.
    let first = vcpu(ROOT_PD);
    call(&first)?;
    destroy(first.sel);
    call(&Drop { base: first.sel, count: 1 })?;
    call(&CreatePd { sel: heir, pd: ROOT_PD, budget: BUDGET, priorities: 0 })?;
    let fresh = used(heir)?;
    destroy(heir);
    call(&Drop { base: heir, count: 4 })?;
    let customer = spawn_on(last, customer, 0, PRIORITY)?;
    let result = heirs(heir, fresh);
    STOP.store(true, Relaxed);
    down_for(done, PATIENCE)?;
    customer.destroy();
    [guest, done].into_iter().for_each(destroy);
    result
}

fn heirs(heir: Selector, fresh: u64) -> Outcome {
    let (sel, end, last) = (PLACE.load(Relaxed), time::after(2_000_000), time::after(15_000_000));
    let mut before = 0;
    for round in 0_u64.. {
        if round == 2 {
            before = used(ROOT_PD)?;
        } else if time::now() > end && (round > 100 && COUNT.load(Relaxed) > 0 || time::now() > last) {
            break;
        }
        alive();
        call(&CreatePd { sel, pd: ROOT_PD, budget: BUDGET, priorities: 0 })?;
        let calls = CALLS.load(Relaxed);
        let pause = time::now() + 1_009 * (round % 64);
        while time::now() < pause {}
        destroy(sel);
        call(&Drop { base: sel, count: 4 })?;
        // Whoever asks gets the number after all is back that can be: this lets the memory go.
        used(ROOT_PD)?;
        call(&CreatePd { sel: heir, pd: ROOT_PD, budget: BUDGET, priorities: 0 })?;
        let deadline = time::after(PATIENCE);
        while CALLS.load(Relaxed) < calls + 2 {
            check!(time::now() < deadline);
        }
        equal!(used(heir)?, fresh);
        destroy(heir);
        call(&Drop { base: heir, count: 4 })?;
    }
    check!(COUNT.load(Relaxed) > 0);
    settles(before)
}
