// SPDX-License-Identifier: MIT OR Apache-2.0
//! Calls to servers on other cores: the caller's time goes there and comes back, whatever becomes of either side.

use crate::cores::another;
use crate::harness::{Outcome, Test};
use crate::make::{down, down_for, increment, rest, semaphore, try_down, up};
use crate::{check, equal};
use cloister_abi::cap::{Perms, Selector};
use cloister_abi::hypercall::{IpcCall, IpcFlags, ScTime};
use cloister_abi::status::Status;
use cloister_abi::utcb::{Header, Item};
use cloister_bare::entry::hip;
use cloister_bare::kernel::{call, ipc, message, selector};
use cloister_bare::thread::{Context, Options, destroy, server, spawn, spawn_on};
use cloister_bare::time;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

pub(crate) static TESTS: [Test; 9] = [
    ("cores-call-and-reply", call_and_reply),
    ("cores-call-by-all-at-once", all_at_once),
    ("cores-call-costs-the-caller", callers_time),
    ("cores-call-hands-over-items", items),
    ("cores-call-of-busy-server", busy),
    ("cores-call-there-and-back-again", there_and_back),
    ("cores-call-callee-destroyed", callee_destroyed),
    ("cores-call-caller-destroyed", caller_destroyed),
    ("cores-call-time-destroyed", time_destroyed),
];

const PRIORITY: u32 = 60;

static PORTAL: AtomicU32 = AtomicU32::new(0);
static BACK: AtomicU32 = AtomicU32::new(0);
static GATE: AtomicU32 = AtomicU32::new(0);
static DONE: AtomicU32 = AtomicU32::new(0);
static RESULT: AtomicU64 = AtomicU64::new(0);

fn get(place: &AtomicU32) -> Selector {
    place.load(Ordering::Relaxed)
}

fn options(core: u8) -> Options {
    Options { core, ..Options::default() }
}

/// A server on that core, its portal, and semaphores for the threads of the test.
fn serve(core: u8, handler: cloister_bare::thread::Handler) -> Result<Context, Status> {
    let context = server(handler, &options(core))?;
    PORTAL.store(context.portal(7)?, Ordering::Relaxed);
    GATE.store(semaphore(0)?, Ordering::Relaxed);
    DONE.store(semaphore(0)?, Ordering::Relaxed);
    Ok(context)
}

fn ask(value: u64) -> Result<u64, Status> {
    message().set(0, value);
    let header = ipc(get(&PORTAL), 1, 0)?;
    Ok(if header.words() == 1 { message().get(0) } else { 0 })
}

fn call_and_reply() -> Outcome {
    let context = serve(another()?, increment)?;
    for value in 0..2_000 {
        equal!(ask(value)?, value + 1);
    }
    for index in 0..400 {
        message().set(index, index as u64);
    }
    equal!(ipc(get(&PORTAL), 400, 0)?.words(), 400);
    check!((0..400).all(|index| message().get(index) == index as u64 + 1));
    context.destroy();
    equal!(ask(1), Err(Status::BadCapability));
    Ok(())
}

extern "C" fn caller(rounds: u64) -> ! {
    let right = (0..rounds).filter(|value| ask(*value) == Ok(*value + 1)).count() as u64;
    RESULT.fetch_add(right, Ordering::Relaxed);
    let _ = up(get(&DONE));
    rest()
}

/// Two callers of each core, of different priority, and one server.
fn all_at_once() -> Outcome {
    const ROUNDS: u64 = 300;
    let last = another()?;
    let context = serve(last, increment)?;
    RESULT.store(0, Ordering::Relaxed);
    let mut threads = [None; 128];
    for (core, pair) in (0..=last).zip(threads.as_chunks_mut::<2>().0) {
        *pair = [Some(spawn_on(core, caller, ROUNDS, PRIORITY)?), Some(spawn_on(core, caller, ROUNDS, PRIORITY - 1)?)];
    }
    for _ in 0..2 * (u64::from(last) + 1) {
        down_for(get(&DONE), 10_000_000)?;
    }
    equal!(RESULT.load(Ordering::Relaxed), 2 * ROUNDS * (u64::from(last) + 1));
    threads.iter().flatten().for_each(|thread| thread.destroy());
    context.destroy();
    Ok(())
}

fn spin(_: u64, _: Header) -> Header {
    let end = time::after(20_000);
    while time::now() < end {}
    Header::new(0, 0)
}

/// The server's time is the caller's.
fn callers_time() -> Outcome {
    let context = serve(another()?, spin)?;
    let sc = crate::harness::own_sc();
    let before = call(&ScTime { sc })?.0;
    ask(0)?;
    check!(call(&ScTime { sc })?.0 - before >= time::micros(15_000));
    context.destroy();
    Ok(())
}

/// Takes a semaphore, and answers with it.
fn hand_back(_: u64, header: Header) -> Header {
    if header.items() == 1 && message().item(0).attr & 0xff == Item::DELEGATE {
        let taken = u32::try_from(message().item(0).value).unwrap_or(0);
        let _ = up(taken);
    }
    Header::new(0, 0)
}

