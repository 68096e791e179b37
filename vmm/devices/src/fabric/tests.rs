// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tests of interrupts on their whole way, from a line, a message or a processor to a vector.

use super::{Fabric, IoApicWindow, Kick, Pending, PicWindow};
use crate::bus::{ByteDevice, MmioDevice, Width};
use crate::irq::{IrqLine, IrqSink, MsiSink};
use crate::lapic::TimerConfig;
use crate::lock;
use crate::pic::PicPort;
use std::sync::{Arc, Mutex};

const D: Width = Width::Dword;

#[derive(Clone, Default)]
struct Kicks(Arc<Mutex<Vec<usize>>>);
impl Kick for Kicks {
    fn kick(&self, vcpu: usize) {
        lock(&self.0).push(vcpu);
    }
}

fn fabric(n: u32) -> (Arc<Fabric>, Kicks) {
    let kicks = Kicks::default();
    let ids: Vec<u32> = (0..n).collect();
    let f = Fabric::new(&ids, TimerConfig::default(), Box::new(kicks.clone()));
    for (v, id) in ids.iter().enumerate() {
        f.lapic_write(v, 0xf0, D, 0x1ff, 0);
        f.lapic_write(v, 0xd0, D, 1u64 << (24 + id), 0);
    }
    (f, kicks)
}

fn redirect(f: &Arc<Fabric>, pin: u64, entry: u64) {
    let mut w = IoApicWindow(f.clone());
    for (register, value) in [(0x11 + 2 * pin, entry >> 32), (0x10 + 2 * pin, entry & 0xffff_ffff)] {
        w.write(0, D, register);
        w.write(0x10, D, value);
    }
}

#[test]
fn a_level_line_goes_the_whole_way_and_comes_again_until_it_is_low() {
    let (f, kicks) = fabric(2);
    redirect(&f, 16, (1 << 56) | 0x8041);
    let mut line = IrqLine::new(f.clone(), 16);
    line.set(true);
    assert_eq!(*lock(&kicks.0), [1]);
    assert!(f.attention(1) && !f.attention(1) && !f.attention(0));
    assert_eq!(f.acknowledge(1), Some(0x41));
    assert_eq!(f.pending(1), None);
    f.lapic_write(1, 0xb0, D, 0, 0);
    assert_eq!(f.pending(1), Some(Pending::Vector(0x41)), "still high");
    f.acknowledge(1);
    line.set(false);
    f.lapic_write(1, 0xb0, D, 0, 0);
    assert_eq!((f.pending(1), f.redirection(16)), (None, Some((1 << 56) | 0x8041)));
}

#[test]
fn isa_timer_reaches_pin_2() {
    let (f, _) = fabric(1);
    redirect(&f, 2, 0x30);
    IrqLine::new(f.clone(), 0).pulse();
    assert_eq!(f.acknowledge(0), Some(0x30));
}

#[test]
fn ipis_by_shorthand_and_by_logical_address() {
    let (f, _) = fabric(3);
    f.lapic_write(1, 0x300, D, 0xc_0050, 0);
    assert_eq!([0, 1, 2].map(|v| f.acknowledge(v)), [Some(0x50), None, Some(0x50)]);
    f.lapic_write(1, 0x300, D, 0x8_0061, 0);
    assert_eq!([0, 1, 2].map(|v| f.acknowledge(v)), [Some(0x61); 3]);
    f.lapic_write(0, 0x310, D, 0x0600_0000, 0);
    f.lapic_write(0, 0x300, D, 0x0872, 0);
    assert_eq!([0, 1, 2].map(|v| f.acknowledge(v)), [None, Some(0x72), Some(0x72)]);
    f.lapic_write(2, 0x300, D, 0x4_0083, 0);
    assert_eq!([0, 1, 2].map(|v| f.acknowledge(v)), [None, None, Some(0x83)]);
}

#[test]
fn sdm3_11_6_2_4_lowest_priority_goes_to_one() {
    let (f, _) = fabric(2);
    f.lapic_write(0, 0x80, D, 0x20, 0);
    f.msi(0xfeef_f00c, 0x0141);
    f.msi(0xfeef_f00c, 0x0142);
    assert_eq!((f.pending(0), f.pending(1)), (None, Some(Pending::Vector(0x42))));
    f.lapic_write(0, 0x80, D, 0, 0);
    f.acknowledge(1);
    f.eoi(1);
    f.acknowledge(1);
    f.eoi(1);
    f.msi(0xfeef_f00c, 0x0143);
    f.msi(0xfeef_f00c, 0x0144);
    assert!(f.pending(0).is_some() && f.pending(1).is_some(), "equals take turns");
}

#[test]
fn pic_interrupts_through_lint0_of_the_boot_processor() {
    let (f, kicks) = fabric(2);
    let mut pic = PicWindow(f.clone(), PicPort::First);
    for (offset, value) in [(0, 0x11), (1, 0x30), (1, 4), (1, 1), (1, 0)] {
        pic.write_byte(offset, value);
    }
    f.drive(4, true);
    assert_eq!(f.pending(0), None, "LINT0 is masked");
    f.lapic_write(0, 0x350, D, 0x700, 0);
    assert_eq!((f.pending(0), f.pending(1)), (Some(Pending::ExtInt), None));
    assert_eq!(f.acknowledge(0), Some(0x34));
    assert_eq!(f.pending(0), None);
    f.drive(3, true);
    assert_eq!(*lock(&kicks.0), [0]);
}

#[test]
fn ext_int_through_the_ioapic() {
    let (f, _) = fabric(1);
    redirect(&f, 4, 0x700);
    f.drive(4, true);
    assert_eq!(f.pending(0), Some(Pending::ExtInt));
    assert_eq!(f.acknowledge(0), Some(4));
    assert_eq!(f.pending(0), None);
}

#[test]
fn sdm3_9_4_4_start_up_of_another_processor() {
    let (f, kicks) = fabric(2);
    f.lapic_write(0, 0x310, D, 0x0100_0000, 0);
    f.lapic_write(0, 0x300, D, 0x4500, 0);
    let s = f.take_signals(1);
    assert!(s.init && s.start_up.is_none());
    assert!(f.attention(1));
    f.lapic_write(0, 0x300, D, 0x4699, 0);
    f.lapic_write(0, 0x300, D, 0x4698, 0);
    assert_eq!(f.take_signals(1).start_up, Some(0x99));
    assert_eq!(*lock(&kicks.0), [1, 1]);
}
