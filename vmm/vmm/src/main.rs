// SPDX-License-Identifier: MIT OR Apache-2.0
//! The VMM as a program. On Linux its console is standard input and output, its messages go to standard error; on
//! Cloister the same program is a component.

use std::io::{stdin, stdout};
use std::process::ExitCode;
use std::sync::{Arc, Mutex};

use cloister_hypervisor_kvm::KvmHypervisor;
use cloister_vmm::config::VmConfig;
use cloister_vmm::console::{InputTarget, Stream, start_input};
use cloister_vmm::memory::HostRam;
use cloister_vmm::options;
use cloister_vmm::vm::{Host, VmEnd, VmError, run};

fn main() -> ExitCode {
    cloister_vmm::stats::begin();
    if cloister_linux::is_cloister() {
        cloister_vmm::cloister::main();
    }
    let config = match options::parse(std::env::args().skip(1)) {
        Ok(config) => config,
        Err(mistake) => {
            eprintln!("{mistake}");
            return ExitCode::from(2);
        }
    };
    match run_on_kvm(&config) {
        Ok(VmEnd::PoweredOff) => {
            eprintln!("vm: powered off");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("vm: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run_on_kvm(config: &VmConfig) -> Result<VmEnd, VmError> {
    let hypervisor = KvmHypervisor::open()?;
    let input = InputTarget::default();
    if let Err(why) = start_input(stdin(), input.clone()) {
        eprintln!("vm: no console input: {why}");
    }
    let host = Host {
        hypervisor: &hypervisor,
        ram: &HostRam,
        console: Arc::new(Mutex::new(Stream::new(stdout()))),
        input: &input,
    };
    run(config, &host, &|line| eprintln!("{line}"))
}
