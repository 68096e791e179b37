// SPDX-License-Identifier: MIT OR Apache-2.0
//! Priorities, time slices, preemption, yielding, and where time is booked.

use crate::harness::{Failure, Outcome, Test};
use crate::make::{down_for, rest, semaphore, up};
use crate::{check, equal};
use cloister_abi::hypercall::{ScTime, Yield};
use cloister_abi::status::Status;
use cloister_bare::kernel::call;
use cloister_bare::thread::{Context, Options, prepare, spawn, start};
use cloister_bare::time;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

pub(crate) static TESTS: [Test; 6] = [
    ("schedule-preempts-endless-loop", preempts),
    ("schedule-important-first", important_first),
    ("schedule-unimportant-waits", unimportant_waits),
    ("schedule-round-robin", round_robin),
    ("schedule-yield-alternates", alternates),
    ("schedule-time-is-booked", booked),
];

static COUNTS: [AtomicU64; 3] = [const { AtomicU64::new(0) }; 3];
static DONE: AtomicU32 = AtomicU32::new(0);
static LOG: AtomicU64 = AtomicU64::new(0);

const LOW: u32 = 5;

extern "C" fn spin(number: u64) -> ! {
    let count = &COUNTS[usize::try_from(number).unwrap_or_default() % 3];
    loop {
        count.fetch_add(1, Ordering::Relaxed);
    }
}

fn count(number: usize) -> u64 {
    COUNTS[number].load(Ordering::Relaxed)
}

fn reset() {
    COUNTS.iter().for_each(|count| count.store(0, Ordering::Relaxed));
    LOG.store(0, Ordering::Relaxed);
}

fn launch(number: u64, priority: u32, quantum: u64) -> Result<Context, Status> {
    let mut thread = prepare(spin, number, &Options::default())?;
    start(&mut thread, priority, quantum)?;
    Ok(thread)
}

/// Lets those below run for so long.
fn sleep(micros: u64) -> Outcome {
    let sm = semaphore(0)?;
    equal!(down_for(sm, micros), Err(Status::Timeout));
    cloister_bare::thread::destroy(sm);
    Ok(())
}

/// Lets others run until thread `number` has; false if it does not in two seconds.
fn runs(number: usize) -> Result<bool, Failure> {
    let before = count(number);
    for _ in 0..1_000 {
        sleep(2_000)?;
        if count(number) > before {
            return Ok(true);
        }
    }
    Ok(false)
}

fn preempts() -> Outcome {
    reset();
    let thread = launch(0, LOW, 1_000_000)?;
    let mut ran = true;
    for _ in 0..5 {
        ran &= runs(0)?;
    }
    thread.destroy();
    check!(ran);
    let before = count(0);
    sleep(2_000)?;
    equal!(count(0), before);
    Ok(())
}

extern "C" fn log(number: u64) -> ! {
    LOG.store(LOG.load(Ordering::Relaxed) << 4 | number, Ordering::Relaxed);
    let _ = up(DONE.load(Ordering::Relaxed));
    rest()
}

fn important_first() -> Outcome {
    reset();
    let done = semaphore(0)?;
    DONE.store(done, Ordering::Relaxed);
    // These wait until this thread does; that one runs at once.
    let threads = [spawn(log, 1, LOW)?, spawn(log, 2, LOW + 2)?, spawn(log, 3, LOW + 1)?, spawn(log, 4, 100)?];
    equal!(LOG.load(Ordering::Relaxed), 4);
    for _ in 0..4 {
        check!(down_for(done, 1_000_000).is_ok());
    }
    equal!(LOG.load(Ordering::Relaxed), 0x4231);
    threads.iter().for_each(|thread| thread.destroy());
    Ok(())
}

fn unimportant_waits() -> Outcome {
    reset();
    let thread = launch(0, LOW, 1_000)?;
    let end = time::after(5_000);
    while time::now() < end {}
    equal!(count(0), 0);
    let ran = runs(0)?;
    thread.destroy();
    check!(ran);
    Ok(())
}

fn round_robin() -> Outcome {
    reset();
    let threads = [launch(0, LOW, 1_000)?, launch(1, LOW, 1_000)?, launch(2, LOW, 1_000)?];
    let mut all = true;
    for number in 0..3 {
        all &= runs(number)?;
    }
    sleep(60_000)?;
    threads.iter().for_each(|thread| thread.destroy());
    check!(all);
    let least = (0..3).map(count).min().unwrap_or_default();
    let most = (0..3).map(count).max().unwrap_or_default();
    // Shares are not compared more closely: the host's own load moves them.
    check!(least > 0);
    check!(most / least < 20);
    Ok(())
}

extern "C" fn alternate(number: u64) -> ! {
    for _ in 0..3 {
        LOG.store(LOG.load(Ordering::Relaxed) << 4 | number, Ordering::Relaxed);
        let _ = call(&Yield {});
    }
    let _ = up(DONE.load(Ordering::Relaxed));
    rest()
}

fn alternates() -> Outcome {
    reset();
    let done = semaphore(0)?;
    DONE.store(done, Ordering::Relaxed);
    let threads = [spawn(alternate, 1, LOW)?, spawn(alternate, 2, LOW)?];
    for _ in 0..2 {
        check!(down_for(done, 1_000_000).is_ok());
    }
    equal!(LOG.load(Ordering::Relaxed), 0x12_1212);
    threads.iter().for_each(|thread| thread.destroy());
    Ok(())
}

fn booked() -> Outcome {
    reset();
    let thread = launch(0, LOW, 10_000)?;
    check!(runs(0)?);
    let (used, _) = call(&ScTime { sc: thread.sc })?;
    check!(used > 0);
    // While this thread runs, the other's time stands still.
    let (again, _) = call(&ScTime { sc: thread.sc })?;
    thread.destroy();
    equal!(again, used);
    Ok(())
}
