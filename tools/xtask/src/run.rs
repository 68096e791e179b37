// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask run`: everything from a fresh clone to a guest's shell in the user's terminal.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use regex::Regex;

use crate::bootimage::{self, KERNEL, Sources};
use crate::build;
use crate::cli::RunOptions;
use crate::console::Session;
use crate::console::keys::Keys;
use crate::console::record::Record;
use crate::console::terminal::Terminal;
use crate::machine::{Boot, Config, Control, Ending, Event, Machine};
use crate::say;
use crate::scenario::Scenario;
use crate::setup;
use crate::size::Size;
use crate::workspace::Workspace;

/// The prompt of the guest's shell. What the kernel prints may follow it on the same line.
const PROMPT: &str = r"(?m)^/[^\n#]* # ";

/// What the host needs beside a guest that is larger than the usual one.
const HOST_MEMORY: Size = Size::mib(1024);

pub(crate) fn command(workspace: &Workspace, options: &RunOptions) -> Result<bool> {
    let folder = workspace.target().join("run").join(if options.bare { "bare" } else { &options.scenario });
    let config = if options.bare { bare(workspace, options, folder)? } else { whole(workspace, options, folder)? };
    let standard = config.folder.join("run.log");
    let mut files = vec![standard.as_path()];
    files.extend(options.log.as_deref());
    let record = Record::new(&files)?;

    let machine = Machine::start(&config)?;
    if let (Some(port), Boot::Direct { kernel, .. }) = (options.gdb, &config.boot) {
        say::step("Waiting", "for the debugger; in another terminal:");
        println!("    {}", debugger(kernel, port));
    }
    let terminal = Terminal::open(machine.sender())?;
    if terminal.is_interactive() {
        say::step("Booting", "leave with Ctrl-a x");
    }
    let end = Run::new(Session::new(machine, record), terminal, options)?.finish()?;
    Ok(report(end, options))
}

/// What starts the debugger. The breakpoint is one that the debugger leaves to the emulator, since the kernel is not in memory yet.
fn debugger(kernel: &Path, port: u16) -> String {
    let kernel = kernel.display();
    format!("gdb {kernel} -ex 'target remote 127.0.0.1:{port}' -ex 'hbreak cloister_kernel::boot::start' -ex continue")
}

/// Cloister with a scenario.
fn whole(workspace: &Workspace, options: &RunOptions, folder: PathBuf) -> Result<Config> {
    let scenario = Scenario::load(workspace, &options.scenario)?;
    setup::everything()?;
    let guest = setup::guest(workspace)?;
    let emulator = setup::emulator()?;
    let built = build::all(workspace)?;
    let image = folder.join("boot.img");
    bootimage::write(&Sources { workspace, built: &built, guest: Some(&guest) }, &scenario, &options.guest, &image)?;
    let usual = scenario.settings.memory.max(scenario.guest_memory(&options.guest).plus(HOST_MEMORY));
    Ok(Config {
        emulator,
        boot: Boot::Direct {
            kernel: built.program(workspace, KERNEL)?,
            module: Some(image),
            cmdline: scenario.cmdline(),
        },
        memory: options.machine.memory.unwrap_or(usual),
        smp: options.machine.smp.unwrap_or(scenario.settings.smp),
        devices: scenario.settings.devices.clone(),
        control: Control { gdb: options.gdb, ..Control::default() },
        accel: options.machine.accel,
        icount: scenario.settings.icount,
        folder,
    })
}

/// The guest's kernel alone.
fn bare(workspace: &Workspace, options: &RunOptions, folder: PathBuf) -> Result<Config> {
    let guest = setup::guest(workspace)?;
    let cmdline = options.guest.cmdline.clone().unwrap_or_else(|| "console=ttyS0 mitigations=off".to_owned());
    Ok(Config {
        emulator: setup::emulator()?,
        boot: Boot::Direct {
            kernel: options.guest.kernel.clone().unwrap_or(guest.kernel),
            module: Some(options.guest.initrd.clone().unwrap_or(guest.initrd)),
            cmdline,
        },
        memory: options.guest.guest_memory.unwrap_or(Size::mib(256)),
        smp: options.machine.smp.unwrap_or(1),
        devices: Vec::new(),
        control: Control { gdb: options.gdb, ..Control::default() },
        accel: options.machine.accel,
        icount: false,
        folder,
    })
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The awaited text came.
    Seen,
    /// The user left.
    Left,
    TimeOut,
    Machine(Ending),
    /// Without a word: the processor reset.
    TripleFault,
}

