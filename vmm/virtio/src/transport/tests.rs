// SPDX-License-Identifier: MIT OR Apache-2.0
//! A driver drives a device through BAR and configuration space, as it should and as it should not. Named after the
//! sections of virtio 1.2.

use super::{VirtioPci, layout, status};
use crate::console::{Console, RECEIVE, TRANSMIT};
use crate::device::DeviceError;
use crate::pci::PciFunction;
use crate::queue::QueueError;
use crate::testing::{AVAILABLE, D, DESCRIPTORS, Driver, NEXT, USED, WRITE, ram};
use cloister_devices::bus::Width;
use cloister_devices::irq::{IrqEvent, IrqLine, Recorder};
use std::sync::Arc;

const B: Width = Width::Byte;
const W: Width = Width::Word;
const DW: Width = Width::Dword;
const Q: Width = Width::Qword;

struct Bench {
    pci: VirtioPci<Console<Vec<u8>>>,
    driver: Driver,
    irq: Arc<Recorder>,
}

impl Bench {
    fn new() -> Self {
        let (ram, irq) = (ram(), Arc::new(Recorder::default()));
        let console = Console::new(Vec::new());
        let mut pci = VirtioPci::new(console, Arc::new(ram.clone()), irq.clone(), IrqLine::new(irq.clone(), 17));
        pci.config_write(4, W, 6);
        Self { pci, driver: Driver::over(ram, 64), irq }
    }

    fn read(&mut self, offset: u64, width: Width) -> u64 {
        self.pci.bar_read(0, offset, width)
    }

    fn write(&mut self, offset: u64, width: Width, value: u64) {
        self.pci.bar_write(0, offset, width, value);
    }

    fn status(&mut self) -> u8 {
        u8::try_from(self.read(0x14, B)).unwrap()
    }

    fn negotiate(&mut self, features: u64) -> u8 {
        self.write(0x14, B, 0);
        self.write(0x14, B, 1);
        self.write(0x14, B, 3);
        for select in 0..2 {
            self.write(8, DW, select);
            self.write(0xc, DW, (features >> (32 * select)) & 0xffff_ffff);
        }
        self.write(0x14, B, 11);
        self.status()
    }

    fn queue(&mut self, index: u16) {
        self.write(0x16, W, u64::from(index));
        self.write(0x20, Q, DESCRIPTORS);
        self.write(0x28, DW, AVAILABLE);
        self.write(0x2c, DW, 0);
        self.write(0x30, Q, USED);
        self.write(0x1c, W, 1);
    }

    fn start(&mut self, queue: u16) {
        assert_eq!(self.negotiate(1 << 32), 11);
        self.queue(queue);
        self.write(0x14, B, 15);
        assert_eq!(self.status(), 15);
    }

    fn capability(&mut self, kind: u8) -> u16 {
        let mut at = u16::try_from(self.pci.config_read(0x34, B)).unwrap();
        while at != 0 {
            if self.pci.config_read(at, B) == 9 && self.pci.config_read(at + 3, B) == u32::from(kind) {
                return at;
            }
            at = u16::try_from(self.pci.config_read(at + 1, B)).unwrap();
        }
        panic!("no capability {kind}")
    }
}

#[test]
fn s4_1_2_identification_and_s4_1_4_capabilities() {
    let mut b = Bench::new();
    assert_eq!(b.pci.config_read(0, DW), 0x1043_1af4);
    assert_eq!(b.pci.config_read(8, B), 1);
    for (kind, offset) in [(1, layout::COMMON), (2, layout::NOTIFY), (3, layout::ISR), (4, layout::DEVICE)] {
        let at = b.capability(kind);
        assert_eq!((b.pci.config_read(at + 4, B), u64::from(b.pci.config_read(at + 8, DW))), (0, offset));
    }
    let notify = b.capability(2);
    assert_eq!((b.pci.config_read(notify + 2, B), b.pci.config_read(notify + 16, DW)), (20, 4));
}

#[test]
fn s3_1_1_initialization_and_s2_2_feature_negotiation() {
    let mut b = Bench::new();
    b.write(0, DW, 1);
    assert_eq!(b.read(4, DW) & 1, 1, "VERSION_1");
    b.write(0, DW, 2);
    assert_eq!(b.read(4, DW), 0);
    assert_eq!(b.negotiate(0) & status::FEATURES_OK, 0, "a legacy driver");
    assert_eq!(b.negotiate((1 << 32) | (1 << 33)) & status::FEATURES_OK, 0, "a feature that was not offered");
    assert_eq!(b.negotiate((1 << 32) | 1), 11);
    b.write(8, DW, 0);
    b.write(0xc, DW, 0xff);
    assert_eq!(b.read(0xc, DW), 1, "agreed on is agreed on");
    b.write(0x14, B, 3);
    assert_eq!(b.status(), 11, "bits stay");
    b.write(0x14, B, 0);
    assert_eq!((b.status(), b.read(0xc, DW)), (0, 0));
}

