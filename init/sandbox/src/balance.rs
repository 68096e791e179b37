// SPDX-License-Identifier: MIT OR Apache-2.0
//! Quota of running children: configured changes, requests, and giving back.

use alloc::vec::Vec;

use cloister_session::ParentSignal;

use crate::child::{PD, State};
use crate::platform::{ChildId, LogLevel, Platform};
use crate::quota::Quota;
use crate::sandbox::Sandbox;

/// What a child always keeps.
const KEEP: Quota = Quota::new(16 << 10, 5);

impl<P: Platform> Sandbox<P> {
    /// Brings the quotas of running children to what is configured: first all that give back, then all that get.
    pub(crate) fn balance(&mut self) {
        let alive = self.children.iter().filter(|c| matches!(c.state, State::Alive | State::RamInitialized));
        let alive: Vec<ChildId> = alive.map(|child| child.id).collect();
        for id in &alive {
            self.downgrade(*id);
        }
        for id in alive {
            self.raise(id);
        }
    }

    /// Takes from a child what it has more than configured, as far as it is free, and asks it for the rest.
    fn downgrade(&mut self, id: ChildId) {
        let Some(child) = self.child_mut(id) else { return };
        let excess = child.assigned.without(Quota::new(child.start.ram, child.start.caps));
        child.owes = None;
        if excess.is_none() {
            return;
        }
        let Some(pd) = self.environment_cap(id, PD) else { return };
        let free = self.platform.left(&pd).without(KEEP);
        let amount = excess.at_most(free);
        let taken = if self.platform.take(&pd, amount).is_ok() { amount } else { Quota::NONE };
        let owes = excess.without(taken);
        if let Some(child) = self.child_mut(id) {
            child.assigned = child.assigned.without(taken);
            child.owes = Some(owes).filter(|owes| !owes.is_none());
        }
        if !owes.is_none() {
            self.platform.notify(id, ParentSignal::Yield);
        }
    }

    /// Gives a child what it has less than configured, as far as there is something left.
    fn raise(&mut self, id: ChildId) {
        let Some(child) = self.child(id) else { return };
        let missing = Quota::new(child.start.ram, child.start.caps).without(child.assigned);
        let name = child.start.name.clone();
        if missing.is_none() {
            return;
        }
        let slack = self.slack();
        let amount = missing.at_most(slack);
        if amount != missing {
            self.log(LogLevel::Warning, format_args!("child \"{name}\" lacks {missing}, only {slack} left"));
        }
        let Some(pd) = self.environment_cap(id, PD) else { return };
        if amount.is_none() || self.platform.give(&pd, amount).is_err() {
            return;
        }
        let Some(child) = self.child_mut(id) else { return };
        child.assigned = child.assigned.plus(amount).unwrap_or(child.assigned);
        if child.requested.take().is_some() {
            self.platform.notify(id, ParentSignal::ResourceAvail);
        }
    }

    /// A child asks for more. It is noted and logged; somebody has to configure more for it.
    pub fn resource_request(&mut self, id: ChildId, quota: Quota) {
        let Some(child) = self.child_mut(id).filter(|child| child.is_served()) else { return };
        child.requested = Some(quota);
        let name = child.start.name.clone();
        self.log(LogLevel::Warning, format_args!("child \"{name}\" requests resources: {quota}"));
    }

    /// What a child is asked to give back.
    #[must_use]
    pub fn yield_request(&self, id: ChildId) -> Quota {
        self.child(id).and_then(|child| child.owes).unwrap_or_default()
    }

    /// A child says that it gave free what it could.
    pub fn yield_response(&mut self, id: ChildId) {
        if self.child(id).is_some_and(|child| child.owes.is_some()) {
            self.downgrade(id);
        }
    }
}
