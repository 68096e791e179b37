// SPDX-License-Identifier: MIT OR Apache-2.0
//! The machine below: a process of QEMU or Bochs with two serial lines and a way to end.
//!
//! The first serial port is the console (the user's or a test's), the second one carries what kernel and
//! components log. Both are sockets that this tool listens at, so that it sees all bytes, and in which order.
//! Threads turn them into one queue of [`Event`]s; [`crate::console`] is what works on that queue.
//!
//! The software in the machine ends it by writing to the port of QEMU's `isa-debug-exit`, or in [`bochs`] by switching the
//! machine off; see [`Ending`].

mod accel;
mod bochs;
mod lines;
mod monitor;

use std::fs;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use anyhow::{Context, Result, bail};

pub(crate) use self::accel::Accel;
use self::lines::Listener;
pub(crate) use self::monitor::Monitor;
use crate::process;
use crate::size::Size;

/// What the software writes to the exit port for an orderly end. QEMU cannot tell 0 from a failure of its own, which
/// hardly happens once the machine runs.
const ORDERLY: [i32; 2] = [0, 0x10];

/// How long QEMU may take to connect to the serial lines.
const START_TIME: Duration = Duration::from_secs(20);

/// What to start.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) emulator: PathBuf,
    pub(crate) boot: Boot,
    pub(crate) memory: Size,
    pub(crate) smp: u32,
    /// Devices beside the usual ones, as QEMU names them; and firmware tables: `acpitable,` and what QEMU's option wants.
    pub(crate) devices: Vec<String>,
    /// How a developer looks into it.
    pub(crate) control: Control,
    pub(crate) accel: Accel,
    /// Count instructions in place of time, so that each run takes as many.
    pub(crate) icount: bool,
    /// A folder of this machine alone: sockets and QEMU's own log.
    pub(crate) folder: PathBuf,
}

/// How a developer looks into a machine from outside.
#[derive(Debug, Default)]
pub(crate) struct Control {
    /// Port at which a debugger is waited for before the first instruction.
    pub(crate) gdb: Option<u16>,
    /// The emulator's monitor is at [`Monitor`]; a machine that switches itself off stays there to be looked at.
    pub(crate) monitor: bool,
    /// It has a screen.
    pub(crate) screen: bool,
}

/// How the software gets in.
#[derive(Debug)]
pub(crate) enum Boot {
    /// By QEMU: a kernel, a file beside it, and a command line.
    Direct { kernel: PathBuf, module: Option<PathBuf>, cmdline: String },
    /// By firmware and a boot loader, from a CD.
    Cd { image: PathBuf, uefi: Option<[PathBuf; 2]> },
    /// In Bochs, by its firmware and a boot loader, from a CD whose image is in the machine's folder.
    Bochs { image: PathBuf },
}

/// What happens on the machine.
#[derive(Debug)]
pub(crate) enum Event {
    /// Bytes on the console.
    Console(Vec<u8>),
    /// Bytes on the log line.
    Log(Vec<u8>),
    /// Bytes that the user typed; only where a user was asked for.
    Typed(Vec<u8>),
    /// The user's input is at its end.
    TypedAll,
    /// A serial line was closed: the machine is about to end.
    Closed,
}

/// How the machine ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The software wrote a number of an orderly end.
    Orderly,
    /// The software wrote another number.
    Code(i32),
    /// The machine was switched off or reset, by ACPI or by a triple fault.
    Off,
    /// QEMU itself failed or was killed.
    Emulator,
}

/// A running machine.
#[derive(Debug)]
pub(crate) struct Machine {
    child: Child,
    console: File,
    events: Receiver<Event>,
    sender: Sender<Event>,
    monitor: Option<Monitor>,
    folder: PathBuf,
    bochs: bool,
}

