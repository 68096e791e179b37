// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a test is, how it fails, and who counts.
//!
//! A test is a function that answers [`Outcome`]; [`check!`], [`equal!`] and [`refused!`] leave it at the first thing
//! that is not as it should be, with file, line and what was found. A watchdog of the highest priority ends the machine if a
//! test hangs, and says in which. `test=NAME` on the kernel's command line chooses tests, and `rounds=N` repeats them.

use crate::make::{down, rest, semaphore, up};
use cloister_abi::cap::Selector;
use cloister_abi::hypercall::{DownFlags, SmDown};
use cloister_abi::status::Status;
use cloister_bare::kernel::call;
use cloister_bare::{entry, println, thread, time};
use core::fmt::{self, Write};
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicUsize, Ordering};

/// Microseconds that a test may take.
const PATIENCE: u64 = 60_000_000;

/// Priority of the watchdog: below that of the first thread, which only waits, above all else.
const WATCHDOG: u32 = 126;

/// Why a test did not pass.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It failed.
    Failed(Text),
    /// The machine lacks what it needs.
    Skipped(&'static str),
}

/// Result of a test.
pub(crate) type Outcome = Result<(), Failure>;

/// A test: its name and what it does.
pub(crate) type Test = (&'static str, fn() -> Outcome);

/// All tests, area by area.
pub(crate) type Suites = [&'static [Test]];

/// A line of text.
#[derive(Debug)]
pub(crate) struct Text {
    bytes: [u8; 104],
    length: usize,
}

impl Text {
    /// Text of these arguments, cut off where it is too long.
    pub(crate) fn of(arguments: fmt::Arguments<'_>) -> Self {
        let mut text = Self { bytes: [0; 104], length: 0 };
        // What does not fit is left out.
        let _ = text.write_fmt(arguments);
        text
    }
}

impl Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            *self.bytes.get_mut(self.length).ok_or(fmt::Error)? = byte;
            self.length += 1;
        }
        Ok(())
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(core::str::from_utf8(&self.bytes[..self.length]).unwrap_or("?"))
    }
}

impl From<Status> for Failure {
    #[track_caller]
    fn from(status: Status) -> Self {
        let place = core::panic::Location::caller();
        Self::Failed(Text::of(format_args!("{}:{}: {status}", place.file(), place.line())))
    }
}

/// Leaves the test if the condition does not hold.
#[macro_export]
macro_rules! check {
    ($condition:expr) => {
        if !$condition {
            return Err($crate::harness::Failure::Failed($crate::harness::Text::of(format_args!(
                "{}:{}: {}",
                file!(),
                line!(),
                stringify!($condition)
            ))));
        }
    };
}

/// Leaves the test if the values differ.
#[macro_export]
macro_rules! equal {
    ($found:expr, $expected:expr) => {{
        let (found, expected) = ($found, $expected);
        if found != expected {
            return Err($crate::harness::Failure::Failed($crate::harness::Text::of(format_args!(
                "{}:{}: {found:x?}, not {expected:x?}",
                file!(),
                line!()
            ))));
        }
    }};
}

/// Leaves the test if the call does not answer that status.
#[macro_export]
macro_rules! refused {
    ($status:ident, $call:expr) => {
        $crate::equal!(cloister_bare::kernel::call(&$call), Err(cloister_abi::status::Status::$status))
    };
}

static CURRENT: AtomicUsize = AtomicUsize::new(0);
static ALARM: AtomicU32 = AtomicU32::new(0);
static PASSED: AtomicU32 = AtomicU32::new(0);
static FAILED: AtomicU32 = AtomicU32::new(0);
static SKIPPED: AtomicU32 = AtomicU32::new(0);

/// Priority of the thread that runs the tests: there is room above and below.
const PRIORITY: u32 = 64;

static SUITES: AtomicPtr<&'static Suites> = AtomicPtr::new(core::ptr::null_mut());
static RUNNER: AtomicU32 = AtomicU32::new(0);

