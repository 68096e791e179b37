// SPDX-License-Identifier: MIT OR Apache-2.0
//! A driver for tests: it writes rings and descriptors into guest memory, good ones and bad ones.

use crate::Ram;
use crate::queue::{QueueError, VirtQueue};
use vm_memory::{Bytes, GuestAddress};

/// VIRTQ_DESC_F_NEXT.
pub(crate) const NEXT: u16 = 1;
/// VIRTQ_DESC_F_WRITE.
pub(crate) const WRITE: u16 = 2;

/// A descriptor: address, length, flags, next.
#[derive(Clone, Copy)]
pub(crate) struct D(pub(crate) u64, pub(crate) u32, pub(crate) u16, pub(crate) u16);

pub(crate) const DESCRIPTORS: u64 = 0x1000;
pub(crate) const AVAILABLE: u64 = 0x2000;
pub(crate) const USED: u64 = 0x3000;

/// One mebibyte of guest memory.
pub(crate) fn ram() -> Ram {
    Ram::from_ranges(&[(GuestAddress(0), 0x10_0000)]).unwrap()
}

/// The driver's side of one queue, with its rings at [`DESCRIPTORS`], [`AVAILABLE`] and [`USED`].
pub(crate) struct Driver {
    pub(crate) ram: Ram,
    pub(crate) queue: VirtQueue,
    size: u16,
    index: u16,
}

impl Driver {
    pub(crate) fn new(size: u16) -> Self {
        let (ram, mut queue) = (ram(), VirtQueue::new(size));
        for (which, address) in [DESCRIPTORS, AVAILABLE, USED].into_iter().enumerate() {
            queue.set_address(which, address);
        }
        queue.enable(&ram, false).unwrap();
        Self { ram, queue, size, index: 0 }
    }

    /// A driver of a queue that a device has.
    pub(crate) fn over(ram: Ram, size: u16) -> Self {
        Self { ram, queue: VirtQueue::new(size), size, index: 0 }
    }

    pub(crate) fn put(&self, address: u64, bytes: &[u8]) {
        self.ram.write_slice(bytes, GuestAddress(address)).unwrap();
    }

    pub(crate) fn get(&self, address: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.ram.read_slice(&mut bytes, GuestAddress(address)).unwrap();
        bytes
    }

    pub(crate) fn table(&self, at: u64, descriptors: &[D]) {
        for (i, D(address, len, flags, next)) in (0u64..).zip(descriptors) {
            let at = at + i * 16;
            self.put(at, &address.to_le_bytes());
            self.put(at + 8, &len.to_le_bytes());
            self.put(at + 12, &flags.to_le_bytes());
            self.put(at + 14, &next.to_le_bytes());
        }
    }

    /// Writes the descriptor table from its start and makes descriptor 0 available.
    pub(crate) fn chain(&mut self, descriptors: &[D]) {
        self.table(DESCRIPTORS, descriptors);
        self.available(0);
    }

    pub(crate) fn available(&mut self, head: u16) {
        let slot = AVAILABLE + 4 + 2 * u64::from(self.index % self.size);
        self.put(slot, &head.to_le_bytes());
        self.set_available_index(self.index.wrapping_add(1));
    }

    pub(crate) fn set_available_index(&mut self, index: u16) {
        self.index = index;
        self.put(AVAILABLE + 2, &index.to_le_bytes());
    }

    pub(crate) fn used_index(&self) -> u16 {
        u16::from_le_bytes(self.get(USED + 2, 2).try_into().unwrap())
    }

    /// Entry `slot` of the used ring: head and length.
    pub(crate) fn used(&self, slot: u64) -> (u32, u32) {
        let word = |at| u32::from_le_bytes(self.get(at, 4).try_into().unwrap());
        (word(USED + 4 + 8 * slot), word(USED + 8 + 8 * slot))
    }

    pub(crate) fn next_error(&mut self) -> QueueError {
        let ram = self.ram.clone();
        self.queue.next(&ram).map(|_| ()).expect_err("the chain should be bad")
    }
}
