// SPDX-License-Identifier: MIT OR Apache-2.0
//! A virtqueue: `virtio-queue`'s split ring, with chains that are checked before a device sees them.
//!
//! A [`VirtQueue`] gives [`Chain`]s. A chain is walked once: what the driver wrote into its descriptors is copied out
//! and checked, and the device works on the copy; the driver can change a descriptor afterwards, but not what the
//! device does. The chain that is handed out is one that the queue keeps and fills again, so that no memory is
//! allocated once it has grown.
//!
//! Rule: a chain is good only if it ends by a descriptor without VIRTQ_DESC_F_NEXT within the queue's size, its readable
//! buffers come before its writable ones (virtio 1.2 section 2.7.4.2), and all of them lie in guest memory. Anything
//! else is a [`QueueError`], upon which the device needs a reset. `virtio-queue`'s own iterator ends a bad chain
//! quietly, which is why it is not used as it is.

#[cfg(test)]
mod tests;

use crate::Ram;
use std::sync::atomic::Ordering;
use virtio_queue::desc::RawDescriptor;
use virtio_queue::desc::split::Descriptor;
use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemory, Permissions};

/// What a driver did wrong with a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueError {
    /// The queue is used, but not enabled.
    NotReady,
    /// The rings are not in guest memory, or not aligned.
    BadRing,
    /// The index of the available ring is ahead by more than the queue's size (section 2.7.13).
    BadAvailableIndex,
    /// A chain without descriptors: its head, or its indirect table, is out of range.
    EmptyChain,
    /// A chain does not end, or goes on at a descriptor that does not exist.
    EndlessChain,
    /// A buffer is not in guest memory.
    BufferOutOfRange,
    /// A readable buffer after a writable one.
    BadOrder,
    /// The used ring could not be written.
    BadUsedRing,
}

impl std::fmt::Display for QueueError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::NotReady => "a queue was used before it was enabled",
            Self::BadRing => "the rings of a queue are not in guest memory or not aligned",
            Self::BadAvailableIndex => "the available index is ahead by more than the queue's size",
            Self::EmptyChain => "a descriptor chain is empty or begins out of range",
            Self::EndlessChain => "a descriptor chain does not end in its queue",
            Self::BufferOutOfRange => "a buffer is not in guest memory",
            Self::BadOrder => "a readable buffer follows a writable one",
            Self::BadUsedRing => "the used ring cannot be written",
        })
    }
}

impl std::error::Error for QueueError {}

/// A buffer in guest memory; checked to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffer {
    /// Guest-physical address.
    pub address: GuestAddress,
    /// Length in bytes.
    pub len: u32,
}

/// A checked descriptor chain.
#[derive(Clone, Debug, Default)]
pub struct Chain {
    head: u16,
    readable: Vec<Buffer>,
    writable: Vec<Buffer>,
}

impl Chain {
    /// Index of its first descriptor: its name when it is returned.
    #[must_use]
    pub const fn head(&self) -> u16 {
        self.head
    }

    /// Buffers that the device reads.
    #[must_use]
    pub fn readable(&self) -> &[Buffer] {
        &self.readable
    }

    /// Buffers that the device writes.
    #[must_use]
    pub fn writable(&self) -> &[Buffer] {
        &self.writable
    }

    /// Bytes that the device may read.
    #[must_use]
    pub fn readable_len(&self) -> u64 {
        self.readable.iter().map(|b| u64::from(b.len)).fold(0, u64::saturating_add)
    }

    /// Bytes that the device may write.
    #[must_use]
    pub fn writable_len(&self) -> u64 {
        self.writable.iter().map(|b| u64::from(b.len)).fold(0, u64::saturating_add)
    }

    /// Reads from the readable buffers, beginning `offset` bytes in. Gives the number of bytes that there were.
    ///
    /// # Errors
    /// [`QueueError::BufferOutOfRange`] if guest memory has gone.
    pub fn read(&self, ram: &Ram, offset: u64, into: &mut [u8]) -> Result<usize, QueueError> {
        let mut done = 0usize;
        each_part(&self.readable, offset, into.len(), |address, len| {
            let end = done.saturating_add(len);
            let part = into.get_mut(done..end).ok_or(QueueError::BufferOutOfRange)?;
            ram.read_slice(part, address).map_err(|_| QueueError::BufferOutOfRange)?;
            done = end;
            Ok(())
        })?;
        Ok(done)
    }

