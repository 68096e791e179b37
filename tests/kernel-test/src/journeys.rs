// SPDX-License-Identifier: MIT OR Apache-2.0
//! Calls over several cores of which one link goes while the time that runs them is two cores away.

use crate::cores::another;
use crate::harness::{Outcome, Test};
use crate::make::{down, down_for, increment, rest, semaphore, up};
use crate::{check, equal};
use cloister_abi::cap::Selector;
use cloister_abi::status::Status;
use cloister_abi::utcb::Header;
use cloister_bare::kernel::{ipc, message};
use cloister_bare::thread::{Context, Handler, Options, QUANTUM, destroy, server, spawn, spawn_on, start};
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

pub(crate) static TESTS: [Test; 4] = [
    ("journey-ends-well", well),
    ("journey-middle-destroyed", middle_destroyed),
    ("journey-time-destroyed-far-away", time_destroyed),
    ("journey-middle-answers-alone", answers_alone),
];

const PRIORITY: u32 = 60;
const ROUNDS: usize = 20;
/// What a caller adds to the status that it was answered.
const FAILED: u64 = 0x100;

/// Portals of the links, by level; the last one waits at the gate.
static PORTALS: [AtomicU32; 3] = [const { AtomicU32::new(0) }; 3];
static GATE: AtomicU32 = AtomicU32::new(0);
static ARRIVED: AtomicU32 = AtomicU32::new(0);
static DONE: AtomicU32 = AtomicU32::new(0);
static RESULT: AtomicU64 = AtomicU64::new(0);

fn get(place: &AtomicU32) -> Selector {
    place.load(Relaxed)
}

/// Calls the link of the next level, and answers as that did, or with the status.
fn onwards(level: usize) -> Header {
    let result = ipc(get(&PORTALS[level]), 1, 0).map_or_else(|status| FAILED + status as u64, |_| message().get(0));
    message().set(0, if result < FAILED { result + 1 } else { result });
    Header::new(1, 0)
}

fn first(_: u64, _: Header) -> Header {
    onwards(1)
}

fn second(_: u64, _: Header) -> Header {
    onwards(2)
}

fn last(_: u64, header: Header) -> Header {
    let _ = up(get(&ARRIVED));
    let _ = down(get(&GATE));
    increment(0, header)
}

extern "C" fn caller(value: u64) -> ! {
    message().set(0, value);
    let answer = ipc(get(&PORTALS[0]), 1, 0);
    RESULT.store(answer.map_or_else(|status| FAILED + status as u64, |_| message().get(0)), Relaxed);
    let _ = up(get(&DONE));
    rest()
}

/// A caller on core 0; the first two links on another core, the last one on core 0 again.
fn row() -> Result<[Context; 3], crate::harness::Failure> {
    let there = another()?;
    for place in [&GATE, &ARRIVED, &DONE] {
        place.store(semaphore(0)?, Relaxed);
    }
    let link = |level: usize, handler: Handler, core| {
        let context = server(handler, &Options { core, ..Options::default() })?;
        PORTALS[level].store(context.portal(0)?, Relaxed);
        Ok::<_, Status>(context)
    };
    Ok([link(0, first, there)?, link(1, second, there)?, link(2, last, 0)?])
}

fn end(row: &[Context; 3]) {
    row.iter().for_each(Context::destroy);
    [&GATE, &ARRIVED, &DONE].into_iter().for_each(|place| destroy(get(place)));
}

/// The row, with a caller whose call is at its end.
fn under_way() -> Result<([Context; 3], Context), crate::harness::Failure> {
    let row = row()?;
    let thread = spawn(caller, 10, PRIORITY)?;
    down_for(get(&ARRIVED), 5_000_000)?;
    Ok((row, thread))
}

fn result() -> Result<u64, Status> {
    down_for(get(&DONE), 5_000_000)?;
    Ok(RESULT.load(Relaxed))
}

fn well() -> Outcome {
    for _ in 0..ROUNDS {
        let (row, thread) = under_way()?;
        up(get(&GATE))?;
        equal!(result()?, 13);
        thread.destroy();
        end(&row);
    }
    Ok(())
}

/// The first link, whom the caller waits for, goes while the caller's time is with the last one.
fn middle_destroyed() -> Outcome {
    for _ in 0..ROUNDS {
        let (row, thread) = under_way()?;
        destroy(row[0].ec);
        // Its core goes on with others meanwhile.
        let other = spawn_on(another()?, caller, 20, PRIORITY)?;
        equal!(result()?, FAILED + Status::BadCapability as u64);
        up(get(&GATE))?;
        equal!(result()?, FAILED + Status::Aborted as u64);
        thread.destroy();
        other.destroy();
        end(&row);
    }
    Ok(())
}

/// The time goes while it is with the last link. Each link behind it is told, and the caller when it has time again.
fn time_destroyed() -> Outcome {
    for _ in 0..ROUNDS {
        let (row, mut thread) = under_way()?;
        destroy(thread.sc);
        start(&mut thread, PRIORITY, QUANTUM)?;
        equal!(result()?, FAILED + Status::Aborted as u64);
        // All links are of use again, as soon as somebody lends them the time to come to their end.
        up(get(&GATE))?;
        up(get(&GATE))?;
        message().set(0, 30);
        let header = ipc(get(&PORTALS[0]), 1, 0)?;
        equal!((header, message().get(0)), (Header::new(1, 0), 33));
        thread.destroy();
        end(&row);
    }
    Ok(())
}

/// The second link goes. The first one is told, and answers on the time of another caller; the answer is nobody's. The caller is
/// told when its time is back.
fn answers_alone() -> Outcome {
    for _ in 0..ROUNDS {
        let (row, thread) = under_way()?;
        destroy(row[1].ec);
        let other = spawn_on(another()?, caller, 20, PRIORITY)?;
        let told = result()?;
        equal!(told, FAILED + Status::BadCapability as u64);
        up(get(&GATE))?;
        equal!(result()?, FAILED + Status::Aborted as u64);
        check!(RESULT.load(Relaxed) != told);
        thread.destroy();
        other.destroy();
        end(&row);
    }
    Ok(())
}
