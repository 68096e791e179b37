// SPDX-License-Identifier: MIT OR Apache-2.0
//! What children tell their parent as servers.
//!
//! A server reads what is asked of it from its ROM `session_requests` and answers each request by the number in it. It
//! can take its time; nobody waits. A request comes with its donation: when it shows up in the ROM, the quota has
//! arrived in the server's account, and when the server says that a session is closed, it is taken out again.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use cloister_hid::Element;
use cloister_init_config::format_size;

use crate::child::{PD, State};
use crate::platform::{ChildId, LogLevel, Platform, Refusal, SessionId};
use crate::quota::Quota;
use crate::sandbox::Sandbox;
use crate::session::{ServedBy, SessionState};

/// A server's answer to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Response {
    /// The session will not be.
    Denied,
    /// It would take more RAM.
    InsufficientRam,
    /// It would take more capabilities.
    InsufficientCaps,
    /// The addition to the donation was noticed.
    Upgraded,
    /// The session is closed, and what it took is free.
    Closed,
}

impl<P: Platform> Sandbox<P> {
    /// A child says that it is ready to serve.
    ///
    /// # Errors
    ///
    /// Its start node does not say that it provides the service.
    pub fn announce(&mut self, child: ChildId, service: &str) -> Result<(), Refusal> {
        let server = self.child(child).filter(|child| child.is_served()).ok_or(Refusal::NotFound)?;
        let (name, allowed) = (server.start.name.clone(), server.start.provides.iter().any(|s| s == service));
        if !allowed {
            let line = format_args!("child \"{name}\" announces {service}, which its start node does not provide");
            self.log(LogLevel::Error, line);
            return Err(Refusal::Denied);
        }
        if self.config.verbose {
            self.log(LogLevel::Info, format_args!("child \"{name}\" announces {service}"));
        }
        Ok(())
    }

    /// A server hands out the capability to a session that it made.
    ///
    /// # Errors
    ///
    /// No such session was asked of it.
    pub fn deliver(&mut self, server: ChildId, session: SessionId, cap: P::Cap) -> Result<(), Refusal> {
        let entry = self.served(server, session)?;
        if entry != SessionState::Creating {
            return Err(Refusal::Invalid);
        }
        self.made_available(session, cap);
        self.requests_changed(server);
        Ok(())
    }

    /// A server answers a request.
    ///
    /// # Errors
    ///
    /// That was not asked of it.
    pub fn respond(&mut self, server: ChildId, session: SessionId, response: Response) -> Result<(), Refusal> {
        let state = self.served(server, session)?;
        match (response, state) {
            (Response::Upgraded, SessionState::Upgrading) => {
                if let Some(session) = self.sessions.get_mut(&session) {
                    session.state = SessionState::Open;
                    session.upgrade = Quota::NONE;
                }
            }
            (Response::Closed, SessionState::Closing) => {
                self.reclaim(server, session);
                self.refund_and_forget(session);
            }
            (Response::Denied, SessionState::Creating) => self.deny(server, session, |_| Refusal::Denied),
            (Response::InsufficientRam, SessionState::Creating) => {
                self.deny(server, session, |had| Refusal::OutOfRam {
                    needed: had.ram.saturating_add(1),
                    available: had.ram,
                });
            }
            (Response::InsufficientCaps, SessionState::Creating) => {
                self.deny(server, session, |had| Refusal::OutOfCaps {
                    needed: had.caps.saturating_add(1),
                    available: had.caps,
                });
            }
            // A session that its client closed before the server had made it was answered all the same.
            (Response::Denied | Response::InsufficientRam | Response::InsufficientCaps, SessionState::Closing) => {
                self.reclaim(server, session);
                self.refund_and_forget(session);
            }
            _ => return Err(Refusal::Invalid),
        }
        self.requests_changed(server);
        Ok(())
    }

    fn served(&self, server: ChildId, session: SessionId) -> Result<SessionState, Refusal> {
        let session = self.sessions.get(&session).ok_or(Refusal::NotFound)?;
        if session.server == ServedBy::Child(server) && session.delivered {
            Ok(session.state)
        } else {
            Err(Refusal::NotFound)
        }
    }

    fn deny(&mut self, server: ChildId, session: SessionId, why: impl Fn(Quota) -> Refusal) {
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
    pub(crate) fn upgrade_at_child(&mut self, server: ChildId, id: SessionId, more: Quota) -> Result<(), Refusal> {
        let Some(session) = self.sessions.get(&id) else { return Err(Refusal::NotFound) };
        if !session.delivered {
            return Ok(());
        }
        let pd = self.environment_cap(server, PD).ok_or(Refusal::ServerGone)?;
        self.platform.give(&pd, more)?;
        if let Some(session) = self.sessions.get_mut(&id) {
            // While it is being created, the request just shows the larger donation.
            if session.state != SessionState::Creating {
                session.upgrade = session.upgrade.plus(more).unwrap_or(more);
                session.state = SessionState::Upgrading;
            }
        }
        self.requests_changed(server);
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
        self.requests_changed(server);
    }

    /// Brings the ROM `session_requests` of a server up to date.
    pub(crate) fn requests_changed(&mut self, server: ChildId) {
        let is_rom = |client: Option<(ChildId, u64)>| client.is_some_and(|(child, _)| child == server);
        let roms = self.sessions.iter().filter(|(_, s)| s.server == ServedBy::Requests && is_rom(s.client));
        let roms: Vec<SessionId> = roms.map(|(id, _)| *id).collect();
        if roms.is_empty() {
            return;
        }
        let text = self.requests_text(server);
        for rom in roms {
            self.platform.update_rom(rom, &text);
        }
    }

    /// What is asked of a server.
    pub(crate) fn requests_text(&self, server: ChildId) -> String {
        let mut all = Element::new("session_requests");
        let served = self.sessions.iter().filter(|(_, s)| s.server == ServedBy::Child(server) && s.delivered);
        for (id, session) in served {
            let sizes = |node: Element, quota: Quota| node.with("ram", format_size(quota.ram)).with("caps", quota.caps);
            match session.state {
                SessionState::Creating => {
                    let node = Element::named("create", id.0).with("service", &session.service);
                    let node = sizes(node.with("label", &session.destination.label), session.donation);
                    all = all.with_node(node.with_node(Element::new("args").with_text(&session.args)));
                }
                SessionState::Upgrading => {
                    all = all.with_node(sizes(Element::named("upgrade", id.0), session.upgrade));
                }
                SessionState::Closing => all = all.with_node(Element::named("close", id.0)),
                SessionState::Available | SessionState::Open | SessionState::Closed => {}
            }
        }
        // Labels and arguments were checked when the session was asked for.
        all.to_text().unwrap_or_else(|_| "session_requests\n-\n".to_string())
    }
}
