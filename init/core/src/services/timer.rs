// SPDX-License-Identifier: MIT OR Apache-2.0
//! Timer: signals at given times. The main thread sleeps until the earliest of them.

use super::Call;
use crate::NOTIFICATION;
use crate::machine::{Core, SESSION};
use crate::objects::{Thing, Timer as Session};
use cloister_base::{Cap, Error, ObjectId, selectors, signal, time};
use cloister_core_model::AccountId;
use cloister_session::{Resources, Timer};

/// Shortest period, ticks: a component must not keep core busy.
const SHORTEST: u64 = 100_000;

impl Core {
    /// Opens a Timer session.
    pub(crate) fn open_timer(&mut self, donor: AccountId, donation: Resources) -> Result<ObjectId, Error> {
        let purse = self.open_purse(donor, donation, SESSION)?;
        let session = Session { purse, handler: None, next: 0, period: 0 };
        self.add(None, Thing::Timer(session)).inspect_err(|_| self.close_purse(&purse))
    }

    /// Closes a Timer session.
    pub(crate) fn close_timer(&mut self, id: ObjectId) {
        if let Some(Thing::Timer(timer)) = self.remove(id) {
            if let Some(handler) = timer.handler {
                selectors::drop_capability(handler.selector);
            }
            self.close_purse(&timer.purse);
        }
    }

    /// Raises the signals whose time has come. Answers when the next one's comes; 0 for never.
    pub(crate) fn handle_time(&mut self) -> u64 {
        let now = time::now();
        let mut earliest = u64::MAX;
        for (_, entry) in self.objects.iter_mut() {
            let Thing::Timer(timer) = &mut entry.object else { continue };
            if timer.next != 0 && timer.next <= now {
                if let Some(handler) = timer.handler {
                    signal::up(handler.selector);
                }
                timer.next = if timer.period == 0 { 0 } else { now.saturating_add(timer.period) };
            }
            if timer.next != 0 {
                earliest = earliest.min(timer.next);
            }
        }
        if earliest == u64::MAX { 0 } else { earliest }
    }
}

impl Timer for Call<'_> {
    fn now(&mut self) -> Result<u64, Error> {
        Ok(time::now())
    }

    fn trigger_at(&mut self, time: u64) -> Result<(), Error> {
        let timer = self.core.timer_mut(self.id)?;
        (timer.next, timer.period) = (time, 0);
        signal::up(NOTIFICATION);
        Ok(())
    }

    fn trigger_periodic(&mut self, period: u64) -> Result<(), Error> {
        let timer = self.core.timer_mut(self.id)?;
        let period = if period == 0 { 0 } else { period.max(SHORTEST) };
        timer.period = period;
        timer.next = if period == 0 { 0 } else { time::now().saturating_add(period) };
        signal::up(NOTIFICATION);
        Ok(())
    }

    fn signal_handler(&mut self, handler: Option<Cap>) -> Result<(), Error> {
        let timer = self.core.timer_mut(self.id)?;
        if let Some(old) = core::mem::replace(&mut timer.handler, handler) {
            selectors::drop_capability(old.selector);
        }
        Ok(())
    }
}
