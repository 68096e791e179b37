// SPDX-License-Identifier: MIT OR Apache-2.0
//! Two cores that do opposite things to the same object at the same time: one takes references to it, the other drops the last one.
//!
//! What goes wrong here goes wrong late: memory that was given back twice or is still referred to is somebody else's by then. So each
//! race is run many times, and then the account must be what it was.

use crate::cores::another;
use crate::harness::{Outcome, Test, alive};
use crate::make::{down_for, rest, semaphore, silent, up, used};
use crate::{check, equal};
use cloister_abi::cap::{NONE, Perms, Selector};
use cloister_abi::hip::{ROOT_OBJECTS, ROOT_PD};
use cloister_abi::hypercall::{CreateEc, CreatePt, CreateSc, CreateSm, Delegate, Destroy, Drop, EcFlags, SmUp};
use cloister_abi::status::Status;
use cloister_bare::domain::Domain;
use cloister_bare::kernel::{call, ipc, selector};
use cloister_bare::thread::{Context, Options, QUANTUM, destroy, prepare, server, spawn, spawn_on, start};
use cloister_bare::time;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};

pub(crate) static TESTS: [Test; 4] = [
    ("race-signal-of-a-dropped-semaphore", || race(0)),
    ("race-delegation-of-a-dropped-semaphore", || race(1)),
    ("race-portal-of-a-dropped-thread", portal_race),
    ("race-time-destroyed-on-its-way", times_on_their_way),
];

const PRIORITY: u32 = 60;
/// Objects made and dropped at most, and microseconds that this may take: on a busy host the cores wait for each other.
const ROUNDS: u64 = 4_000;
const TIME: u64 = 1_500_000;

static PD: AtomicU32 = AtomicU32::new(0);
/// Where the object comes and goes; where the other core puts what it makes of it.
static PLACE: AtomicU32 = AtomicU32::new(0);
static MADE: AtomicU32 = AtomicU32::new(0);
static WON: AtomicU64 = AtomicU64::new(0);
static STOP: AtomicBool = AtomicBool::new(false);
static DONE: AtomicU32 = AtomicU32::new(0);

/// A signal of the semaphore, used once.
fn signal(place: Selector, sel: Selector) -> Result<(), Status> {
    call(&CreateSm { sel, pd: PD.load(Relaxed), count: 0, target: place, bit: 3 })?;
    call(&SmUp { sm: sel })?;
    call(&Drop { base: sel, count: 1 }).map(drop)
}

/// A second capability, used once.
fn delegate(place: Selector, sel: Selector) -> Result<(), Status> {
    let (src_base, dst_base, rights) = (place.into(), sel.into(), Perms::ALL.bits().into());
    call(&Delegate { src: ROOT_OBJECTS, dst: ROOT_OBJECTS, src_base, dst_base, order: 0, rights })?;
    call(&SmUp { sm: sel })?;
    call(&Drop { base: sel, count: 1 }).map(drop)
}

/// A portal into the thread.
fn portal(place: Selector, sel: Selector) -> Result<(), Status> {
    call(&CreatePt { sel, pd: PD.load(Relaxed), ec: place, ip: 0x1000, id: 0 })?;
    call(&Drop { base: sel, count: 1 }).map(drop)
}

/// Takes a reference to what is at the first selector, and puts what it made at the second one.
type Way = fn(Selector, Selector) -> Result<(), Status>;
/// By number.
const WAYS: [Way; 3] = [signal, delegate, portal];

extern "C" fn taker(way: u64) -> ! {
    let way = usize::try_from(way).ok().and_then(|way| WAYS.get(way)).copied().unwrap_or(signal);
    while !STOP.load(Relaxed) {
        if way(PLACE.load(Relaxed), MADE.load(Relaxed)).is_ok() {
            WON.fetch_add(1, Relaxed);
        }
    }
    let _ = up(DONE.load(Relaxed));
    rest()
}

/// Runs `round` here, and `way` on another core.
fn against(way: u64, domain: &Domain, rounds: u64, round: impl Fn() -> Result<(), Status>) -> Outcome {
    let core = another()?;
    let done = semaphore(0)?;
    DONE.store(done, Relaxed);
    PD.store(domain.pd, Relaxed);
    PLACE.store(selector(), Relaxed);
    MADE.store(selector(), Relaxed);
    WON.store(0, Relaxed);
    STOP.store(false, Relaxed);
    let before = used(domain.pd)?;
    let thread = spawn_on(core, taker, way, PRIORITY)?;
    let (end, last) = (time::after(TIME), time::after(60_000_000));
    for index in 0.. {
        let (enough, met) = (index >= rounds || time::now() > end, WON.load(Relaxed) > 0);
        if index % 64 == 0 {
            alive();
        }
        // The other core may come late.
        if enough && (met || time::now() > last) {
            break;
        }
        round()?;
    }
    alive();
    STOP.store(true, Relaxed);
    down_for(done, 5_000_000)?;
    thread.destroy();
    call(&Drop { base: PLACE.load(Relaxed), count: 1 })?;
    call(&Drop { base: MADE.load(Relaxed), count: 1 })?;
    // It was no use if they never met.
    check!(WON.load(Relaxed) > 0);
    for _ in 0..1000 {
        if used(domain.pd)? == before {
            break;
        }
        let _ = down_for(done, 1000);
    }
    equal!(used(domain.pd)?, before);
    destroy(done);
    Ok(())
}

