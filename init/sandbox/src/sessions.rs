// SPDX-License-Identifier: MIT OR Apache-2.0
//! What children ask of their parent as clients: sessions, upgrades, closing.
//!
//! A donation travels in steps that each either happen or do not: from the client's account to ours, from ours to the
//! server. Whatever stops it on the way sends it back the way it came.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use cloister_init_config::prefixed;
use cloister_init_config::route::{Destination, Request, Server, Unroutable, resolve};

use crate::child::{FIRST_FREE, PD};
use crate::directory::{Servers, by_name};
use crate::platform::{ChildId, LogLevel, Platform, SessionId, SessionRequest};
use crate::quota::Quota;
use crate::sandbox::Sandbox;
use crate::session::{ServedBy, Session, SessionState};
use cloister_session::{ARGS, Error, ParentSignal, SERVICE};

/// Whether a client's text can stand in a line of the log without looking like another line.
fn is_printable(text: &str) -> bool {
    !text.contains(char::is_control)
}

/// How many sessions a child may have: they take room in our own heap.
const MAX_SESSIONS: usize = 256;

impl<P: Platform> Sandbox<P> {
    /// A child asks for a session under an identifier of its choice; `None` if it has to wait for
    /// [`ParentSignal::SessionReady`].
    ///
    /// # Errors
    ///
    /// The session does not exist, and the donation is still the child's.
    pub fn session(
        &mut self,
        child: ChildId,
        number: u64,
        request: SessionRequest<'_>,
    ) -> Result<Option<P::Cap>, Error> {
        let client = self.child(child).filter(|child| child.is_served()).ok_or(Error::NotFound)?;
        if number < FIRST_FREE || !is_printable(request.service) || !is_printable(request.label) {
            return Err(Error::Invalid);
        }
        if request.service.len() > SERVICE || request.args.len() > ARGS {
            return Err(Error::TooLong);
        }
        if client.sessions.contains_key(&number) || client.sessions.len() >= MAX_SESSIONS {
            return Err(Error::Conflict);
        }
        let label = prefixed(&client.start.name, request.label);
        let pd = self.environment_cap(child, PD).ok_or(Error::NotFound)?;
        self.platform.take(&pd, request.donation)?;
        let opened = self.open(child, number, request.service, &label, request.args, request.donation, false);
        if opened.is_err() {
            self.give_back(&pd, request.donation);
        }
        opened
    }

    /// Routes and opens a session whose donation is in our account.
    #[expect(clippy::too_many_arguments, reason = "the fields of a session, each of another type or meaning")]
    pub(crate) fn open(
        &mut self,
        child: ChildId,
        number: u64,
        service: &str,
        asked: &str,
        args: &str,
        donation: Quota,
        environment: bool,
    ) -> Result<Option<P::Cap>, Error> {
        let destination = match self.route(child, service, asked) {
            Ok(destination) => destination,
            Err(why) => {
                let line = format_args!("{service} session \"{asked}\" denied: {why}");
                self.log(LogLevel::Warning, line);
                return Err(Error::Denied);
            }
        };
        let server = match &destination.server {
            Server::Parent => ServedBy::Parent,
            Server::Local => ServedBy::Local,
            Server::InlineConfig => ServedBy::Config,
            Server::Child(name) => by_name(&self.children, name).map(|c| ServedBy::Child(c.id)).ok_or(Error::Denied)?,
        };
        let id = self.new_session_id();
        let request = SessionRequest { service, label: &destination.label, args, donation };
        let cap = self.open_at(id, child, server, request)?;
        let state = match (&cap, environment) {
            (None, _) => SessionState::Creating,
            (Some(_), _) => SessionState::Open,
        };
        let session = Session {
            client: Some((child, number)),
            service: service.to_string(),
            asked: asked.to_string(),
            args: args.to_string(),
            destination,
            server,
            state,
            cap: cap.clone(),
            environment,
            donation,
            delivered: false,
            upgrade: Quota::NONE,
            refusal: None,
        };
        self.sessions.insert(id, session);
        if let Some(client) = self.child_mut(child) {
            client.sessions.insert(number, id);
        }
        if let ServedBy::Child(server) = server {
            self.deliver_requests(server);
        }
        Ok(cap)
    }

