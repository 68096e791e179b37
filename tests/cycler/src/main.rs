// SPDX-License-Identifier: MIT OR Apache-2.0
//! Starts and ends components again and again, and looks for what is lost.
//!
//! A runtime environment whose configuration has the number of `rounds` as an attribute, and in its node `sandbox` what init
//! would have in its `config`. When all children have exited, each is started again, as another version. What core
//! has left after the first round (which lets tables and heaps grow to their size) must be what it has left after the
//! last one, to the byte; the cycler exits with 0 if so, and else with 1 and both figures.
#![cfg_attr(target_os = "none", no_std, no_main)]

extern crate alloc;

use alloc::format;
use alloc::string::ToString;

use cloister_base::rom::Rom;
use cloister_base::session::{self, Session, USUAL};
use cloister_base::sessions::{Decoder, Encoder, MachineInfo, PlatformClient};
use cloister_base::{Component, Error, ObjectId, env};
use cloister_init_config::{Config, load_sandbox, parse_number};
use cloister_sandbox::State;
use cloister_sandbox::host::{Host, NoServices};

struct Cycler {
    host: Host<NoServices>,
    platform: Session,
    config: Config,
    round: u64,
    rounds: u64,
    /// What core had left after the first round.
    first: Option<MachineInfo>,
}

/// The number of rounds, and the configuration of the sandbox.
fn configuration(text: &[u8]) -> Option<(u64, Config)> {
    let loaded = load_sandbox(text, |config| config.value("rounds").and_then(parse_number));
    let (rounds, loaded) = loaded.inspect_err(|error| log::error!("config: {error}")).ok()?;
    for diagnostic in &loaded.diagnostics {
        log::warn!("config: {diagnostic}");
    }
    Some((rounds, loaded.config))
}

impl Cycler {
    /// Starts a round: the same children as other versions, which ends what is left of the former ones.
    fn start(&mut self) {
        self.round = self.round.saturating_add(1);
        for start in &mut self.config.starts {
            start.version = self.round.to_string();
        }
        self.host.apply(self.config.clone());
    }

    /// Goes on as long as all children have exited: a child may do so while it is started.
    fn go_on(&mut self) {
        if self.host.sandbox().children().all(|child| child.state == State::Exited) {
            self.finish_round();
        }
        if let Some(stuck) = self.host.sandbox().children().find(|child| child.state == State::Stuck) {
            env::exit(1, &format!("round {}: child {} is stuck", self.round, stuck.name));
        }
    }

    fn finish_round(&mut self) {
        // The children of the round are gone altogether before anything is counted.
        self.host.apply(Config { starts: alloc::vec::Vec::new(), ..self.config.clone() });
        let left = match PlatformClient(self.platform.link()).info() {
            Ok(left) => left,
            Err(error) => env::exit(1, &format!("the Platform session says {error}")),
        };
        let first = *self.first.get_or_insert(left);
        if left != first {
            log::error!("round {}: {left:?} left, {first:?} after the first round", self.round);
            env::exit(1, &format!("round {}: something was lost", self.round));
        }
        if self.round >= self.rounds {
            env::exit(0, &format!("{} rounds, nothing lost", self.rounds));
        }
        self.start();
    }
}

impl Component for Cycler {
    fn new() -> Result<Self, Error> {
        let rom = Rom::open("config")?;
        let Some((rounds, config)) = configuration(rom.bytes()) else {
            log::error!("config: needs an attribute `rounds` and a node `sandbox`");
            return Err(Error::Invalid);
        };
        let platform = session::open("Platform", "", "", USUAL)?;
        let host = Host::new(NoServices)?;
        let mut cycler = Self { host, platform, config, round: 0, rounds, first: None };
        cycler.start();
        cycler.go_on();
        Ok(cycler)
    }

    fn call(&mut self, object: ObjectId, request: &mut Decoder<'_>, reply: &mut Encoder<'_>) {
        self.host.call(object, request, reply);
    }

    fn signals(&mut self, bits: u64) {
        self.host.signals(bits);
        self.go_on();
    }
}

cloister_base::component!(Cycler);

#[cfg(not(target_os = "none"))]
fn main() {
    // So that the host's compiler checks the whole program.
    let _program: extern "sysv64" fn() -> ! = cloister_base::started::<Cycler>;
    eprintln!("the cycler runs on the machine only");
    std::process::exit(2);
}
