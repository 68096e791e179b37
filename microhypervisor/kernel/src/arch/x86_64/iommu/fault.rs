// SPDX-License-Identifier: MIT OR Apache-2.0
//! Faults of devices: told on the console, kept for whoever asks ([`Log`]), counted up at a semaphore. A device that storms is told of no more, by the
//! unit itself, until it is assigned anew.
//!
//! Order of locks: IOMMU, then faults, then semaphore.

use super::IOMMU;
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
static TOLD: Flood = Flood::new();
static LOST: Flood = Flood::new();

/// The units' interrupt.
pub(crate) fn interrupt() {
    let mut iommu = IOMMU.lock();
    let mut faults = FAULTS.lock();
    let mut any = false;
    let lost = iommu.faults(|fault| {
        any = true;
        faults.tell(fault)
    });
    drop(iommu);
    if lost {
        faults.log.lose();
        LOST.tell(|count| {
            log::warn!("IOMMU: faults came faster than the unit could record them, so that some are lost ({count})")
        });
    }
    // SAFETY: a semaphore that goes is forgotten first, which takes the lock.
    if let Some(semaphore) = faults.semaphore.filter(|_| any).map(|it| unsafe { it.as_ref() }) {
        semaphore.up();
    }
    drop(faults);
    irq::end();
}

impl Faults {
    /// Tells of a fault, with measure. Answers whether its device is to be silenced.
    fn tell(&mut self, fault: Fault) -> bool {
        TOLD.tell(|number| log::warn!("IOMMU: fault {number}: {fault}"));
        let storm = self.log.add(fault, cpu::ticks(), timer::tsc_hz());
        if storm {
            let device = fault.device;
            log::warn!("IOMMU: too many faults; those of device {device} are not told any more until it is assigned");
        }
        storm
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