fn race(way: u64) -> Outcome {
    let domain = Domain::empty(0x10_0000)?;
    against(way, &domain, ROUNDS, || {
        let sel = PLACE.load(Relaxed);
        call(&CreateSm { sel, pd: domain.pd, count: 0, target: NONE, bit: 0 })?;
        call(&Drop { base: sel, count: 1 }).map(drop)
    })?;
    destroy(domain.pd);
    Ok(())
}

fn portal_race() -> Outcome {
    let domain = Domain::with_image(0x20_0000)?;
    let utcb = 0x6000_0000;
    against(2, &domain, ROUNDS / 4, || {
        let sel = PLACE.load(Relaxed);
        let flags = CreateEc::pack(EcFlags::empty(), 0, NONE);
        let new = CreateEc { sel, pd: domain.pd, flags, utcb, sp: 0, ip: 0 };
        // The last one's message page may still be there.
        match call(&new) {
            Ok(_) | Err(Status::Busy) => {}
            Err(status) => return Err(status),
        }
        call(&Drop { base: sel, count: 1 }).map(drop)
    })?;
    destroy(domain.pd);
    Ok(())
}

/// Threads that call another core.
const TRAVELLERS: usize = 24;
/// How often each gets time that is destroyed as soon as it has left.
const JOURNEYS: u64 = 400;

static THREADS: [AtomicU32; TRAVELLERS] = [const { AtomicU32::new(0) }; TRAVELLERS];
static PORTAL: AtomicU32 = AtomicU32::new(0);

/// Calls the other core, until it is told to stop.
extern "C" fn traveller(_: u64) -> ! {
    while !STOP.load(Relaxed) {
        let _ = ipc(PORTAL.load(Relaxed), 0, 0);
    }
    let _ = up(DONE.load(Relaxed));
    rest()
}

/// Gives the travellers time, which leaves with their calls at once, and destroys it.
extern "C" fn thief(rounds: u64) -> ! {
    let sel = PLACE.load(Relaxed);
    for _ in 0..rounds {
        for thread in &THREADS {
            let time =
                CreateSc { sel, pd: ROOT_PD, ec: thread.load(Relaxed), priority: PRIORITY + 1, quantum: QUANTUM };
            if call(&time).is_ok() && call(&Destroy { sel }).is_ok() {
                WON.fetch_add(1, Relaxed);
            }
        }
        alive();
    }
    let _ = up(DONE.load(Relaxed));
    rest()
}

/// Time that travels is destroyed before it arrives. The core that it comes to sends it back, and must not touch it after that: the core
/// of the caller may have it already.
fn times_on_their_way() -> Outcome {
    let core = another()?;
    let done = semaphore(0)?;
    DONE.store(done, Relaxed);
    PLACE.store(selector(), Relaxed);
    WON.store(0, Relaxed);
    STOP.store(false, Relaxed);
    let there = server(silent, &Options { core, ..Options::default() })?;
    PORTAL.store(there.portal(0)?, Relaxed);
    let mut threads = [None; TRAVELLERS];
    for (place, thread) in THREADS.iter().zip(&mut threads) {
        let new = prepare(traveller, 0, &Options::default())?;
        place.store(new.ec, Relaxed);
        *thread = Some(new);
    }
    let thief = spawn(thief, JOURNEYS, PRIORITY)?;
    down_for(done, 60_000_000)?;
    check!(WON.load(Relaxed) > JOURNEYS);
    thief.destroy();
    // Each caller has been told.
    STOP.store(true, Relaxed);
    for thread in threads.iter_mut().flatten() {
        start(thread, PRIORITY, QUANTUM)?;
    }
    for _ in &threads {
        down_for(done, 5_000_000)?;
    }
    threads.iter().flatten().for_each(Context::destroy);
    there.destroy();
    // Nobody refers to the callers any more, so that their message pages are free.
    let (sel, flags) = (selector(), CreateEc::pack(EcFlags::empty(), 0, NONE));
    for thread in threads.iter().flatten() {
        let new = CreateEc { sel, pd: ROOT_PD, flags, utcb: thread.utcb, sp: 0, ip: 0 };
        for _ in 0..1000 {
            if call(&new) != Err(Status::Busy) {
                break;
            }
            let _ = down_for(done, 1000);
        }
        call(&Destroy { sel })?;
    }
    destroy(done);
    Ok(())
}
