// SPDX-License-Identifier: MIT OR Apache-2.0
//! Firmware tables, right and hostile.

use crate::firmware::{Found, Reserved};
use crate::{Kind, Requester};
use cloister_boot_info::Part;
use proptest::prelude::{any, proptest};

fn found(kind: Kind, table: &[u8]) -> Found {
    let memory = |at| table.get(usize::try_from(at).ok()?).copied();
    let mut found = Found::none(Kind::Amd);
    found.read(kind, Part::new(&memory, 0, table.len() as u64).expect("no wrap"), &|bridge| (bridge.0 >> 8) as u8 + 1);
    found
}

fn table(parts: &[&[u8]]) -> Vec<u8> {
    let mut table = vec![0; 48];
    table[37] = 1;
    parts.iter().for_each(|part| table.extend_from_slice(part));
    table
}

fn list<T: Copy, const N: usize>(list: [Option<T>; N]) -> Vec<T> {
    list.into_iter().flatten().collect()
}

fn ivhd() -> Vec<u8> {
    let mut block = vec![0x10, 0, 44, 0, 0x08, 0, 0x40, 0];
    block.extend_from_slice(&0xfed8_0000u64.to_le_bytes());
    block.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0]);
    // All devices; an I/O APIC; a HPET.
    block.extend_from_slice(&[1, 0, 0, 0]);
    block.extend_from_slice(&[0x48, 0, 0, 0, 2, 0xa0, 0, 1]);
    block.extend_from_slice(&[0x48, 0, 0, 0, 0, 0xa0, 0, 2]);
    block
}

fn drhd(segment: u8) -> Vec<u8> {
    let mut unit = vec![0, 0, 24, 0, 1, 0, segment, 0];
    unit.extend_from_slice(&0xfed9_0000u64.to_le_bytes());
    unit.extend_from_slice(&[3, 8, 0, 0, 2, 0xff, 0, 0]);
    unit
}

#[test]
fn units_and_io_apics_48882_5_2_2() {
    // Several blocks may tell of the same unit.
    let found = found(Kind::Amd, &table(&[&ivhd(), &ivhd()]));
    assert_eq!(list(found.units), [(0xfed8_0000, Requester(8))]);
    assert_eq!(list(found.io_apics), [(2, Requester(0xa0))]);
    assert!(found.allows_interrupts && !found.incomplete);
}

