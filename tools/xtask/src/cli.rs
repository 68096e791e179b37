// SPDX-License-Identifier: MIT OR Apache-2.0
//! The command line, as `clap` reads it. The comments here are the user's help text.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use regex::{Regex, RegexBuilder};

use crate::machine::Accel;
use crate::size::Size;
use crate::test::seed::Seed;

/// Sets up, builds, boots, tests and measures Cloister.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Find or install what is needed: emulator, compiler, linker, guest kernel, busybox
    Setup,
    /// Build the kernel and all components
    Build,
    /// Boot a scenario; this terminal is its console (Ctrl-a x leaves)
    Run(RunOptions),
    /// Run all tests: on the host, of the kernel, of whole systems
    Test(TestOptions),
    /// Count instructions of the important paths, and compare
    Bench(BenchOptions),
    /// Let a hostile component make hypercalls
    Fuzz(FuzzOptions),
    /// Record what the kernel does, as a timeline that ui.perfetto.dev opens
    Trace(TraceOptions),
    /// Count the kernel's lines of code by area, and what of them is unsafe
    Size,
    /// Check format and lints for each target
    Lint,
    /// Make an ISO that boots by GRUB on a real machine (BIOS and UEFI)
    Image(ImageOptions),
}

/// A pattern in which `^` and `$` stand for the ends of each line.
pub(crate) fn multi_line(text: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(text).multi_line(true).build()
}

#[derive(Debug, Args)]
pub(crate) struct RunOptions {
    /// A folder of tests/scenarios
    #[arg(default_value = "linux")]
    pub(crate) scenario: String,
    #[command(flatten)]
    pub(crate) guest: GuestOptions,
    #[command(flatten)]
    pub(crate) machine: MachineOptions,
    /// Leave with 0 when the console or the log shows this, with 1 at the time-out
    #[arg(long, value_name = "REGEX", value_parser = multi_line)]
    pub(crate) until: Option<Regex>,
    /// Leave with 1 after this long
    #[arg(long, value_name = "SECONDS")]
    pub(crate) timeout: Option<u64>,
    /// Type this line at the console when the prompt comes; may be given several times
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub(crate) send: Vec<String>,
    /// Keep all that the console and the log show in this file
    #[arg(long, value_name = "FILE")]
    pub(crate) log: Option<PathBuf>,
    /// Wait for a debugger at this port (1234 if none is given), and say how to start it
    #[arg(long, value_name = "PORT", num_args = 0..=1, default_missing_value = "1234")]
    pub(crate) gdb: Option<u16>,
    /// Boot the guest's kernel right on the emulated machine, without Cloister (to compare, or to try a guest)
    #[arg(long)]
    pub(crate) bare: bool,
}

/// Somebody's own guest instead of the scenario's.
#[derive(Debug, Default, Args)]
pub(crate) struct GuestOptions {
    /// The guest's kernel (a bzImage)
    #[arg(long, value_name = "FILE")]
    pub(crate) kernel: Option<PathBuf>,
    /// The guest's initial RAM disk
    #[arg(long, value_name = "FILE")]
    pub(crate) initrd: Option<PathBuf>,
    /// The guest's kernel command line
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub(crate) cmdline: Option<String>,
    /// The guest's memory
    #[arg(long, value_name = "SIZE")]
    pub(crate) guest_memory: Option<Size>,
}

/// The machine below: what QEMU emulates.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct MachineOptions {
    /// Cores of the host machine
    #[arg(long, value_name = "N")]
    pub(crate) smp: Option<u32>,
    /// Memory of the host machine
    #[arg(long, value_name = "SIZE")]
    pub(crate) memory: Option<Size>,
    /// How to run the machine; auto takes KVM where it offers nested virtualization
    #[arg(long, value_enum, default_value_t)]
    pub(crate) accel: Accel,
}

#[derive(Debug, Args)]
pub(crate) struct TestOptions {
    /// Only tests whose name contains this
    pub(crate) filter: Option<String>,
    /// Only this rung
    #[arg(long, value_enum)]
    pub(crate) only: Option<Rung>,
    /// Only on this machine
    #[arg(long, value_enum)]
    pub(crate) machine: Option<Emulator>,
    /// What the random cases of tests on the host follow from, 1 if neither this nor PROPTEST_RNG_SEED says so
    #[arg(long, value_name = "N|random")]
    pub(crate) seed: Option<Seed>,
}

/// What emulates the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Emulator {
    /// QEMU: SVM, fast
    Qemu,
    /// Bochs: VMX, slow
    Bochs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Rung {
    /// Unit tests on the host
    Host,
    /// The kernel's tests on the emulated machine
    Kernel,
    /// A hostile component
    Fuzz,
    /// Scenarios with expectations
    Scenarios,
}

#[derive(Debug, Args)]
pub(crate) struct BenchOptions {
    /// Write the figures here, too
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct FuzzOptions {
    /// How many calls
    #[arg(long, value_name = "N", default_value_t = crate::fuzz::TEST_CALLS)]
    pub(crate) calls: u64,
    /// What all of it follows from
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub(crate) seed: u64,
    /// Cores of the machine
    #[arg(long, value_name = "N", default_value_t = crate::fuzz::TEST_CORES)]
    pub(crate) cores: u32,
    /// Calls that a component makes before the next one comes
    #[arg(long, value_name = "N", default_value_t = 5000)]
    pub(crate) generation: u64,
    /// Count instructions in place of time: the same seed then gives the same run, to the last call
    #[arg(long)]
    pub(crate) icount: bool,
    /// Go on where the run with this seed was stopped
    #[arg(long)]
    pub(crate) resume: bool,
}

#[derive(Debug, Args)]
pub(crate) struct TraceOptions {
    /// A folder of tests/scenarios; what its test says is done meanwhile
    #[arg(default_value = "linux")]
    pub(crate) scenario: String,
    /// Instead of what the test says, wait this long
    #[arg(long, value_name = "SECONDS")]
    pub(crate) seconds: Option<u64>,
    /// Memory for the trace of each core; older events are overwritten
    #[arg(long, value_name = "SIZE", default_value = "4M")]
    pub(crate) size: Size,
    /// Where the timeline goes
    #[arg(long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) machine: MachineOptions,
}

#[derive(Debug, Args)]
pub(crate) struct ImageOptions {
    /// A folder of tests/scenarios
    #[arg(default_value = "linux")]
    pub(crate) scenario: String,
    /// Where the ISO goes
    #[arg(long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Then boot it in QEMU, once by SeaBIOS and once by OVMF
    #[arg(long = "try")]
    pub(crate) trial: bool,
}
