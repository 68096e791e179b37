// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask fuzz`: a hostile component makes hypercalls for as long as one likes.
//!
//! The program is the root task of `tests/fuzzer`; it is told by the kernel's command line how many calls it shall make, and what seed
//! they follow from. It says on the log line which call answered what how often (`fuzz saw CALL STATUS COUNT`), which answers
//! that the reference lists never came (`fuzz never CALL STATUS`), how far it is (`fuzz: COUNT calls so far, next seed SEED`), and `fuzz
//! done` at its end; `fuzz FAILED: WHY` if something is not as it must be. A kernel that panics fails, and so does a machine that falls
//! silent.
//!
//! Each component follows from a seed of its own, so a run that was stopped goes on with the next one ([`Place`]).

mod place;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use self::place::Place;
use crate::bootimage::{self, KERNEL, Sources};
use crate::build;
use crate::cli::{FuzzOptions, GuestOptions};
use crate::console::Session;
use crate::console::record::Record;
use crate::machine::{Accel, Boot, Config, Machine};
use crate::say::{self, Progress};
use crate::scenario::{Scenario, Settings};
use crate::setup;
use crate::workspace::Workspace;

/// Calls that `cargo xtask test` makes, and on how many cores.
pub(crate) const TEST_CALLS: u64 = 200_000;
pub(crate) const TEST_CORES: u32 = 2;

/// Boot, or a word on how far it is, on a busy host.
const PATIENCE: Duration = Duration::from_secs(300);

/// What `cargo xtask test` runs.
pub(crate) const fn in_tests() -> FuzzOptions {
    FuzzOptions { calls: TEST_CALLS, seed: 1, cores: TEST_CORES, generation: 5000, icount: false, resume: false }
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
    let folder = workspace.target().join(format!("fuzz-{}", options.seed));
    let mut place = if options.resume { Place::load(&folder)? } else { Place::start(options.seed) };
    let left = options.calls.saturating_sub(place.calls);
    let part = FuzzOptions { calls: left, seed: place.seed, ..*options };
    let scenario = scenario(workspace, &part).context("there is no tests/fuzzer")?;
    let config = machine(workspace, &scenario, folder)?;
    let artefact = workspace.target().join("artefacts").join(format!("fuzz-{}.log", options.seed));
    let mut session = Session::new(Machine::start(&config)?, Record::new(&[&artefact])?);
    let (start, before) = (Instant::now(), place.calls);
    let mut progress = Progress::begin("Fuzzing", options.calls, before);
    let outcome = watch(&mut session, |news| match news {
        News::Line(line) => progress.print(line),
        News::Reached(reached) => {
            place = Place { calls: before + reached.calls, ..reached };
            progress.set(place.calls);
            place.save(&config.folder)
        }
    });
    drop(progress);
    report(&outcome, &artefact, start.elapsed());
    if outcome.is_err() && place.calls > before {
        say::step("Resume", &format!("with --seed {} --resume, after {} calls", options.seed, place.calls));
    }
    Ok(outcome.is_ok())
}

fn machine(workspace: &Workspace, scenario: &Scenario, folder: PathBuf) -> Result<Config> {
    setup::everything()?;
    let emulator = setup::emulator()?;
    let built = build::all(workspace)?;
    let image = folder.join("boot.img");
    let sources = Sources { workspace, built: &built, guest: None };
    bootimage::write(&sources, scenario, &GuestOptions::default(), &image)?;
    let kernel = built.program(workspace, KERNEL)?;
    let boot = Boot::Direct { kernel, module: Some(image), cmdline: scenario.cmdline() };
    let Settings { memory, smp, icount, .. } = scenario.settings;
    let (devices, control) = (Vec::new(), crate::machine::Control::default());
    Ok(Config { emulator, boot, memory, smp, accel: Accel::Tcg, icount, devices, control, folder })
}

fn report(outcome: &Result<(), String>, artefact: &Path, time: Duration) {
    let seconds = time.as_secs();
    match outcome {
        Ok(()) => say::step("Survived", &format!("all calls ({seconds} s); {}", artefact.display())),
        Err(why) => say::failed("Failed", &format!("after {seconds} s: {why}; see {}", artefact.display())),
    }
}

/// What a run tells.
pub(crate) enum News<'a> {
    /// A line of the program's.
    Line(&'a str),
    /// How far it is.
    Reached(Place),
}

/// Follows the program to its end.
pub(crate) fn watch(session: &mut Session, mut tell: impl FnMut(News<'_>)) -> Result<(), String> {
    let mut heard = Instant::now();
    loop {
        for line in session.log.take_lines() {
            heard = Instant::now();
            match read(&line) {
                None => {}
                Some(Verdict::Reached(place)) => tell(News::Reached(place)),
                Some(Verdict::Told) => tell(News::Line(line.trim_end())),
                Some(Verdict::Done) => {
                    tell(News::Line(line.trim_end()));
                    return Ok(());
                }
                // What follows says more: the table, the backtrace.
                Some(Verdict::Failed | Verdict::Panic) => return Err(last_words(session, line)),
            }
        }
        if session.is_over() {
            return Err("the machine ended".to_owned());
        }
        if heard.elapsed() >= PATIENCE {
            return Err(format!("nothing was heard of it for {} s", PATIENCE.as_secs()));
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
    /// So far it is.
    Reached(Place),
    Done,
    Failed,
    Panic,
}

/// What a line of the log means; nothing for those of the kernel's that are no news.
fn read(line: &str) -> Option<Verdict> {
    if line.contains("panic") {
        return Some(Verdict::Panic);
    }
    let rest = line.strip_prefix("fuzz")?.trim_end();
    if let Some(place) = Place::read(rest) {
        return Some(Verdict::Reached(place));
    }
    match rest {
        " done" => Some(Verdict::Done),
        rest if rest.starts_with(" FAILED") => Some(Verdict::Failed),
        _ => Some(Verdict::Told),
    }
}

#[cfg(test)]
mod tests {
    use super::{Place, Verdict, read};

    #[test]
    fn lines_are_understood() {
        assert_eq!(read("fuzz done"), Some(Verdict::Done));
        assert_eq!(read("fuzz saw IpcCall Success 12"), Some(Verdict::Told));
        assert_eq!(read("fuzz FAILED: the victim does not answer"), Some(Verdict::Failed));
        assert_eq!(read("kernel panic: index out of bounds"), Some(Verdict::Panic));
        assert_eq!(read("exception 14 at 0x0 without handler"), None);
        let reached = Verdict::Reached(Place { calls: 50_123, seed: 12 });
        assert_eq!(read("fuzz: 50123 calls so far, next seed 12\r"), Some(reached));
    }
}
