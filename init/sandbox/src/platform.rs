// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the sandbox needs of the system.
//!
//! [`Platform`] is the only door between the sandbox, which decides, and the system, which does. The binding to the
//! component framework stands behind it on the machine, a model with accounts of its own in the tests.
//!
//! Rule: a method either does what it says or returns an error and has changed nothing.

use alloc::vec::Vec;
use core::fmt;

use cloister_session::{Error, ParentSignal};

use crate::quota::Quota;
use cloister_elf::{Policy, Segment};

/// A child, one instance of it: a restarted child has another number. Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChildId(pub u64);

/// A session, as the sandbox numbers it: the number that the server sees, and the one that our own parent sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

/// What a session is asked for with.
#[derive(Clone, Copy, Debug)]
pub struct SessionRequest<'r> {
    /// The service.
    pub service: &'r str,
    /// The label, as the server is to see it.
    pub label: &'r str,
    /// The client's arguments.
    pub args: &'r str,
    /// What the client donates.
    pub donation: Quota,
}

/// How urgent a line of the log is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// It is good to know.
    Info,
    /// It is probably not what was intended.
    Warning,
    /// Something does not work.
    Error,
}

/// What the sandbox needs of the system.
pub trait Platform {
    /// The capability to a session.
    type Cap: Clone + fmt::Debug;

    /// Writes a line to the log.
    fn log(&mut self, level: LogLevel, line: fmt::Arguments<'_>);

    /// What is left in our own account.
    fn available(&mut self) -> Quota;

    /// What a session of this service must be donated at least, as far as it is known beforehand.
    fn session_cost(&self, service: &str) -> Quota;

    /// What hosting a child costs us: kept back from what is assigned to the child, for as long as it exists.
    fn child_cost(&self) -> Quota;

    /// Which images may be loaded.
    fn policy(&self) -> Policy;

    /// Asks our parent for a session and hands the donation over; `None` if it is not there yet.
    ///
    /// # Errors
    ///
    /// The donation is still ours.
    fn open_at_parent(&mut self, id: SessionId, request: SessionRequest<'_>) -> Result<Option<Self::Cap>, Error>;

    /// Whether a session that our parent did not have at once is there by now.
    ///
    /// # Errors
    ///
    /// The parent denied it after all; the donation is ours again.
    fn poll_parent(&mut self, id: SessionId) -> Result<Option<Self::Cap>, Error>;

    /// Hands more over to a session at our parent.
    ///
    /// # Errors
    ///
    /// Nothing was handed over.
    fn upgrade_at_parent(&mut self, id: SessionId, more: Quota) -> Result<(), Error>;

    /// Closes a session at our parent; all that was donated to it is in our account afterwards, and if it was a PD
    /// session, all that was in that one's account.
    fn close_at_parent(&mut self, id: SessionId);

    /// The services that this runtime environment offers by itself.
    fn local_services(&self) -> Vec<&'static str> {
        Vec::new()
    }

    /// Opens a session of a service of our own. What was donated is in our account, for the service to use until the
    /// session is closed.
    ///
    /// # Errors
    ///
    /// The service refuses.
    fn open_local(
        &mut self,
        _id: SessionId,
        _client: ChildId,
        _request: SessionRequest<'_>,
    ) -> Result<Self::Cap, Error> {
        Err(Error::Denied)
    }

    /// Tells a service of our own that the donation of a session grew.
    ///
    /// # Errors
    ///
    /// The service refuses.
    fn upgrade_local(&mut self, _id: SessionId, _more: Quota) -> Result<(), Error> {
        Err(Error::Denied)
    }

    /// Closes a session of a service of our own.
    fn close_local(&mut self, _id: SessionId) {}

    /// Opens a ROM session with a text of ours: a child's configuration.
    ///
    /// # Errors
    ///
    /// There is no ROM session.
    fn open_rom(&mut self, id: SessionId, content: &str, donation: Quota) -> Result<Self::Cap, Error>;

    /// Gives such a ROM session another text and tells its client.
    fn update_rom(&mut self, id: SessionId, content: &str);

    /// Closes such a ROM session.
    fn close_rom(&mut self, id: SessionId);

    /// Makes our account the reference account of a child's PD session, and ourselves the parent of what runs in it.
    ///
    /// # Errors
    ///
    /// The child cannot be started.
    fn adopt(&mut self, child: ChildId, name: &str, pd: &Self::Cap) -> Result<(), Error>;

    /// Moves quota from our account to a child's.
    ///
    /// # Errors
    ///
    /// We have less.
    fn give(&mut self, pd: &Self::Cap, quota: Quota) -> Result<(), Error>;

    /// Moves quota from a child's account to ours.
    ///
    /// # Errors
    ///
    /// The child has less.
    fn take(&mut self, pd: &Self::Cap, quota: Quota) -> Result<(), Error>;

    /// What is left in a child's account.
    fn left(&mut self, pd: &Self::Cap) -> Quota;

    /// Length of the content of a ROM session, in bytes.
    ///
    /// # Errors
    ///
    /// The ROM session has no content.
    fn rom_len(&mut self, rom: &Self::Cap) -> Result<u64, Error>;

    /// Copies content of a ROM session out of it; `false` if there is less.
    fn rom_read(&mut self, rom: &Self::Cap, offset: u64, buffer: &mut [u8]) -> bool;

    /// Puts a segment into a child's address space, paid by the child.
    ///
    /// # Errors
    ///
    /// The child cannot be started.
    fn map_segment(&mut self, child: ChildId, pd: &Self::Cap, rom: &Self::Cap, segment: &Segment) -> Result<(), Error>;

    /// Makes a stack and the first thread of a child, and starts it.
    ///
    /// # Errors
    ///
    /// The child cannot be started.
    fn run(&mut self, child: ChildId, pd: &Self::Cap, cpu: &Self::Cap, entry: u64) -> Result<(), Error>;

    /// Stops all threads of a child and forgets what [`Platform::adopt`], [`Platform::map_segment`] and
    /// [`Platform::run`] did, as far as closing its sessions does not.
    fn dismantle(&mut self, child: ChildId);

    /// Gives a capability free that a child had delivered.
    fn drop_cap(&mut self, cap: Self::Cap);

    /// Tells a child something.
    fn notify(&mut self, child: ChildId, notice: ParentSignal);

    /// Called when the last awaited child has exited.
    fn all_exited(&mut self, action: cloister_init_config::OnAllExited);

    /// Called when a child whose exit is our exit has exited.
    fn exit(&mut self, code: i64, reason: &str);
}
