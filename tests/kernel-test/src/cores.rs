// SPDX-License-Identifier: MIT OR Apache-2.0
//! Several cores: threads of one core waked, stopped and robbed of their memory by another.

use crate::exceptions::{DONE, RESULT, recovered, store};
use crate::harness::{Failure, Outcome, Test, alive};
use crate::make::{down, down_for, rest, semaphore, up, used};
use crate::{check, equal, refused};
use cloister_abi::cap::{Access, NONE, Selector};
use cloister_abi::hip::{MACHINE_MEMORY, ROOT_HOST, ROOT_PD};
use cloister_abi::hypercall::{
    CreateEc, CreateSm, Delegate, Destroy, DownFlags, Drop, EcFlags, PdInfo, Revoke, ScTime, SmDown,
};
use cloister_abi::status::Status;
use cloister_abi::utcb::Header;
use cloister_bare::domain::Domain;
use cloister_bare::entry::hip;
use cloister_bare::kernel::{call, message, selector};
use cloister_bare::memory::{PAGE, addresses, frames, map, pages, read};
use cloister_bare::thread::{Options, QUANTUM, destroy, prepare, server, spawn_on, start};
use cloister_bare::time;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

pub(crate) static TESTS: [Test; 12] = [
    ("cores-that-are-not-there", not_there),
    ("cores-wake-each-other", ping_pong),
    ("cores-count-up-together", many_ups),
    ("cores-time-out", timeouts),
    ("cores-semaphore-destroyed", semaphore_destroyed),
    ("cores-thread-destroyed", thread_destroyed),
    ("cores-time-used", time_used),
    ("cores-scheduling-context-destroyed", time_taken),
    ("cores-exception", exception),
    ("cores-memory-revoked", revoked),
    ("cores-domain-destroyed", domain_destroyed),
    ("cores-create-and-destroy", churn),
];

const PRIORITY: u32 = 60;

/// The last core, if there is more than one.
pub(crate) fn another() -> Result<u8, Failure> {
    match u8::try_from(hip().cores) {
        Ok(cores) if cores > 1 => Ok(cores - 1),
        _ => Err(Failure::Skipped("one core")),
    }
}

fn not_there() -> Outcome {
    let core = u8::try_from(hip().cores).unwrap_or(u8::MAX);
    let flags = CreateEc::pack(EcFlags::GLOBAL, core, NONE);
    let utcb = addresses(0);
    refused!(BadCore, CreateEc { sel: selector(), pd: ROOT_PD, flags, utcb, sp: 0, ip: 0 });
    Ok(())
}

static PING: AtomicU32 = AtomicU32::new(0);
static PONG: AtomicU32 = AtomicU32::new(0);

extern "C" fn ponger(rounds: u64) -> ! {
    for _ in 0..rounds {
        let _ = down(PING.load(Ordering::Relaxed));
        let _ = up(PONG.load(Ordering::Relaxed));
    }
    rest()
}

fn ping_pong() -> Outcome {
    const ROUNDS: u64 = 2_000;
    let core = another()?;
    let (ping, pong) = (semaphore(0)?, semaphore(0)?);
    PING.store(ping, Ordering::Relaxed);
    PONG.store(pong, Ordering::Relaxed);
    let thread = spawn_on(core, ponger, ROUNDS, PRIORITY)?;
    for _ in 0..ROUNDS {
        up(ping)?;
        down_for(pong, 5_000_000)?;
    }
    thread.destroy();
    destroy(ping);
    destroy(pong);
    Ok(())
}

extern "C" fn upper(count: u64) -> ! {
    for _ in 0..count {
        let _ = up(PING.load(Ordering::Relaxed));
    }
    let _ = up(PONG.load(Ordering::Relaxed));
    rest()
}

