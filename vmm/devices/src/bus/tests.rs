// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tests of both buses.

use super::{BusError, ByteDevice, Bytewise, MmioBus, MmioDevice, PortBus, Sink, Width};
use std::sync::{Arc, Mutex};

#[derive(Default)]
struct Ram([u8; 8]);

impl ByteDevice for Ram {
    fn read_byte(&mut self, offset: u16) -> u8 {
        self.0[usize::from(offset)]
    }
    fn write_byte(&mut self, offset: u16, value: u8) {
        self.0[usize::from(offset)] = value;
    }
}

impl MmioDevice for Ram {
    fn read(&mut self, offset: u64, _width: Width) -> u64 {
        offset | 0x1_0000_0000_0000
    }
    fn write(&mut self, _offset: u64, _width: Width, _value: u64) {}
}

fn bus() -> PortBus {
    let mut bus = PortBus::new();
    bus.insert(0x100, 8, Arc::new(Mutex::new(Bytewise(Ram::default())))).unwrap();
    bus.insert(0x108, 4, Arc::new(Mutex::new(Bytewise(Ram([7; 8]))))).unwrap();
    bus
}

#[test]
fn unclaimed_reads_give_all_ones_in_their_width() {
    let bus = bus();
    assert_eq!(bus.read(0x99, Width::Byte), 0xff);
    assert_eq!(bus.read(0x99, Width::Word), 0xffff);
    assert_eq!(bus.read(0xffff, Width::Dword), 0xffff_ffff);
    bus.write(0x99, Width::Dword, 5);
    assert!(!bus.claims(0x10c) && bus.claims(0x10b));
}

#[test]
fn wide_access_to_byte_registers_is_little_endian() {
    let bus = bus();
    bus.write(0x102, Width::Dword, 0x4433_2211);
    assert_eq!(bus.read(0x103, Width::Word), 0x3322);
    let mut two = [0u8; 2];
    bus.read_slice(0x104, &mut two);
    assert_eq!(two, [0x33, 0x44]);
}

#[test]
fn an_access_over_the_end_of_a_range_is_split() {
    let bus = bus();
    bus.write(0x106, Width::Dword, 0x4433_2211);
    assert_eq!(bus.read(0x106, Width::Dword), 0x4433_2211);
    assert_eq!(bus.read(0x108, Width::Byte), 0x33);
    assert_eq!(bus.read(0x10a, Width::Dword), 0xffff_0707);
}

#[test]
fn overlaps_and_bad_ranges_are_refused() {
    let mut bus = bus();
    let sink = || Arc::new(Mutex::new(Sink));
    assert_eq!(bus.insert(0xff, 2, sink()), Err(BusError::Overlap { base: 0xff, with: 0x100 }));
    assert_eq!(bus.insert(0x107, 1, sink()), Err(BusError::Overlap { base: 0x107, with: 0x100 }));
    assert_eq!(bus.insert(0x50, 0x1000, sink()), Err(BusError::Overlap { base: 0x50, with: 0x100 }));
    assert_eq!(bus.insert(0x50, 0, sink()), Err(BusError::Empty));
    assert_eq!(bus.insert(0xffff, 2, sink()), Err(BusError::TooHigh { base: 0xffff }));
    bus.insert(0xffff, 1, sink()).unwrap();
    bus.insert(0xff, 1, sink()).unwrap();
}

#[test]
fn memory_bus_reads_eight_bytes_and_up_to_the_last_address() {
    let mut bus = MmioBus::new();
    bus.insert(u64::MAX - 7, 8, Arc::new(Mutex::new(Ram::default()))).unwrap();
    assert_eq!(bus.read(u64::MAX - 7, Width::Qword), 0x1_0000_0000_0000);
    assert_eq!(bus.read(u64::MAX - 1, Width::Dword), 0xffff_0706);
    let mut odd = [0u8; 3];
    bus.read_slice(u64::MAX - 7, &mut odd);
    assert_eq!(odd, [0xff; 3]);
}

#[test]
fn each_port_belongs_to_who_was_given_it() {
    let mut bus = PortBus::new();
    bus.insert(0xfe, 4, Arc::new(Mutex::new(Sink))).unwrap();
    bus.insert(0xff00, 0x100, Arc::new(Mutex::new(Sink))).unwrap();
    for port in 0..=u16::MAX {
        assert_eq!(bus.claims(port), matches!(port, 0xfe..=0x101 | 0xff00..), "port {port:#x}");
    }
}

#[test]
fn a_bus_that_is_full_says_so() {
    let mut bus = PortBus::new();
    for port in 0..254 {
        bus.insert(port, 1, Arc::new(Mutex::new(Sink))).unwrap();
    }
    assert_eq!(bus.insert(254, 1, Arc::new(Mutex::new(Sink))), Err(BusError::Full));
}