impl Machine {
    /// Starts the emulator and waits until both serial lines are connected.
    pub(crate) fn start(config: &Config) -> Result<Self> {
        fs::create_dir_all(&config.folder).with_context(|| format!("{} cannot be made", config.folder.display()))?;
        let sockets = lines::socket_folder()?;
        let bochs = matches!(config.boot, Boot::Bochs { .. });
        let line = |name| if bochs { Listener::bind_port() } else { Listener::bind(&sockets, name) };
        let (console, log) = (line("console")?, line("log")?);
        let monitor = config.control.monitor.then(|| Listener::bind(&sockets, "monitor")).transpose()?;
        let mut command = match &config.boot {
            Boot::Bochs { image } => bochs::command(config, existing(image)?, console.address(), log.address())?,
            _ => command(config, &console, &log, monitor.as_ref())?,
        };
        let errors =
            File::create(config.folder.join("qemu.err")).context("the emulator's error file cannot be made")?;
        command.stdin(if bochs { Stdio::null() } else { Stdio::piped() }).stdout(Stdio::null()).stderr(errors);
        let mut child = command.spawn().with_context(|| format!("{} cannot be started", config.emulator.display()))?;
        let connected = console
            .accept(&mut child, START_TIME)
            .and_then(|console| Ok((console, log.accept(&mut child, START_TIME)?)))
            .and_then(|(console, log)| {
                let monitor = monitor.map(|line| Monitor::new(line.accept(&mut child, START_TIME)?)).transpose()?;
                Ok((console, log, monitor))
            })
            .with_context(|| failure(&config.folder));
        let removed = fs::remove_dir_all(&sockets);
        let (console, log, monitor) = match connected {
            Ok(lines) => lines,
            Err(error) => {
                drop(child.kill());
                drop(child.wait());
                return Err(error);
            }
        };
        removed.with_context(|| format!("{} cannot be removed", sockets.display()))?;
        let (sender, events) = channel();
        lines::read(console.try_clone()?, Event::Console, sender.clone());
        lines::read(log, Event::Log, sender.clone());
        Ok(Self { child, console, events, sender, monitor, folder: config.folder.clone(), bochs })
    }

    /// What happened next, or nothing for so long.
    pub(crate) fn next(&self, patience: Duration) -> Option<Event> {
        self.events.recv_timeout(patience).ok()
    }

    /// The emulator's monitor, if there is to be one.
    pub(crate) fn monitor(&mut self) -> Result<&mut Monitor> {
        self.monitor.as_mut().context("this machine was started without a monitor")
    }

    /// A sender of events from elsewhere (the user's keyboard).
    pub(crate) fn sender(&self) -> Sender<Event> {
        self.sender.clone()
    }

