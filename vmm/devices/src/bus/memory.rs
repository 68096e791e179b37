// SPDX-License-Identifier: MIT OR Apache-2.0
//! The bus for memory-mapped devices; addresses are guest-physical.

use super::ranges::{Memory, Ranges};
use super::{BusError, MmioDevice, Width};
use crate::bits::byte;
use std::sync::{Arc, Mutex};

/// The bus for memory-mapped devices.
#[derive(Debug, Default)]
pub struct MmioBus {
    ranges: Ranges,
}

impl MmioBus {
    /// An empty bus.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Gives `len` addresses from `base` to `device`. One device may own several ranges.
    ///
    /// # Errors
    /// See [`BusError`].
    pub fn insert<D: MmioDevice + ?Sized + 'static>(
        &mut self,
        base: u64,
        len: u64,
        device: Arc<Mutex<D>>,
    ) -> Result<(), BusError> {
        self.ranges.insert(base, len, u64::MAX, Box::new(Memory(device)))
    }

    /// True if a device owns `address`.
    #[must_use]
    pub fn claims(&self, address: u64) -> bool {
        self.ranges.find(address).is_some()
    }

    /// Reads; bits beyond `width` are zero in the answer.
    pub fn read(&self, address: u64, width: Width) -> u64 {
        let Some(range) = self.ranges.find(address) else { return width.mask() };
        match range.offset(address, width) {
            Some(offset) => range.owner.read(offset, width) & width.mask(),
            None => self.read_split(address, width),
        }
    }

    /// Writes the low `width` bytes of `value`.
    pub fn write(&self, address: u64, width: Width, value: u64) {
        let value = value & width.mask();
        let Some(range) = self.ranges.find(address) else { return };
        match range.offset(address, width) {
            Some(offset) => range.owner.write(offset, width, value),
            None => self.write_split(address, width, value),
        }
    }

    /// An access across the end of a range, byte by byte.
    #[cold]
    fn read_split(&self, address: u64, width: Width) -> u64 {
        (0..width.bytes()).fold(0, |value, i| {
            let byte = address.checked_add(u64::from(i)).map_or(0xff, |a| self.read(a, Width::Byte));
            value | (byte << i.wrapping_mul(8))
        })
    }

    #[cold]
    fn write_split(&self, address: u64, width: Width, value: u64) {
        for i in 0..width.bytes() {
            if let Some(a) = address.checked_add(u64::from(i)) {
                self.write(a, Width::Byte, u64::from(byte(value, i)));
            }
        }
    }

    /// Reads a slice of 1, 2, 4 or 8 bytes; slices of other lengths are filled with ones.
    pub fn read_slice(&self, address: u64, data: &mut [u8]) {
        match Width::from_bytes(data.len()) {
            Some(width) => {
                let value = self.read(address, width).to_le_bytes();
                data.iter_mut().zip(value).for_each(|(d, v)| *d = v);
            }
            None => data.fill(0xff),
        }
    }

    /// Writes a slice of 1, 2, 4 or 8 bytes; others vanish.
    pub fn write_slice(&self, address: u64, data: &[u8]) {
        if let Some(width) = Width::from_bytes(data.len()) {
            let value = data.iter().rev().fold(0u64, |v, b| (v << 8) | u64::from(*b));
            self.write(address, width, value);
        }
    }
}
