// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which interrupts devices raise.

use super::Bench;
use super::model::VARIANTS;
use crate::{Cause, Kind, Requester, Taken};
use cloister_abi::status::Status;

const DEVICE: Requester = Requester(0x0108);
const OTHER: Requester = Requester(0x0109);

#[test]
fn a_device_raises_what_was_taken_for_it() {
    for variant in VARIANTS {
        let mut bench = Bench::new(variant);
        // Nothing, before; not even in the form that names APIC and vector.
        assert_eq!(bench.machine.raise(DEVICE, (0xfee0_0000, 0x41)), None);
        assert_eq!(bench.faults().0.first().map(|fault| fault.cause), Some(Cause::Interrupt), "{variant:?}");
        let apic = if variant.is_wide() { 0x1234_5678 } else { 3 };
        let taken = bench.iommu.take(DEVICE, apic, 0x41, false).expect("room");
        assert_eq!(bench.machine.raise(DEVICE, taken.message), Some((apic.into(), 0x41)), "{variant:?}");
        assert_eq!(bench.machine.raise(OTHER, taken.message), None, "{variant:?}: another device");
        let told = bench.faults().0;
        assert_eq!(
            told.iter().map(|fault| (fault.device, fault.cause)).collect::<Vec<_>>(),
            [(OTHER, Cause::Interrupt)]
        );
        // Blocked, it is dropped in silence; open, it comes; given back, it is refused.
        for _ in 0..2 {
            bench.iommu.change(DEVICE, taken.index, Some(true));
            assert_eq!(bench.machine.raise(DEVICE, taken.message), None, "{variant:?}");
            assert_eq!(bench.faults(), (vec![], false), "{variant:?}");
            bench.iommu.change(DEVICE, taken.index, Some(false));
            assert_eq!(bench.machine.raise(DEVICE, taken.message), Some((apic.into(), 0x41)), "{variant:?}");
        }
        bench.iommu.change(DEVICE, taken.index, None);
        assert_eq!(bench.machine.raise(DEVICE, taken.message), None, "{variant:?}");
        assert_eq!(bench.faults().0.len(), 1, "{variant:?}");
        // In its place comes another one, and the old does not shine through.
        let next = bench.iommu.take(DEVICE, 1, 0x55, true).expect("room");
        assert_eq!(
            (next.index, bench.machine.raise(DEVICE, next.message)),
            (taken.index, Some((1, 0x55))),
            "{variant:?}"
        );
    }
}

#[test]
fn interrupts_run_out_and_come_back() {
    for variant in VARIANTS {
        let mut bench = Bench::new(variant);
        let most = if variant.kind() == Kind::Amd { 64 } else { 1024 };
        for _ in 0..2 {
            let taken: Vec<_> = (0..most).map(|_| bench.iommu.take(DEVICE, 1, 0x41, false).expect("room")).collect();
            assert_eq!(bench.iommu.take(DEVICE, 1, 0x41, false), Err(Status::OutOfMemory), "{variant:?}");
            let mut messages: Vec<_> = taken.iter().map(|taken| taken.message).collect();
            messages.dedup();
            assert_eq!(messages.len(), taken.len(), "{variant:?}: each has its own");
            // Blocked ones are not free.
            bench.iommu.change(DEVICE, 5, Some(true));
            assert_eq!(bench.iommu.take(DEVICE, 1, 0x41, false), Err(Status::OutOfMemory), "{variant:?}");
            taken.iter().for_each(|taken| bench.iommu.change(DEVICE, taken.index, None));
        }
    }
}

#[test]
fn apics_that_cannot_be_named_are_refused() {
    for variant in VARIANTS {
        let mut bench = Bench::new(variant);
        let refused = bench.iommu.take(DEVICE, 0xff, 0x41, false).is_err();
        assert_eq!(refused, !variant.is_wide(), "{variant:?}");
    }
}

/// Without an IOMMU a message names APIC and vector (Intel SDM vol. 3, 11.11).
#[test]
fn plain_messages() {
    let taken = Taken::plain(3, 0x41).expect("it can be named");
    assert_eq!((taken.message, taken.redirection), ((0xfee0_3000, 0x41), (0x0300_0000, 0x41)));
    assert!(
        Taken::plain(0xfe, 0x30).is_some() && Taken::plain(0xff, 0x30).is_none() && Taken::plain(0x100, 0x30).is_none()
    );
}

/// With AMD-Vi a device has a table from its first interrupt on, and tables are so many.
#[test]
fn devices_with_interrupts_run_out() {
    for variant in VARIANTS.into_iter().filter(|variant| variant.kind() == Kind::Amd) {
        let mut bench = Bench::new(variant);
        let ids = (0x1000..0x1200).map(Requester);
        let fits = ids.filter(|id| bench.iommu.take(*id, 1, 0x41, false).is_ok()).count();
        assert_eq!(fits, 256);
    }
}