#[test]
fn s2_1_2_driver_ok_without_features_ok() {
    let mut b = Bench::new();
    b.write(0x14, B, 7);
    assert_eq!(b.status(), 3 | status::NEEDS_RESET);
    assert_eq!(b.pci.last_error(), Some(DeviceError::BadRequest));
    b.write(0x14, B, 0);
    assert_eq!(b.status(), 0);
}

#[test]
fn s4_1_4_3_registers_of_queues() {
    let mut b = Bench::new();
    assert_eq!((b.read(0x12, W), b.read(0x18, W), b.read(0x1e, W)), (2, 64, 0));
    b.write(0x16, W, 1);
    assert_eq!((b.read(0x16, W), b.read(0x1e, W)), (1, 1));
    b.write(0x18, W, 48);
    assert_eq!(b.read(0x18, W), 64, "not a power of two");
    b.write(0x18, W, 16);
    b.write(0x1a, W, 2);
    assert_eq!((b.read(0x18, W), b.read(0x1a, W)), (16, 2));
    b.write(0x1a, W, 3);
    b.write(0x10, W, 99);
    assert_eq!((b.read(0x1a, W), b.read(0x10, W)), (0xffff, 0xffff), "no such vectors");
    b.write(0x20, Q, 0x1_2345_6780);
    b.write(0x24, DW, 2);
    assert_eq!((b.read(0x20, Q), b.read(0x24, DW)), (0x2_2345_6780, 2));
    b.write(0x16, W, 2);
    assert_eq!((b.read(0x18, W), b.read(0x20, Q)), (0, 0), "no such queue");
    b.write(0x1c, W, 1);
    assert_eq!(b.read(0x1c, W), 0);
}

#[test]
fn a_queue_with_bad_rings_needs_a_reset() {
    let mut b = Bench::new();
    b.negotiate(1 << 32);
    b.write(0x20, Q, 0xdead_0000_0000);
    b.write(0x28, Q, AVAILABLE);
    b.write(0x30, Q, USED);
    b.write(0x1c, W, 1);
    assert_eq!((b.status() & status::NEEDS_RESET, b.read(0x1c, W)), (status::NEEDS_RESET, 0));
    assert_eq!(b.pci.last_error(), Some(DeviceError::Queue(QueueError::BadRing)));
}

#[test]
fn s4_1_4_4_doorbell_and_s4_1_4_5_isr_with_line() {
    let mut b = Bench::new();
    b.start(TRANSMIT);
    b.driver.put(0x5000, b"hello");
    b.driver.chain(&[D(0x5000, 5, 0, 0)]);
    b.write(VirtioPci::<Console<Vec<u8>>>::doorbell(TRANSMIT), W, 1);
    assert_eq!(b.pci.device().output().as_slice(), b"hello");
    assert_eq!(b.irq.take(), [IrqEvent::Line(17, true)]);
    assert_eq!(b.pci.config_read(6, W) & 8, 8, "interrupt status");
    b.pci.config_write(5, B, 4);
    assert_eq!(b.irq.take(), [IrqEvent::Line(17, false)], "INTx disabled");
    b.pci.config_write(5, B, 0);
    assert_eq!((b.read(0x1000, B), b.read(0x1000, B)), (1, 0));
    assert_eq!(b.irq.take(), [IrqEvent::Line(17, true), IrqEvent::Line(17, false)]);
}

#[test]
fn s4_1_5_1_2_msix_vectors() {
    let mut b = Bench::new();
    let msix = u16::try_from(b.pci.config_read(0x34, B)).unwrap();
    assert_eq!((b.pci.config_read(msix, B), b.pci.config_read(msix + 2, W)), (0x11, 2));
    b.pci.config_write(msix + 2, W, 0x8000);
    for (offset, value) in [(0x4010, 0xfee0_0000), (0x4014, 0), (0x4018, 0x55), (0x401c, 0)] {
        b.write(offset, DW, value);
    }
    b.negotiate(1 << 32);
    b.queue(RECEIVE);
    b.write(0x1a, W, 1);
    b.write(0x14, B, 15);
    b.driver.chain(&[D(0x5000, 64, WRITE, 0)]);
    b.pci.device().type_in(b"key");
    b.pci.poll(RECEIVE);
    assert_eq!(b.irq.take(), [IrqEvent::Msi(0xfee0_0000, 0x55)]);
    assert_eq!((b.driver.get(0x5000, 3), b.read(0x1000, B)), (b"key".to_vec(), 0));
}

