// SPDX-License-Identifier: MIT OR Apache-2.0
//! The VMM as a component of Cloister: configuration, sessions and exit.
//!
//! The same program as on Linux; only what surrounds the VM differs. The configuration is the ROM `config`
//! ([`config`]), guest memory comes out of this component's RAM quota ([`ram`]), the console is a Terminal session
//! ([`terminal`]), messages go to the LOG session through standard error, and the end is told to the parent with its reason.

pub mod config;
mod ram;
mod terminal;

use std::io;
use std::sync::{Arc, Mutex};

use cloister_hypervisor::Error as MachineError;
use cloister_hypervisor_cloister::CloisterHypervisor;
use cloister_linux::env;

use crate::config::VmConfig;
use crate::console::{InputTarget, SharedConsole, Stream, start_input};
use crate::stats;
use crate::vm::{Host, VmEnd, VmError, run};
use ram::QuotaRam;

/// Where the personality shows the ROM with the configuration.
const CONFIG: &str = "/rom/config";

/// Runs the VM that the configuration describes, and exits.
pub fn main() -> ! {
    let reason = match start() {
        Ok(VmEnd::PoweredOff) => {
            eprintln!("vm: powered off");
            env::exit(0, "powered off")
        }
        Err(reason) => reason,
    };
    eprintln!("vm: {reason}");
    // The parent's line shall be one line; the log has all of it.
    env::exit(1, reason.lines().next().unwrap_or("failed"))
}

fn start() -> Result<VmEnd, String> {
    let config = read_config()?;
    let input = InputTarget::default();
    let hypervisor = CloisterHypervisor::default();
    stats::set_left(|| env::pd().quota().ok().map(|quota| quota.ram_available()));
    let ram = QuotaRam(hypervisor.clone());
    let host = Host { hypervisor: &hypervisor, ram: &ram, console: console(&input), input: &input };
    run(&config, &host, &say).map_err(|error| explain(&error))
}

fn say(text: &str) {
    text.lines().for_each(|line| eprintln!("{line}"));
}

fn read_config() -> Result<VmConfig, String> {
    let bytes = std::fs::read(CONFIG).map_err(|why| format!("the ROM `config` can't be read: {why}"))?;
    // The rest of its last page is zeros.
    let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last.saturating_add(1));
    let loaded = config::load(bytes.get(..end).unwrap_or(&[]))?;
    loaded.objections.iter().for_each(|objection| eprintln!("vm: config: {objection}"));
    Ok(loaded.config)
}

/// The console: a Terminal session, or the log where there is none.
fn console(input: &InputTarget) -> SharedConsole {
    let (output, keys) = match terminal::open() {
        Ok(terminal) => terminal,
        Err(error) => {
            eprintln!("vm: no Terminal session ({error}): the console goes to the log, without input");
            return Arc::new(Mutex::new(Stream::new(io::stdout())));
        }
    };
    if let Err(why) = start_input(keys, input.clone()) {
        eprintln!("vm: no console input: {why}");
    }
    Arc::new(Mutex::new(Stream::new(output)))
}

/// An error for people: what is a matter of the configuration is told in its terms.
fn explain(error: &VmError) -> String {
    match error {
        VmError::Machine(MachineError::Quota { wanted, available }) => {
            let (wanted, available) = (config::show_size(*wanted), config::show_size(*available));
            format!("guest memory {wanted} exceeds the RAM quota available to this VMM, {available}")
        }
        VmError::File { path, why } => {
            let name = path.strip_prefix(config::ROMS).unwrap_or(path).display();
            format!("the ROM `{name}` can't be opened: {why}")
        }
        other => other.to_string(),
    }
}
