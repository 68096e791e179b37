// SPDX-License-Identifier: MIT OR Apache-2.0
//! A child: what is configured for it, what it has, and where it is in its life.

use alloc::collections::BTreeMap;
use alloc::string::String;

use cloister_init_config::Start;
pub(crate) use cloister_session::id::{BINARY, CPU, FIRST_FREE, LOG, PD};

use crate::platform::{ChildId, SessionId};
use crate::quota::Quota;

/// Where a child is in its life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// To be started; it has nothing yet.
    Initial,
    /// It has its PD session and its quota; other sessions of its environment are awaited.
    RamInitialized,
    /// It runs.
    Alive,
    /// It cannot run as it is configured; it has nothing.
    Stuck,
    /// It ended by itself or by a fault.
    Exited,
    /// It is to be destroyed and started anew.
    RestartScheduled,
    /// It is to be destroyed.
    Abandoned,
}

/// How a child ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    /// What it returned; -1 for a fault.
    pub code: i64,
    /// Why, in words, if it said so.
    pub reason: String,
}

/// Identifiers of the environment's sessions, with the services.
pub(crate) const ENVIRONMENT: [(u64, &str); 4] = [(PD, "PD"), (CPU, "CPU"), (LOG, "LOG"), (BINARY, "ROM")];

#[derive(Clone, Debug)]
pub(crate) struct Child {
    pub(crate) id: ChildId,
    pub(crate) start: Start,
    pub(crate) state: State,
    /// What was taken out of our account for it: its environment's donations and its own quota.
    pub(crate) assigned: Quota,
    /// Its sessions, by the identifiers that it chose.
    pub(crate) sessions: BTreeMap<u64, SessionId>,
    pub(crate) exit: Option<Exit>,
    /// What it asked for and did not get yet.
    pub(crate) requested: Option<Quota>,
    /// What it was asked for and did not give yet.
    pub(crate) owes: Option<Quota>,
    /// Whether it could not be started for a reason that only another configuration can mend.
    pub(crate) hopeless: bool,
    /// Whether it is to be dismantled as soon as nobody is in a call.
    pub(crate) doomed: bool,
}

impl Child {
    pub(crate) fn new(id: ChildId, start: Start) -> Self {
        Self {
            id,
            start,
            state: State::Initial,
            assigned: Quota::NONE,
            sessions: BTreeMap::new(),
            exit: None,
            requested: None,
            owes: None,
            hopeless: false,
            doomed: false,
        }
    }

    /// Whether it has resources.
    pub(crate) fn exists(&self) -> bool {
        matches!(self.state, State::RamInitialized | State::Alive) || !self.sessions.is_empty()
    }

    /// Whether its parent interface is to be served.
    pub(crate) fn is_served(&self) -> bool {
        self.state == State::Alive && !self.doomed
    }

    /// Whether sessions may be routed to it.
    pub(crate) fn may_serve(&self) -> bool {
        matches!(self.state, State::Initial | State::RamInitialized | State::Alive | State::RestartScheduled)
            && !self.doomed
    }
}
