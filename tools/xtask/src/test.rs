// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask test`: four rungs, each nearer to the whole.
//!
//! 1. [`host`]: unit tests of all that needs no machine;
//! 2. [`kernel`]: the kernel's tests, a root task of their own on the emulated machine;
//! 3. [`fuzz`]: a hostile component, which must not be noticed;
//! 4. [`script`]: scenarios that say what must come of them.
//!
//! The kernel's tests run in QEMU, where guests have SVM, and in Bochs, where they have VMX. The machines of rungs 2 to 4 run two at a time.
//! A rung whose tests do not exist is absent: it counts nothing.
//! What a machine said is kept under `target/artefacts`.

mod host;
mod kernel;
pub(crate) mod script;
pub(crate) mod seed;
mod tally;

use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result};

use self::tally::{Outcome, Tally};
use crate::bootimage::{self, KERNEL, Sources};
use crate::build;
use crate::cli::{Emulator, GuestOptions, Rung, TestOptions};
use crate::console::Session;
use crate::console::record::Record;
use crate::fuzz;
use crate::image;
use crate::machine::{Accel, Boot, Config, Control, Machine};
use crate::say;
use crate::scenario::{Firmware, Scenario, Settings, TestSettings};
use crate::setup;
use crate::size::Size;
use crate::trace;
use crate::workspace::Workspace;

/// Machines at a time.
const MACHINES: usize = 2;

/// What the kernel's tests want to find: devices that interrupt on demand, by a line and by messages.
const KERNEL_DEVICES: [&str; 2] = ["edu", "e1000e"];

/// The same behind an IOMMU, which must be there before them; `edu` makes accesses of 40 bits.
fn behind(iommu: &str) -> Vec<String> {
    [iommu, "edu,dma_mask=0xffffffffff", "e1000e"].map(str::to_owned).into()
}

/// Memory of a machine that Bochs emulates: all of it is the host's from the start.
const BOCHS_MEMORY: Size = Size::mib(512);

/// Lines of a failed machine that are shown.
const LAST_LINES: usize = 30;

pub(crate) fn command(workspace: &Workspace, options: &TestOptions) -> Result<bool> {
    let mut tally = Tally::default();
    if options.only.is_none_or(|rung| rung == Rung::Host) {
        tally.add(host::run(workspace, options)?);
    }
    let jobs = jobs(workspace, options)?;
    if !jobs.is_empty() {
        tally.add(run_machines(workspace, options, jobs)?);
    }
    println!("{tally}");
    Ok(tally.failed == 0)
}

/// A machine to boot, and what to make of it.
struct Job {
    name: String,
    scenario: Scenario,
    kind: JobKind,
    emulator: Emulator,
    /// It boots from a CD by that firmware; Bochs always does, by its own.
    firmware: Option<Firmware>,
}

enum JobKind {
    /// Reports its own results, one test a line.
    Kernel,
    /// One test: a hostile component.
    Fuzz,
    /// One test of steps.
    Script(TestSettings),
}

fn jobs(workspace: &Workspace, options: &TestOptions) -> Result<Vec<Job>> {
    let mut jobs = Vec::new();
    if options.only.is_none_or(|rung| rung == Rung::Kernel)
        && let Some(root) = workspace.program_of("tests/kernel-test")
    {
        jobs.extend(kernel_machines(workspace, root, options.filter.as_deref()));
    }
    if options.only.is_none_or(|rung| rung == Rung::Fuzz)
        && options.filter.as_deref().is_none_or(|filter| "fuzz".contains(filter))
        && let Some(scenario) = fuzz::scenario(workspace, &fuzz::in_tests())
    {
        jobs.push(Job {
            name: "fuzz".to_owned(),
            scenario,
            kind: JobKind::Fuzz,
            emulator: Emulator::Qemu,
            firmware: None,
        });
    }
    if options.only.is_none_or(|rung| rung == Rung::Scenarios) {
        for name in Scenario::names(workspace) {
            let wanted = options.filter.as_deref().is_none_or(|filter| name.contains(filter));
            if wanted {
                jobs.extend(script_jobs(workspace, &name)?);
            }
        }
    }
    jobs.retain(|job| options.machine.is_none_or(|machine| machine == job.emulator));
    Ok(jobs)
}