/// Not one up is lost.
fn many_ups() -> Outcome {
    const UPS: u64 = 5_000;
    let core = another()?;
    let (ping, pong) = (semaphore(0)?, semaphore(0)?);
    PING.store(ping, Ordering::Relaxed);
    PONG.store(pong, Ordering::Relaxed);
    let threads = [spawn_on(core, upper, UPS, PRIORITY)?, spawn_on(core, upper, UPS, PRIORITY)?];
    for _ in 0..UPS {
        up(ping)?;
    }
    // While they count up, this one counts down, sometimes with waiting.
    let mut taken = 0;
    while taken < UPS * 2 {
        down_for(ping, 5_000_000)?;
        taken += 1;
    }
    down_for(pong, 5_000_000)?;
    down_for(pong, 5_000_000)?;
    equal!(call(&SmDown { sm: ping, flags: DownFlags::ZERO.bits(), deadline: 0 })?.0, UPS);
    threads.iter().for_each(|thread| thread.destroy());
    destroy(ping);
    destroy(pong);
    Ok(())
}

extern "C" fn sleeper(micros: u64) -> ! {
    loop {
        let result = down_for(PING.load(Ordering::Relaxed), micros);
        RESULT.store(result.err().map_or(0, |status| status as u64), Ordering::Relaxed);
        let _ = up(PONG.load(Ordering::Relaxed));
        if !matches!(result, Ok(_) | Err(Status::Timeout)) {
            rest();
        }
    }
}

/// A deadline of a thread elsewhere is kept, also when it comes at the same time as the up.
fn timeouts() -> Outcome {
    let core = another()?;
    let (ping, pong) = (semaphore(0)?, semaphore(0)?);
    PING.store(ping, Ordering::Relaxed);
    PONG.store(pong, Ordering::Relaxed);
    let thread = spawn_on(core, sleeper, 500, PRIORITY)?;
    down_for(pong, 5_000_000)?;
    equal!(RESULT.load(Ordering::Relaxed), Status::Timeout as u64);
    // A busy host may leave the other core without time for long.
    let end = time::after(100_000);
    let mut rounds = 0;
    while time::now() < end || rounds < 20 {
        up(ping)?;
        down_for(pong, 5_000_000)?;
        rounds += 1;
    }
    thread.destroy();
    destroy(ping);
    destroy(pong);
    Ok(())
}

fn semaphore_destroyed() -> Outcome {
    let core = another()?;
    let (ping, pong) = (semaphore(0)?, semaphore(0)?);
    PING.store(ping, Ordering::Relaxed);
    PONG.store(pong, Ordering::Relaxed);
    let thread = spawn_on(core, sleeper, 1_000_000, PRIORITY)?;
    let end = time::after(10_000);
    while time::now() < end {}
    destroy(ping);
    down_for(pong, 5_000_000)?;
    // The thread may have come too late to wait.
    let told = [Status::Aborted, Status::BadCapability].map(|status| status as u64);
    check!(told.contains(&RESULT.load(Ordering::Relaxed)));
    thread.destroy();
    destroy(pong);
    Ok(())
}

pub(crate) static COUNTER: AtomicU64 = AtomicU64::new(0);

extern "C" fn counter(_: u64) -> ! {
    loop {
        COUNTER.fetch_add(1, Ordering::Relaxed);
    }
}

/// Waits until the counter moves.
fn moves() -> Outcome {
    let (before, deadline) = (COUNTER.load(Ordering::Relaxed), time::after(5_000_000));
    while COUNTER.load(Ordering::Relaxed) == before {
        check!(time::now() < deadline);
    }
    Ok(())
}

/// Waits until the counter moves no more.
pub(crate) fn stops() -> Outcome {
    let deadline = time::after(5_000_000);
    loop {
        let before = COUNTER.load(Ordering::Relaxed);
        let end = time::after(5_000);
        while time::now() < end {}
        if COUNTER.load(Ordering::Relaxed) == before {
            return Ok(());
        }
        check!(time::now() < deadline);
    }
}

/// A thread that runs elsewhere is stopped, and all it cost comes back.
fn thread_destroyed() -> Outcome {
    let core = another()?;
    // Page tables for the addresses that are used.
    spawn_on(core, counter, 0, PRIORITY)?.destroy();
    stops()?;
    for _ in 0..20 {
        let mut thread = prepare(counter, 0, &Options { core, ..Options::default() })?;
        start(&mut thread, PRIORITY, QUANTUM)?;
        moves()?;
        destroy(thread.ec);
        stops()?;
        refused!(BadCapability, Destroy { sel: thread.ec });
        destroy(thread.sc);
    }
    Ok(())
}

