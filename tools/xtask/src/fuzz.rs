// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask fuzz`: a hostile component makes hypercalls for as long as one likes.
//!
//! The program is the root task of `tests/fuzzer`; it is told by the kernel's command line how many calls it shall make, and what seed
//! they follow from. It says on the log line which call answered what how often (`fuzz saw CALL STATUS COUNT`), which answers
//! that the reference lists never came (`fuzz never CALL STATUS`), and `fuzz done` at its end; `fuzz FAILED: WHY` if
//! something is not as it must be. A kernel that panics fails, and so does a machine that falls silent.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::bootimage::{self, KERNEL, Sources};
use crate::build;
use crate::cli::{FuzzOptions, GuestOptions};
use crate::console::Session;
use crate::console::record::Record;
use crate::machine::{Accel, Boot, Config, Machine};
use crate::say;
use crate::scenario::{Scenario, Settings};
use crate::setup;
use crate::workspace::Workspace;

/// Calls that `cargo xtask test` makes, and on how many cores.
pub(crate) const TEST_CALLS: u64 = 200_000;
pub(crate) const TEST_CORES: u32 = 2;

/// Boot, and what a busy host may take from it.
const LEAST_TIME: Duration = Duration::from_secs(300);
/// The slowest that is accepted.
const CALLS_PER_SECOND: u64 = 1000;

/// What `cargo xtask test` runs.
pub(crate) const fn in_tests() -> FuzzOptions {
    FuzzOptions { calls: TEST_CALLS, seed: 1, cores: TEST_CORES, generation: 5000, icount: false }
}

/// The machine and the program, if the program is here.
pub(crate) fn scenario(workspace: &Workspace, options: &FuzzOptions) -> Option<Scenario> {
    let root = workspace.program_of("tests/fuzzer")?.to_owned();
    let FuzzOptions { calls, seed, generation, .. } = options;
    let cmdline = format!("fuzz.calls={calls} fuzz.seed={seed} fuzz.generation={generation}");
    let settings = Settings { root, cmdline, smp: options.cores, icount: options.icount, ..Settings::default() };
    Some(Scenario { name: "fuzz".to_owned(), folder: PathBuf::new(), settings })
}

pub(crate) fn command(workspace: &Workspace, options: &FuzzOptions) -> Result<bool> {
    let scenario = scenario(workspace, options).context("there is no tests/fuzzer")?;
    setup::everything()?;
    let emulator = setup::emulator()?;
    let built = build::all(workspace)?;
    let folder = workspace.target().join(format!("fuzz-{}", options.seed));
    let image = folder.join("boot.img");
    let sources = Sources { workspace, built: &built, guest: None };
    bootimage::write(&sources, &scenario, &GuestOptions::default(), &image)?;
    let kernel = built.program(workspace, KERNEL)?;
    let boot = Boot::Direct { kernel, module: Some(image), cmdline: scenario.cmdline() };
    let Settings { memory, smp, icount, .. } = scenario.settings;
    let config = Config {
        emulator,
        boot,
        memory,
        smp,
        accel: Accel::Tcg,
        icount,
        devices: Vec::new(),
        control: crate::machine::Control::default(),
        folder,
    };
    let artefact = workspace.target().join("artefacts").join(format!("fuzz-{}.log", options.seed));
    let mut session = Session::new(Machine::start(&config)?, Record::new(&[&artefact])?);
    let start = Instant::now();
    let outcome = watch(&mut session, options.calls, |line| println!("{line}"));
    report(&outcome, &artefact, start.elapsed());
    Ok(outcome.is_ok())
}

fn report(outcome: &Result<(), String>, artefact: &Path, time: Duration) {
    let seconds = time.as_secs();
    match outcome {
        Ok(()) => say::step("Survived", &format!("all calls ({seconds} s); {}", artefact.display())),
        Err(why) => say::failed("Failed", &format!("after {seconds} s: {why}; see {}", artefact.display())),
    }
}

/// Follows the program to its end. Its own lines go to `tell`.
pub(crate) fn watch(session: &mut Session, calls: u64, mut tell: impl FnMut(&str)) -> Result<(), String> {
    let deadline = Instant::now() + LEAST_TIME + Duration::from_secs(calls / CALLS_PER_SECOND);
    loop {
        for line in session.log.take_lines() {
            let Some(verdict) = read(&line) else { continue };
            if !matches!(verdict, Verdict::Panic) {
                tell(line.trim_end());
            }
            match verdict {
                Verdict::Told => {}
                Verdict::Done => return Ok(()),
                // What follows says more: the table, the backtrace.
                Verdict::Failed | Verdict::Panic => return Err(last_words(session, line)),
            }
        }
        if session.is_over() {
            return Err("the machine ended".to_owned());
        }
        if Instant::now() >= deadline {
            return Err("it takes too long".to_owned());
        }
        session.next();
    }
}

/// Lets the machine say the rest, and keeps the first line.
fn last_words(session: &mut Session, line: String) -> String {
    let end = Instant::now() + Duration::from_secs(5);
    while !session.is_over() && Instant::now() < end {
        session.next();
    }
    line
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// A line of the program's.
    Told,
    Done,
    Failed,
    Panic,
}

/// What a line of the log means; nothing for those of the kernel's that are no news.
fn read(line: &str) -> Option<Verdict> {
    if line.contains("panic") {
        return Some(Verdict::Panic);
    }
    match line.strip_prefix("fuzz")?.trim_end() {
        " done" => Some(Verdict::Done),
        rest if rest.starts_with(" FAILED") => Some(Verdict::Failed),
        _ => Some(Verdict::Told),
    }
}

#[cfg(test)]
mod tests {
    use super::{Verdict, read};

    #[test]
    fn lines_are_understood() {
        assert_eq!(read("fuzz done"), Some(Verdict::Done));
        assert_eq!(read("fuzz saw IpcCall Success 12"), Some(Verdict::Told));
        assert_eq!(read("fuzz FAILED: the victim does not answer"), Some(Verdict::Failed));
        assert_eq!(read("kernel panic: index out of bounds"), Some(Verdict::Panic));
        assert_eq!(read("exception 14 at 0x0 without handler"), None);
    }
}