    fn open_at(
        &mut self,
        id: SessionId,
        client: ChildId,
        server: ServedBy,
        request: SessionRequest<'_>,
    ) -> Result<Option<P::Cap>, Error> {
        match server {
            ServedBy::Parent => self.platform.open_at_parent(id, request),
            ServedBy::Local => self.platform.open_local(id, client, request).map(Some),
            ServedBy::Config => {
                let text = self.child(client).and_then(|child| child.start.config.clone()).ok_or(Error::NotFound)?;
                self.platform.open_rom(id, &text, request.donation).map(Some)
            }
            ServedBy::Child(_) => Ok(None),
        }
    }

    pub(crate) fn route(&self, child: ChildId, service: &str, asked: &str) -> Result<Destination, Unroutable> {
        let start = self.child(child).map(|child| &child.start).ok_or(Unroutable::NoRule)?;
        let local = self.platform.local_services();
        let servers = Servers { config: &self.config, children: &self.children, local: &local };
        resolve(start, Request { service, label: asked }, &servers)
    }

    /// A child fetches the capability to a session of its own; `None` if it is not there yet.
    ///
    /// # Errors
    ///
    /// The session was refused, and is closed by this answer; or its server is gone.
    pub fn session_cap(&mut self, child: ChildId, number: u64) -> Result<Option<P::Cap>, Error> {
        let id = self.session_of(child, number)?;
        let session = self.sessions.get_mut(&id).ok_or(Error::NotFound)?;
        if session.state == SessionState::Available {
            session.state = SessionState::Open;
        }
        if let Some(refusal) = session.refusal {
            if !session.environment {
                self.forget(id);
            }
            return Err(refusal);
        }
        Ok(session.cap.clone())
    }

    fn session_of(&self, child: ChildId, number: u64) -> Result<SessionId, Error> {
        self.child(child).and_then(|child| child.sessions.get(&number)).copied().ok_or(Error::NotFound)
    }

    /// A child adds to the donation of a session.
    ///
    /// # Errors
    ///
    /// Nothing was added.
    pub fn upgrade(&mut self, child: ChildId, number: u64, more: Quota) -> Result<(), Error> {
        let id = self.session_of(child, number)?;
        let pd = self.environment_cap(child, PD).ok_or(Error::NotFound)?;
        let session = self.sessions.get(&id).ok_or(Error::NotFound)?;
        let (server, state, total) = (session.server, session.state, session.donation.plus(more));
        let total = total.ok_or(Error::Invalid)?;
        if matches!(state, SessionState::Closed | SessionState::Closing) {
            return Err(Error::ServerGone);
        }
        self.platform.take(&pd, more)?;
        let upgraded = match server {
            ServedBy::Parent => self.platform.upgrade_at_parent(id, more),
            ServedBy::Local => self.platform.upgrade_local(id, more),
            ServedBy::Config => Ok(()),
            ServedBy::Child(server) => self.upgrade_at_child(server, id, more),
        };
        match upgraded {
            Ok(()) => {
                if let Some(session) = self.sessions.get_mut(&id) {
                    session.donation = total;
                }
            }
            Err(_) => self.give_back(&pd, more),
        }
        upgraded
    }

    /// A child closes a session.
    ///
    /// # Errors
    ///
    /// It has no such session, or the session belongs to its environment.
    pub fn close(&mut self, child: ChildId, number: u64) -> Result<(), Error> {
        let id = self.session_of(child, number)?;
        if self.sessions.get(&id).is_some_and(|session| session.environment) {
            return Err(Error::Invalid);
        }
        self.end_session(id);
        Ok(())
    }