fn time_used() -> Outcome {
    let core = another()?;
    let thread = spawn_on(core, counter, 0, PRIORITY)?;
    moves()?;
    // It runs all the time, and its slice is longer than that: what is told must be up to date. The emulator may be stopped in between.
    let mut closest = u64::MAX;
    for _ in 0..20 {
        let (first, start) = (call(&ScTime { sc: thread.sc })?.0, time::now());
        let end = time::after(QUANTUM / 10);
        while time::now() < end {}
        let (second, end) = (call(&ScTime { sc: thread.sc })?.0, time::now());
        check!(second >= first);
        closest = closest.min((second - first).abs_diff(end - start));
    }
    check!(closest < time::micros(QUANTUM / 50));
    thread.destroy();
    stops()
}

/// A thread without time does not run; it can be given time anew.
fn time_taken() -> Outcome {
    let core = another()?;
    let mut thread = spawn_on(core, counter, 0, PRIORITY)?;
    moves()?;
    destroy(thread.sc);
    stops()?;
    start(&mut thread, PRIORITY, QUANTUM)?;
    moves()?;
    thread.destroy();
    stops()
}

fn handle(_: u64, _: Header) -> Header {
    message().set(crate::exceptions::RIP, recovered as *const () as u64);
    Header::new(cloister_abi::arch::x86_64::exception::WORDS, 0)
}

/// Exceptions are handled on their own core.
fn exception() -> Outcome {
    let core = another()?;
    let done = semaphore(0)?;
    DONE.store(done, Ordering::Relaxed);
    let here = server(handle, &Options::default())?;
    let there = server(handle, &Options { core, ..Options::default() })?;
    let wrong = Options { core, event: here.portal(0)?, ..Options::default() };
    equal!(prepare(store, 0, &wrong).err(), Some(Status::BadCore));
    let mut thread = prepare(store, 0, &Options { event: there.portal(0)?, ..wrong })?;
    start(&mut thread, PRIORITY, QUANTUM)?;
    down_for(done, 5_000_000)?;
    thread.destroy();
    here.destroy();
    there.destroy();
    destroy(done);
    Ok(())
}

extern "C" fn writer(address: u64) -> ! {
    let mut value = 0;
    loop {
        value += 1;
        // SAFETY: the test maps a page there; when it takes the page away, the exception ends this.
        unsafe { cloister_bare::memory::write(address, value) };
    }
}

/// When memory was taken away, no core writes to it any more.
fn revoked() -> Outcome {
    let core = another()?;
    for _ in 0..20 {
        let done = semaphore(0)?;
        DONE.store(done, Ordering::Relaxed);
        let pager = server(handle, &Options { core, ..Options::default() })?;
        let (window, physical) = (addresses(0), frames(0));
        let own = addresses(0);
        map(physical, own, 0, Access::READ | Access::WRITE)?;
        map(physical, window, 0, Access::READ | Access::WRITE)?;
        let event = pager.portal(0)?;
        let mut thread = prepare(writer, window, &Options { core, event, ..Options::default() })?;
        start(&mut thread, PRIORITY, QUANTUM)?;
        let deadline = time::after(5_000_000);
        // SAFETY: mapped above.
        while unsafe { read(own) } < 100 {
            check!(time::now() < deadline);
        }
        call(&Revoke { space: ROOT_HOST, base: window / PAGE, order: 0 })?;
        // SAFETY: mapped above.
        let last = unsafe { read(own) };
        down_for(done, 5_000_000)?;
        // SAFETY: mapped above.
        equal!(unsafe { read(own) }, last);
        thread.destroy();
        pager.destroy();
        destroy(done);
    }
    Ok(())
}