#[test]
fn memory_48882_5_2_3() {
    let mut block = vec![0x22, 7, 32, 0, 0x10, 0, 0x17, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    block.extend_from_slice(&0x8000_0000u64.to_le_bytes());
    block.extend_from_slice(&0x10_0000u64.to_le_bytes());
    let (first, last) = (Requester(0x10), Requester(0x17));
    let range = Reserved { first, last, base: 0x8000_0000, end: 0x8010_0000, read: true, write: true };
    let read = |block: &[u8]| list(found(Kind::Amd, &table(&[block])).reserved);
    assert_eq!(read(&block), [range]);
    // Read only; an exclusion range; one device; all devices.
    block[1] = 3;
    assert_eq!(read(&block), [Reserved { write: false, ..range }]);
    block[1] = 8;
    assert_eq!(read(&block), [range]);
    block[0] = 0x21;
    assert_eq!(read(&block), [Reserved { last: first, ..range }]);
    block[0] = 0x20;
    assert_eq!(read(&block), [Reserved { first: Requester(0), last: Requester(0xffff), ..range }]);
    // One that wraps is none.
    block[24..].copy_from_slice(&u64::MAX.to_le_bytes());
    assert_eq!(read(&block), []);
}

#[test]
fn parts_that_are_too_long_or_too_short_end_the_table() {
    for (length, units) in [(44, 1), (45, 0), (3, 0), (23, 0)] {
        let mut block = ivhd();
        block[2] = length;
        assert_eq!(list(found(Kind::Amd, &table(&[&block])).units).len(), units, "{length}");
    }
}

#[test]
fn units_vt_d_8_3() {
    let right = found(Kind::Intel, &table(&[&drhd(0)]));
    assert_eq!(list(right.units), [(0xfed9_0000, Requester(0xffff))]);
    assert_eq!(list(right.io_apics), [(2, Requester(0xff00))]);
    assert!(right.allows_interrupts && !right.incomplete);
    let other = found(Kind::Intel, &table(&[&drhd(1)]));
    assert!(list(other.units).is_empty() && other.incomplete, "of another PCI segment");
}

/// Flags of the table: interrupts may be remapped, x2APIC mode is not to be used (VT-d 8.1).
#[test]
fn flags_vt_d_8_1() {
    let read = |kind, flags| {
        let mut bytes = table(&[]);
        bytes[37] = flags;
        let found = found(kind, &bytes);
        (found.allows_interrupts, found.refuses_x2apic)
    };
    assert_eq!(
        [0, 1, 3, 5].map(|flags| read(Kind::Intel, flags)),
        [(false, false), (true, false), (true, true), (true, false)]
    );
    // It means something only together with the first.
    assert_eq!(read(Kind::Intel, 2), (false, false));
    assert_eq!(read(Kind::Amd, 3), (true, false));
    let short = found(Kind::Intel, &table(&[])[..37]);
    assert!(!short.allows_interrupts && !short.refuses_x2apic);
}

#[test]
fn more_units_than_are_kept_are_told() {
    let units: Vec<_> = (0..17u8)
        .map(|index| {
            let mut unit = drhd(0);
            unit[10] = index;
            unit
        })
        .collect();
    let all: Vec<&[u8]> = units.iter().map(Vec::as_slice).collect();
    assert!(!found(Kind::Intel, &table(&all[..16])).incomplete);
    assert!(found(Kind::Intel, &table(&all)).incomplete);
}

#[test]
fn memory_vt_d_8_4_behind_a_bridge() {
    let mut memory = vec![1, 0, 34, 0, 0, 0, 0, 0];
    memory.extend_from_slice(&0x8000_0000u64.to_le_bytes());
    memory.extend_from_slice(&0x8000_ffffu64.to_le_bytes());
    memory.extend_from_slice(&[1, 10, 0, 0, 0, 0, 0x1c, 1, 0, 2]);
    let device = Requester::new(1, 0, 2);
    let range = Reserved { first: device, last: device, base: 0x8000_0000, end: 0x8001_0000, read: true, write: true };
    let read = |part: &[u8]| list(found(Kind::Intel, &table(&[part])).reserved);
    assert_eq!(read(&memory), [range]);
    assert_eq!(range.pages(), Some((0x8000_0000, 0x8001_0000)));
    // Ends before it begins, or wraps; a path without a step.
    for last in [0x7fff_ffff, u64::MAX] {
        memory[16..24].copy_from_slice(&u64::to_le_bytes(last));
        assert_eq!(read(&memory), []);
    }
    memory[16..24].copy_from_slice(&0x8000_ffffu64.to_le_bytes());
    memory[25] = 6;
    assert_eq!(read(&memory), []);
    assert_eq!(Reserved { end: u64::MAX, ..range }.pages(), None);
}

/// What the machines of the kernel's tests are given.
#[test]
fn tables_of_test_machines() {
    let all = |kind, after_header: &[u8]| found(kind, &[&[0; 36], after_header].concat());
    let page = |device| {
        let (first, last) = (Requester(device), Requester(device));
        Reserved { first, last, base: 0x2000_0000, end: 0x2000_1000, read: true, write: true }
    };
    let amd = all(Kind::Amd, include_bytes!("../../../../tests/kernel-test/tables/ivrs.bin"));
    assert_eq!((list(amd.units), list(amd.io_apics)), (vec![(0xfed8_0000, Requester(8))], vec![(0, Requester(0xa0))]));
    assert_eq!(list(amd.reserved), [page(0x10)]);
    let intel = all(Kind::Intel, include_bytes!("../../../../tests/kernel-test/tables/dmar.bin"));
    assert_eq!(list(intel.units), [(0xfed9_0000, Requester(0xffff))]);
    assert_eq!((list(intel.io_apics), list(intel.reserved)), (vec![(0, Requester(0xff00))], vec![page(8)]));
}

proptest! {
    #[test]
    fn no_bytes_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..400), kind in 0usize..8, length in 0u8..120) {
        if bytes.len() > 52 {
            bytes[48] = [0x10, 0x11, 0x40, 0x22, 0, 1, 0xf0, 0x20][kind];
            bytes[49] = 0;
            bytes[50] = length;
            bytes[51] = 0;
        }
        for kind in [Kind::Amd, Kind::Intel] {
            let found = found(kind, &bytes);
            // Each takes at least a device entry.
            let items = list(found.units).len() + list(found.io_apics).len() + list(found.reserved).len();
            assert!(items <= bytes.len() / 4);
        }
    }
}
