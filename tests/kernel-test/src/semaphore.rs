// SPDX-License-Identifier: MIT OR Apache-2.0
//! Semaphores: counting, waiting, time-outs, the order of waking, signals, destruction under those who wait.

use crate::harness::{Outcome, Test};
use crate::make::{EMPTY, down, down_for, limited, semaphore, signal, try_down, up};
use crate::{check, equal, refused};
use cloister_abi::cap::{Perms, Selector};
use cloister_abi::hip::ROOT_PD;
use cloister_abi::hypercall::{DownFlags, SmDown, SmUp};
use cloister_abi::status::Status;
use cloister_bare::kernel::call;
use cloister_bare::thread::{destroy, spawn};
use cloister_bare::time;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

pub(crate) static TESTS: [Test; 10] = [
    ("semaphore-counts", counts),
    ("semaphore-guards", guards),
    ("semaphore-takes-whole-counter", whole),
    ("semaphore-counter-saturates", saturates),
    ("semaphore-deadline", deadline),
    ("semaphore-wakes-in-order", order),
    ("semaphore-handed-over-before-deadline", handed_over),
    ("signals-set-bits", signals),
    ("signal-wakes-waiter", signal_wakes),
    ("semaphore-destroyed-under-waiters", destroyed),
];

/// More important than the thread that runs the tests.
const HIGH: u32 = 120;

fn counts() -> Outcome {
    let sm = semaphore(2)?;
    equal!(try_down(sm)?, 1);
    equal!(down(sm)?, 1);
    equal!(try_down(sm), Err(Status::Timeout));
    up(sm)?;
    up(sm)?;
    equal!(down(sm)?, 1);
    equal!(down(sm)?, 1);
    equal!(try_down(sm), Err(Status::Timeout));
    destroy(sm);
    Ok(())
}

fn guards() -> Outcome {
    let sm = semaphore(1)?;
    let down = SmDown { sm, flags: 0, deadline: 0 };
    refused!(BadCapability, SmUp { sm: EMPTY });
    refused!(BadCapability, SmUp { sm: ROOT_PD });
    refused!(BadCapability, SmUp { sm: limited(sm, Perms::ALL.difference(Perms::SM_UP))? });
    refused!(BadCapability, SmDown { sm: EMPTY, ..down });
    refused!(BadCapability, SmDown { sm: limited(sm, Perms::ALL.difference(Perms::SM_DOWN))?, ..down });
    for flags in [4, 8, 1 << 32, u64::MAX] {
        refused!(BadParameter, SmDown { flags, ..down });
    }
    equal!(try_down(sm)?, 1);
    destroy(sm);
    refused!(BadCapability, SmUp { sm });
    refused!(BadCapability, down);
    Ok(())
}

fn whole() -> Outcome {
    let sm = semaphore(9)?;
    let zero = SmDown { sm, flags: DownFlags::ZERO.bits(), deadline: 0 };
    equal!(call(&zero)?.0, 9);
    refused!(Timeout, SmDown { flags: (DownFlags::ZERO | DownFlags::NONBLOCKING).bits(), ..zero });
    destroy(sm);
    Ok(())
}

fn saturates() -> Outcome {
    let sm = semaphore(u64::MAX)?;
    up(sm)?;
    equal!(call(&SmDown { sm, flags: DownFlags::ZERO.bits(), deadline: 0 })?.0, u64::MAX);
    destroy(sm);
    Ok(())
}

fn deadline() -> Outcome {
    let sm = semaphore(0)?;
    let start = time::now();
    equal!(down_for(sm, 3_000), Err(Status::Timeout));
    let spent = time::now() - start;
    check!(spent >= time::micros(3_000));
    check!(spent < time::micros(1_000_000));
    // One that has passed already.
    refused!(Timeout, SmDown { sm, flags: 0, deadline: 1 });
    refused!(Timeout, SmDown { sm, flags: 0, deadline: time::now() });
    // A counter is taken whatever the time is.
    up(sm)?;
    equal!(call(&SmDown { sm, flags: 0, deadline: 1 })?.0, 1);
    destroy(sm);
    Ok(())
}

/// What the threads of a test work on: semaphore to wait at, semaphore to report to.
static WAIT: AtomicU32 = AtomicU32::new(0);
static DONE: AtomicU32 = AtomicU32::new(0);
/// What came, four bits each.
static LOG: AtomicU64 = AtomicU64::new(0);
static STATUS: AtomicU64 = AtomicU64::new(0);

