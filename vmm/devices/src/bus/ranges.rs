// SPDX-License-Identifier: MIT OR Apache-2.0
//! Address ranges and who owns them: what both buses share.
//!
//! An owner is kept as an [`Endpoint`], which locks the device and calls it in one virtual call: the lock and the
//! device's registers are then at offsets that the compiler knows.

use super::{BusError, MmioDevice, PortDevice, Width};
use crate::lock;
use std::sync::{Arc, Mutex};

/// A device behind its lock. Offsets are below 2^16 for ports.
pub(super) trait Endpoint: Send + Sync {
    fn read(&self, offset: u64, width: Width) -> u64;
    fn write(&self, offset: u64, width: Width, value: u64);
}

/// A port device behind its lock.
pub(super) struct Port<D: ?Sized>(pub(super) Arc<Mutex<D>>);

impl<D: PortDevice + ?Sized> Endpoint for Port<D> {
    fn read(&self, offset: u64, width: Width) -> u64 {
        u64::from(lock(&self.0).read(crate::bits::lo16(offset), width))
    }

    fn write(&self, offset: u64, width: Width, value: u64) {
        lock(&self.0).write(crate::bits::lo16(offset), width, crate::bits::lo32(value));
    }
}

/// A memory device behind its lock.
pub(super) struct Memory<D: ?Sized>(pub(super) Arc<Mutex<D>>);

impl<D: MmioDevice + ?Sized> Endpoint for Memory<D> {
    fn read(&self, offset: u64, width: Width) -> u64 {
        lock(&self.0).read(offset, width)
    }

    fn write(&self, offset: u64, width: Width, value: u64) {
        lock(&self.0).write(offset, width, value);
    }
}

pub(super) struct Range {
    pub(super) base: u64,
    pub(super) last: u64,
    pub(super) owner: Box<dyn Endpoint>,
}

impl Range {
    /// The offset of `address`, if an access of `width` there stays in the range.
    #[inline]
    pub(super) fn offset(&self, address: u64, width: Width) -> Option<u64> {
        let offset = address.wrapping_sub(self.base);
        let room = self.last.wrapping_sub(address);
        (room >= u64::from(width.bytes()).wrapping_sub(1)).then_some(offset)
    }
}

/// Ranges, sorted by base and disjoint.
#[derive(Default)]
pub(super) struct Ranges(Vec<Range>);

impl std::fmt::Debug for Ranges {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter().map(|r| (r.base, r.last))).finish()
    }
}

impl Ranges {
    pub(super) fn insert(&mut self, base: u64, len: u64, limit: u64, owner: Box<dyn Endpoint>) -> Result<(), BusError> {
        let span = len.checked_sub(1).ok_or(BusError::Empty)?;
        let last = base.checked_add(span).filter(|last| *last <= limit).ok_or(BusError::TooHigh { base })?;
        let at = self.0.partition_point(|r| r.last < base);
        if let Some(next) = self.0.get(at)
            && next.base <= last
        {
            return Err(BusError::Overlap { base, with: next.base });
        }
        self.0.insert(at, Range { base, last, owner });
        Ok(())
    }

    /// The range that holds `address`.
    pub(super) fn find(&self, address: u64) -> Option<&Range> {
        let at = self.0.partition_point(|r| r.last < address);
        self.0.get(at).filter(|r| r.base <= address)
    }

    #[inline]
    pub(super) fn get(&self, index: usize) -> Option<&Range> {
        self.0.get(index)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Range> {
        self.0.iter()
    }
}
