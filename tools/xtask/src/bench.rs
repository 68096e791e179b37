// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask bench`: how many instructions the important paths take, beside what others take.
//!
//! The emulator counts instructions in place of time (`-icount shift=0,sleep=off`), so the figures are exact and the
//! same in each run, on any host. Several machines are booted, one after the other: the micro benchmarks (the root
//! task of `tests/bench`), on one core, on two, with all barriers against speculation, and with a trace, and the boot of a guest (the scenario `bench-boot`). Both report lines
//! `bench NAME VALUE UNIT` on the log line, and `bench done` at their end.
//!
//! [`figures`] holds what they are compared with, [`table`] shows it. Whoever is over a limit, or not measured, fails the command.

mod figures;
mod table;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use regex::Regex;
use serde_json::json;

use self::table::Row;
use crate::bootimage::{self, KERNEL, Sources};
use crate::build::{self, Built};
use crate::cli::{BenchOptions, GuestOptions};
use crate::console::Session;
use crate::console::record::Record;
use crate::guest::Guest;
use crate::machine::{Accel, Boot, Config, Control, Machine};
use crate::process;
use crate::say::{self, LongStep};
use crate::scenario::{Scenario, Settings};
use crate::setup;
use crate::size::Size;
use crate::workspace::Workspace;

/// The scenarios that measure: exits that the VMM answers, and a guest's boot.
const SCENARIOS: [&str; 2] = ["bench-exits", "bench-boot"];

/// What lets the kernel do all that any processor needs against its own speculation.
const BARRIERS: &str = "mitigations=force";

/// What lets it note all that it does.
const TRACE: &str = "trace=1M";

/// Counting instructions is slow.
const TIME: Duration = Duration::from_secs(600);

/// A measured value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Measured {
    name: String,
    value: u64,
    unit: String,
}

pub(crate) fn command(workspace: &Workspace, options: &BenchOptions) -> Result<bool> {
    let machines = machines(workspace)?;
    if machines.is_empty() {
        bail!("there is nothing to measure: neither tests/bench nor a scenario of {SCENARIOS:?} exists");
    }
    setup::everything()?;
    let emulator = setup::emulator()?;
    let guest = setup::guest(workspace)?;
    let built = build::all(workspace)?;
    let mut measured = Vec::new();
    let mut complete = true;
    for scenario in &machines {
        let config = prepare(workspace, &built, &guest, emulator.clone(), scenario)?;
        let (figures, done) = measure(workspace, &scenario.name, &config)?;
        complete &= done;
        measured.extend(figures);
    }
    let rows: Vec<_> = measured.iter().map(Row::new).collect();
    print!("{}", table::show(&rows));
    let unmeasured = table::unmeasured(&rows);
    if !unmeasured.is_empty() {
        say::failed("Unmeasured", &unmeasured.join(", "));
    }
    let excesses = table::excesses(&rows);
    if !excesses.is_empty() {
        say::failed("Too much", &excesses.join(", "));
    }
    if let Some(file) = &options.json {
        let text = serde_json::to_string_pretty(&as_json(workspace, &rows))?;
        std::fs::write(file, text + "\n").with_context(|| format!("{} cannot be written", file.display()))?;
    }
    Ok(complete && unmeasured.is_empty() && excesses.is_empty())
}

fn machines(workspace: &Workspace) -> Result<Vec<Scenario>> {
    let mut machines = Vec::new();
    if let Some(root) = workspace.program_of("tests/bench") {
        let kinds =
            [("bench", 1, ""), ("bench-cores", 2, ""), ("bench-barriers", 1, BARRIERS), ("bench-traced", 1, TRACE)];
        machines.extend(kinds.map(|(name, smp, cmdline)| {
            let (root, cmdline) = (root.to_owned(), cmdline.to_owned());
            let settings = Settings { root, cmdline, smp, ..Settings::default() };
            Scenario { name: name.to_owned(), folder: PathBuf::new(), settings }
        }));
    }
    let names = Scenario::names(workspace);
    for scenario in SCENARIOS.into_iter().filter(|scenario| names.iter().any(|name| name == scenario)) {
        machines.push(Scenario::load(workspace, scenario)?);
    }
    Ok(machines)
}

/// The machine of the comparison: one core (two for what goes from one to the other), 3 GiB, emulated whatever the host can do.
fn prepare(
    workspace: &Workspace,
    built: &Built,
    guest: &Guest,
    emulator: PathBuf,
    scenario: &Scenario,
) -> Result<Config> {
    let folder = workspace.target().join("bench").join(&scenario.name);
    let image = folder.join("boot.img");
    let sources = Sources { workspace, built, guest: Some(guest) };
    bootimage::write(&sources, scenario, &GuestOptions::default(), &image)?;
    let kernel = built.program(workspace, KERNEL)?;
    let boot = Boot::Direct { kernel, module: Some(image), cmdline: scenario.cmdline() };
    Ok(Config {
        emulator,
        boot,
        memory: Size::mib(3072),
        smp: scenario.settings.smp,
        devices: Vec::new(),
        control: Control::default(),
        accel: Accel::Tcg,
        icount: true,
        folder,
    })
}

/// Boots, and collects what is reported; false when the end was not.
fn measure(workspace: &Workspace, name: &str, config: &Config) -> Result<(Vec<Measured>, bool)> {
    let _step = LongStep::begin("Measuring", name);
    let artefact = workspace.target().join("artefacts").join(format!("{name}.log"));
    let mut session = Session::new(Machine::start(config)?, Record::new(&[&artefact])?);
    let deadline = Instant::now() + TIME;
    let pattern = Regex::new(r"\bbench (\S+)(?: (\d+)(?: (\S+))?)?\s*$")?;
    let mut measured = Vec::new();
    loop {
        let event = session.next();
        for line in session.log.take_lines() {
            let Some(found) = pattern.captures(&line) else { continue };
            match found.get(2) {
                None if &found[1] == "done" => return Ok((measured, true)),
                None => {}
                Some(value) => measured.push(Measured {
                    name: found[1].to_owned(),
                    value: value.as_str().parse().with_context(|| format!("the figure in {line:?}"))?,
                    unit: found.get(3).map_or("instructions", |unit| unit.as_str()).to_owned(),
                }),
            }
        }
        if event.is_none() && (session.is_over() || Instant::now() >= deadline) {
            say::failed("Cut off", &format!("{name} ended without `bench done`; see {}", artefact.display()));
            for line in session.last_lines(30) {
                eprintln!("    {line}");
            }
            return Ok((measured, false));
        }
    }
}

fn as_json(workspace: &Workspace, rows: &[Row]) -> serde_json::Value {
    let commit =
        process::output(std::process::Command::new("git").args(["rev-parse", "HEAD"]).current_dir(&workspace.root));
    let figures: Vec<_> = rows.iter().map(Row::as_json).collect();
    json!({
        "machine": "q35, EPYC with SVM and nested paging, 1 core, 3072 MiB, TCG, -icount shift=0,sleep=off",
        "commit": commit.ok().map(|text| text.trim().to_owned()),
        "figures": figures,
    })
}
