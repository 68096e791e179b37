// SPDX-License-Identifier: MIT OR Apache-2.0
//! A runtime environment that hosts components like init does, and offers them a VM service that limits guest memory.
//!
//! Its configuration has the limit as its attribute `guest_memory`, and in its node `sandbox` what init would have in its
//! `config`. A route with the target `local` leads to the wrapped service.
#![cfg_attr(target_os = "none", no_std, no_main)]

extern crate alloc;

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use cloister_base::rom::Rom;
use cloister_base::session::{self, Session};
use cloister_base::sessions::{Decoder, Encoder, Resources, VmServer};
use cloister_base::{Cap, Component, Error, Link, ObjectId, entry};
use cloister_init_config::{Config, load_sandbox, parse_size};
use cloister_sandbox::host::{Host, LocalServices};
use cloister_sandbox::{ChildId, Quota, SessionId, SessionRequest};
use cloister_vm_limiter::{LimitedVm, Reach};

struct System;

impl Reach for System {
    type Transport = Link;

    fn link(&self, cap: Cap) -> Link {
        Link::from(cap)
    }

    fn drop(&self, cap: Cap) {
        Link::from(cap).drop();
    }
}

/// The wrapped VM sessions.
struct Limiter {
    limit: u64,
    sessions: BTreeMap<SessionId, (Session, LimitedVm<System>)>,
}

impl LocalServices for Limiter {
    fn services(&self) -> Vec<&'static str> {
        alloc::vec!["VM"]
    }

    fn open(&mut self, id: SessionId, _: ChildId, request: SessionRequest<'_>) -> Result<(), Error> {
        let donation = Resources { ram: request.donation.ram, caps: request.donation.caps };
        let inner = session::open("VM", request.label, request.args, donation)?;
        self.sessions.insert(id, (inner, LimitedVm::new(System, inner.link(), self.limit)));
        Ok(())
    }

    fn call(&mut self, id: SessionId, request: &mut Decoder<'_>, reply: &mut Encoder<'_>) {
        match self.sessions.get_mut(&id) {
            Some((_, vm)) => VmServer::dispatch(vm, request, reply),
            None => entry::refuse(reply, Error::NoSuchObject),
        }
    }

    fn upgrade(&mut self, id: SessionId, more: Quota) -> Result<(), Error> {
        let (inner, _) = self.sessions.get(&id).ok_or(Error::NotFound)?;
        inner.upgrade(Resources { ram: more.ram, caps: more.caps })
    }

    fn close(&mut self, id: SessionId) {
        let Some((inner, mut vm)) = self.sessions.remove(&id) else { return };
        vm.release();
        if let Err(error) = inner.close() {
            log::error!("a VM session could not be closed: {error}");
        }
    }
}

/// The limit, and the configuration of the sandbox.
fn configuration(text: &[u8]) -> Option<(u64, Config)> {
    let loaded = load_sandbox(text, |config| config.value("guest_memory").and_then(parse_size));
    let (limit, loaded) = loaded.inspect_err(|error| log::error!("config: {error}")).ok()?;
    for diagnostic in &loaded.diagnostics {
        log::warn!("config: {diagnostic}");
    }
    Some((limit, loaded.config))
}

struct Program {
    host: Host<Limiter>,
}

impl Component for Program {
    fn new() -> Result<Self, Error> {
        let rom = Rom::open("config")?;
        let Some((limit, config)) = configuration(rom.bytes()) else {
            log::error!("config: needs an attribute `guest_memory` and a node `sandbox`");
            return Err(Error::Invalid);
        };
        let mut host = Host::new(Limiter { limit, sessions: BTreeMap::new() })?;
        host.apply(config);
        Ok(Self { host })
    }

    fn call(&mut self, object: ObjectId, request: &mut Decoder<'_>, reply: &mut Encoder<'_>) {
        self.host.call(object, request, reply);
    }

    fn signals(&mut self, bits: u64) {
        self.host.signals(bits);
    }
}

cloister_base::component!(Program);

#[cfg(not(target_os = "none"))]
fn main() {
    // So that the host's compiler checks the whole program.
    let _program: extern "sysv64" fn() -> ! = cloister_base::started::<Program>;
    eprintln!("the limiter runs on the machine only");
    std::process::exit(2);
}
