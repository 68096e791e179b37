// SPDX-License-Identifier: MIT OR Apache-2.0
//! The state of a sandbox and how to look at it.
//!
//! What happens to it stands in its neighbours: `apply` (configurations), `lifecycle` (start and end of a child),
//! `sessions` (what children ask of their parent as clients), `requests` (as servers), `balance` (quota).

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use cloister_init_config::Config;

use crate::child::{Child, Exit, State};
use crate::platform::{ChildId, LogLevel, Platform, SessionId};
use crate::quota::Quota;
use crate::session::Session;

/// A set of children and their sessions.
#[derive(Debug)]
pub struct Sandbox<P: Platform> {
    pub(crate) platform: P,
    pub(crate) config: Config,
    /// In the order of the start nodes.
    pub(crate) children: Vec<Child>,
    pub(crate) sessions: BTreeMap<SessionId, Session<P::Cap>>,
    next_child: u64,
    next_session: u64,
    /// Whether the exit of the last awaited child was announced already.
    pub(crate) all_exited: bool,
}

/// What is known of a child.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChildInfo {
    /// Its number.
    pub id: ChildId,
    /// Its name.
    pub name: String,
    /// Where it is in its life.
    pub state: State,
    /// What was assigned to it.
    pub assigned: Quota,
    /// How it ended.
    pub exit: Option<Exit>,
    /// How many sessions it has, its environment's included.
    pub sessions: usize,
}

/// Session numbers below are those of our own environment at our own parent.
const FIRST_SESSION: u64 = 1 << 16;

impl<P: Platform> Sandbox<P> {
    /// A sandbox without children.
    pub fn new(platform: P) -> Self {
        Self {
            platform,
            config: Config::default(),
            children: Vec::new(),
            sessions: BTreeMap::new(),
            next_child: 1,
            next_session: FIRST_SESSION,
            all_exited: false,
        }
    }

    /// The door to the system.
    pub fn platform(&mut self) -> &mut P {
        &mut self.platform
    }

    /// What is known of the children, in the order of the start nodes.
    pub fn children(&self) -> impl Iterator<Item = ChildInfo> {
        self.children.iter().map(|child| ChildInfo {
            id: child.id,
            name: child.start.name.clone(),
            state: child.state.clone(),
            assigned: child.assigned,
            exit: child.exit.clone(),
            sessions: child.sessions.len(),
        })
    }

    pub(crate) fn new_child_id(&mut self) -> ChildId {
        let id = ChildId(self.next_child);
        self.next_child = self.next_child.saturating_add(1);
        id
    }

    pub(crate) fn new_session_id(&mut self) -> SessionId {
        let id = SessionId(self.next_session);
        self.next_session = self.next_session.saturating_add(1);
        id
    }

    pub(crate) fn child(&self, id: ChildId) -> Option<&Child> {
        self.children.iter().find(|child| child.id == id)
    }

    pub(crate) fn child_mut(&mut self, id: ChildId) -> Option<&mut Child> {
        self.children.iter_mut().find(|child| child.id == id)
    }

    /// The name of a child, for the log.
    pub(crate) fn name(&self, id: ChildId) -> String {
        self.child(id).map(|child| child.start.name.clone()).unwrap_or_default()
    }

    pub(crate) fn log(&mut self, level: LogLevel, line: fmt::Arguments<'_>) {
        self.platform.log(level, line);
    }

    /// The capability to an environment session of a child.
    pub(crate) fn environment_cap(&self, id: ChildId, session: u64) -> Option<P::Cap> {
        let session = self.child(id)?.sessions.get(&session)?;
        self.sessions.get(session)?.cap.clone()
    }

    /// What may be assigned to children: all we have but what is kept back and what belongs to children and sessions. Where
    /// we used some of that already, it counts twice: better too little to give away than too much.
    pub(crate) fn slack(&mut self) -> Quota {
        let keep = Quota::new(self.config.keep_ram, self.config.keep_caps);
        let cost = self.platform.child_cost();
        let hosted = self.children.iter().filter(|child| !child.assigned.is_none()).map(|_| cost);
        let held = self.sessions.values().filter(|session| session.donation_is_held()).map(|session| session.donation);
        let add = |sum: Quota, more| sum.plus(more).unwrap_or(Quota::new(u64::MAX, u64::MAX));
        let held = hosted.chain(held).fold(keep, add);
        self.platform.available().without(held)
    }
}
