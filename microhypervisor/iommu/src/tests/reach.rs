// SPDX-License-Identifier: MIT OR Apache-2.0
//! What devices reach.

use super::model::{VARIANTS, Variant};
use super::{Bench, Space};
use crate::Requester;
use crate::firmware::Reserved;
use cloister_abi::status::Status;
use core::sync::atomic::Ordering;
use proptest::prelude::{ProptestConfig, Strategy, any, prop_oneof, proptest};

const DEVICE: Requester = Requester(0x0108);
const OTHER: Requester = Requester(0x0109);
const HERE: u64 = 0x40_0000;
const MEMORY: u64 = 0x7000;
const BOTH: (bool, bool) = (true, true);

#[test]
fn nothing_is_reached_from_the_start() {
    for variant in VARIANTS {
        let bench = Bench::new(variant);
        for device in [0, 8, 0x0108, 0x8000, 0xffff].map(Requester) {
            for address in [0, 0x1000, 0xfec0_0000, 1 << 32] {
                assert_eq!(bench.machine.access(device, address, false), None, "{variant:?} {device}");
                assert_eq!(bench.machine.access(device, address, true), None, "{variant:?} {device}");
            }
        }
    }
}

#[test]
fn a_device_reaches_what_its_space_has() {
    for variant in VARIANTS {
        let mut bench = Bench::new(variant);
        let space = bench.space();
        bench.map(&space, HERE, MEMORY, (true, false));
        assert_eq!(bench.machine.access(DEVICE, HERE, false), None);
        bench.assign(&space, DEVICE).expect("room");
        assert_eq!(bench.machine.access(DEVICE, HERE + 5, false), Some(MEMORY + 5), "{variant:?}");
        assert_eq!(bench.machine.access(DEVICE, HERE, true), None, "{variant:?}: read-only");
        assert_eq!(bench.machine.access(DEVICE, MEMORY, false), None, "{variant:?}: nothing there");
        assert_eq!(bench.machine.access(OTHER, HERE, false), None, "{variant:?}: another device");
        bench.unmap(&space, HERE);
        assert_eq!(bench.machine.access(DEVICE, HERE, false), None, "{variant:?}: revoked");
        bench.map(&space, HERE, 2 * MEMORY, BOTH);
        assert_eq!(bench.machine.access(DEVICE, HERE, true), Some(2 * MEMORY), "{variant:?}");
        bench.iommu.remove(DEVICE, &space.domain).expect("it is in it");
        assert_eq!(bench.machine.access(DEVICE, HERE, true), None, "{variant:?}: removed");
    }
}

#[test]
fn what_may_not_be_assigned() {
    let mut bench = Bench::new(Variant::Amd);
    let (space, other) = (bench.space(), bench.space());
    // The unit itself, and an I/O APIC.
    for own in [2, 0xa0] {
        assert_eq!(bench.assign(&space, Requester(own)), Err(Status::BadDevice));
    }
    assert_eq!(bench.iommu.remove(DEVICE, &space.domain), Err(Status::BadDevice));
    assert_eq!(bench.assign(&space, DEVICE), Ok(()));
    assert_eq!(bench.assign(&other, DEVICE), Err(Status::Busy));
    assert_eq!(bench.iommu.remove(DEVICE, &other.domain), Err(Status::BadDevice));
}

#[test]
fn devices_and_domains_run_out_and_come_back() {
    for variant in VARIANTS {
        let mut bench = Bench::new(variant);
        let spaces: Vec<Space> = (0..256).map(|_| bench.space()).collect();
        let ids = || (0x1000..0x2000).map(Requester);
        for _ in 0..2 {
            let fits = spaces.iter().zip(ids()).filter(|(space, id)| bench.assign(space, *id).is_ok()).count();
            // Two domains are the driver's own.
            assert_eq!(fits, 254, "{variant:?}");
            let more = ids().skip(300).filter(|id| bench.assign(&spaces[0], *id).is_ok()).count();
            assert_eq!(more, 2, "{variant:?}");
            spaces.iter().for_each(|space| bench.iommu.remove_all(&space.domain));
        }
    }
}

fn reserved(first: u16, last: u16, write: bool) -> Reserved {
    let (first, last) = (Requester(first), Requester(last));
    Reserved { first, last, base: 0x8000_0800, end: 0x8000_1800, read: true, write }
}

