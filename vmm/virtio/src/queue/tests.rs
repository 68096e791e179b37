// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tests of the queue, named after the sections of virtio 1.2: good chains, and each kind of bad one.

use super::QueueError;
use crate::testing::{D, Driver, NEXT, WRITE};

#[test]
fn v1_2_2_7_5_chains_are_read_and_written() {
    let mut d = Driver::new(8);
    d.chain(&[D(0x5000, 3, NEXT, 1), D(0x6000, 5, NEXT, 4), D(0, 0, 0, 0), D(0, 0, 0, 0), D(0x7000, 4, WRITE, 0)]);
    d.put(0x5000, b"abc");
    d.put(0x6000, b"defgh");
    let ram = d.ram.clone();
    let chain = d.queue.next(&ram).unwrap().unwrap().clone();
    assert_eq!((chain.readable_len(), chain.writable_len(), chain.head()), (8, 4, 0));
    let mut out = [0; 6];
    assert_eq!(chain.read(&ram, 1, &mut out), Ok(6));
    assert_eq!(&out, b"bcdefg");
    assert_eq!(chain.read(&ram, 7, &mut out), Ok(1));
    assert_eq!(chain.write(&ram, 1, b"wxyz"), Ok(3));
    assert_eq!(d.get(0x7000, 4), b"\0wxy");
    d.queue.complete(&ram, 0, 4).unwrap();
    assert_eq!((d.used_index(), d.used(0)), (1, (0, 4)));
    assert!(d.queue.next(&ram).unwrap().is_none());
}

#[test]
fn v1_2_2_7_5_1_a_loop_is_an_error() {
    let mut d = Driver::new(4);
    d.chain(&[D(0x5000, 1, NEXT, 1), D(0x5000, 1, NEXT, 0)]);
    assert_eq!(d.next_error(), QueueError::EndlessChain);
}

#[test]
fn v1_2_2_7_5_a_chain_that_leaves_the_table_is_an_error() {
    let mut d = Driver::new(4);
    d.chain(&[D(0x5000, 1, NEXT, 77)]);
    assert_eq!(d.next_error(), QueueError::EndlessChain);
    d.available(4000);
    assert_eq!(d.next_error(), QueueError::EmptyChain);
}

#[test]
fn v1_2_2_7_4_2_readable_after_writable_is_an_error() {
    let mut d = Driver::new(4);
    d.chain(&[D(0x5000, 1, NEXT | WRITE, 1), D(0x5000, 1, 0, 0)]);
    assert_eq!(d.next_error(), QueueError::BadOrder);
}

#[test]
fn buffers_outside_of_memory_are_errors() {
    for (address, len) in [(0xffff_ffff_ffff_fff0, 0x100), (0x1_0000_0000, 1), (0xf_ff00, 0x101), (0, u32::MAX)] {
        let mut d = Driver::new(4);
        d.chain(&[D(address, len, WRITE, 0)]);
        assert_eq!(d.next_error(), QueueError::BufferOutOfRange, "{address:#x} + {len:#x}");
    }
}

#[test]
fn zero_length_buffers_are_empty_buffers() {
    let mut d = Driver::new(4);
    d.chain(&[D(0xffff_ffff_ffff_ffff, 0, NEXT, 1), D(0x5000, 0, WRITE, 0)]);
    let ram = d.ram.clone();
    let chain = d.queue.next(&ram).unwrap().unwrap().clone();
    assert_eq!((chain.readable_len(), chain.write(&ram, 0, b"x")), (0, Ok(0)));
}

#[test]
fn v1_2_2_7_5_3_indirect_tables() {
    const INDIRECT: u16 = 4;
    let mut d = Driver::new(4);
    d.table(0x8000, &[D(0x5000, 2, NEXT, 1), D(0x6000, 2, WRITE, 0)]);
    d.chain(&[D(0x8000, 32, INDIRECT, 0)]);
    let ram = d.ram.clone();
    assert_eq!(d.queue.next(&ram).unwrap().map(|c| (c.readable_len(), c.writable_len())), Some((2, 2)));
    for bad in [D(0x8000, 31, INDIRECT, 0), D(0x8000, 0, INDIRECT, 0), D(u64::MAX - 15, 32, INDIRECT, 0)] {
        let mut d = Driver::new(4);
        d.chain(&[bad]);
        assert_eq!(d.next_error(), QueueError::EmptyChain);
    }
    let mut d = Driver::new(4);
    d.table(0x8000, &[D(0x8000, 32, INDIRECT, 0), D(0x5000, 1, 0, 0)]);
    d.chain(&[D(0x8000, 32, INDIRECT, 0)]);
    assert_eq!(d.next_error(), QueueError::EmptyChain, "a table in a table");
    let mut d = Driver::new(4);
    let long: Vec<D> = (0..100).map(|i| D(0x5000, 1, NEXT, i + 1)).collect();
    d.table(0x8000, &long);
    d.chain(&[D(0x8000, 1600, INDIRECT, 0)]);
    assert_eq!(d.next_error(), QueueError::EndlessChain, "longer than the queue");
}

#[test]
fn v1_2_2_7_13_an_index_far_ahead_is_an_error() {
    let mut d = Driver::new(4);
    d.set_available_index(1000);
    assert_eq!(d.next_error(), QueueError::BadAvailableIndex);
}

#[test]
fn v1_2_2_7_rings_must_be_aligned_and_in_memory() {
    for (which, address) in [(0, 0x1008), (1, 0x2001), (2, 0x3002), (0, 0xf_fff0), (1, 0), (2, u64::MAX - 3)] {
        let mut d = Driver::new(4);
        let ram = d.ram.clone();
        d.queue.reset();
        for (w, a) in [(0, 0x1000), (1, 0x2000), (2, 0x3000)] {
            d.queue.set_address(w, a);
        }
        d.queue.set_address(which, address);
        assert_eq!(d.queue.enable(&ram, false), Err(QueueError::BadRing), "{which} at {address:#x}");
        assert!(!d.queue.ready());
        assert_eq!(d.queue.next(&ram).map(|_| ()), Err(QueueError::NotReady));
    }
}

#[test]
fn sizes_that_cannot_be_are_ignored() {
    let mut q = super::VirtQueue::new(100);
    assert_eq!(q.size(), 64);
    for size in [0, 3, 128, u16::MAX] {
        q.set_size(size);
        assert_eq!(q.size(), 64);
    }
    q.set_size(16);
    assert_eq!(q.size(), 16);
}

#[test]
fn v1_2_2_7_7_interrupts_are_suppressed_by_flag() {
    let mut d = Driver::new(4);
    let ram = d.ram.clone();
    assert_eq!(d.queue.wants_interrupt(&ram), Ok(true));
    d.put(0x2000, &[1, 0]);
    assert_eq!(d.queue.wants_interrupt(&ram), Ok(false));
}

#[test]
fn a_chain_put_back_comes_again() {
    let mut d = Driver::new(4);
    d.chain(&[D(0x5000, 1, 0, 0)]);
    let ram = d.ram.clone();
    assert!(d.queue.next(&ram).unwrap().is_some());
    d.queue.put_back();
    assert!(d.queue.next(&ram).unwrap().is_some() && d.queue.next(&ram).unwrap().is_none());
}
