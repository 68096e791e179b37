// SPDX-License-Identifier: MIT OR Apache-2.0
//! A VM from its configuration to its end.

use std::fmt;
use std::fs::File;
use std::path::Path;
use std::sync::{Arc, Mutex};

use cloister_boot::{acpi, cpu, cpuid, linux};
use cloister_hypervisor::{Error as MachineError, Hypervisor, Protection, Vcpu, Vm};

use vm_memory::GuestMemoryMmap;

use crate::board::{Board, BoardError, PCI_DEVICES, Parts};
use crate::bus::VcpuBus;
use crate::clock::TscClock;
use crate::config::{Profile, VmConfig};
use crate::config_pages;
use crate::console::{InputTarget, Keyboard, SharedConsole, Watched};
use crate::crash;
use crate::memory::RamSource;
use crate::report;
use crate::stats::Stats;
use crate::vcpu::{End, Runner};
use crate::wake::{Bell, Bells};

/// What the VM gets from outside.
pub struct Host<'a, H, R> {
    /// The machine.
    pub hypervisor: &'a H,
    /// Guest memory.
    pub ram: &'a R,
    /// Where the guest's console output goes.
    pub console: SharedConsole,
    /// Where its console input comes from.
    pub input: &'a InputTarget,
}

impl<H, R> fmt::Debug for Host<'_, H, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host").finish_non_exhaustive()
    }
}

/// How a VM ended well.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum VmEnd {
    /// The guest switched its machine off.
    PoweredOff,
}

/// Why a VM could not start or go on.
#[derive(Debug)]
#[non_exhaustive]
pub enum VmError {
    /// A file of the configuration can't be opened.
    File {
        /// Which.
        path: std::path::PathBuf,
        /// Why.
        why: std::io::Error,
    },
    /// The guest can't be loaded.
    Boot(cloister_boot::Error),
    /// The machine underneath refused.
    Machine(MachineError),
    /// The board does not fit together.
    Board(BoardError),
    /// The guest did something that can't be handled; its state, ready to be read.
    Guest(String),
}

impl fmt::Display for VmError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, why } => write!(f, "{}: {why}", path.display()),
            Self::Boot(e) => e.fmt(f),
            Self::Machine(e) => e.fmt(f),
            Self::Board(e) => e.fmt(f),
            Self::Guest(state) => write!(f, "the guest can't go on: {state}"),
        }
    }
}

impl std::error::Error for VmError {}

impl From<cloister_boot::Error> for VmError {
    fn from(e: cloister_boot::Error) -> Self {
        Self::Boot(e)
    }
}

impl From<MachineError> for VmError {
    fn from(e: MachineError) -> Self {
        Self::Machine(e)
    }
}

/// Runs a VM until it is switched off; at a reset it starts anew. Progress is told by `say`, a line at a time.
///
/// # Errors
/// Each [`VmError`].
pub fn run<H: Hypervisor, R: RamSource>(
    config: &VmConfig,
    host: &Host<'_, H, R>,
    say: &dyn Fn(&str),
) -> Result<VmEnd, VmError> {
    if let Some(ms) = config.crash_after_ms {
        crash::schedule(ms);
    }
    loop {
        match start(config, host, say)? {
            End::Off => return Ok(VmEnd::PoweredOff),
            End::Reset => say("vm: reset"),
            // `start` has made an error of it.
            End::Unhandled(state) => return Err(VmError::Guest(state.to_string())),
        }
    }
}

/// One life of the machine, from power-on to power-off or reset.
fn start<H: Hypervisor, R: RamSource>(
    config: &VmConfig,
    host: &Host<'_, H, R>,
    say: &dyn Fn(&str),
) -> Result<End, VmError> {
    let ram = host.ram.allocate(config.memory)?;
    let config_pages = match config.profile {
        Profile::Reduced => Some(host.ram.allocate_pieces(&config_pages::pieces(&PCI_DEVICES))?),
        Profile::Full => None,
    };
    let vm = host.hypervisor.create_vm()?;
    // SAFETY: `vm` is dropped, and its VCPUs with it, before the memory, which was declared first.
    unsafe { ram.map_into(&vm, Protection::RAM) }?;
    if let Some(pages) = &config_pages {
        // SAFETY: as above.
        unsafe { pages.map_into(&vm, Protection { write: false, execute: false }) }?;
    }
    // SAFETY: the board is gone before the memory: only its VCPU's loop, which ends in here, and its serial port, which
    // does not use guest memory, are known elsewhere.
    let memory = unsafe { ram.memory() };
    // SAFETY: as above.
    let page_memory = config_pages.as_ref().map(|pages| unsafe { pages.memory() });
    let tsc_khz = vm.tsc_khz()?;
    let bell = Bell::default();
    let stats = Stats::new(config.given.map(|given| (config.memory, given)));
    let parts = Parts {
        vcpus: vec![0],
        tsc_khz,
        clock: TscClock::start(tsc_khz),
        memory: memory.clone(),
        console: watch(config, host, &stats),
        profile: config.profile,
        config_pages: page_memory,
    };
    let board = Board::new(parts, Box::new(Bells(vec![bell.clone()]))).map_err(VmError::Board)?;
    let keyboard: Arc<dyn Keyboard> = board.serial.clone();
    host.input.set(&keyboard);

    let entry = load(config, &memory, &board)?;
    let mut vcpu = vm.create_vcpu(0)?;
    let params = cpuid::Params { tsc_khz, apic_khz: board.apic_khz(), apic_id: 0 };
    vcpu.set_cpuid(&cpuid::policy(&host.hypervisor.supported_cpuid()?, params))?;
    let reset = vcpu.sregs()?;
    vcpu.set_sregs(&cpu::sregs(&reset))?;
    vcpu.set_regs(&cpu::regs(entry))?;

    let mut runner = Runner::new(vcpu, VcpuBus::new(board.clone(), 0), bell, config.stats.then_some(stats));
    let end = runner.run()?;
    board.flush_console();
    if let Some(stats) = runner.stats() {
        say(stats.to_string().trim_end());
    }
    match end {
        End::Unhandled(state) => Err(VmError::Guest(report::describe(&memory, &state))),
        end => Ok(end),
    }
}

/// The console, watched for the text at which counts are to be told.
fn watch<H, R>(config: &VmConfig, host: &Host<'_, H, R>, stats: &Stats) -> SharedConsole {
    match &config.stats_at {
        None => host.console.clone(),
        Some(text) => Arc::new(Mutex::new(Watched::new(host.console.clone(), text, stats.marker.clone()))),
    }
}

/// Loads the guest and describes the machine to it.
fn load(config: &VmConfig, memory: &GuestMemoryMmap, board: &Board) -> Result<linux::Entry, VmError> {
    let rsdp = acpi::write(memory, &board.description())?;
    cpu::write_tables(memory)?;
    let mut kernel = open(&config.kernel)?;
    let mut initrd = config.initrd.as_deref().map(open).transpose()?;
    let linux = linux::Linux {
        kernel: &mut kernel,
        initrd: initrd.as_mut(),
        command_line: &config.command_line,
        rsdp,
        ram: config.memory,
    };
    Ok(linux::load(memory, linux)?)
}

fn open(path: &Path) -> Result<File, VmError> {
    File::open(path).map_err(|why| VmError::File { path: path.into(), why })
}