    /// Writes to the writable buffers, beginning `offset` bytes in. Gives the number of bytes for which there was room.
    ///
    /// # Errors
    /// [`QueueError::BufferOutOfRange`] if guest memory has gone.
    pub fn write(&self, ram: &Ram, offset: u64, from: &[u8]) -> Result<usize, QueueError> {
        let mut done = 0usize;
        each_part(&self.writable, offset, from.len(), |address, len| {
            let end = done.saturating_add(len);
            let part = from.get(done..end).ok_or(QueueError::BufferOutOfRange)?;
            ram.write_slice(part, address).map_err(|_| QueueError::BufferOutOfRange)?;
            done = end;
            Ok(())
        })?;
        Ok(done)
    }

    fn clear(&mut self, head: u16) {
        self.head = head;
        self.readable.clear();
        self.writable.clear();
    }

    fn add(&mut self, descriptor: &Descriptor, ram: &Ram) -> Result<(), QueueError> {
        let buffer = Buffer { address: descriptor.addr(), len: descriptor.len() };
        let (access, list) = if descriptor.is_write_only() {
            (Permissions::Write, &mut self.writable)
        } else if self.writable.is_empty() {
            (Permissions::Read, &mut self.readable)
        } else {
            return Err(QueueError::BadOrder);
        };
        let len = usize::try_from(buffer.len).unwrap_or(usize::MAX);
        if len != 0 && !ram.check_range(buffer.address, len, access) {
            return Err(QueueError::BufferOutOfRange);
        }
        list.push(buffer);
        Ok(())
    }
}

/// Calls `act` with the parts of `buffers` that make up `len` bytes from `offset` on.
fn each_part(
    buffers: &[Buffer],
    mut offset: u64,
    mut len: usize,
    mut act: impl FnMut(GuestAddress, usize) -> Result<(), QueueError>,
) -> Result<(), QueueError> {
    for buffer in buffers {
        if len == 0 {
            break;
        }
        let size = u64::from(buffer.len);
        if offset >= size {
            offset = offset.saturating_sub(size);
            continue;
        }
        let room = usize::try_from(size.saturating_sub(offset)).unwrap_or(usize::MAX);
        let part = room.min(len);
        let address = buffer.address.0.checked_add(offset).ok_or(QueueError::BufferOutOfRange)?;
        act(GuestAddress(address), part)?;
        len = len.saturating_sub(part);
        offset = 0;
    }
    Ok(())
}

/// Flag of the available ring: no interrupts, please (section 2.7.6).
const AVAILABLE_NO_INTERRUPT: u16 = 1;

/// A split virtqueue, with the addresses that the driver gave.
#[derive(Debug)]
pub struct VirtQueue {
    ring: Queue,
    max_size: u16,
    chain: Chain,
    /// Descriptor table, available ring, used ring: as written, before they are checked.
    addresses: [u64; 3],
    event_index: bool,
}

impl VirtQueue {
    /// A queue for at most `max_size` descriptors, which is rounded down to a power of two from 1 to 32768.
    #[must_use]
    pub fn new(max_size: u16) -> Self {
        let max_size = 1u16.checked_shl(max_size.max(1).ilog2()).unwrap_or(1);
        Self {
            // It fails only for sizes that are not powers of two.
            ring: Queue::new(max_size).unwrap_or_default(),
            max_size,
            chain: Chain::default(),
            addresses: [0; 3],
            event_index: false,
        }
    }

    /// As before the driver touched it.
    pub fn reset(&mut self) {
        self.ring.reset();
        self.addresses = [0; 3];
        self.event_index = false;
    }

    /// Number of descriptors; the largest possible until the driver says another.
    #[must_use]
    pub fn size(&self) -> u16 {
        self.ring.size()
    }

    /// The driver writes the size. One that cannot be is ignored, and reads back as what it was.
    pub fn set_size(&mut self, size: u16) {
        if !self.ready() {
            let _refused = self.ring.try_set_size(size);
        }
    }

    /// The address of the descriptor table (0), the available ring (1) or the used ring (2), as written.
    #[must_use]
    pub fn address(&self, which: usize) -> u64 {
        self.addresses.get(which).copied().unwrap_or(0)
    }

    /// The driver writes an address.
    pub fn set_address(&mut self, which: usize, address: u64) {
        if !self.ready()
            && let Some(slot) = self.addresses.get_mut(which)
        {
            *slot = address;
        }
    }

