// SPDX-License-Identifier: MIT OR Apache-2.0
//! What surrounds the processor: guest memory and device memory.

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

/// Guest-physical memory of both kinds.
pub trait Machine {
    /// Reads `into.len()` bytes of guest memory at `gpa`. False, with nothing read, if they are not all guest memory.
    fn ram_read(&self, gpa: u64, into: &mut [u8]) -> bool;
    /// Writes guest memory. False, with nothing written, if the bytes are not all guest memory.
    fn ram_write(&self, gpa: u64, from: &[u8]) -> bool;
    /// Reads 1, 2, 4 or 8 bytes of device memory. What is nothing at all reads as ones.
    fn device_read(&mut self, gpa: u64, into: &mut [u8]);
    /// Writes 1, 2, 4 or 8 bytes of device memory.
    fn device_write(&mut self, gpa: u64, from: &[u8]);
}

/// The device side alone, for [`RamAndDevices`].
pub trait DeviceMemory {
    /// Reads 1, 2, 4 or 8 bytes.
    fn read(&mut self, gpa: u64, into: &mut [u8]);
    /// Writes 1, 2, 4 or 8 bytes.
    fn write(&mut self, gpa: u64, from: &[u8]);
}

/// A machine of guest memory as `vm-memory` has it, and devices.
#[derive(Debug)]
pub struct RamAndDevices<'a, D> {
    /// Guest memory.
    pub ram: &'a GuestMemoryMmap,
    /// Device memory.
    pub devices: &'a mut D,
}

impl<D: DeviceMemory> Machine for RamAndDevices<'_, D> {
    fn ram_read(&self, gpa: u64, into: &mut [u8]) -> bool {
        self.ram.read_slice(into, GuestAddress(gpa)).is_ok()
    }

    fn ram_write(&self, gpa: u64, from: &[u8]) -> bool {
        self.ram.write_slice(from, GuestAddress(gpa)).is_ok()
    }

    fn device_read(&mut self, gpa: u64, into: &mut [u8]) {
        self.devices.read(gpa, into);
    }

    fn device_write(&mut self, gpa: u64, from: &[u8]) {
        self.devices.write(gpa, from);
    }
}
