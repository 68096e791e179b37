// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tests of the root bus with a host bridge and an echoing function.

use super::{ConfigPorts, Ecam, PciError, PciMemory, PciRoot, intx_gsi};
use crate::pci::{Bar, BarKind, ConfigSpace, HostBridge, Identity, Mapping, PciFunction};
use cloister_devices::bus::{MmioDevice, PortDevice, Width};
use cloister_devices::power::{PowerEvent, PowerLatch, ResetControl};
use std::sync::{Arc, Mutex};

const D: Width = Width::Dword;

struct Echo(ConfigSpace, u64);
impl PciFunction for Echo {
    fn config_read(&mut self, offset: u16, width: Width) -> u32 {
        self.0.read(offset, width)
    }
    fn config_write(&mut self, offset: u16, width: Width, value: u32) {
        self.0.write(offset, width, value);
    }
    fn mappings(&self) -> Vec<Mapping> {
        self.0.mappings()
    }
    fn bars(&self) -> Vec<(u8, Bar)> {
        self.0.bars().collect()
    }
    fn bar_read(&mut self, bar: u8, offset: u64, _width: Width) -> u64 {
        self.1 + offset + (u64::from(bar) << 32)
    }
    fn bar_write(&mut self, _bar: u8, offset: u64, _width: Width, value: u64) {
        self.1 = value - offset;
    }
    fn reset(&mut self) {
        self.0.reset();
    }
}

fn root() -> Arc<PciRoot> {
    let mut config = ConfigSpace::new(&Identity {
        vendor: 0x1234,
        device: 0x5678,
        class: [1, 2, 3],
        revision: 0,
        subsystem_vendor: 0,
        subsystem: 0,
        interrupt_pin: 1,
    });
    config.add_bar(0, BarKind::Memory32, 0x1000);
    config.add_bar(2, BarKind::Memory64, 0x10_0000);
    let mut root = PciRoot::new();
    root.plug(0, Arc::new(Mutex::new(HostBridge::new()))).unwrap();
    root.plug(3, Arc::new(Mutex::new(Echo(config, 0)))).unwrap();
    assert_eq!(root.plug(3, Arc::new(Mutex::new(HostBridge::new()))), Err(PciError::Occupied(3)));
    assert_eq!(root.plug(32, Arc::new(Mutex::new(HostBridge::new()))), Err(PciError::NoSuchDevice(32)));
    Arc::new(root)
}

#[test]
fn pci_3_2_2_3_2_mechanism_one() {
    let root = root();
    let latch = PowerLatch::new();
    let mut ports = ConfigPorts::new(root, Some(ResetControl::new(latch.clone())));
    assert_eq!(ports.read(4, D), u32::MAX, "not enabled");
    ports.write(0, D, 0x8000_0000);
    assert_eq!((ports.read(0, D), ports.read(4, D)), (0x8000_0000, 0x29c0_8086));
    assert_eq!(ports.read(6, Width::Word), 0x29c0);
    ports.write(0, D, 0x8000_1803);
    assert_eq!((ports.read(0, D), ports.read(4, D)), (0x8000_1800, 0x5678_1234));
    for absent in [0x8000_0800u32, 0x8001_1800, 0x8000_1900] {
        ports.write(0, D, absent);
        assert_eq!(ports.read(4, D), u32::MAX, "{absent:#x}");
    }
    ports.write(1, Width::Byte, 6);
    assert_eq!(latch.take(), Some(PowerEvent::Reset));
}

#[test]
fn pcie_7_2_2_ecam() {
    let mut ecam = Ecam(root());
    assert_eq!(ecam.read(3 << 15, D), 0x5678_1234);
    assert_eq!(ecam.read(3 << 15, Width::Qword) & 0xffff_ffff, 0x5678_1234);
    assert_eq!(ecam.read((3 << 15) | 0x100, D), 0);
    assert_eq!(ecam.read(4 << 15, Width::Byte) & 0xff, 0xff);
}

#[test]
fn bars_answer_where_they_were_put_and_move() {
    let root = root();
    root.assign_bars(0xc000_0000, 0x1000_0000).unwrap();
    let mut window = PciMemory { root: root.clone(), base: 0xc000_0000 };
    assert_eq!(window.read(8, D), 0xffff_ffff, "not enabled");
    root.config_write(0x18, 4, Width::Word, 2);
    assert_eq!((window.read(8, D), window.read(0x10_0004, D)), (8, 0x2_0000_0004));
    root.config_write(0x18, 0x10, D, 0xc800_0000);
    assert_eq!((window.read(8, D), window.read(0x800_0008, D)), (0xffff_ffff, 8));
    assert_eq!(window.read(0x800_0ffe, D), 0xffff_ffff, "over the end");
    window.write(0x800_0000, D, 5);
    assert_eq!(window.read(0x800_0000, D), 5);
    root.reset();
    assert_eq!(window.read(0x800_0000, D), 0xffff_ffff);
    assert_eq!(root.assign_bars(0xc000_0000, 0x10_0000), Err(PciError::WindowFull(3)));
}

#[test]
fn pci_2_2_6_interrupt_pins_take_turns() {
    assert_eq!([intx_gsi(0, 1), intx_gsi(1, 1), intx_gsi(1, 4), intx_gsi(8, 1), intx_gsi(31, 4)], [16, 17, 20, 16, 18]);
}