fn set_up() -> Result<(Selector, Selector), Status> {
    let (wait, done) = (semaphore(0)?, semaphore(0)?);
    WAIT.store(wait, Ordering::Relaxed);
    DONE.store(done, Ordering::Relaxed);
    LOG.store(0, Ordering::Relaxed);
    STATUS.store(0, Ordering::Relaxed);
    Ok((wait, done))
}

fn finish() -> ! {
    let _ = up(DONE.load(Ordering::Relaxed));
    crate::make::rest()
}

extern "C" fn waiter(number: u64) -> ! {
    match down(WAIT.load(Ordering::Relaxed)) {
        Ok(_) => LOG.store(LOG.load(Ordering::Relaxed) << 4 | number, Ordering::Relaxed),
        Err(status) => STATUS.store(STATUS.load(Ordering::Relaxed) << 4 | status as u64, Ordering::Relaxed),
    }
    finish()
}

fn order() -> Outcome {
    let (wait, done) = set_up()?;
    let mut threads = [None; 3];
    for (thread, number) in threads.iter_mut().zip(1..) {
        *thread = Some(spawn(waiter, number, HIGH)?);
    }
    // Each has run up to its wait, because it is more important than this thread.
    for _ in 0..3 {
        up(wait)?;
    }
    for _ in 0..3 {
        check!(down_for(done, 1_000_000).is_ok());
    }
    equal!(LOG.load(Ordering::Relaxed), 0x123);
    threads.iter().flatten().for_each(|thread| thread.destroy());
    destroy(wait);
    destroy(done);
    Ok(())
}

extern "C" fn patient(_: u64) -> ! {
    let sm = WAIT.load(Ordering::Relaxed);
    if let Ok((value, _)) = call(&SmDown { sm, flags: 0, deadline: time::after(100_000) }) {
        LOG.store(value, Ordering::Relaxed);
    }
    finish()
}

fn handed_over() -> Outcome {
    let (wait, done) = set_up()?;
    let thread = spawn(patient, 0, HIGH)?;
    up(wait)?;
    check!(down_for(done, 1_000_000).is_ok());
    equal!(LOG.load(Ordering::Relaxed), 1);
    // The deadline that was not needed wakes nobody.
    equal!(down_for(done, 200_000), Err(Status::Timeout));
    thread.destroy();
    destroy(wait);
    destroy(done);
    Ok(())
}

fn signals() -> Outcome {
    let word = semaphore(0)?;
    let (low, high) = (signal(word, 0)?, signal(word, 63)?);
    up(low)?;
    up(high)?;
    up(high)?;
    let take = SmDown { sm: word, flags: DownFlags::ZERO.bits(), deadline: 0 };
    equal!(call(&take)?.0, 1 | 1 << 63);
    equal!(try_down(word), Err(Status::Timeout));
    // Without the flag the word is taken too, instead of being counted down to other bits.
    up(low)?;
    up(high)?;
    equal!(try_down(word), Ok(1 | 1 << 63));
    equal!(try_down(word), Err(Status::Timeout));
    // Its counter is another thing, and comes first.
    up(high)?;
    up(word)?;
    equal!(down(word), Ok(1));
    equal!(down(word), Ok(1 << 63));
    equal!(try_down(word), Err(Status::Timeout));
    // A signal without its target is an up into nothing.
    destroy(word);
    up(low)?;
    destroy(low);
    destroy(high);
    Ok(())
}

extern "C" fn word_taker(_: u64) -> ! {
    let take = SmDown { sm: WAIT.load(Ordering::Relaxed), flags: DownFlags::ZERO.bits(), deadline: 0 };
    if let Ok((value, _)) = call(&take) {
        LOG.store(value, Ordering::Relaxed);
    }
    finish()
}

fn signal_wakes() -> Outcome {
    let (wait, done) = set_up()?;
    let signal = signal(wait, 5)?;
    let thread = spawn(word_taker, 0, HIGH)?;
    up(signal)?;
    check!(down_for(done, 1_000_000).is_ok());
    equal!(LOG.load(Ordering::Relaxed), 1 << 5);
    thread.destroy();
    [wait, done, signal].into_iter().for_each(destroy);
    Ok(())
}

fn destroyed() -> Outcome {
    let (wait, done) = set_up()?;
    let threads = [spawn(waiter, 1, HIGH)?, spawn(waiter, 2, HIGH)?];
    destroy(wait);
    for _ in 0..2 {
        check!(down_for(done, 1_000_000).is_ok());
    }
    equal!(STATUS.load(Ordering::Relaxed), 0x22);
    threads.iter().for_each(|thread| thread.destroy());
    destroy(done);
    Ok(())
}
