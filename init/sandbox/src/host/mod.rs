// SPDX-License-Identifier: MIT OR Apache-2.0
//! The binding of the sandbox to the component framework.
//!
//! A [`Host`] is what a component's state is made of that hosts other components: it owns a [`Sandbox`] on the real
//! system, answers the calls of children to their parent, serves their ROM `config`, and passes calls for services of
//! the program's own on to its [`LocalServices`]. The program forwards `call` and `signals` of its
//! [`Component`](cloister_base::Component) and applies configurations; init does little else.
//!
//! Each object that the host serves has an entry in one registry, whose identities the portals carry, so that a stale
//! capability is an error and never another object. A child that is to be destroyed may be in a call at that moment: the
//! host raises a signal of its own then, and the main loop settles the sandbox when no call is in progress.

mod local;
mod memory;
mod parent;
mod system;
mod text_rom;

use cloister_base::sessions::{CpuClient, Decoder, Encoder, ParentServer, ParentSignal, RomServer};
use cloister_base::signal::Signal;
use cloister_base::{Error, Link, ObjectId, entry, env};
use cloister_init_config::Config;

pub use local::{LocalServices, NoServices};
pub use system::System;

use crate::{ChildId, Sandbox, SessionId};
use parent::ParentOf;

/// An object that the host serves.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Served {
    /// The parent of a child.
    Parent(ChildId),
    /// A ROM session with a text.
    Text(SessionId),
    /// A session of a service of the program's own.
    Local(SessionId),
}

/// A sandbox on the real system.
#[derive(Debug)]
pub struct Host<L: LocalServices> {
    sandbox: Sandbox<System<L>>,
    /// Raised by our own parent: a session became ready.
    ready: Signal,
    /// Raised by core: a thread of a child was stopped by an exception.
    fault: Signal,
    /// Raised by ourselves: something is to be done when no child is in a call.
    unsettled: Signal,
}

impl<L: LocalServices> Host<L> {
    /// A host without children.
    ///
    /// # Errors
    ///
    /// What the PD session and the parent say.
    pub fn new(local: L) -> Result<Self, Error> {
        let (ready, fault, unsettled) = (Signal::new()?, Signal::new()?, Signal::new()?);
        env::parent().signal_handler(ParentSignal::SessionReady, Some(ready.cap()))?;
        Ok(Self { sandbox: Sandbox::new(System::new(local, fault.cap())), ready, fault, unsettled })
    }

    /// The sandbox, to be looked at or to be given work.
    pub fn sandbox(&mut self) -> &mut Sandbox<System<L>> {
        &mut self.sandbox
    }

    /// Makes `config` the configuration.
    pub fn apply(&mut self, config: Config) {
        self.sandbox.apply(config);
    }

    /// Answers a call to one of the host's objects.
    pub fn call(&mut self, object: ObjectId, request: &mut Decoder<'_>, reply: &mut Encoder<'_>) {
        match self.sandbox.platform().served(object) {
            Some(Served::Parent(child)) => {
                ParentServer::dispatch(&mut ParentOf { sandbox: &mut self.sandbox, child }, request, reply);
                if self.sandbox.is_unsettled() {
                    self.unsettled.raise();
                }
            }
            Some(Served::Text(session)) => match self.sandbox.platform().text(session) {
                Some(rom) => RomServer::dispatch(rom, request, reply),
                None => entry::refuse(reply, Error::NoSuchObject),
            },
            Some(Served::Local(session)) => self.sandbox.platform().local().call(session, request, reply),
            None => entry::refuse(reply, Error::NoSuchObject),
        }
    }

    /// Takes news.
    pub fn signals(&mut self, bits: u64) {
        if self.ready.is_in(bits) {
            self.sandbox.parent_sessions_ready();
        }
        if self.fault.is_in(bits) {
            self.look_for_faults();
        }
        if self.unsettled.is_in(bits) || self.sandbox.is_unsettled() {
            self.sandbox.settle();
        }
    }

    fn look_for_faults(&mut self) {
        for (child, cpu) in self.sandbox.platform().processors() {
            if let Ok(Some(fault)) = CpuClient(Link::from(cpu)).fault() {
                let mut what = cloister_base::Line::default();
                // Writing to a line cuts off and never fails.
                let _ = core::fmt::Write::write_fmt(
                    &mut what,
                    format_args!(
                        "exception {} at {:#x} (error {:#x}, address {:#x})",
                        fault.vector, fault.ip, fault.error, fault.address
                    ),
                );
                self.sandbox.fault(child, what.as_str());
            }
        }
    }
}
