// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask trace`: what the kernel does while a scenario runs, as a timeline.
//!
//! The scenario boots with `trace=SIZE`. When its test's steps were played, or after some seconds, the emulator is stopped and
//! the rings are read out of its memory, where the kernel's log says that they are: [`rings`] reads them, [`timeline`] makes slices of
//! records, [`json`] writes what ui.perfetto.dev opens.

mod json;
mod names;
mod rings;
mod timeline;

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use regex::Regex;

use self::rings::Ring;
use self::timeline::Timeline;
use crate::bootimage::{self, KERNEL, Sources};
use crate::build;
use crate::cli::{GuestOptions, TraceOptions};
use crate::console::Session;
use crate::console::record::Record;
use crate::machine::{Boot, Config, Control, Machine};
use crate::say::{self, LongStep};
use crate::scenario::Scenario;
use crate::setup;
use crate::test::script;
use crate::workspace::Workspace;

/// How long to trace a scenario without a test.
const SECONDS: u64 = 20;

pub(crate) fn command(workspace: &Workspace, options: &TraceOptions) -> Result<bool> {
    let mut scenario = Scenario::load(workspace, &options.scenario)?;
    scenario.settings.trace = Some(options.size);
    setup::everything()?;
    let whole = scenario.has_config();
    let guest = if whole { Some(setup::guest(workspace)?) } else { None };
    let built = build::some(workspace, |binary| whole || binary == KERNEL || scenario.names_program(binary))?;
    let folder = workspace.target().join("trace").join(&scenario.name);
    let image = folder.join("boot.img");
    let sources = Sources { workspace, built: &built, guest: guest.as_ref() };
    bootimage::write(&sources, &scenario, &GuestOptions::default(), &image)?;
    let settings = &scenario.settings;
    let config = Config {
        emulator: setup::emulator()?,
        boot: Boot::Direct {
            kernel: built.program(workspace, KERNEL)?,
            module: Some(image),
            cmdline: scenario.cmdline(),
        },
        memory: options.machine.memory.unwrap_or(settings.memory),
        smp: options.machine.smp.unwrap_or(settings.smp),
        devices: settings.devices.clone(),
        control: Control { monitor: true, ..Control::default() },
        accel: options.machine.accel,
        icount: settings.icount,
        folder,
    };
    let output = options.output.clone().unwrap_or_else(|| config.folder.join("trace.json"));
    let rings = record(&config, &scenario, options.seconds)?;
    convert(&rings, &output)?;
    for ring in rings.iter().filter(|ring| !ring.records.is_empty() && !ring.is_of_names()) {
        let (count, lost) = (ring.records.len(), ring.lost);
        say::step("Recorded", &format!("core {}: {count} events, {lost} older ones were overwritten", ring.core));
    }
    say::step("Made", &format!("{}; open it at ui.perfetto.dev", output.display()));
    Ok(true)
}

/// Boots, lets the scenario do what its test says, and reads the rings.
fn record(config: &Config, scenario: &Scenario, seconds: Option<u64>) -> Result<Vec<Ring>> {
    let file = config.folder.join("run.log");
    let mut session = Session::new(Machine::start(config)?, Record::new(&[&file])?);
    let _step = LongStep::begin("Tracing", &scenario.name);
    match (&scenario.settings.test, seconds) {
        (Some(test), None) => {
            let deadline = Instant::now() + Duration::from_secs(test.timeout);
            if let Err(why) = script::play_steps(&mut session, test, deadline) {
                say::warn(&format!("the scenario did not do as it should: {why}"));
            }
        }
        (_, seconds) => {
            let end = Instant::now() + Duration::from_secs(seconds.unwrap_or(SECONDS));
            while Instant::now() < end && !session.is_over() {
                session.next();
            }
        }
    }
    read(&mut session, &config.folder.join("ring"))
}

/// Makes a timeline of what a test's machine has done, and looks whether it makes sense.
pub(crate) fn check(session: &mut Session, output: &Path) -> Result<()> {
    let timeline = convert(&read(session, &output.with_extension("ring"))?, output)?;
    ensure!(timeline.slices.len() > 100 && !timeline.flows.is_empty(), "there is next to nothing in the trace");
    Ok(())
}

/// Stops the machine and reads its rings.
fn read(session: &mut Session, scratch: &Path) -> Result<Vec<Ring>> {
    let places = places(session.log.text())?;
    ensure!(!places.is_empty(), "the kernel's log does not say where the trace is");
    let monitor = session.machine.monitor()?;
    monitor.stop()?;
    places.into_iter().map(|(address, size)| Ring::read(&monitor.memory(address, size, scratch)?)).collect()
}

/// Where the log says that rings are: physical address and size.
fn places(log: &str) -> Result<Vec<(u64, usize)>> {
    let pattern = Regex::new(r"trace: core \d+ at 0x([0-9a-f]+), (\d+) bytes")?;
    let place = |found: regex::Captures<'_>| Ok((u64::from_str_radix(&found[1], 16)?, found[2].parse()?));
    pattern.captures_iter(log).map(place).collect()
}

/// Writes the timeline.
fn convert(rings: &[Ring], output: &Path) -> Result<Timeline> {
    let timeline = Timeline::new(rings);
    timeline.check().map_err(|why| anyhow!("the trace makes no sense: {why}"))?;
    if let Some(folder) = output.parent() {
        fs::create_dir_all(folder).with_context(|| format!("{} cannot be made", folder.display()))?;
    }
    let file = File::create(output).with_context(|| format!("{} cannot be written", output.display()))?;
    let mut file = BufWriter::new(file);
    json::write(&timeline, rings.first().map_or(1, |ring| ring.tsc_hz), &mut file)?;
    file.flush()?;
    Ok(timeline)
}

#[cfg(test)]
mod tests {
    use super::places;

    #[test]
    fn rings_are_found_in_the_log() {
        let log = "x\n[kernel] trace: core 0 at 0x75200000, 1048576 bytes\n[kernel] trace: core 1 at 0xa0, 64 bytes\n";
        assert_eq!(places(log).expect("numbers"), [(0x7520_0000, 1 << 20), (0xa0, 64)]);
    }
}
