// SPDX-License-Identifier: MIT OR Apache-2.0
//! Applying a configuration: change what changed, and nothing else.
//!
//! First the start nodes are compared with the children, by name and version. Then, until nothing changes any more:
//! the sessions of all children are routed anew; who would get another server, or another label at it, is restarted
//! together with those that use him; who would get none is stuck; who is to start is started, in the order of the start
//! nodes. At last, children whose quota is configured differently give back or get more.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use cloister_init_config::route::Server;
use cloister_init_config::{Config, Start};

use crate::child::{Child, ENVIRONMENT, State};
use crate::directory::by_name;
use crate::platform::{ChildId, LogLevel, Platform};
use crate::sandbox::Sandbox;
use crate::session::{ServedBy, Session, SessionState};

/// What the routes say about a running child.
enum Verdict {
    Valid,
    Restart,
    Stuck(String),
}

impl<P: Platform> Sandbox<P> {
    /// Makes `config` the configuration.
    pub fn apply(&mut self, config: Config) {
        self.config = config;
        self.all_exited = false;
        self.settle();
        self.compare();
        self.converge();
        self.balance();
    }

    /// Matches children with start nodes; children without one are abandoned, start nodes without one get one.
    fn compare(&mut self) {
        let starts = self.config.starts.clone();
        let mut old = core::mem::take(&mut self.children);
        let mut updated = Vec::new();
        for start in starts {
            let same = |child: &Child| child.start.name == start.name && child.start.version == start.version;
            let child = match old.iter().position(same) {
                Some(index) => {
                    let mut child = old.swap_remove(index);
                    updated.push((child.id, core::mem::replace(&mut child.start, start)));
                    child
                }
                None => {
                    let id = self.new_child_id();
                    Child::new(id, start)
                }
            };
            self.children.push(child);
        }
        for mut child in old {
            child.state = State::Abandoned;
            self.children.push(child);
        }
        for (id, before) in updated {
            self.update(id, &before);
        }
    }

    /// Takes over a changed start node of a child that stays.
    fn update(&mut self, id: ChildId, before: &Start) {
        let Some(child) = self.child_mut(id) else { return };
        child.hopeless = false;
        if child.start.config == before.config {
            return;
        }
        let running = matches!(child.state, State::Alive | State::RamInitialized);
        match (child.start.config.clone(), &before.config) {
            (Some(text), Some(_)) => {
                let of_child = |session: &Session<P::Cap>| session.client.is_some_and(|(client, _)| client == id);
                let roms = self.sessions.iter().filter(|(_, s)| s.server == ServedBy::Config && of_child(s));
                let roms: Vec<_> = roms.map(|(rom, _)| *rom).collect();
                for rom in roms {
                    self.platform.update_rom(rom, &text);
                }
            }
            _ if running => child.state = State::RestartScheduled,
            _ => {}
        }
    }

    fn converge(&mut self) {
        // Each round starts or stops a child that the round before made possible or impossible.
        let rounds = self.children.len().saturating_mul(2).saturating_add(4);
        for _ in 0..rounds {
            self.judge();
            if !self.act() {
                return;
            }
        }
        self.log(LogLevel::Warning, format_args!("the children did not settle in {rounds} rounds"));
    }

    /// Routes all sessions anew and marks the children that cannot go on as they are.
    fn judge(&mut self) {
        loop {
            let running = self.children.iter().filter(|c| matches!(c.state, State::Alive | State::RamInitialized));
            let running: Vec<ChildId> = running.map(|child| child.id).collect();
            let mut changed = false;
            for id in running {
                let state = match self.verdict(id) {
                    Verdict::Valid => continue,
                    Verdict::Restart => State::RestartScheduled,
                    Verdict::Stuck(why) => {
                        let name = self.name(id);
                        self.log(LogLevel::Warning, format_args!("child \"{name}\" stuck: {why}"));
                        State::Stuck
                    }
                };
                if let Some(child) = self.child_mut(id) {
                    child.state = state;
                }
                changed = true;
            }
            if !changed {
                return;
            }
        }
    }

    fn verdict(&self, id: ChildId) -> Verdict {
        let Some(child) = self.child(id) else { return Verdict::Valid };
        for session in child.sessions.values().filter_map(|session| self.sessions.get(session)) {
            if session.state == SessionState::Closing {
                continue;
            }
            let destination = match self.route(id, &session.service, &session.asked) {
                Ok(destination) => destination,
                // It went with its server; the client knows, and there is no other server for it.
                Err(_) if session.state == SessionState::Closed => continue,
                Err(why) => return Verdict::Stuck(format!("{} session \"{}\": {why}", session.service, session.asked)),
            };
            let same_server = match (&destination.server, session.server) {
                (Server::Child(name), ServedBy::Child(server)) => by_name(&self.children, name)
                    .is_some_and(|child| child.id == server && child.state != State::RestartScheduled),
                _ => true,
            };
            if destination != session.destination || !same_server || session.state == SessionState::Closed {
                return Verdict::Restart;
            }
        }
        Verdict::Valid
    }

    /// Destroys who is marked, starts who can be started; whether there was any.
    fn act(&mut self) -> bool {
        let ids: Vec<ChildId> = self.children.iter().map(|child| child.id).collect();
        let mut acted = false;
        for id in &ids {
            let Some(child) = self.child(*id) else { continue };
            match child.state {
                State::Abandoned => {
                    self.dismantle(*id);
                    self.children.retain(|child| child.id != *id);
                }
                State::RestartScheduled => {
                    self.dismantle(*id);
                    self.renew(*id);
                }
                State::Stuck if child.exists() => self.dismantle(*id),
                _ => continue,
            }
            acted = true;
        }
        let stuck = self.children.iter().filter(|child| child.state == State::Stuck && !child.hopeless);
        let stuck: Vec<ChildId> = stuck.map(|child| child.id).collect();
        for id in stuck {
            if self.environment_is_routable(id) {
                self.renew(id);
            }
        }
        let initial = self.children.iter().filter(|child| child.state == State::Initial && child.sessions.is_empty());
        let initial: Vec<ChildId> = initial.map(|child| child.id).collect();
        for id in initial {
            self.start(id);
            acted = true;
        }
        acted
    }

    fn environment_is_routable(&self, id: ChildId) -> bool {
        let name = self.name(id);
        ENVIRONMENT.iter().all(|(_, service)| self.route(id, service, &name).is_ok())
    }

    /// Makes a new instance of a child, to be started.
    fn renew(&mut self, id: ChildId) {
        let new = self.new_child_id();
        if let Some(child) = self.child_mut(id) {
            *child = Child::new(new, child.start.clone());
        }
    }
}
