// SPDX-License-Identifier: MIT OR Apache-2.0
//! init: the first component, which starts the others as its configuration says.
//!
//! All that it does is in the sandbox library; here its configuration comes from the ROM `config`, and what is wrong
//! with it goes to the log, with line and column. What is understood is applied all the same: one child's typing error
//! does not stop the others. A text that is no configuration at all leaves everything as it is.
//!
//! `docs/spec/init.md` describes the configuration.
#![cfg_attr(target_os = "none", no_std, no_main)]

use cloister_base::rom::Rom;
use cloister_base::sessions::{Decoder, Encoder};
use cloister_base::signal::Signal;
use cloister_base::{Component, Error, ObjectId};
use cloister_init_config::{Severity, load};
use cloister_sandbox::host::{Host, NoServices};

struct Init {
    host: Host<NoServices>,
    config: Rom,
    /// Raised when the configuration changed.
    changed: Signal,
}

impl Init {
    fn apply(&mut self) {
        let loaded = match load(self.config.bytes()) {
            Ok(loaded) => loaded,
            Err(diagnostic) => {
                log::error!("config: {diagnostic}");
                return;
            }
        };
        for diagnostic in &loaded.diagnostics {
            match diagnostic.severity {
                Severity::Error => log::error!("config: {diagnostic}"),
                Severity::Warning => log::warn!("config: {diagnostic}"),
            }
        }
        self.host.apply(loaded.config);
    }
}

impl Component for Init {
    fn new() -> Result<Self, Error> {
        let config = Rom::open("config").inspect_err(|error| log::error!("ROM \"config\": {error}"))?;
        let changed = Signal::new()?;
        config.signal_handler(changed.cap())?;
        let mut init = Self { host: Host::new(NoServices)?, config, changed };
        init.apply();
        Ok(init)
    }

    fn call(&mut self, object: ObjectId, request: &mut Decoder<'_>, reply: &mut Encoder<'_>) {
        self.host.call(object, request, reply);
    }

    fn signals(&mut self, bits: u64) {
        self.host.signals(bits);
        if self.changed.is_in(bits) {
            match self.config.update() {
                Ok(()) => self.apply(),
                Err(error) => log::error!("ROM \"config\": {error}"),
            }
        }
    }
}

cloister_base::component!(Init);

#[cfg(not(target_os = "none"))]
fn main() {
    // So that the host's compiler checks the whole program.
    let _program: extern "sysv64" fn() -> ! = cloister_base::started::<Init>;
    eprintln!("init runs on the machine only; `cargo xtask run` boots it");
    std::process::exit(2);
}
