// SPDX-License-Identifier: MIT OR Apache-2.0
//! Faults that are kept until somebody asks, and when a device has had its say.
//!
//! A device can fault as fast as it can make accesses. So at most [`KEPT`] are kept; and one that comes when there were [`STORM`] in a second
//! silences its device.

use crate::Fault;

/// Faults that are kept until somebody takes them.
pub const KEPT: usize = 32;
/// Faults in a second that are too many.
pub const STORM: u32 = 100;

/// Faults that are kept.
#[derive(Debug, Default)]
pub struct Log {
    kept: [Option<Fault>; KEPT],
    /// How many were ever kept, and taken.
    added: usize,
    taken: usize,
    lost: u32,
    recent: u32,
    since: u64,
}

impl Log {
    /// None so far.
    #[must_use]
    pub const fn new() -> Self {
        Self { kept: [None; KEPT], added: 0, taken: 0, lost: 0, recent: 0, since: 0 }
    }

    /// Keeps a fault. `now` and `second` are in ticks of a clock. Answers whether its device is to be silenced.
    pub fn add(&mut self, fault: Fault, now: u64, second: u64) -> bool {
        if self.added - self.taken < KEPT {
            self.kept[self.added % KEPT] = Some(fault);
            self.added += 1;
        } else {
            self.lose();
        }
        if now.wrapping_sub(self.since) > second {
            (self.since, self.recent) = (now, 0);
        }
        self.recent = self.recent.saturating_add(1);
        self.recent >= STORM
    }

    /// Units lost some: at least one.
    pub const fn lose(&mut self) {
        self.lost = self.lost.saturating_add(1);
    }

    /// Takes the oldest fault, with the number of those that were not kept since the last was taken.
    pub fn take(&mut self) -> Option<(Fault, u32)> {
        let fault = self.kept[self.taken % KEPT].take()?;
        self.taken += 1;
        Some((fault, core::mem::take(&mut self.lost)))
    }
}

#[cfg(test)]
mod tests {
    use super::{KEPT, Log, STORM};
    use crate::{Cause, Fault, Requester};

    const SECOND: u64 = 1000;

    fn fault(address: u64) -> Fault {
        Fault { device: Requester(8), address, write: true, cause: Cause::Address }
    }

    #[test]
    fn the_oldest_are_kept_and_the_others_counted() {
        let mut log = Log::new();
        assert_eq!(log.take(), None);
        for round in 0..3 {
            for address in 0..KEPT as u64 + 5 {
                log.add(fault(address), round * 10 * SECOND, SECOND);
            }
            assert_eq!(log.take(), Some((fault(0), 5)));
            assert_eq!(log.take(), Some((fault(1), 0)));
            log.add(fault(77), round * 10 * SECOND, SECOND);
            for address in 2..KEPT as u64 {
                assert_eq!(log.take(), Some((fault(address), 0)));
            }
            assert_eq!(log.take(), Some((fault(77), 0)));
            assert_eq!(log.take(), None);
        }
    }

    #[test]
    fn what_units_lost_counts_as_not_kept() {
        let mut log = Log::new();
        log.lose();
        log.add(fault(0), 0, SECOND);
        assert_eq!(log.take(), Some((fault(0), 1)));
    }

    #[test]
    fn a_storm_is_a_hundred_in_a_second() {
        let mut log = Log::new();
        // Ninety a second, for ever.
        assert!((0..10_000u64).all(|index| !log.add(fault(0), 5000 + index * SECOND / 90, SECOND)));
        // A burst after a pause; it is one again a second later.
        for start in [10_000_000, 10_000_000 + 2 * SECOND] {
            let storm: Vec<_> = (0..150).map(|_| log.add(fault(0), start, SECOND)).collect();
            assert_eq!(storm.iter().position(|storm| *storm), Some(STORM as usize - 1));
            assert!(storm[STORM as usize..].iter().all(|storm| *storm));
        }
    }
}
