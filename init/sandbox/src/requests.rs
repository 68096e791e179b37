// SPDX-License-Identifier: MIT OR Apache-2.0
//! What children tell their parent as servers.
//!
//! A server is told by a signal that something is asked of it, fetches the requests, and answers each by the number in
//! it. It can take its time; nobody waits. A request comes with its donation: when the server can see it, the quota has
//! arrived in the server's account, and when the server says that a session is closed, it is taken out again.

use alloc::vec::Vec;

use cloister_session::{Error, ParentSignal, RequestKind, SessionResponse};

use crate::child::{PD, State};
use crate::platform::{ChildId, LogLevel, Platform, SessionId};
use crate::quota::Quota;
use crate::sandbox::Sandbox;
use crate::session::{ServedBy, SessionState};

/// What is asked of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerRequest<'s> {
    /// The session.
    pub id: SessionId,
    /// What to do.
    pub kind: RequestKind,
    /// The service.
    pub service: &'s str,
    /// The label that routing gave the session.
    pub label: &'s str,
    /// The client's arguments.
    pub args: &'s str,
    /// What was donated; for an upgrade, what came on top.
    pub donation: Quota,
}

impl<P: Platform> Sandbox<P> {
    /// A child says that it is ready to serve.
    ///
    /// # Errors
    ///
    /// Its start node does not say that it provides the service.
    pub fn announce(&mut self, child: ChildId, service: &str) -> Result<(), Error> {
        let server = self.child(child).filter(|child| child.is_served()).ok_or(Error::NotFound)?;
        let (name, allowed) = (server.start.name.clone(), server.start.provides.iter().any(|s| s == service));
        if !allowed {
            let line = format_args!("child \"{name}\" announces {service}, which its start node does not provide");
            self.log(LogLevel::Error, line);
            return Err(Error::Denied);
        }
        if self.config.verbose {
            self.log(LogLevel::Info, format_args!("child \"{name}\" announces {service}"));
        }
        self.requests_came(child);
        Ok(())
    }

    /// A server hands out the capability to a session that it made.
    ///
    /// # Errors
    ///
    /// No such session was asked of it.
    pub fn deliver(&mut self, server: ChildId, session: SessionId, cap: P::Cap) -> Result<(), Error> {
        let entry = self.served(server, session)?;
        if entry != SessionState::Creating {
            return Err(Error::Invalid);
        }
        self.made_available(session, cap);
        Ok(())
    }

    /// A server answers a request.
    ///
    /// # Errors
    ///
    /// That was not asked of it.
    pub fn respond(&mut self, server: ChildId, session: SessionId, response: SessionResponse) -> Result<(), Error> {
        let state = self.served(server, session)?;
        match (response, state) {
            (SessionResponse::Ok, SessionState::Upgrading) => {
                if let Some(session) = self.sessions.get_mut(&session) {
                    session.state = SessionState::Open;
                    session.upgrade = Quota::NONE;
                }
            }
            (SessionResponse::Closed, SessionState::Closing) => {
                self.reclaim(server, session);
                self.refund_and_forget(session);
            }
            (SessionResponse::Denied, SessionState::Creating) => self.deny(server, session, |_| Error::Denied),
            (SessionResponse::InsufficientRam, SessionState::Creating) => {
                self.deny(server, session, |had| Error::OutOfRam {
                    needed: had.ram.saturating_add(1),
                    available: had.ram,
                });
            }
            (SessionResponse::InsufficientCaps, SessionState::Creating) => {
                self.deny(server, session, |had| Error::OutOfCaps {
                    needed: had.caps.saturating_add(1),
                    available: had.caps,
                });
            }
            // A session that its client closed before the server had made it was answered all the same.
            (
                SessionResponse::Denied | SessionResponse::InsufficientRam | SessionResponse::InsufficientCaps,
                SessionState::Closing,
            ) => {
                self.reclaim(server, session);
                self.refund_and_forget(session);
            }
            _ => return Err(Error::Invalid),
        }
        Ok(())
    }

    fn served(&self, server: ChildId, session: SessionId) -> Result<SessionState, Error> {
        let session = self.sessions.get(&session).ok_or(Error::NotFound)?;
        if session.server == ServedBy::Child(server) && session.delivered {
            Ok(session.state)
        } else {
            Err(Error::NotFound)
        }
    }

