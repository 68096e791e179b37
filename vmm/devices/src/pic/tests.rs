// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tests of the pair of controllers.

use super::{PicPair, PicPort};

fn ready() -> PicPair {
    let mut p = PicPair::new();
    for (port, icw2, icw3) in [(PicPort::First, 0x30, 4), (PicPort::Second, 0x38, 2)] {
        p.write(port, 0, 0x11);
        p.write(port, 1, icw2);
        p.write(port, 1, icw3);
        p.write(port, 1, 1);
        p.write(port, 1, 0);
    }
    p
}

#[test]
fn mask_reads_back_as_linux_probes_it() {
    let mut p = PicPair::new();
    p.write(PicPort::Second, 1, 0xff);
    p.write(PicPort::First, 1, 0xfb);
    assert_eq!(p.read(PicPort::First, 1), 0xfb);
}

#[test]
fn fully_nested_mode_serves_the_lower_number_first() {
    let mut p = ready();
    p.drive(4, true);
    assert!(p.drive(1, true));
    assert_eq!(p.acknowledge(), 0x31);
    assert!(!p.output(), "input 4 waits for the end of input 1");
    p.write(PicPort::First, 0, 0x20);
    assert_eq!(p.acknowledge(), 0x34);
    p.drive(0, true);
    assert_eq!(p.acknowledge(), 0x30, "nested");
}

#[test]
fn second_controller_comes_through_input_2() {
    let mut p = ready();
    assert!(p.drive(8, true));
    assert_eq!(p.acknowledge(), 0x38);
    p.write(PicPort::First, 0, 0x0b);
    p.write(PicPort::Second, 0, 0x0b);
    assert_eq!((p.read(PicPort::First, 0), p.read(PicPort::Second, 0)), (4, 1));
    p.write(PicPort::Second, 0, 0x20);
    p.write(PicPort::First, 0, 0x62);
    assert_eq!((p.read(PicPort::First, 0), p.read(PicPort::Second, 0)), (0, 0));
    assert!(!p.output(), "an edge is served once");
}

#[test]
fn level_inputs_ask_again() {
    let mut p = ready();
    p.write(PicPort::EdgeLevel, 1, 0xff);
    assert_eq!(p.read(PicPort::EdgeLevel, 1), 0xde, "inputs 8 and 13 are edges always");
    p.drive(11, true);
    p.drive(11, true);
    assert_eq!(p.acknowledge(), 0x3b);
    p.write(PicPort::Second, 0, 0x20);
    p.write(PicPort::First, 0, 0x20);
    p.drive(11, false);
    assert!(p.output(), "one end still is high");
    p.drive(11, false);
    assert!(!p.output());
}

#[test]
fn a_vanished_request_is_spurious() {
    let mut p = ready();
    p.write(PicPort::EdgeLevel, 0, 0x08);
    p.drive(3, true);
    p.drive(3, false);
    assert_eq!(p.acknowledge(), 0x37);
    p.drive(4, true);
    p.drive(4, false);
    assert_eq!(p.acknowledge(), 0x34, "an edge stays");
}

#[test]
fn masks_hold_back_and_let_go() {
    let mut p = ready();
    p.write(PicPort::First, 1, 0x10);
    assert!(!p.drive(4, true));
    assert!(p.write(PicPort::First, 1, 0));
}

#[test]
fn rotation_poll_and_auto_eoi() {
    let mut p = ready();
    p.write(PicPort::First, 0, 0xc3);
    p.drive(0, true);
    p.drive(4, true);
    assert_eq!(p.acknowledge(), 0x34, "input 3 is lowest, so 4 is highest");
    p.write(PicPort::First, 0, 0xa0);
    p.write(PicPort::First, 0, 0x0c);
    assert_eq!(p.read(PicPort::First, 0), 0x80);
    p.write(PicPort::First, 0, 0x11);
    p.write(PicPort::First, 1, 0x40);
    p.write(PicPort::First, 1, 4);
    p.write(PicPort::First, 1, 3);
    p.drive(5, true);
    assert_eq!(p.acknowledge(), 0x45);
    p.drive(6, true);
    assert_eq!(p.acknowledge(), 0x46, "nothing is in service");
}