    /// Ends a session, at once or when its server, a child, says so.
    pub(crate) fn end_session(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        if session.state == SessionState::Closed {
            return self.forget(id);
        }
        match session.server {
            ServedBy::Parent => self.platform.close_at_parent(id),
            ServedBy::Local => self.platform.close_local(id),
            ServedBy::Config => self.platform.close_rom(id),
            ServedBy::Child(server) if session.delivered => {
                session.state = SessionState::Closing;
                session.upgrade = Quota::NONE;
                if let Some(cap) = session.cap.take() {
                    self.platform.drop_cap(cap);
                }
                return self.requests_came(server);
            }
            ServedBy::Child(_) => {}
        }
        self.refund_and_forget(id);
    }

    /// Forgets a session whose donation is in our account, and gives it to the client if that one paid for it.
    pub(crate) fn refund_and_forget(&mut self, id: SessionId) {
        self.refund(id);
        self.forget(id);
    }

    fn refund(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let donation = core::mem::take(&mut session.donation);
        let client = session.client.filter(|_| !session.environment);
        if let Some(pd) = client.and_then(|(child, _)| self.environment_cap(child, PD)) {
            self.give_back(&pd, donation);
        }
    }

    fn forget(&mut self, id: SessionId) {
        let Some(session) = self.sessions.remove(&id) else { return };
        if let (Some(cap), ServedBy::Child(_)) = (session.cap, session.server) {
            self.platform.drop_cap(cap);
        }
        let Some((child, number)) = session.client else { return };
        if let Some(child) = self.child_mut(child) {
            child.sessions.remove(&number);
        }
    }

    /// A session did not come to be, or its server is gone: the donation, which is in our account, goes back, and the
    /// client is told.
    pub(crate) fn refuse(&mut self, id: SessionId, refusal: Error) {
        self.refund(id);
        let Some(session) = self.sessions.get_mut(&id) else { return };
        session.state = SessionState::Closed;
        session.refusal = Some(refusal);
        let delivered = matches!(session.server, ServedBy::Child(_));
        if let Some(cap) = session.cap.take().filter(|_| delivered) {
            self.platform.drop_cap(cap);
        }
        self.session_changed(id);
    }

    /// Tells the client of a session, or goes on with the client's start.
    pub(crate) fn session_changed(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get(&id) else { return };
        let Some((child, _)) = session.client else { return };
        if self.child(child).is_some_and(|child| child.is_served()) {
            self.platform.notify(child, ParentSignal::SessionReady);
        } else if session.environment {
            self.advance(child);
        }
    }

    /// Our parent says that a session it did not have at once may be there.
    pub fn parent_sessions_ready(&mut self) {
        let pending = self.sessions.iter();
        let pending = pending.filter(|(_, s)| s.server == ServedBy::Parent && s.state == SessionState::Creating);
        let pending: Vec<SessionId> = pending.map(|(id, _)| *id).collect();
        for id in pending {
            // A child that could not be started with an earlier one took its others with it.
            if !self.sessions.contains_key(&id) {
                continue;
            }
            match self.platform.poll_parent(id) {
                Ok(None) => {}
                Ok(Some(cap)) => self.made_available(id, cap),
                Err(refusal) => self.refuse(id, refusal),
            }
        }
    }

    pub(crate) fn made_available(&mut self, id: SessionId, cap: P::Cap) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        session.cap = Some(cap);
        session.state = if session.environment { SessionState::Open } else { SessionState::Available };
        self.session_changed(id);
    }

    /// Gives quota back to whom it was taken from; an account that had it before has room for it.
    fn give_back(&mut self, pd: &P::Cap, quota: Quota) {
        if let Err(refusal) = self.platform.give(pd, quota) {
            self.log(LogLevel::Error, format_args!("{quota} could not be returned: {refusal}"));
        }
    }

    /// The label under which the server of a session sees it.
    pub(crate) fn label_at_server(&self, id: SessionId) -> String {
        self.sessions.get(&id).map(|session| session.destination.label.clone()).unwrap_or_default()
    }
}