    fn deny(&mut self, server: ChildId, session: SessionId, why: impl Fn(Quota) -> Error) {
        self.reclaim(server, session);
        let donation = self.sessions.get(&session).map(|session| session.donation).unwrap_or_default();
        self.refuse(session, why(donation));
    }

    /// Takes a donation back from the server, as much of it as the server gave free.
    fn reclaim(&mut self, server: ChildId, id: SessionId) {
        let Some(pd) = self.environment_cap(server, PD) else { return };
        let donation = self.sessions.get(&id).map(|session| session.donation).unwrap_or_default();
        let obtained = match self.platform.take(&pd, donation) {
            Ok(()) => donation,
            Err(_) => {
                let rest = donation.at_most(self.platform.left(&pd));
                let (name, label) = (self.name(server), self.label_at_server(id));
                let line =
                    format_args!("child \"{name}\" closed session \"{label}\", but keeps {}", donation.without(rest));
                self.log(LogLevel::Error, line);
                self.platform.take(&pd, rest).map_or(Quota::NONE, |()| rest)
            }
        };
        if let Some(session) = self.sessions.get_mut(&id) {
            session.donation = obtained;
        }
    }

    /// Adds to a session at a server that is a child; the addition is in our account.
    pub(crate) fn upgrade_at_child(&mut self, server: ChildId, id: SessionId, more: Quota) -> Result<(), Error> {
        let Some(session) = self.sessions.get(&id) else { return Err(Error::NotFound) };
        if !session.delivered {
            return Ok(());
        }
        let pd = self.environment_cap(server, PD).ok_or(Error::ServerGone)?;
        self.platform.give(&pd, more)?;
        if let Some(session) = self.sessions.get_mut(&id) {
            // While it is being created, the request just shows the larger donation.
            if session.state != SessionState::Creating {
                session.upgrade = session.upgrade.plus(more).unwrap_or(more);
                session.state = SessionState::Upgrading;
            }
        }
        self.requests_came(server);
        Ok(())
    }

    /// Hands donations to a server that has a PD session by now, and shows it what is asked of it.
    pub(crate) fn deliver_requests(&mut self, server: ChildId) {
        let adopted = self.child(server).is_some_and(|c| matches!(c.state, State::RamInitialized | State::Alive));
        let Some(pd) = self.environment_cap(server, PD).filter(|_| adopted) else { return };
        let waiting = self.sessions.iter().filter(|(_, s)| s.server == ServedBy::Child(server) && !s.delivered);
        let waiting: Vec<_> = waiting.filter(|(_, s)| s.state == SessionState::Creating).map(|(id, _)| *id).collect();
        for id in waiting {
            let donation = self.sessions.get(&id).map(|session| session.donation).unwrap_or_default();
            match self.platform.give(&pd, donation) {
                Ok(()) => {
                    if let Some(session) = self.sessions.get_mut(&id) {
                        session.delivered = true;
                    }
                }
                Err(refusal) => self.refuse(id, refusal),
            }
        }
        self.requests_came(server);
    }

    /// Tells a server that there is something to fetch.
    pub(crate) fn requests_came(&mut self, server: ChildId) {
        if self.child(server).is_some_and(|child| child.is_served()) && self.request(server, 0).is_some() {
            self.platform.notify(server, ParentSignal::SessionRequests);
        }
    }

    /// The request to a server that was not answered yet, behind `skip` others.
    #[must_use]
    pub fn request(&self, server: ChildId, skip: u64) -> Option<ServerRequest<'_>> {
        let served = self.sessions.iter().filter(|(_, s)| s.server == ServedBy::Child(server) && s.delivered);
        let mut requests = served.filter_map(|(id, session)| {
            let (kind, donation) = match session.state {
                SessionState::Creating => (RequestKind::Create, session.donation),
                SessionState::Upgrading => (RequestKind::Upgrade, session.upgrade),
                SessionState::Closing => (RequestKind::Close, Quota::NONE),
                SessionState::Available | SessionState::Open | SessionState::Closed => return None,
            };
            let (service, label, args) = (&session.service, &session.destination.label, &session.args);
            Some(ServerRequest { id: *id, kind, service, label, args, donation })
        });
        requests.nth(usize::try_from(skip).ok()?)
    }
}