/// Memory that firmware wants for a device is reached until the device is assigned, and again when it is in no space (48882, 5.2.3; VT-d 8.4).
#[test]
fn what_firmware_wants_is_reached_until_a_driver_comes() {
    for variant in VARIANTS {
        let own = Reserved { base: 0x9000_0000, end: 0x9000_1000, ..reserved(DEVICE.0, DEVICE.0, true) };
        let mut bench = Bench::with(variant, &[reserved(DEVICE.0, OTHER.0, variant.is_wide()), own]);
        let firmware = bench.space();
        let root = bench.root(&firmware);
        // The second range is the kernel's own memory, and refused.
        let mut asked = Vec::new();
        bench.iommu.reserve(root, |range| {
            asked.push(range.pages());
            *range != own
        });
        assert_eq!(asked, [Some((0x8000_0000, 0x8000_2000)), Some((0x9000_0000, 0x9000_1000))]);
        for page in [0x8000_0000, 0x8000_1000] {
            bench.map(&firmware, page, page, (true, variant.is_wide()));
        }
        let reaches = |bench: &Bench, device, write| bench.machine.access(device, 0x8000_1234, write);
        for device in [DEVICE, OTHER] {
            assert_eq!(reaches(&bench, device, false), Some(0x8000_1234), "{variant:?}");
            assert_eq!(reaches(&bench, device, true).is_some(), variant.is_wide(), "{variant:?}: its rights");
            assert_eq!(bench.machine.access(device, 0x9000_0000, false), None, "{variant:?}: refused");
        }
        assert_eq!(reaches(&bench, Requester(0x010a), false), None, "{variant:?}: a device that was not named");
        let space = bench.space();
        bench.assign(&space, DEVICE).expect("room");
        assert_eq!(reaches(&bench, DEVICE, false), None, "{variant:?}: its driver decides now");
        assert_eq!(reaches(&bench, OTHER, false), Some(0x8000_1234), "{variant:?}");
        bench.iommu.remove_all(&space.domain);
        assert_eq!(reaches(&bench, DEVICE, false), Some(0x8000_1234), "{variant:?}: home again");
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Map(usize, u64, u64, bool),
    Unmap(usize, u64),
    Assign(usize, usize),
    Remove(usize, usize),
    RemoveAll(usize),
    /// Fills the unit's caches.
    Access(usize, u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let (space, device, page) = (0..3usize, 0..4usize, 0..4u64);
    let step = prop_oneof![
        (space.clone(), page.clone(), 1..9u64, any::<bool>()).prop_map(|(s, p, m, w)| Step::Map(s, p, m, w)),
        (space.clone(), page.clone()).prop_map(|(s, p)| Step::Unmap(s, p)),
        (space.clone(), device.clone()).prop_map(|(s, d)| Step::Assign(s, d)),
        (space.clone(), device.clone()).prop_map(|(s, d)| Step::Remove(s, d)),
        space.prop_map(Step::RemoveAll),
        (device, page).prop_map(|(d, p)| Step::Access(d, p)),
    ];
    proptest::collection::vec(step, 1..60)
}

/// Addresses of pages: neighbours, another table, another of the level above.
fn address(page: u64) -> u64 {
    [0x1000, 0x2000, 0x20_0000, 0x40_0000_0000 - 0x1000][usize::try_from(page).expect("small")]
}

proptest! {
    // Each machine takes a while to start, an old one of AMD's most.
    #![proptest_config(ProptestConfig::with_cases(48))]
    /// After every step each device reaches what is mapped in the space that it is in, and nothing else, whatever the unit has cached before.
    #[test]
    fn devices_reach_what_their_space_has_at_each_moment(steps in steps(), variant in 1..4usize) {
        let mut bench = Bench::new(VARIANTS[variant]);
        let spaces: Vec<Space> = (0..3).map(|_| bench.space()).collect();
        let devices = [8u16, 9, 0x0108, 0xff10].map(Requester);
        devices.iter().for_each(|device| bench.machine.make_nosy(*device, address(0)));
        let mut homes = [None; 4];
        let mut mapped = [[None; 4]; 3];
        for step in steps {
            match step {
                Step::Map(space, page, memory, write) => {
                    let place = &mut mapped[space][usize::try_from(page).expect("small")];
                    if place.is_none() {
                        bench.map(&spaces[space], address(page), memory << 12, (true, write));
                        *place = Some((memory << 12, write));
                    }
                }
                Step::Unmap(space, page) => {
                    bench.unmap(&spaces[space], address(page));
                    mapped[space][usize::try_from(page).expect("small")] = None;
                }
                Step::Assign(space, device) => {
                    let done = bench.assign(&spaces[space], devices[device]);
                    assert_eq!(done.is_ok(), homes[device].is_none());
                    homes[device] = homes[device].or(Some(space));
                }
                Step::Remove(space, device) => {
                    let done = bench.iommu.remove(devices[device], &spaces[space].domain);
                    assert_eq!(done.is_ok(), homes[device] == Some(space));
                    homes[device] = homes[device].filter(|home| *home != space);
                }
                Step::RemoveAll(space) => {
                    bench.iommu.remove_all(&spaces[space].domain);
                    homes.iter_mut().for_each(|home| *home = home.filter(|home| *home != space));
                }
                Step::Access(device, page) => drop(bench.machine.access(devices[device], address(page), false)),
            }
            // A number that the next space gets must not bring translations of the last one.
            let used = |domain| spaces.iter().any(|space| space.domain.load(Ordering::Relaxed) == domain);
            assert!(bench.machine.cached_domains().into_iter().all(used), "{step:?}");
            for (device, home) in devices.into_iter().zip(homes) {
                for page in 0..4 {
                    let there = home.and_then(|home| mapped[home][usize::try_from(page).expect("small")]);
                    let expected = |wanted: bool| there.filter(|(_, write)| *write || !wanted).map(|(memory, _)| memory);
                    for write in [false, true] {
                        assert_eq!(bench.machine.access(device, address(page), write), expected(write), "{step:?}");
                    }
                }
            }
        }
    }
}
