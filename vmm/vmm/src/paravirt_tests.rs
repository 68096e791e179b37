// SPDX-License-Identifier: MIT OR Apache-2.0
//! Clock pages and the end of interrupt, on a board without a machine.

use std::sync::{Arc, Mutex};

use super::{EOI, Paravirt, SYSTEM_TIME, WALL_CLOCK};
use crate::board::{Board, Parts};
use crate::clock::TscClock;
use crate::config::Profile;
use crate::console::Stream;
use cloister_devices::bus::Width;
use cloister_devices::fabric::NoKick;
use cloister_devices::irq::MsiSink;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

fn board() -> Arc<Board> {
    let parts = Parts {
        vcpus: vec![0],
        tsc_khz: 2_000_000,
        clock: TscClock::start(2_000_000),
        memory: GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x10000)]).unwrap(),
        console: Arc::new(Mutex::new(Stream::new(Vec::new()))),
        profile: Profile::Full,
        config_pages: None,
    };
    let board = Board::new(parts, Box::new(NoKick)).unwrap();
    // Switch the local APIC on.
    board.fabric.lapic_write(0, 0xf0, Width::Dword, 0x1ff, 0);
    board
}

fn interrupt(board: &Board, vector: u8) {
    board.fabric.msi(0xfee0_0000, u32::from(vector));
}

fn flag(board: &Board) -> u8 {
    board.memory.read_obj(GuestAddress(0x2000)).unwrap()
}

#[test]
fn the_clock_page_has_scale_and_origin() {
    let board = board();
    let mut pv = Paravirt::default();
    assert!(pv.write(&board, SYSTEM_TIME, 0x1001));
    let at = |o: u64| board.memory.read_obj::<u64>(GuestAddress(0x1000 + o)).unwrap();
    assert_eq!(at(0), 2);
    assert_eq!(at(8), board.clock.origin().0);
    // 2 GHz: half a nanosecond per tick.
    assert_eq!(board.memory.read_obj::<u32>(GuestAddress(0x1018)).unwrap(), 1 << 31);
    assert_eq!(board.memory.read_obj::<[u8; 2]>(GuestAddress(0x101c)).unwrap(), [0, 1]);
    assert!(pv.write(&board, WALL_CLOCK, 0x3000));
    assert!(board.memory.read_obj::<u32>(GuestAddress(0x3004)).unwrap() > 1_700_000_000);
    assert_eq!(pv.read(SYSTEM_TIME), Some(0x1001));
}

#[test]
fn pages_outside_of_memory_do_no_harm() {
    let board = board();
    let mut pv = Paravirt::default();
    for msr in [WALL_CLOCK, SYSTEM_TIME, EOI] {
        assert!(pv.write(&board, msr, !2));
    }
    interrupt(&board, 0x40);
    let vector = board.fabric.acknowledge(0).unwrap();
    pv.offer_end(&board, 0, vector);
    pv.collect_end(&board.memory, &board.fabric, 0);
    assert!(!pv.write(&board, 0x4b56_4d02, 0));
}

#[test]
fn an_end_told_by_memory_is_collected() {
    let board = board();
    let mut pv = Paravirt::default();
    assert!(pv.write(&board, EOI, 0x2001));
    interrupt(&board, 0x40);
    let vector = board.fabric.acknowledge(0).unwrap();
    pv.offer_end(&board, 0, vector);
    assert_eq!(flag(&board), 1);
    pv.collect_end(&board.memory, &board.fabric, 0);
    assert_eq!(flag(&board), 1, "not ended, nothing waits: the offer stands");
    board.memory.write_obj(0_u8, GuestAddress(0x2000)).unwrap();
    interrupt(&board, 0x30);
    pv.collect_end(&board.memory, &board.fabric, 0);
    assert_eq!(board.fabric.acknowledge(0), Some(0x30), "0x40 is no longer in service");
}

#[test]
fn an_offer_is_taken_back_when_something_waits() {
    let board = board();
    let mut pv = Paravirt::default();
    assert!(pv.write(&board, EOI, 0x2001));
    interrupt(&board, 0x40);
    let vector = board.fabric.acknowledge(0).unwrap();
    pv.offer_end(&board, 0, vector);
    interrupt(&board, 0x30);
    pv.collect_end(&board.memory, &board.fabric, 0);
    assert_eq!(flag(&board), 0);
    assert_eq!(board.fabric.acknowledge(0), None, "0x40 is in service until its end is told");
    board.fabric.eoi(0);
    assert_eq!(board.fabric.acknowledge(0), Some(0x30));
}
