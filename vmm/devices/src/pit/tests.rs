// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tests of the timer, by mode.

use super::{MIN_PERIOD_NS, Pit, SpeakerPort, TICKS};
use crate::bus::ByteDevice;
use crate::clock::{ManualClock, Timed};
use crate::irq::{IrqLine, Recorder};
use std::sync::{Arc, Mutex};

fn pit() -> (Pit, Arc<ManualClock>, Arc<Recorder>) {
    let clock = Arc::new(ManualClock::default());
    let recorder = Arc::new(Recorder::default());
    (Pit::new(clock.clone(), IrqLine::new(recorder.clone(), 0)), clock, recorder)
}

fn at(clock: &ManualClock, tick: u64) {
    clock.set(TICKS.ns(tick));
}

fn count(p: &mut Pit, channel: u16) -> u16 {
    p.write_byte(3, u8::try_from(channel).unwrap() << 6);
    u16::from_le_bytes([p.read_byte(channel), p.read_byte(channel)])
}

#[test]
fn mode_0_interrupts_once_at_terminal_count() {
    let (mut p, clock, irq) = pit();
    p.write_byte(3, 0x30);
    p.write_byte(0, 0xe8);
    assert_eq!(p.deadline().get(), None, "half a count");
    p.write_byte(0, 0x03);
    assert_eq!(p.deadline().get(), Some(TICKS.ns(1000)));
    at(&clock, 400);
    assert_eq!(count(&mut p, 0), 600);
    p.advance(TICKS.ns(1000) - 1);
    assert_eq!(irq.rises(), 0);
    p.advance(TICKS.ns(1000));
    assert_eq!((irq.rises(), p.deadline().get()), (1, None));
    at(&clock, 1001);
    assert_eq!(count(&mut p, 0), 0xffff, "goes on");
}

#[test]
fn mode_2_is_periodic_and_counts_n_to_1() {
    let (mut p, clock, irq) = pit();
    p.write_byte(3, 0x34);
    p.write_byte(0, 0xa4);
    p.write_byte(0, 0x2e);
    let n = 0x2ea4u64;
    for (tick, left) in [(0, n), (1, n - 1), (n - 1, 1), (n, n), (5 * n + 7, n - 7)] {
        at(&clock, tick);
        assert_eq!(u64::from(count(&mut p, 0)), left, "at tick {tick}");
    }
    assert_eq!((irq.rises(), p.deadline().get()), (2, Some(TICKS.ns(6 * n))), "missed ones are told once");
    p.advance(TICKS.ns(6 * n));
    assert_eq!((irq.rises(), p.deadline().get()), (1, Some(TICKS.ns(7 * n))));
}

#[test]
fn mode_3_counts_by_two() {
    let (mut p, clock, _) = pit();
    p.write_byte(3, 0x36);
    p.write_byte(0, 100);
    p.write_byte(0, 0);
    for (tick, left) in [(0, 100), (10, 80), (50, 100), (60, 80), (100, 100)] {
        at(&clock, tick);
        assert_eq!(count(&mut p, 0), left, "at tick {tick}");
    }
}

#[test]
fn a_tiny_period_does_not_storm() {
    let (mut p, _, irq) = pit();
    p.write_byte(3, 0x14);
    p.write_byte(0, 1);
    p.advance(5_000);
    assert_eq!(irq.rises(), 1);
    assert!(p.deadline().get().unwrap() >= 5_000 + MIN_PERIOD_NS);
}

#[test]
fn mode_4_strobes_one_tick_after_the_count() {
    let (mut p, _, _) = pit();
    p.write_byte(3, 0x18);
    p.write_byte(0, 10);
    assert_eq!(p.deadline().get(), Some(TICKS.ns(11)));
}

#[test]
fn channel_2_calibration_as_linux_does_it() {
    let (p, clock, _) = pit();
    let p = Arc::new(Mutex::new(p));
    let mut port = SpeakerPort(p.clone());
    let gate = port.read_byte(0);
    port.write_byte(0, (gate & !2) | 1);
    for (offset, value) in [(3, 0xb0), (2, 0x9b), (2, 0x2e)] {
        p.lock().unwrap().write_byte(offset, value);
    }
    at(&clock, 0x2e9a);
    assert_eq!(port.read_byte(0) & 0x23, 0x01);
    at(&clock, 0x2e9b);
    assert_eq!(port.read_byte(0) & 0x23, 0x21);
}

#[test]
fn a_low_gate_holds_the_count() {
    let (p, clock, _) = pit();
    let p = Arc::new(Mutex::new(p));
    let mut port = SpeakerPort(p.clone());
    for (offset, value) in [(3, 0xb0), (2, 100), (2, 0)] {
        p.lock().unwrap().write_byte(offset, value);
    }
    at(&clock, 50);
    assert_eq!(count(&mut p.lock().unwrap(), 2), 100);
    port.write_byte(0, 1);
    at(&clock, 70);
    port.write_byte(0, 0);
    at(&clock, 90);
    assert_eq!(count(&mut p.lock().unwrap(), 2), 80);
}

#[test]
fn read_back_latches_status_and_count() {
    let (mut p, clock, _) = pit();
    p.write_byte(3, 0x34);
    assert_eq!((p.write_byte(3, 0xe2), p.read_byte(0)).1, 0xf4, "null count");
    p.write_byte(0, 0x10);
    p.write_byte(0, 0x27);
    p.write_byte(3, 0xc2);
    at(&clock, 5);
    assert_eq!([p.read_byte(0), p.read_byte(0), p.read_byte(0)], [0xb4, 0x10, 0x27]);
}

#[test]
fn bcd_counts_in_decimal() {
    let (mut p, clock, _) = pit();
    p.write_byte(3, 0x35);
    p.write_byte(0, 0x00);
    p.write_byte(0, 0x10);
    at(&clock, 1);
    assert_eq!(count(&mut p, 0), 0x0999);
}
