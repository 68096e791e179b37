// SPDX-License-Identifier: MIT OR Apache-2.0
//! Faults of devices: told on the console, kept for whoever asks ([`Log`]), counted up at a semaphore. A device that storms is told of no more, by the
//! unit itself, until it is assigned anew.
//!
//! Order of locks: state of the IOMMU, then faults, then semaphore.

use super::STATE;
use crate::arch::{cpu, irq, timer};
use crate::flood::Flood;
use crate::object::{Object, Sm};
use cloister_iommu::Fault;
use cloister_iommu::log::Log;
use core::ptr::NonNull;
use spin::Mutex;

struct Faults {
    log: Log,
    /// Semaphore that is counted up.
    semaphore: Option<NonNull<Sm>>,
}

// SAFETY: a semaphore that goes is forgotten first; the structure is behind a lock.
unsafe impl Send for Faults {}

static FAULTS: Mutex<Faults> = Mutex::new(Faults { log: Log::new(), semaphore: None });
static LOST: Flood = Flood::new();

/// The units' interrupt.
pub(crate) fn interrupt() {
    let mut state = STATE.lock();
    let mut faults = FAULTS.lock();
    let before = faults.log.all();
    let lost = state.iommu.as_mut().is_some_and(|iommu| iommu.faults(|fault| faults.tell(fault)));
    drop(state);
    if lost {
        faults.log.lose();
        LOST.tell(|count| {
            log::warn!("IOMMU: faults came faster than the unit could record them, so that some are lost ({count})")
        });
    }
    // SAFETY: a semaphore that goes is forgotten first, which takes the lock.
    if let Some(semaphore) = faults.semaphore.filter(|_| faults.log.all() != before).map(|it| unsafe { it.as_ref() }) {
        semaphore.up();
    }
    drop(faults);
    irq::end();
}

impl Faults {
    /// Tells of a fault, with measure. Answers whether its device is to be silenced.
    fn tell(&mut self, fault: Fault) -> bool {
        let verdict = self.log.add(fault, cpu::ticks(), timer::tsc_hz());
        if let Some(number) = verdict.tell {
            log::warn!("IOMMU: fault {number}: {fault}");
        }
        if verdict.storm {
            let device = fault.device;
            log::warn!("IOMMU: too many faults; those of device {device} are not told any more until it is assigned");
        }
        verdict.storm
    }
}

/// Counts a semaphore up at each fault from now on, in place of the one before.
pub(crate) fn bind(semaphore: &Sm) {
    FAULTS.lock().semaphore = Some(semaphore.into());
    if !semaphore.header().is_alive() {
        // It went meanwhile, and perhaps before it could be forgotten.
        forget(semaphore);
    }
}

/// A semaphore goes.
pub(crate) fn forget(semaphore: &Sm) {
    let mut faults = FAULTS.lock();
    if faults.semaphore == Some(semaphore.into()) {
        faults.semaphore = None;
    }
}

/// Takes the oldest fault, with the number of those that were not kept since the last was taken.
pub(crate) fn take() -> Option<(Fault, u32)> {
    FAULTS.lock().log.take()
}