/// Runs tests in order, in a thread of their own; true if none failed.
pub(crate) fn run(suites: &'static &'static Suites) -> bool {
    SUITES.store(core::ptr::from_ref(suites).cast_mut(), Ordering::Relaxed);
    let started = watch().and_then(|()| {
        let done = semaphore(0)?;
        let thread = thread::spawn(run_all, u64::from(done), PRIORITY)?;
        RUNNER.store(thread.sc, Ordering::Relaxed);
        down(done)
    });
    if let Err(status) = started {
        println!("the tests do not run: {status}");
        return false;
    }
    FAILED.load(Ordering::Relaxed) == 0
}

/// SC of the thread that runs the tests.
pub(crate) fn own_sc() -> Selector {
    RUNNER.load(Ordering::Relaxed)
}

fn tests() -> impl Iterator<Item = Test> {
    // SAFETY: null, or what `run` was given, which is never written to.
    let suites = unsafe { SUITES.load(Ordering::Relaxed).as_ref() };
    suites.into_iter().copied().flatten().copied().flatten().copied()
}

/// What the kernel's command line says behind such a word.
pub(crate) fn parameter(word: &str) -> Option<&'static str> {
    let line = entry::hip().cmdline.split(|byte| *byte == 0).next().unwrap_or_default();
    let mut words = core::str::from_utf8(line).unwrap_or_default().split_ascii_whitespace();
    words.find_map(|found| found.strip_prefix(word)?.strip_prefix('='))
}

/// The tests that are wanted, with their numbers: those whose name contains `test=NAME`, so many times as `rounds=N` says.
fn wanted() -> impl Iterator<Item = (usize, Test)> {
    let name = parameter("test").unwrap_or_default();
    let rounds = parameter("rounds").and_then(|rounds| rounds.parse().ok()).unwrap_or(1);
    (0..rounds).flat_map(move |_: u32| tests().enumerate().filter(move |(_, test)| test.0.contains(name)))
}

extern "C" fn run_all(done: u64) -> ! {
    for (index, (name, test)) in wanted() {
        CURRENT.store(index, Ordering::Relaxed);
        alive();
        match test() {
            Ok(()) => {
                PASSED.fetch_add(1, Ordering::Relaxed);
                println!("test {name} ... ok");
            }
            Err(Failure::Failed(why)) => {
                FAILED.fetch_add(1, Ordering::Relaxed);
                println!("test {name} ... FAILED: {why}");
            }
            Err(Failure::Skipped(why)) => {
                SKIPPED.fetch_add(1, Ordering::Relaxed);
                println!("test {name} ... skipped: {why}");
            }
        }
    }
    tell();
    let _ = up(u32::try_from(done).unwrap_or_default());
    rest()
}

fn tell() {
    let [passed, failed, skipped] = [&PASSED, &FAILED, &SKIPPED].map(|count| count.load(Ordering::Relaxed));
    println!("kernel tests: {passed} passed, {failed} failed, {skipped} skipped");
}

/// Tells the watchdog that something happens.
pub(crate) fn alive() {
    let sm = ALARM.load(Ordering::Relaxed);
    if sm != 0 {
        // It may be that the watchdog is what does not work.
        let _ = up(sm);
    }
}

fn watch() -> Result<(), Status> {
    let sm = semaphore(0)?;
    ALARM.store(sm, Ordering::Relaxed);
    thread::spawn(watchdog, u64::from(sm), WATCHDOG).map(drop)
}

extern "C" fn watchdog(sm: u64) -> ! {
    let sm = u32::try_from(sm).unwrap_or_default();
    loop {
        let down = SmDown { sm, flags: DownFlags::ZERO.bits(), deadline: time::after(PATIENCE) };
        if call(&down) == Err(Status::Timeout) {
            let index = CURRENT.load(Ordering::Relaxed);
            let name = tests().nth(index).map_or("?", |(name, _)| name);
            FAILED.fetch_add(1, Ordering::Relaxed);
            println!("test {name} ... FAILED: it hangs");
            tell();
            entry::exit(entry::BAD);
        }
    }
}