/// A scenario's test on the machines that it names.
fn script_jobs(workspace: &Workspace, name: &str) -> Result<Vec<Job>> {
    let mut ways = vec![(Emulator::Bochs, "bochs-", None)];
    ways.extend(Scenario::load(workspace, name)?.settings.cd.into_iter().map(|firmware| match firmware {
        Firmware::Bios => (Emulator::Qemu, "bios-", Some(firmware)),
        Firmware::Uefi => (Emulator::Qemu, "uefi-", Some(firmware)),
    }));
    if ways.len() == 1 {
        ways.push((Emulator::Qemu, "", None));
    }
    let mut jobs = Vec::new();
    for (emulator, label, firmware) in ways {
        let mut scenario = Scenario::load(workspace, name)?;
        let bochs = scenario.settings.bochs;
        let Some(test) = scenario.settings.test.take() else { continue };
        if emulator == Emulator::Bochs {
            let Some(bochs) = bochs else { continue };
            scenario.settings.memory = bochs.memory;
            scenario.settings.guest.memory = bochs.guest_memory;
        }
        let name = format!("scenario-{label}{name}");
        jobs.push(Job { name, scenario, kind: JobKind::Script(test), emulator, firmware });
    }
    Ok(jobs)
}

/// The machines on which the kernel's tests run, the slowest first.
fn kernel_machines<'a>(
    workspace: &Workspace,
    root: &'a str,
    filter: Option<&'a str>,
) -> impl Iterator<Item = Job> + use<'a> {
    let chosen = filter.map_or_else(String::new, |name| format!("test={name} "));
    // Firmware that wants memory for a device, which the other machine's does not.
    let table = workspace.root.join("tests/kernel-test/tables/ivrs.bin");
    let mut amd = behind("amd-iommu");
    amd.push(format!("acpitable,sig=IVRS,rev=1,data={}", table.display()));
    let devices: Vec<_> = KERNEL_DEVICES.map(str::to_owned).into();
    let machines = [
        ("kernel-bochs", Emulator::Bochs, 1, "", Vec::new()),
        ("kernel", Emulator::Qemu, 1, "", devices.clone()),
        // What processors need against their own speculation, which the emulator does not.
        ("kernel-barriers", Emulator::Qemu, 1, "mitigations=force", devices.clone()),
        // With a trace, which tells what a component cannot see: on which core an interrupt arrives.
        ("kernel-2-cores", Emulator::Qemu, 2, "trace=1M", devices.clone()),
        // A pool of that size, and budgets that promise more: it runs dry.
        ("kernel-4-cores", Emulator::Qemu, 4, "kernel-memory=48M overcommit=16M", devices),
        ("kernel-amd-iommu", Emulator::Qemu, 2, "trace=1M", amd),
        ("kernel-intel-iommu", Emulator::Qemu, 2, "trace=1M", behind("intel-iommu,intremap=on")),
    ];
    machines.into_iter().map(move |(name, emulator, smp, cmdline, devices)| {
        let memory = if emulator == Emulator::Bochs { BOCHS_MEMORY } else { Settings::default().memory };
        let (root, cmdline) = (root.to_owned(), format!("{chosen}{cmdline}"));
        let settings = Settings { root, cmdline, memory, smp, devices, ..Settings::default() };
        let scenario = Scenario { name: "kernel".to_owned(), folder: PathBuf::new(), settings };
        Job { name: name.to_owned(), scenario, kind: JobKind::Kernel, emulator, firmware: None }
    })
}