    /// True once the driver enabled it.
    #[must_use]
    pub fn ready(&self) -> bool {
        self.ring.ready()
    }

    /// The driver enables the queue.
    ///
    /// # Errors
    /// [`QueueError::BadRing`] if the rings are not aligned (section 2.7) or not in guest memory. The queue stays off.
    pub fn enable(&mut self, ram: &Ram, event_index: bool) -> Result<(), QueueError> {
        if self.ready() {
            return Ok(());
        }
        let [descriptors, available, used] = self.addresses.map(GuestAddress);
        let ring = &mut self.ring;
        let aligned = ring.try_set_desc_table_address(descriptors).is_ok()
            && ring.try_set_avail_ring_address(available).is_ok()
            && ring.try_set_used_ring_address(used).is_ok();
        ring.set_event_idx(event_index);
        ring.set_ready(true);
        // An available ring at address 0 is what virtio-queue takes for "not set".
        if !aligned || available.0 == 0 || self.max_size == 0 || !ring.is_valid(ram) {
            self.ring.set_ready(false);
            return Err(QueueError::BadRing);
        }
        self.event_index = event_index;
        Ok(())
    }

    /// The next chain that the driver made available, checked. `None` if there is none. The device returns it with
    /// [`Self::complete`].
    ///
    /// # Errors
    /// See [`QueueError`]: the device needs a reset then.
    pub fn next(&mut self, ram: &Ram) -> Result<Option<&Chain>, QueueError> {
        if !self.ready() {
            return Err(QueueError::NotReady);
        }
        let size = self.ring.size();
        let next = {
            let mut available = self.ring.iter(ram).map_err(|_| QueueError::BadAvailableIndex)?;
            available.next()
        };
        let Some(descriptors) = next else { return Ok(None) };
        self.chain.clear(descriptors.head_index());
        let mut ended = false;
        for (count, raw) in (0u16..).zip(descriptors) {
            if count >= size {
                return Err(QueueError::EndlessChain);
            }
            let descriptor = Descriptor::from(RawDescriptor::from(raw));
            self.chain.add(&descriptor, ram)?;
            ended = !descriptor.has_next();
        }
        match (ended, self.chain.readable.is_empty() && self.chain.writable.is_empty()) {
            (true, _) => Ok(Some(&self.chain)),
            (false, true) => Err(QueueError::EmptyChain),
            (false, false) => Err(QueueError::EndlessChain),
        }
    }

    /// Puts back the chain that [`Self::next`] gave last: the device cannot serve it now.
    pub fn put_back(&mut self) {
        let previous = self.ring.next_avail().wrapping_sub(1);
        self.ring.set_next_avail(previous);
    }

    /// Returns the chain `head`, into which `written` bytes were written.
    ///
    /// # Errors
    /// [`QueueError::BadUsedRing`].
    pub fn complete(&mut self, ram: &Ram, head: u16, written: u32) -> Result<(), QueueError> {
        self.ring.add_used(ram, head, written).map_err(|_| QueueError::BadUsedRing)
    }

    /// True if the driver wants to be interrupted for what was returned since the last call.
    ///
    /// # Errors
    /// [`QueueError::BadRing`].
    pub fn wants_interrupt(&mut self, ram: &Ram) -> Result<bool, QueueError> {
        if self.event_index {
            return self.ring.needs_notification(ram).map_err(|_| QueueError::BadRing);
        }
        // virtio-queue does not look at the flag of the available ring.
        let available = GuestAddress(self.ring.avail_ring());
        let flags: u16 = ram.load(available, Ordering::Acquire).map_err(|_| QueueError::BadRing)?;
        Ok(u16::from_le(flags) & AVAILABLE_NO_INTERRUPT == 0)
    }

    /// Asks the driver not to notify: the device is looking at the queue anyway, or has no use for more.
    ///
    /// # Errors
    /// [`QueueError::BadRing`].
    pub fn disable_notification(&mut self, ram: &Ram) -> Result<(), QueueError> {
        self.ring.disable_notification(ram).map_err(|_| QueueError::BadRing)
    }

    /// Asks the driver to notify again. True if something came meanwhile, for which no notification will come.
    ///
    /// # Errors
    /// [`QueueError::BadRing`].
    pub fn enable_notification(&mut self, ram: &Ram) -> Result<bool, QueueError> {
        self.ring.enable_notification(ram).map_err(|_| QueueError::BadRing)
    }
}