/// A domain whose threads run on all cores goes as a whole.
fn domain_destroyed() -> Outcome {
    another()?;
    for _ in 0..10 {
        let before = used(ROOT_PD)?;
        let domain = Domain::with_image(1 << 20)?;
        let mut threads = [None; 8];
        for (place, core) in threads.iter_mut().zip(0..u8::try_from(hip().cores).unwrap_or(u8::MAX)) {
            let options = Options { pd: domain.pd, core, ..Options::default() };
            // The stack is this domain's, so the first instruction faults: the thread stops, which is all the same here.
            let mut thread = prepare(counter, 0, &options)?;
            domain.share(thread.stack - PAGE, PAGE, Access::READ | Access::WRITE)?;
            start(&mut thread, 1, QUANTUM)?;
            *place = Some(thread);
        }
        moves()?;
        destroy(domain.pd);
        stops()?;
        for thread in threads.iter().flatten() {
            destroy(thread.sc);
        }
        // Page tables of this domain for the stacks stay.
        check!(used(ROOT_PD)? < before + (64 << 10));
    }
    Ok(())
}

static FAILED: AtomicU64 = AtomicU64::new(0);

extern "C" fn churner(rounds: u64) -> ! {
    let (address, physical) = pages(0).unwrap_or((0, 0));
    for round in 0..rounds {
        if one_round(address, physical).is_err() {
            FAILED.store(round + 1, Ordering::Relaxed);
        }
    }
    let _ = up(PONG.load(Ordering::Relaxed));
    rest()
}

fn one_round(address: u64, physical: u64) -> Result<(), Status> {
    let sel = selector();
    call(&CreateSm { sel, pd: ROOT_PD, count: 0, target: NONE, bit: 0 })?;
    let domain = Domain::empty(64 << 10)?;
    let place = Delegate {
        src: MACHINE_MEMORY,
        dst: domain.host,
        src_base: physical / PAGE,
        dst_base: address / PAGE,
        order: 0,
        rights: u64::from(Access::READ.bits()),
    };
    call(&place)?;
    call(&Delegate { src: ROOT_HOST, src_base: address / PAGE, dst_base: 0x1234, ..place })?;
    call(&Revoke { space: domain.host, base: 0x1234, order: 0 })?;
    call(&PdInfo { pd: domain.pd })?;
    destroy(domain.pd);
    // What is dead lies where it is as long as there are capabilities to it.
    call(&Drop { base: domain.pd, count: 4 })?;
    destroy(sel);
    Ok(())
}

/// Waits as long as it takes cores that wait for each other on a busy host: a minute.
fn patiently(sm: Selector) -> Outcome {
    for _ in 0..5 {
        alive();
        if down_for(sm, 10_000_000).is_ok() {
            return Ok(());
        }
    }
    alive();
    down_for(sm, 10_000_000)?;
    Ok(())
}

/// Cores that churn at once at most: each asks all that are busy to forget something, and where an emulator has them share a few processors
/// that takes as long as all of these take to get their turn.
const CHURNERS: u8 = 8;
/// Rounds of each.
const ROUNDS: u64 = 100;

/// Many cores, the first and the last among them, make and destroy things at once on one account; nothing is lost.
fn churn() -> Outcome {
    let last = another()?;
    let steps = last.min(CHURNERS - 1);
    let count = u64::from(steps) + 1;
    let cores =
        || (0..=steps).filter_map(|step| u8::try_from(u16::from(step) * u16::from(last) / u16::from(steps)).ok());
    let pong = semaphore(0)?;
    PONG.store(pong, Ordering::Relaxed);
    FAILED.store(0, Ordering::Relaxed);
    // Selectors are not used again, so tables for them are made as it goes: twice, and the second time is watched.
    let mut growth = [0; 2];
    // Tables of selectors: five selectors a round.
    let most = (count * (5 * ROUNDS).div_ceil(512) + 1) * PAGE;
    for growth in &mut growth {
        let before = used(ROOT_PD)?;
        let mut threads = [None; CHURNERS as usize];
        for (core, place) in cores().zip(&mut threads) {
            *place = Some(spawn_on(core, churner, ROUNDS, PRIORITY - 30)?);
        }
        for _ in 0..count {
            patiently(pong)?;
        }
        equal!(FAILED.load(Ordering::Relaxed), 0);
        threads.iter().flatten().for_each(|thread| thread.destroy());
        // The last threads end on their cores, which may be slow to come to it.
        let deadline = time::after(5_000_000);
        while time::now() < deadline && used(ROOT_PD)?.saturating_sub(before) > most {}
        *growth = used(ROOT_PD)?.saturating_sub(before);
    }
    check!(growth[1] <= most);
    destroy(pong);
    Ok(())
}
