// SPDX-License-Identifier: MIT OR Apache-2.0
//! Faults of devices: logged, and kept for whoever asks.
//!
//! A device can fault as fast as it can make accesses. So a line is written for the first eight, and then each time that their number is a power of
//! two; at most [`KEPT`] are kept; and a device whose faults come faster than [`STORM`] a second is told of no more, by the unit itself, until it is
//! assigned anew.
//!
//! Order of locks: state of the IOMMU, then faults, then semaphore.

use super::{STATE, State, Units};
use crate::arch::{cpu, irq, timer};
use crate::object::{Object, Sm};
use cloister_iommu::{Fault, Requester};
use core::ptr::NonNull;
use spin::Mutex;

/// Faults that are kept until somebody takes them.
const KEPT: usize = 32;
/// Faults in a second that are too many.
const STORM: u32 = 100;

struct Faults {
    kept: [Option<Fault>; KEPT],
    first: usize,
    count: usize,
    /// Not kept since the last that was taken.
    lost: u32,
    /// In all.
    all: u64,
    /// In the present second, and when that began.
    recent: u32,
    since: u64,
    /// Semaphore that is counted up.
    semaphore: Option<NonNull<Sm>>,
}

// SAFETY: a semaphore that goes is forgotten first; the structure is behind a lock.
unsafe impl Send for Faults {}

static FAULTS: Mutex<Faults> = Mutex::new(Faults {
    kept: [None; KEPT],
    first: 0,
    count: 0,
    lost: 0,
    all: 0,
    recent: 0,
    since: 0,
    semaphore: None,
});

impl Faults {
    /// Keeps a fault. Answers whether its device has had enough.
    fn add(&mut self, fault: Fault) -> bool {
        self.all += 1;
        if self.all <= 8 || self.all.is_power_of_two() {
            log::warn!("IOMMU: fault {}: {fault}", self.all);
        }
        match self.kept.get_mut((self.first + self.count) % KEPT) {
            Some(place) if self.count < KEPT => {
                *place = Some(fault);
                self.count += 1;
            }
            _ => self.lost = self.lost.saturating_add(1),
        }
        let now = cpu::ticks();
        if now.wrapping_sub(self.since) > timer::tsc_hz() {
            (self.since, self.recent) = (now, 0);
        }
        self.recent += 1;
        self.recent == STORM
    }
}

/// The units' interrupt.
pub(crate) fn interrupt() {
    let mut state = STATE.lock();
    let mut faults = FAULTS.lock();
    let before = faults.all;
    let mut noisy = None;
    let mut each = |fault: Fault| {
        if faults.add(fault) {
            noisy = Some(fault.device);
        }
    };
    match &mut state.units {
        Units::None => {}
        Units::Amd(amd) => amd.faults(&mut each),
        Units::Intel(intel) => intel.faults(&mut each),
    }
    if let Some(device) = noisy {
        state.silence(device);
    }
    drop(state);
    // SAFETY: a semaphore that goes is forgotten first, which takes the lock.
    if let Some(semaphore) = faults.semaphore.filter(|_| faults.all != before).map(|it| unsafe { it.as_ref() }) {
        semaphore.up();
    }
    drop(faults);
    irq::end();
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
    let mut faults = FAULTS.lock();
    let first = faults.first;
    let fault = faults.kept[first].take()?;
    faults.first = (first + 1) % KEPT;
    faults.count -= 1;
    Some((fault, core::mem::take(&mut faults.lost)))
}

impl State {
    /// A device faults without end: its faults are told no more.
    fn silence(&mut self, device: Requester) {
        log::warn!("IOMMU: too many faults; those of device {device} are not told any more until it is assigned");
        let own = self.devices.iter().flatten().find(|(it, _)| *it == device).map(|(_, domain)| *domain);
        let domain = own.unwrap_or_else(|| self.home(device).1);
        match &mut self.units {
            Units::None => {}
            Units::Amd(amd) => amd.silence(device, domain),
            Units::Intel(intel) => intel.silence(device, domain),
        }
    }
}
