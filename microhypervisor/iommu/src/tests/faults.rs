// SPDX-License-Identifier: MIT OR Apache-2.0
//! From an access that is refused to what the user reads.

use super::Bench;
use super::model::VARIANTS;
use crate::log::{Log, STORM};
use crate::{Cause, Fault, Kind, Requester};

const DEVICE: Requester = Requester::new(1, 4, 0);
const HERE: u64 = 0x40_0000;

/// A driver programs a DMA to memory that it does not own: it is not reached, and the line names device and address.
#[test]
fn a_refused_access_is_told_with_device_and_address() {
    for variant in VARIANTS {
        let mut bench = Bench::new(variant);
        let space = bench.space();
        bench.assign(&space, DEVICE).expect("room");
        bench.map(&space, HERE, 0x7000, (true, false));
        assert_eq!(bench.machine.interrupted(), 0);
        assert_eq!(bench.machine.access(DEVICE, HERE, true), None);
        assert_eq!(bench.machine.interrupted(), 1, "{variant:?}");
        let fault = Fault { device: DEVICE, address: HERE, write: true, cause: Cause::Address };
        assert_eq!(bench.faults(), (vec![fault], false), "{variant:?}");
        let line = "device 01:04.0: write to 0x400000 blocked: nothing mapped there with that right";
        assert_eq!(fault.to_string(), line);
        assert_eq!(bench.faults(), (vec![], false), "{variant:?}: once");
        // Where nothing is mapped AMD-Vi does not say whether it was a write.
        assert_eq!(bench.machine.access(DEVICE, 0x5000, true), None);
        let write = variant.kind() == Kind::Intel;
        assert_eq!(bench.faults().0, [Fault { address: 0x5000, write, ..fault }], "{variant:?}");
        bench.iommu.remove_all(&space.domain);
        assert_eq!(bench.machine.access(DEVICE, HERE, false), None);
        let expected = Fault { write: false, cause: Cause::Device, ..fault };
        assert_eq!(bench.faults().0, [expected], "{variant:?}");
        assert_eq!(bench.machine.interrupted(), 2, "{variant:?}");
    }
}

/// Each fault that the unit had room for is told, in order, round and round its log, and what comes later interrupts again.
#[test]
fn the_log_goes_round() {
    for variant in VARIANTS {
        let mut bench = Bench::new(variant);
        for round in 0..20u64 {
            let count = 1 + round * 13 % variant.room() as u64;
            let addresses: Vec<u64> = (0..count).map(|index| (round * 1000 + index) << 12).collect();
            addresses.iter().for_each(|address| assert_eq!(bench.machine.access(DEVICE, *address, true), None));
            assert_eq!(bench.machine.interrupted(), 1, "{variant:?}");
            let (mut told, lost) = bench.faults();
            // The records of VT-d are looked at from the first, wherever the unit began.
            told.sort_by_key(|fault| fault.address);
            assert_eq!(told.iter().map(|fault| fault.address).collect::<Vec<_>>(), addresses, "{variant:?}");
            assert!(!lost);
        }
    }
}

/// A log that overflowed says so, and goes on (48882, 2.5.2; VT-d, 7.2.1).
#[test]
fn lost_faults_are_told_and_the_log_goes_on() {
    for variant in VARIANTS {
        let mut bench = Bench::new(variant);
        for round in 0..3 {
            for index in 0..300 {
                assert_eq!(bench.machine.access(DEVICE, index << 12, true), None);
            }
            let (told, lost) = bench.faults();
            assert_eq!((told.len(), lost), (variant.room(), true), "{variant:?}, round {round}");
            assert_eq!(bench.faults(), (vec![], false), "{variant:?}, round {round}");
            bench.machine.interrupted();
            assert_eq!(bench.machine.access(DEVICE, 0x5000, true), None);
            assert_eq!(bench.machine.interrupted(), 1, "{variant:?}, round {round}");
            assert_eq!(bench.faults().0.len(), 1, "{variant:?}, round {round}");
        }
    }
}

/// A device that storms is silenced, others are heard; assigned anew, it is heard again.
#[test]
fn a_storm_is_silenced_at_its_device() {
    for variant in VARIANTS {
        let mut bench = Bench::new(variant);
        let other = Requester(0x20);
        for assigned in [false, true] {
            let space = bench.space();
            if assigned {
                bench.assign(&space, DEVICE).expect("room");
            }
            let mut log = Log::new();
            let mut heard = 0;
            for index in 0..2 * u64::from(STORM) {
                bench.machine.access(DEVICE, index << 12, true);
                bench.iommu.faults(|fault| {
                    heard += 1;
                    log.add(fault, 0, 1000)
                });
            }
            assert_eq!(heard, STORM, "{variant:?}");
            bench.machine.access(other, 0, true);
            assert_eq!(bench.faults().0.len(), 1, "{variant:?}: another device");
            assert_eq!(bench.machine.access(DEVICE, 0, true), None, "{variant:?}: it still reaches nothing");
            let next = bench.space();
            bench.iommu.remove_all(&space.domain);
            bench.assign(&next, DEVICE).expect("room");
            bench.machine.access(DEVICE, 0, true);
            assert_eq!(bench.faults().0.len(), 1, "{variant:?}: assigned anew");
            bench.iommu.remove_all(&next.domain);
        }
    }
}
