// SPDX-License-Identifier: MIT OR Apache-2.0
//! Getting a VCPU's attention: out of the guest, or out of its sleep in HLT.
//!
//! Rule: whoever wants attention first leaves its mark (the fabric's flag) and then calls; the VCPU looks at
//! the marks while it holds the lock under which it goes to sleep, so no call is lost.

use core::cell::Cell;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cloister_devices::fabric;
use cloister_hypervisor::Kick;

thread_local! {
    /// The VCPU that this thread runs.
    static MINE: Cell<usize> = const { Cell::new(usize::MAX) };
}

/// One VCPU's bell. Clones are the same bell.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bell(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    state: Mutex<State>,
    woken: Condvar,
}

#[derive(Debug, Default)]
struct State {
    asleep: bool,
    kicker: Option<Box<dyn Kick>>,
}

impl Bell {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says that the calling thread runs VCPU `index` and that `kicker` brings it out of the guest.
    pub(crate) fn belongs_here(&self, index: usize, kicker: impl Kick + 'static) {
        MINE.set(index);
        self.state().kicker = Some(Box::new(kicker));
    }

    /// Calls the VCPU.
    pub(crate) fn ring(&self) {
        let state = self.state();
        if state.asleep {
            self.0.woken.notify_one();
        } else if let Some(kicker) = &state.kicker {
            kicker.kick();
        }
    }

    /// Sleeps until it rings with `wanted` true, or for at most `time`.
    pub(crate) fn sleep(&self, time: Option<Duration>, wanted: impl Fn() -> bool) {
        let mut state = self.state();
        if wanted() {
            return;
        }
        state.asleep = true;
        let mut state = match time {
            Some(time) => {
                let result = self.0.woken.wait_timeout(state, time);
                result.unwrap_or_else(PoisonError::into_inner).0
            }
            None => self.0.woken.wait(state).unwrap_or_else(PoisonError::into_inner),
        };
        state.asleep = false;
    }
}

/// The bells of all VCPUs, as the interrupt fabric rings them.
#[derive(Debug)]
pub(crate) struct Bells(pub(crate) Vec<Bell>);

impl fabric::Kick for Bells {
    fn kick(&self, vcpu: usize) {
        // The VCPU's own thread looks anyway before it enters the guest.
        if MINE.get() != vcpu
            && let Some(bell) = self.0.get(vcpu)
        {
            bell.ring();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Bell;
    use core::sync::atomic::{AtomicBool, Ordering};
    use std::sync::Arc;
    use std::time::Duration;

    #[test]
    fn a_ring_before_the_sleep_is_not_lost() {
        let bell = Bell::default();
        let mark = Arc::new(AtomicBool::new(false));
        let (b, m) = (bell.clone(), mark.clone());
        let ringer = std::thread::spawn(move || {
            m.store(true, Ordering::SeqCst);
            b.ring();
        });
        while !mark.load(Ordering::SeqCst) {
            bell.sleep(None, || mark.load(Ordering::SeqCst));
        }
        ringer.join().unwrap();
    }

    #[test]
    fn a_sleep_ends_with_its_time() {
        Bell::default().sleep(Some(Duration::from_millis(1)), || false);
    }
}
