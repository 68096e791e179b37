// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tests of the real-time clock, as a system uses it.

use super::Rtc;
use crate::bus::ByteDevice;
use crate::clock::{ManualClock, NS_PER_S, Timed, WallClock};
use crate::irq::{IrqLine, Recorder};
use std::sync::Arc;

struct Wall(i64);
impl WallClock for Wall {
    fn unix_seconds(&self) -> i64 {
        self.0
    }
}

/// 2026-11-22 13:37:42 UTC, a Sunday.
const THEN: i64 = 1_795_354_662;

fn rtc() -> (Rtc, Arc<ManualClock>, Arc<Recorder>) {
    let (clock, irq) = (Arc::new(ManualClock::default()), Arc::new(Recorder::default()));
    (Rtc::new(clock.clone(), Arc::new(Wall(THEN)), IrqLine::new(irq.clone(), 8)), clock, irq)
}

fn get(r: &mut Rtc, index: u8) -> u8 {
    r.write_byte(0, index);
    r.read_byte(1)
}

fn set(r: &mut Rtc, index: u8, value: u8) {
    r.write_byte(0, index | 0x80);
    r.write_byte(1, value);
}

fn shown(r: &mut Rtc) -> [u8; 8] {
    [0x32, 9, 8, 7, 6, 4, 2, 0].map(|i| get(r, i))
}

#[test]
fn time_in_bcd_and_in_binary_and_in_twelve_hours() {
    let (mut r, clock, _) = rtc();
    assert_eq!(shown(&mut r), [0x20, 0x26, 0x11, 0x22, 1, 0x13, 0x37, 0x42]);
    set(&mut r, 0xb, 0x06);
    assert_eq!(shown(&mut r), [20, 26, 11, 22, 1, 13, 37, 42]);
    set(&mut r, 0xb, 0x00);
    assert_eq!(get(&mut r, 4), 0x81, "one in the afternoon");
    clock.advance(18 * NS_PER_S);
    assert_eq!((get(&mut r, 2), get(&mut r, 0)), (0x38, 0));
    assert_eq!(get(&mut r, 0xd), 0x80);
}

#[test]
fn the_guest_sets_the_time_with_the_clock_stopped() {
    let (mut r, clock, _) = rtc();
    set(&mut r, 0xb, 0x82);
    clock.advance(100 * NS_PER_S);
    assert_eq!(get(&mut r, 0), 0x42, "stands still");
    for (index, value) in [(0x32, 0x19), (9, 0x99), (8, 0x12), (7, 0x31), (4, 0x23), (2, 0x59), (0, 0x59)] {
        set(&mut r, index, value);
    }
    set(&mut r, 0xb, 0x02);
    clock.advance(NS_PER_S);
    assert_eq!(shown(&mut r), [0x20, 0x00, 0x01, 0x01, 7, 0, 0, 0]);
    set(&mut r, 8, 0x77);
    set(&mut r, 2, 0xff);
    assert_eq!((get(&mut r, 8), get(&mut r, 2)), (1, 0), "rubbish is ignored");
}

#[test]
fn update_in_progress_before_the_second_changes() {
    let (mut r, clock, _) = rtc();
    assert_eq!(get(&mut r, 0xa), 0x26);
    clock.set(NS_PER_S - 100_000);
    assert_eq!(get(&mut r, 0xa), 0xa6);
    clock.set(NS_PER_S);
    assert_eq!(get(&mut r, 0xa), 0x26);
}

#[test]
fn periodic_interrupt_at_1024_hz() {
    let (mut r, clock, irq) = rtc();
    set(&mut r, 0xb, 0x42);
    let period = NS_PER_S / 1024;
    assert_eq!(r.deadline().get(), Some(period));
    clock.set(period);
    r.advance(period);
    assert_eq!((irq.rises(), r.deadline().get()), (1, None), "told once until C is read");
    assert_eq!(get(&mut r, 0xc), 0xc0);
    assert_eq!((get(&mut r, 0xc), r.deadline().get()), (0, Some(2 * period)));
}

#[test]
fn update_ended_and_alarm_interrupts() {
    let (mut r, clock, irq) = rtc();
    set(&mut r, 0xb, 0x12);
    assert_eq!(r.deadline().get(), Some(NS_PER_S));
    clock.set(NS_PER_S);
    r.advance(NS_PER_S);
    assert_eq!((irq.rises(), get(&mut r, 0xc)), (1, 0xd0));
    for (index, value) in [(5, 0xff), (3, 0x38), (1, 0x10), (0xb, 0x22)] {
        set(&mut r, index, value);
    }
    let at = 28 * NS_PER_S;
    assert_eq!(r.deadline().get(), Some(at));
    clock.set(at);
    r.advance(at);
    assert_eq!((irq.rises(), get(&mut r, 0xc) & 0xa0), (1, 0xa0));
}

#[test]
fn memory_keeps_bytes_and_firmware_may_set_them() {
    let (mut r, _, _) = rtc();
    r.set_memory(0x38, 7);
    r.set_memory(0xa, 0xff);
    set(&mut r, 0x7f, 9);
    assert_eq!((get(&mut r, 0x38), get(&mut r, 0x7f), get(&mut r, 0xa)), (7, 9, 0x26));
}