    /// Types at the console. A machine that has just ended takes no more, which is no error here.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        drop(self.console.write_all(bytes));
    }

    /// Gives QEMU's own monitor a command, which does something to the machine from outside. Bochs has none.
    pub(crate) fn command(&mut self, line: &str) {
        if let Some(monitor) = &mut self.child.stdin {
            // As with typing: a machine that has ended takes no more.
            drop(writeln!(monitor, "{line}"));
        }
    }

    /// Waits for the emulator to end, which follows at once when both lines are closed.
    pub(crate) fn ending(&mut self) -> Result<Ending> {
        let status = self.child.wait().context("the emulator's end")?;
        Ok(if self.bochs { bochs::ending(&self.folder) } else { Ending::of(status) })
    }

    /// What the emulator itself complained about.
    pub(crate) fn complaint(&self) -> String {
        if self.bochs {
            return bochs::complaint(&self.folder);
        }
        let text = fs::read_to_string(self.folder.join("qemu.err")).unwrap_or_default();
        process::last_lines(&text, 5)
    }

    /// Whether the processor gave up: an exception while it delivered an exception while it delivered one.
    pub(crate) fn triple_fault(&self) -> bool {
        fs::read(self.folder.join("qemu.log")).is_ok_and(|log| String::from_utf8_lossy(&log).contains("Triple fault"))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Whoever leaves early (a time-out, a user, an error) wants no emulator to stay behind.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Ending {
    fn of(status: ExitStatus) -> Self {
        match status.code() {
            Some(0) => Self::Off,
            // QEMU exits with (number << 1) | 1.
            Some(code) if code & 1 == 1 => {
                let number = code >> 1;
                if ORDERLY.contains(&number) { Self::Orderly } else { Self::Code(number) }
            }
            _ => Self::Emulator,
        }
    }
}

fn command(config: &Config, console: &Listener, log: &Listener, monitor: Option<&Listener>) -> Result<Command> {
    let kvm = config.accel.is_kvm()?;
    let mut command = tied_to_this_process(&config.emulator);
    command.args(["-monitor", "stdio"]);
    // An IOMMU that remaps interrupts wants to see those of the I/O APIC, also under KVM.
    let iommu = config.devices.iter().any(|device| device.contains("iommu"));
    let board = if iommu { "q35,kernel-irqchip=split" } else { "q35" };
    command.args(["-machine", board, "-nodefaults", "-display", "none", "-no-reboot"]);
    if kvm {
        command.args(["-accel", "kvm", "-cpu", "host"]);
    } else {
        command.args(["-accel", "tcg", "-cpu", "EPYC,+svm,+npt"]);
    }
    command.args(["-smp", &config.smp.to_string(), "-m", &config.memory.in_mib().to_string()]);
    if config.icount {
        command.args(["-icount", "shift=0,sleep=off"]);
    }
    for (name, line) in [("console", console), ("log", log)] {
        command.args(["-chardev", &format!("socket,id={name},path={}", line.address())]);
        command.args(["-serial", &format!("chardev:{name}")]);
    }
    command.args(["-device", "isa-debug-exit,iobase=0xf4,iosize=4"]);
    command.args(["-d", "cpu_reset,guest_errors", "-D"]).arg(config.folder.join("qemu.log"));
    if let Some(port) = config.control.gdb {
        command.args(["-S", "-gdb", &format!("tcp:127.0.0.1:{port}")]);
    }
    if let Some(line) = monitor {
        command.args(["-chardev", &format!("socket,id=monitor,path={}", line.address())]);
        command.args(["-mon", "chardev=monitor,mode=control", "-no-shutdown"]);
    }
    if config.control.screen {
        command.args(["-device", "VGA"]);
    }
    for device in &config.devices {
        match device.strip_prefix("acpitable,") {
            Some(table) => command.args(["-acpitable", table]),
            None => command.args(["-device", device]),
        };
    }
    add_boot(&mut command, &config.boot, &config.folder)?;
    Ok(command)
}

/// A command whose process ends when this one does, even when this one is killed: no emulator stays behind.
fn tied_to_this_process(program: &Path) -> Command {
    let Some(setpriv) = process::find("setpriv") else { return Command::new(program) };
    let mut command = Command::new(setpriv);
    command.args(["--pdeathsig", "KILL"]).arg(program);
    command
}

fn add_boot(command: &mut Command, boot: &Boot, folder: &Path) -> Result<()> {
    match boot {
        Boot::Direct { kernel, module, cmdline } => {
            command.arg("-kernel").arg(existing(kernel)?);
            if let Some(module) = module {
                command.arg("-initrd").arg(existing(module)?);
            }
            command.args(["-append", cmdline]);
        }
        Boot::Cd { image, uefi } => {
            command.arg("-cdrom").arg(existing(image)?);
            if let Some([code, variables]) = uefi {
                let copy = folder.join("uefi-variables.fd");
                fs::copy(variables, &copy).with_context(|| format!("{} cannot be copied", variables.display()))?;
                let flash = |file: &Path| format!("if=pflash,format=raw,file={}", file.display());
                command.args(["-drive", &format!("{},readonly=on", flash(code)), "-drive", &flash(&copy)]);
            }
        }
        Boot::Bochs { .. } => bail!("QEMU is not Bochs"),
    }
    Ok(())
}

fn existing(file: &Path) -> Result<&Path> {
    if file.is_file() {
        return Ok(file);
    }
    bail!("{} is not there", file.display())
}

fn failure(folder: &Path) -> String {
    let said = fs::read_to_string(folder.join("qemu.err")).unwrap_or_default();
    format!("the emulator did not start: {}", process::last_lines(&said, 5))
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    use super::Ending;

    fn ending(code: i32) -> Ending {
        Ending::of(ExitStatus::from_raw(code << 8))
    }

    #[test]
    fn exit_codes_of_the_emulator_say_how_the_machine_ended() {
        assert_eq!(ending(33), Ending::Orderly);
        assert_eq!(ending(35), Ending::Code(0x11));
        assert_eq!(ending(0), Ending::Off);
        assert_eq!(ending(1), Ending::Orderly);
        assert_eq!(ending(2), Ending::Emulator);
        assert_eq!(Ending::of(ExitStatus::from_raw(9)), Ending::Emulator);
    }
}
