// SPDX-License-Identifier: MIT OR Apache-2.0
//! The port bus: 64 Ki ports.
//!
//! A port is looked up in two steps: its high byte names a block of 256 ports, its low byte the range in that block.
//! Blocks in which nobody owns a port are one and the same empty block, so that the whole costs some 2 KiB.

use super::ranges::{Port, Range, Ranges};
use super::{BusError, PortDevice, Width};
use crate::bits::{byte, lo8, lo16, lo32};
use std::sync::{Arc, Mutex};

/// Most ranges: an entry of a block is one byte.
const MAX_RANGES: usize = 254;

/// For each port the number of its range plus one, or 0.
#[derive(Debug)]
struct Index {
    blocks_of: [u8; 256],
    /// The first is empty.
    blocks: Vec<[u8; 256]>,
}

impl Default for Index {
    fn default() -> Self {
        Self { blocks_of: [0; 256], blocks: vec![[0; 256]] }
    }
}

impl Index {
    fn of(ranges: &Ranges) -> Self {
        let mut index = Self::default();
        for (number, range) in (1..=u8::MAX).zip(ranges.iter()) {
            for port in lo16(range.base)..=lo16(range.last) {
                index.set(port, number);
            }
        }
        index
    }

    fn set(&mut self, port: u16, number: u8) {
        let [low, high] = port.to_le_bytes();
        let fresh = lo8(u64::try_from(self.blocks.len()).unwrap_or(0));
        let Some(block_of) = self.blocks_of.get_mut(usize::from(high)) else { return };
        if *block_of == 0 {
            *block_of = fresh;
            self.blocks.push([0; 256]);
        }
        let block = self.blocks.get_mut(usize::from(*block_of));
        if let Some(entry) = block.and_then(|b| b.get_mut(usize::from(low))) {
            *entry = number;
        }
    }

    #[inline]
    fn get(&self, port: u16) -> u8 {
        let [low, high] = port.to_le_bytes();
        let block = self.blocks_of.get(usize::from(high)).and_then(|b| self.blocks.get(usize::from(*b)));
        block.and_then(|b| b.get(usize::from(low))).copied().unwrap_or(0)
    }
}

/// The port bus.
#[derive(Debug, Default)]
pub struct PortBus {
    ranges: Ranges,
    index: Index,
}

impl PortBus {
    /// An empty bus.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Gives `len` ports from `base` to `device`. One device may own several ranges.
    ///
    /// # Errors
    /// See [`BusError`].
    pub fn insert<D: PortDevice + ?Sized + 'static>(
        &mut self,
        base: u16,
        len: u64,
        device: Arc<Mutex<D>>,
    ) -> Result<(), BusError> {
        if self.ranges.iter().count() >= MAX_RANGES {
            return Err(BusError::Full);
        }
        self.ranges.insert(u64::from(base), len, 0xffff, Box::new(Port(device)))?;
        self.index = Index::of(&self.ranges);
        Ok(())
    }

    #[inline]
    fn find(&self, port: u16) -> Option<&Range> {
        self.ranges.get(usize::from(self.index.get(port)).wrapping_sub(1))
    }

    /// True if a device owns `port`.
    #[must_use]
    pub fn claims(&self, port: u16) -> bool {
        self.find(port).is_some()
    }

    /// Reads; bits beyond `width` are zero in the answer.
    #[inline]
    pub fn read(&self, port: u16, width: Width) -> u32 {
        let mask = lo32(width.mask());
        let Some(range) = self.find(port) else { return mask };
        match range.offset(u64::from(port), width) {
            Some(offset) => lo32(range.owner.read(offset, width)) & mask,
            None => self.read_split(port, width),
        }
    }

    /// Writes the low `width` bytes of `value`.
    #[inline]
    pub fn write(&self, port: u16, width: Width, value: u32) {
        let value = u64::from(value) & width.mask();
        let Some(range) = self.find(port) else { return };
        match range.offset(u64::from(port), width) {
            Some(offset) => range.owner.write(offset, width, value),
            None => self.write_split(port, width, value),
        }
    }

    /// An access across the end of a range, byte by byte.
    #[cold]
    fn read_split(&self, port: u16, width: Width) -> u32 {
        (0..width.bytes().min(4)).fold(0, |value, i| {
            let byte = port.checked_add(lo16(u64::from(i))).map_or(0xff, |p| self.read(p, Width::Byte));
            value | (byte << i.wrapping_mul(8))
        })
    }

    #[cold]
    fn write_split(&self, port: u16, width: Width, value: u64) {
        for i in 0..width.bytes().min(4) {
            if let Some(p) = port.checked_add(lo16(u64::from(i))) {
                self.write(p, Width::Byte, u32::from(byte(value, i)));
            }
        }
    }

    /// Reads a slice of 1, 2 or 4 bytes; slices of other lengths are filled with ones.
    pub fn read_slice(&self, port: u16, data: &mut [u8]) {
        match Width::from_bytes(data.len()) {
            Some(width) if width <= Width::Dword => {
                let value = self.read(port, width).to_le_bytes();
                data.iter_mut().zip(value).for_each(|(d, v)| *d = v);
            }
            _ => data.fill(0xff),
        }
    }

    /// Writes a slice of 1, 2 or 4 bytes; others vanish.
    pub fn write_slice(&self, port: u16, data: &[u8]) {
        if let Some(width) = Width::from_bytes(data.len()).filter(|w| *w <= Width::Dword) {
            let value = data.iter().rev().fold(0u32, |v, b| (v << 8) | u32::from(*b));
            self.write(port, width, value);
        }
    }
}