fn run_machines(workspace: &Workspace, options: &TestOptions, jobs: Vec<Job>) -> Result<Tally> {
    setup::everything()?;
    let guest = setup::guest(workspace)?;
    // Where init runs, anything may be named in its configuration.
    let whole = jobs.iter().any(|job| job.scenario.has_config());
    let built = build::some(workspace, |binary| {
        whole || binary == KERNEL || jobs.iter().any(|job| job.scenario.names_program(binary))
    })?;
    let sources = Sources { workspace, built: &built, guest: Some(&guest) };
    let mut queue = VecDeque::new();
    for job in jobs {
        let config = prepare(&sources, &job)?;
        queue.push_back((job, config));
    }
    let (queue, tally) = (Mutex::new(queue), Mutex::new(Tally::default()));
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    thread::scope(|scope| {
        for _ in 0..MACHINES {
            scope.spawn(|| {
                while let Some((job, config)) = next() {
                    let counted = run_job(workspace, options, &job, &config);
                    tally.lock().unwrap_or_else(PoisonError::into_inner).add(counted);
                }
            });
        }
    });
    Ok(tally.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// Makes what a job boots.
fn prepare(sources: &Sources<'_>, job: &Job) -> Result<Config> {
    let folder = sources.workspace.target().join("test").join(&job.name);
    let (scenario, guest) = (&job.scenario, GuestOptions::default());
    let (emulator, boot) = match (job.emulator, job.firmware) {
        (Emulator::Qemu, None) => {
            let image = folder.join("boot.img");
            bootimage::write(sources, scenario, &guest, &image)?;
            let kernel = sources.built.program(sources.workspace, KERNEL)?;
            (setup::emulator()?, Boot::Direct { kernel, module: Some(image), cmdline: scenario.cmdline() })
        }
        (emulator, firmware) => {
            setup::iso_tools()?;
            let image = folder.join("cloister.iso");
            image::make(sources, scenario, &guest, &folder, &image)?;
            let uefi = (firmware == Some(Firmware::Uefi)).then(setup::uefi_firmware).transpose()?;
            match emulator {
                Emulator::Bochs => (setup::bochs()?, Boot::Bochs { image }),
                Emulator::Qemu => (setup::emulator()?, Boot::Cd { image, uefi }),
            }
        }
    };
    let Settings { memory, smp, icount, ref devices, .. } = scenario.settings;
    let devices = devices.clone();
    let (monitor, screen) = (scenario.settings.trace.is_some(), job.firmware.is_some());
    let control = Control { monitor, screen, ..Control::default() };
    Ok(Config { emulator, boot, memory, smp, devices, control, accel: Accel::Auto, icount, folder })
}

/// Boots one machine and tells what came of it.
fn run_job(workspace: &Workspace, options: &TestOptions, job: &Job, config: &Config) -> Tally {
    let start = Instant::now();
    let artefact = workspace.target().join("artefacts").join(format!("{}.log", job.name));
    let mut session = match begin(config, &artefact) {
        Ok(session) => session,
        Err(error) => {
            let outcome = Outcome::Failed(format!("{error:#}"));
            return Tally::of_one(&job.name, &outcome, start.elapsed());
        }
    };
    let tally = match &job.kind {
        JobKind::Kernel => kernel::watch(&mut session, options.filter.as_deref()),
        JobKind::Fuzz => {
            let outcome = fuzz::watch(&mut session, |_| ()).map_or_else(Outcome::Failed, |()| Outcome::Passed);
            Tally::of_one(&job.name, &outcome, start.elapsed())
        }
        JobKind::Script(test) => {
            let mut result = script::play(&mut session, test);
            if job.scenario.settings.trace.is_some() {
                let timeline = artefact.with_extension("json");
                result = result.and_then(|()| trace::check(&mut session, &timeline).map_err(|why| format!("{why:#}")));
            }
            let outcome = result.map_or_else(Outcome::Failed, |()| Outcome::Passed);
            Tally::of_one(&job.name, &outcome, start.elapsed())
        }
    };
    let last = session.last_lines(LAST_LINES);
    if tally.failed > 0 {
        say::failed("Last lines", &format!("of {}; all of them: {}", job.name, artefact.display()));
        for line in last {
            eprintln!("    {line}");
        }
    }
    tally
}

fn begin(config: &Config, artefact: &Path) -> Result<Session> {
    // Sockets and QEMU's own files of an earlier run would only confuse.
    fs::remove_file(config.folder.join("qemu.log")).or_else(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Ok(()),
        _ => Err(error).context("QEMU's old log cannot be removed"),
    })?;
    let record = Record::new(&[artefact])?;
    Ok(Session::new(Machine::start(config)?, record))
}