/// A run with a user, or with the lines that stand in for one.
struct Run<'a> {
    session: Session,
    terminal: Terminal,
    keys: Keys,
    options: &'a RunOptions,
    prompt: Regex,
    prompted: bool,
    /// Lines that each wait for a prompt.
    lines: VecDeque<&'a str>,
    /// Piped input that waits for the first prompt.
    held: Vec<u8>,
}

impl<'a> Run<'a> {
    fn new(session: Session, terminal: Terminal, options: &'a RunOptions) -> Result<Self> {
        let lines = options.send.iter().map(String::as_str).collect();
        let prompt = Regex::new(PROMPT)?;
        let (keys, held) = (Keys::default(), Vec::new());
        Ok(Self { session, terminal, keys, options, prompt, prompted: false, lines, held })
    }

    fn finish(mut self) -> Result<End> {
        let deadline = self.options.timeout.map(|seconds| Instant::now() + Duration::from_secs(seconds));
        loop {
            if let Some(event) = self.session.next()
                && self.take(event)
            {
                return Ok(End::Left);
            }
            if self.is_awaited_text_there() {
                return Ok(End::Seen);
            }
            if self.session.is_over() {
                return self.machine_end();
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Ok(End::TimeOut);
            }
        }
    }

    /// Deals with one event; true when the user wants to leave.
    fn take(&mut self, event: Event) -> bool {
        match event {
            Event::Console(bytes) => {
                self.terminal.show_console(&bytes);
                self.answer_prompt();
            }
            Event::Log(_) => {
                for line in self.session.log.take_lines() {
                    self.terminal.show_log(&line);
                }
            }
            Event::Typed(bytes) if self.terminal.is_interactive() => {
                let typed = self.keys.feed(&bytes);
                self.session.machine.send(&typed.forward);
                return typed.leave;
            }
            Event::Typed(bytes) if self.prompted => self.session.machine.send(&bytes),
            Event::Typed(bytes) => self.held.extend_from_slice(&bytes),
            Event::TypedAll | Event::Closed => {}
        }
        false
    }

    /// At a prompt, types what waits for it.
    fn answer_prompt(&mut self) {
        if !self.session.console.take_match(&self.prompt) {
            return;
        }
        if let Some(line) = self.lines.pop_front() {
            self.session.machine.send(format!("{line}\n").as_bytes());
        } else if !self.held.is_empty() {
            self.session.machine.send(&std::mem::take(&mut self.held));
        }
        self.prompted = true;
    }

    fn is_awaited_text_there(&self) -> bool {
        let Some(until) = &self.options.until else { return false };
        self.session.console.recent_matches(until) || self.session.log.recent_matches(until)
    }

    fn machine_end(&mut self) -> Result<End> {
        let ending = self.session.ending()?;
        if ending == Ending::Off && self.session.machine.triple_fault() {
            return Ok(End::TripleFault);
        }
        if ending == Ending::Emulator {
            bail!("QEMU failed: {}", self.session.machine.complaint());
        }
        Ok(End::Machine(ending))
    }
}

/// Tells the user and decides on the exit code.
fn report(end: End, options: &RunOptions) -> bool {
    let awaited = options.until.is_some();
    match end {
        End::Seen | End::Left => true,
        End::TimeOut => {
            say::failed("Time-out", "the machine was stopped");
            false
        }
        End::TripleFault => {
            say::failed("Crash", "the machine reset itself (triple fault)");
            false
        }
        End::Machine(Ending::Orderly) => said_no_more(awaited, "the machine switched itself off"),
        End::Machine(Ending::Off) => said_no_more(awaited, "the machine was powered off or reset"),
        End::Machine(Ending::Code(code)) => {
            say::failed("Stopped", &format!("the kernel ended the machine with {code:#x}"));
            false
        }
        End::Machine(Ending::Emulator) => false,
    }
}

fn said_no_more(awaited: bool, how: &str) -> bool {
    if awaited {
        say::failed("Ended", &format!("{how} before the awaited text came"));
    } else {
        say::step("Ended", how);
    }
    !awaited
}
