// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bochs: the machine with VMX, EPT and unrestricted guests, which QEMU's own emulation lacks.
//!
//! It is slower, some 100 million instructions a second, and has one core, no direct kernel boot, and no port that ends it
//! with a number: the software comes from a CD by Bochs' own BIOS and GRUB, and ends the machine by ACPI's power button
//! register, which Bochs' log tells of. Debian's Bochs has its debugger built in, hence the file with the command `c`; its
//! text screen wants a terminal, which `script` of util-linux gives it. Time in the machine is the number of instructions
//! (`sync=none`), so that a slow host changes nothing.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::{Config, Ending, tied_to_this_process};
use crate::process;

const ROM: &str = "/usr/share/bochs/BIOS-bochs-latest";
const VGA_ROM: &str = "/usr/share/bochs/VGABIOS-lgpl-latest";

/// The processor: the first of Bochs' models with all that the VMX back end needs.
const CPU: &str = "model=corei7_haswell_4770, count=1, ips=100000000, reset_on_triple_fault=0";

/// What the log says when the software switched the machine off.
const OFF: &str = "ACPI control: soft power off";

/// Bochs' log, in the machine's folder.
const LOG: &str = "bochs.log";

/// Writes the configuration and answers what starts Bochs. It runs in the machine's folder, where the image is: some of its
/// buffers for paths are short.
pub(super) fn command(config: &Config, image: &Path, console: &str, log: &str) -> Result<Command> {
    let folder = &config.folder;
    let image = image.strip_prefix(folder).context("the CD image is not in the machine's folder")?.display();
    let memory = config.memory.in_mib();
    let text = format!(
        "config_interface: textconfig\n\
         display_library: term\n\
         cpu: {CPU}\n\
         memory: guest={memory}, host={memory}\n\
         romimage: file={ROM}, options=fastboot\n\
         vgaromimage: file={VGA_ROM}\n\
         vga: extension=none\n\
         ata0-master: type=cdrom, path={image}, status=inserted\n\
         boot: cdrom\n\
         com1: enabled=1, mode=socket-client, dev={console}\n\
         com2: enabled=1, mode=socket-client, dev={log}\n\
         clock: sync=none, time0=utc\n\
         log: {LOG}\n\
         panic: action=fatal\n\
         error: action=report\n\
         info: action=report\n\
         speaker: enabled=0\n\
         sound: waveoutdrv=dummy, waveindrv=dummy, midioutdrv=dummy\n"
    );
    for (file, text) in [("bochsrc", text.as_str()), ("debugger", "c\n")] {
        fs::write(folder.join(file), text).with_context(|| format!("{file} cannot be written"))?;
    }
    // An old log would tell of an old end.
    fs::write(folder.join(LOG), "").context("Bochs' log cannot be emptied")?;
    let script = process::find("script").context("`script` of util-linux is missing")?;
    let mut command = tied_to_this_process(&script);
    let emulator = config.emulator.display();
    command.args(["--quiet", "--flush", "--command", &format!("exec {emulator} -q -f bochsrc -rc debugger"), "screen"]);
    command.env("TERM", "xterm").current_dir(folder);
    Ok(command)
}

/// How the machine ended, by Bochs' log.
pub(super) fn ending(folder: &Path) -> Ending {
    let log = fs::read(folder.join(LOG)).unwrap_or_default();
    if String::from_utf8_lossy(&log).contains(OFF) { Ending::Orderly } else { Ending::Emulator }
}

/// What Bochs gave up for.
pub(super) fn complaint(folder: &Path) -> String {
    let log = fs::read(folder.join(LOG)).unwrap_or_default();
    let log = String::from_utf8_lossy(&log);
    let panic = log.lines().find(|line| line.contains(">>PANIC<<"));
    panic.map_or_else(|| process::last_lines(&log, 5), str::to_owned)
}
