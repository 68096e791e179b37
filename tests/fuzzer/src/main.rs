// SPDX-License-Identifier: MIT OR Apache-2.0
//! A hostile component makes hypercalls, millions of them, and nothing comes of it for anybody else.
//!
//! The root task makes a component that has no rights of the root task's, with a budget and a few capabilities: its own PD and spaces, a
//! guest with a virtual CPU, portals, semaphores that it shares with a victim. Threads of it, on up to two cores, call the
//! kernel: validly as far as they know, with arguments spoiled, in sequences that build something, at random. After some thousand calls
//! the component is destroyed, and the next one comes.
//!
//! Checked are: the kernel lives; the victim, its memory, its semaphores, its account, its threads, is as before and answers; each
//! answer of the kernel is one that the reference lists for that call; and when the component has gone, all kernel memory is
//! back, to the byte.
//!
//! The kernel's command line says `fuzz.calls=N`, `fuzz.seed=S`, `fuzz.generation=N` (calls of each component) and `fuzz.step=N` (from
//! the seed of one to that of the next). Everything
//! follows from the seed; how threads take turns does too where the machine counts instructions in place of time, so there the
//! same seed gives the same `digest`.
//!
//! * [`supervisor`], [`victim`] – the root task and whom it watches over
//! * [`hostile`] – the component's threads and servers; [`single`], [`scenes`] – what they do; [`entry`] – their first instructions
//! * [`layout`] – what both sides know
#![no_std]
#![no_main]
#![expect(unsafe_code, reason = "system calls of any kind, and pages shared with whoever misuses them")]
#![expect(clippy::cast_possible_truncation, reason = "numbers at random are cut to what is needed")]

mod entry;
mod hostile;
mod layout;
mod random;
mod scenes;
mod single;
mod supervisor;
mod victim;

use cloister_abi::hypercall::CALLS;
use cloister_abi::status::Status;
use cloister_bare::documented::DOCUMENTED;
use cloister_bare::entry::hip;
use cloister_bare::println;
use core::sync::atomic::Ordering::Relaxed;
use layout::{COMPLAINT, CORES, record};
use supervisor::{Failure, Sums, Supervisor};

/// A number of the kernel's command line.
fn parameter(name: &str, default: u64) -> u64 {
    let line = hip().cmdline.split(|byte| *byte == 0).next().unwrap_or_default();
    let words = core::str::from_utf8(line).unwrap_or_default().split_ascii_whitespace();
    let mut values = words.filter_map(|word| word.strip_prefix(name)?.strip_prefix('=')?.parse().ok());
    values.next().unwrap_or(default)
}

fn name(call: usize) -> &'static str {
    CALLS.get(call).map_or("foreign", |(name, _)| name)
}

/// What was seen, and what the reference lists beside it.
fn tell(sums: &Sums) {
    for (call, answers) in sums.seen.iter().enumerate() {
        let documented = DOCUMENTED.get(call).copied().unwrap_or(1 << Status::BadHypercall as u16 | 1);
        for (number, count) in answers.iter().enumerate() {
            let Some(status) = Status::ALL.get(number) else { continue };
            if *count > 0 {
                println!("fuzz saw {} {status:?} {count}", name(call));
            } else if documented >> number & 1 != 0 {
                println!("fuzz never {} {status:?}", name(call));
            }
        }
    }
    println!(
        "fuzz: {} calls, {} components ({} ruined themselves), {} threads given up, {} faults repaired, {} calls strayed, digest {:016x}",
        sums.calls, sums.generations, sums.ruined, sums.respawns, sums.faults, sums.strayed, sums.digest
    );
    println!(
        "fuzz: destroying a component took at most {} calls, one of them at most {} ticks; the victim answered within {} ticks",
        sums.most_destroys, sums.longest_destroy, sums.longest_answer
    );
}

fn explain(failure: &Failure, seed: u64) {
    match failure {
        Failure::Refused(status) => println!("fuzz FAILED: the supervisor is refused: {status}"),
        Failure::Wrong(what) => println!("fuzz FAILED: {what}"),
        Failure::Lost(account, pool) => {
            println!("fuzz FAILED: memory is not back: {account} bytes of the account, {pool} of the pool");
        }
        Failure::Undocumented => {
            let word = |index: usize| record().complaint[index].load(Relaxed);
            let status = Status::from_raw(word(7)).map_or("no status", |status| NAMES[status as usize % NAMES.len()]);
            let call = name(word(COMPLAINT).wrapping_sub(1) as usize);
            let args = [0, 1, 2, 3, 4, 5].map(word);
            println!("fuzz FAILED: {call} answered {status}, which the reference does not list: {args:x?}");
            println!(
                "fuzz: that was {:#x} and {:#x}, in slot {} of {}",
                word(7),
                word(8),
                word(6),
                record().next.load(Relaxed)
            );
        }
    }
    println!("fuzz: that was the component of seed {seed}");
}

/// Statuses by number, as the reference spells them.
const NAMES: [&str; 14] = [
    "Success",
    "Timeout",
    "Aborted",
    "BadHypercall",
    "BadCapability",
    "BadParameter",
    "BadFeature",
    "BadCore",
    "BadDevice",
    "OutOfBudget",
    "OutOfMemory",
    "PeerOutOfBudget",
    "Busy",
    "Again",
];

/// Calls between two words on how far this is.
const TELLING: u64 = 50_000;

fn main() -> bool {
    let (calls, seed) = (parameter("fuzz.calls", 20_000), parameter("fuzz.seed", 1));
    let each = parameter("fuzz.generation", 5000);
    let step = parameter("fuzz.step", 1);
    let cores = hip().cores.min(CORES as u32);
    println!("fuzz seed {seed} calls {calls} cores {cores}, {each} calls each");
    let mut sums = Sums::new();
    let mut supervisor = match Supervisor::new(cores) {
        Ok(supervisor) => supervisor,
        Err(status) => {
            explain(&Failure::Refused(status), seed);
            return false;
        }
    };
    let mut told = 0;
    while sums.calls < calls {
        let seed = seed.wrapping_add(sums.generations.wrapping_mul(step));
        if let Err(failure) = supervisor.generation(seed, each, &mut sums) {
            explain(&failure, seed);
            tell(&sums);
            return false;
        }
        if sums.calls / TELLING > told {
            told = sums.calls / TELLING;
            // Whoever begins with that seed does what follows here.
            println!("fuzz: {} calls so far, next seed {}", sums.calls, seed.wrapping_add(1));
        }
    }
    tell(&sums);
    println!("fuzz done");
    true
}

cloister_bare::root_task!(main);