#[test]
fn s2_1_2_a_bad_chain_needs_a_reset_and_a_reset_helps() {
    let mut b = Bench::new();
    b.start(TRANSMIT);
    b.driver.chain(&[D(0x5000, 5, NEXT, 0)]);
    b.write(0x3004, W, 1);
    assert_eq!(b.status(), 15 | status::NEEDS_RESET);
    assert_eq!(b.pci.last_error(), Some(DeviceError::Queue(QueueError::EndlessChain)));
    assert_eq!((b.read(0x1000, B), b.pci.is_active()), (2, false), "told as a change of configuration");
    b.driver.put(0x5000, b"x");
    b.driver.chain(&[D(0x5000, 1, 0, 0)]);
    b.write(0x3004, W, 1);
    assert!(b.pci.device().output().is_empty(), "left alone");
    b.driver.put(0x2000, &[0; 256]);
    b.driver.put(0x3000, &[0; 256]);
    b.driver = Driver::over(b.driver.ram.clone(), 64);
    b.start(TRANSMIT);
    b.driver.chain(&[D(0x5000, 1, 0, 0)]);
    b.write(0x3004, W, 1);
    assert_eq!(b.pci.device().output().as_slice(), b"x");
}

#[test]
fn s2_7_10_notifications_are_asked_for_again() {
    let mut b = Bench::new();
    assert_eq!(b.negotiate((1 << 32) | (1 << 29)), 11);
    b.queue(TRANSMIT);
    b.write(0x14, B, 15);
    for round in 1..4u8 {
        b.driver.chain(&[D(0x5000, 1, 0, 0)]);
        b.write(0x3004, W, 1);
        let avail_event = USED + 4 + 8 * 64;
        assert_eq!(b.driver.get(avail_event, 2), [round, 0], "avail_event");
    }
    b.pci.device().type_in(b"x");
    b.pci.poll(RECEIVE);
}

#[test]
fn doorbells_before_driver_ok_and_without_bus_mastering_do_nothing() {
    let mut b = Bench::new();
    b.write(0x3004, W, 1);
    b.negotiate(1 << 32);
    b.queue(TRANSMIT);
    b.driver.put(0x5000, b"x");
    b.driver.chain(&[D(0x5000, 1, 0, 0)]);
    b.write(0x3004, W, 1);
    b.write(0x14, B, 15);
    b.pci.config_write(4, W, 2);
    b.write(0x3004, W, 1);
    assert!(b.pci.device().output().is_empty());
    b.pci.config_write(4, W, 6);
    b.write(0x3ffc, W, 1);
    b.write(0x3004, W, 1);
    assert_eq!(b.pci.device().output().as_slice(), b"x");
}

#[test]
fn s4_1_4_9_window_in_configuration_space() {
    let mut b = Bench::new();
    let at = b.capability(5);
    let set = |b: &mut Bench, offset: u32, length: u32| {
        b.pci.config_write(at + 4, B, 0);
        b.pci.config_write(at + 8, DW, offset);
        b.pci.config_write(at + 12, DW, length);
    };
    set(&mut b, 0x12, 2);
    assert_eq!(b.pci.config_read(at + 16, DW), 2, "number of queues");
    set(&mut b, 0x14, 1);
    b.pci.config_write(at + 16, DW, 3);
    assert_eq!((b.status(), b.pci.config_read(at + 16, DW)), (3, 3));
    for (offset, length) in [(0x13, 2), (0x14, 3), (0x14, 0), (0x14, 8), (0x8000, 4), (u32::MAX, 1)] {
        set(&mut b, offset, length);
        b.pci.config_write(at + 16, DW, 0);
        assert_eq!(b.status(), 3, "{offset:#x} of {length} bytes");
    }
    set(&mut b, 0x14, 1);
    b.pci.config_write(at + 4, B, 1);
    b.pci.config_write(at + 16, DW, 0);
    assert_eq!(b.status(), 3, "another BAR");
}

#[test]
fn s4_1_4_6_device_configuration_and_its_generation() {
    let mut b = Bench::new();
    b.start(TRANSMIT);
    let before = b.read(0x15, B);
    b.pci.device().resize(100, 40);
    b.pci.poll(RECEIVE);
    assert_eq!((b.read(0x2000, DW), b.read(0x15, B)), (100 | (40 << 16), before + 1));
    assert_eq!(b.read(0x1000, B), 2);
    b.write(0x2008, DW, u64::from(b'E'));
    assert_eq!(b.pci.device().output().as_slice(), b"E");
}

#[test]
fn machine_reset_clears_all() {
    let mut b = Bench::new();
    b.start(TRANSMIT);
    b.pci.config_write(0x10, DW, 0xc000_0000);
    b.pci.reset();
    assert_eq!((b.status(), b.pci.config_read(4, W), b.pci.config_read(0x10, DW)), (0, 0, 0));
}