fn items() -> Outcome {
    let context = serve(another()?, hand_back)?;
    let window = selector();
    context.message().set_window(window, 1);
    let sm = semaphore(0)?;
    message().set_item(0, Item::delegate(sm, Perms::SM_UP));
    ipc(get(&PORTAL), 0, 1)?;
    equal!(try_down(sm)?, 1);
    context.destroy();
    destroy(sm);
    Ok(())
}

/// Waits at the gate.
fn gated(_: u64, header: Header) -> Header {
    let _ = up(get(&DONE));
    let _ = down(get(&GATE));
    increment(0, header)
}

extern "C" fn one_call(value: u64) -> ! {
    let result = ask(value).unwrap_or_else(|status| 0x100 + status as u64);
    RESULT.store(result, Ordering::Relaxed);
    let _ = up(get(&DONE));
    rest()
}

/// Whoever comes while the server waits gets his turn, or is told if he does not want to wait.
fn busy() -> Outcome {
    let core = another()?;
    let context = serve(core, gated)?;
    let first = spawn_on(core, one_call, 10, PRIORITY)?;
    down_for(get(&DONE), 5_000_000)?;
    let hurried = IpcCall { portal: get(&PORTAL), header: 0, flags: IpcFlags::NONBLOCKING.bits() };
    equal!(call(&hurried).err(), Some(Status::Timeout));
    let second = spawn(one_call, 20, PRIORITY)?;
    let end = time::after(5_000);
    while time::now() < end {}
    up(get(&GATE))?;
    // The first has its answer, and the second is in.
    down_for(get(&DONE), 5_000_000)?;
    down_for(get(&DONE), 5_000_000)?;
    up(get(&GATE))?;
    down_for(get(&DONE), 5_000_000)?;
    equal!(RESULT.load(Ordering::Relaxed), 21);
    [first, second].iter().for_each(Context::destroy);
    context.destroy();
    Ok(())
}

/// Asks a server on the core that the call came from.
fn relay(_: u64, _: Header) -> Header {
    let value = message().get(0);
    message().set(0, value + 100);
    match ipc(get(&BACK), 1, 0) {
        Ok(header) => header,
        Err(_) => Header::new(0, 0),
    }
}

fn there_and_back() -> Outcome {
    let context = serve(another()?, relay)?;
    let here = server(increment, &options(0))?;
    BACK.store(here.portal(0)?, Ordering::Relaxed);
    for value in 1..200 {
        equal!(ask(value)?, value + 101);
    }
    // Every core in a row: each relays to the next.
    let cores = u8::try_from(hip().cores).unwrap_or(u8::MAX);
    check!(cores >= 2);
    context.destroy();
    here.destroy();
    Ok(())
}

fn callee_destroyed() -> Outcome {
    let core = another()?;
    for _ in 0..20 {
        let context = serve(core, gated)?;
        let thread = spawn(one_call, 1, PRIORITY)?;
        down_for(get(&DONE), 5_000_000)?;
        let waiting = spawn(one_call, 1, PRIORITY)?;
        context.destroy();
        for _ in 0..2 {
            down_for(get(&DONE), 5_000_000)?;
            let result = RESULT.load(Ordering::Relaxed);
            check!([Status::Aborted, Status::BadCapability].map(|status| 0x100 + status as u64).contains(&result));
        }
        thread.destroy();
        waiting.destroy();
    }
    Ok(())
}

/// The server goes on, and the next caller is served.
fn caller_destroyed() -> Outcome {
    let context = serve(another()?, gated)?;
    for _ in 0..20 {
        let thread = spawn(one_call, 1, PRIORITY)?;
        down_for(get(&DONE), 5_000_000)?;
        // Only the EC: its time stays where it is, and brings the call to its end.
        destroy(thread.ec);
        up(get(&GATE))?;
        up(get(&GATE))?;
        equal!(ask(5)?, 6);
        down_for(get(&DONE), 5_000_000)?;
        destroy(thread.sc);
    }
    context.destroy();
    Ok(())
}

/// A caller whose time goes while it is away is told when it has time again.
fn time_destroyed() -> Outcome {
    let context = serve(another()?, gated)?;
    for _ in 0..20 {
        let mut thread = spawn(one_call, 1, PRIORITY)?;
        down_for(get(&DONE), 5_000_000)?;
        destroy(thread.sc);
        cloister_bare::thread::start(&mut thread, PRIORITY, cloister_bare::thread::QUANTUM)?;
        down_for(get(&DONE), 5_000_000)?;
        equal!(RESULT.load(Ordering::Relaxed), 0x100 + Status::Aborted as u64);
        // The server is in the middle of the call, without time; who calls next helps it out.
        up(get(&GATE))?;
        up(get(&GATE))?;
        equal!(ask(5)?, 6);
        down_for(get(&DONE), 5_000_000)?;
        thread.destroy();
    }
    context.destroy();
    Ok(())
}
