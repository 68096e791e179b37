// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tests of the configuration space, named after the sections of PCI 3.0.

use super::{BarKind, ConfigSpace, Identity, Mapping};
use cloister_devices::bus::Width;

const D: Width = Width::Dword;

fn space() -> ConfigSpace {
    let mut s = ConfigSpace::new(&Identity {
        vendor: 0x1af4,
        device: 0x1044,
        class: [0xff, 1, 2],
        revision: 1,
        subsystem_vendor: 0x1af4,
        subsystem: 0x1100,
        interrupt_pin: 1,
    });
    s.add_bar(0, BarKind::Memory32, 0x4000);
    s.add_bar(1, BarKind::Io, 32);
    s.add_bar(2, BarKind::Memory64, 1 << 33);
    s
}

#[test]
fn pci_6_2_1_identification() {
    let s = space();
    assert_eq!(s.read(0, D), 0x1044_1af4);
    assert_eq!(s.read(8, D), 0xff01_0201);
    assert_eq!((s.read(0x0e, Width::Byte), s.read(0x3d, Width::Byte)), (0, 1));
    assert_eq!((s.read(0x100, D), s.read(0xfff, Width::Byte)), (0, 0));
}

#[test]
fn pci_6_2_5_1_sizing_by_all_ones() {
    let mut s = space();
    for (offset, seen) in [(0x10, 0xffff_c000), (0x14, 0xffff_ffe1), (0x18, 0xc), (0x1c, 0xffff_fffe), (0x20, 0)] {
        s.write(offset, D, u32::MAX);
        assert_eq!(s.read(offset, D), seen, "BAR at {offset:#x}");
    }
}

#[test]
fn pci_6_2_2_command_enables_decoding() {
    let mut s = space();
    s.write(0x10, D, 0xd000_1234);
    s.write(0x14, D, 0xc000);
    s.write(0x1c, D, 2);
    assert!(s.mappings().is_empty());
    s.write(4, Width::Word, 2);
    assert_eq!(
        s.mappings(),
        [
            Mapping { bar: 0, io: false, base: 0xd000_0000, size: 0x4000 },
            Mapping { bar: 2, io: false, base: 2 << 32, size: 1 << 33 }
        ]
    );
    s.write(4, Width::Word, 0xffff);
    assert_eq!(s.mappings().len(), 3);
    assert_eq!(s.command(), 0x547);
    s.write(0x14, D, 0xffff_ffff);
    assert_eq!(s.mappings().len(), 2, "beyond the last port");
    s.reset();
    assert_eq!((s.command(), s.read(0x10, D), s.read(0, D)), (0, 0, 0x1044_1af4));
}

#[test]
fn pci_6_7_capabilities_are_a_list() {
    let mut s = space();
    assert_eq!(s.add_capability(0x11, &[1; 10]), 0x40);
    assert_eq!(s.add_capability(0x09, &[2; 11]), 0x4c);
    assert_eq!((s.read(0x34, Width::Byte), s.read(0x40, Width::Word), s.read(0x4c, Width::Word)), (0x40, 0x4c11, 9));
    assert_eq!(s.read(6, Width::Word) & 0x10, 0x10);
    assert_eq!(s.add_capability(0x09, &[0; 0xa3]), 0);
}
