// SPDX-License-Identifier: MIT OR Apache-2.0
//! The firmware's tables: IVRS of AMD-Vi (48882, 5.2) and DMAR of VT-d (VT-d, chapter 8).
//!
//! Both are a header and then parts, each with its length: a part for each unit (several, of different age, for the same unit in an IVRS), which has
//! I/O APICs among its own parts, and one for each range of memory that devices need as it is (IVMD, RMRR). A part is read within its own bounds
//! ([`Part`]); what is missing in it ends it, and one that is longer than what it is in ends that.
//!
//! A DMAR names devices by paths: a bus, and device and function of each bridge on the way.

use crate::{Kind, Requester};

/// Most units, I/O APICs and ranges that are kept.
pub const UNITS: usize = 16;
const IO_APICS: usize = 16;
const RANGES: usize = 32;
/// Longest path that is followed.
const BRIDGES: u64 = 16;
/// First part of either table.
const FIRST: u64 = 48;

/// A range of memory that firmware says a device needs as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reserved {
    /// First device.
    pub first: Requester,
    /// Last device.
    pub last: Requester,
    /// First byte.
    pub base: u64,
    /// First byte after it.
    pub end: u64,
    /// The device may read.
    pub read: bool,
    /// The device may write.
    pub write: bool,
}

impl Reserved {
    /// Its pages: first byte, and first after it; `None` if they make no sense.
    #[must_use]
    pub fn pages(&self) -> Option<(u64, u64)> {
        Some((self.base & !0xfff, self.end.checked_next_multiple_of(4096)?)).filter(|(start, end)| start < end)
    }
}

/// What firmware tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Whose units.
    pub kind: Kind,
    /// Interrupts may be remapped: firmware has no reasons against it.
    pub allows_interrupts: bool,
    /// Physical addresses of registers, and the unit's own PCI function (AMD-Vi).
    pub units: [Option<(u64, Requester)>; UNITS],
    /// I/O APICs: identity in the MADT, and who it is to the units.
    pub io_apics: [Option<(u8, Requester)>; IO_APICS],
    /// Memory that devices need.
    pub reserved: [Option<Reserved>; RANGES],
    /// There is more than could be kept, or units of other PCI segments: not all devices are held.
    pub incomplete: bool,
}

/// Bytes of a table, from whatever memory.
pub trait Bytes {
    /// The byte at an offset; `None` beyond the end.
    fn byte(&self, offset: u64) -> Option<u8>;
}

/// A part of a table. Offsets count from its start.
#[derive(Debug)]
struct Part<'a, B: ?Sized> {
    table: &'a B,
    start: u64,
    size: u64,
}

impl<'a, B: Bytes + ?Sized> Part<'a, B> {
    fn byte(&self, offset: u64) -> Option<u8> {
        if offset < self.size { self.table.byte(self.start + offset) } else { None }
    }

    fn short(&self, offset: u64) -> Option<u16> {
        Some(u16::from_le_bytes([self.byte(offset)?, self.byte(offset + 1)?]))
    }

    fn long(&self, offset: u64) -> Option<u64> {
        (0..8).rev().try_fold(0, |sum, index| Some(sum << 8 | u64::from(self.byte(offset + index)?)))
    }

    /// The parts from an offset on, as long as `length` says.
    fn parts(&self, first: u64, length: impl Fn(&Self) -> Option<u64>) -> impl Iterator<Item = Part<'a, B>> {
        let mut offset = first;
        core::iter::from_fn(move || {
            let rest = Part { table: self.table, start: self.start + offset, size: self.size.checked_sub(offset)? };
            let size = length(&rest).filter(|length| (4..=rest.size).contains(length))?;
            offset += size;
            Some(Part { size, ..rest })
        })
    }
}

impl Found {
    /// Nothing, so far.
    #[must_use]
    pub const fn none(kind: Kind) -> Self {
        Self {
            kind,
            allows_interrupts: false,
            units: [None; UNITS],
            io_apics: [None; IO_APICS],
            reserved: [None; RANGES],
            incomplete: false,
        }
    }

    /// Reads a table whose header and checksum are right. `below` answers the bus behind a bridge.
    pub fn read<B: Bytes + ?Sized>(kind: Kind, table: &B, size: u64, below: impl Fn(Requester) -> u8) -> Self {
        let table = Part { table, start: 0, size };
        let mut found = Self::none(kind);
        found.allows_interrupts = kind == Kind::Amd || table.byte(37).is_some_and(|flags| flags & 1 != 0);
        for part in table.parts(FIRST, |part| part.short(2).map(u64::from)) {
            // What is missing in a part ends the part.
            let _ = match (kind, part.byte(0), part.short(0)) {
                (Kind::Amd, Some(0x10), _) => found.amd_unit(&part, 24),
                (Kind::Amd, Some(0x11 | 0x40), _) => found.amd_unit(&part, 40),
                (Kind::Amd, Some(0x20..=0x22), _) => found.amd_memory(&part),
                (Kind::Intel, _, Some(0)) => found.intel_unit(&part, below_bridges(&below)),
                (Kind::Intel, _, Some(1)) => found.intel_memory(&part, below_bridges(&below)),
                _ => Some(()),
            };
        }
        found
    }

    fn unit(&mut self, base: u64, segment: u16, device: Requester) {
        let known = self.units.iter().flatten().any(|(known, _)| *known == base);
        if segment != 0 || !(known || put(&mut self.units, (base, device))) {
            self.incomplete = true;
        }
    }

    fn io_apic(&mut self, id: u8, device: Requester) {
        self.incomplete |= !put(&mut self.io_apics, (id, device));
    }

    fn amd_unit<B: Bytes + ?Sized>(&mut self, part: &Part<'_, B>, header: u64) -> Option<()> {
        part.byte(header - 1)?;
        self.unit(part.long(8)?, part.short(16)?, Requester(part.short(4)?));
        let length = |entry: &Part<'_, B>| {
            Some(match entry.byte(0)? {
                0..0x40 => 4,
                0x40..0x80 => 8,
                0x80..0xc0 => 16,
                // ACPI device by name: its last field has a length of its own.
                0xf0 => 22 + u64::from(entry.byte(21)?),
                _ => 32,
            })
        };
        for entry in part.parts(header, length) {
            // Special device, of the variety I/O APIC.
            if entry.byte(0) == Some(0x48) && entry.byte(7) == Some(1) {
                self.io_apic(entry.byte(4)?, Requester(entry.short(5)?));
            }
        }
        Some(())
    }

    fn amd_memory<B: Bytes + ?Sized>(&mut self, part: &Part<'_, B>) -> Option<()> {
        let flags = part.byte(1)?;
        let device = Requester(part.short(4)?);
        let (first, last) = match part.byte(0)? {
            0x20 => (Requester(0), Requester(u16::MAX)),
            0x21 => (device, device),
            _ => (device, Requester(part.short(6)?)),
        };
        let (base, size) = (part.long(16)?, part.long(24)?);
        // An exclusion range (bit 3) is one that units need not translate, which here is the same as one that is mapped as it is.
        let [read, write] = [2, 4].map(|right| flags & (8 | right) != 0);
        self.memory(Reserved { first, last, base, end: base.checked_add(size)?, read, write });
        Some(())
    }

    fn intel_unit<B: Bytes + ?Sized>(
        &mut self,
        part: &Part<'_, B>,
        device: impl Fn(&Part<'_, B>) -> Option<Requester>,
    ) -> Option<()> {
        self.unit(part.long(8)?, part.short(6)?, Requester(u16::MAX));
        for scope in part.parts(16, scope_length) {
            if scope.byte(0)? == 3 {
                self.io_apic(scope.byte(4)?, device(&scope)?);
            }
        }
        Some(())
    }

    fn intel_memory<B: Bytes + ?Sized>(
        &mut self,
        part: &Part<'_, B>,
        device: impl Fn(&Part<'_, B>) -> Option<Requester>,
    ) -> Option<()> {
        if part.short(6)? != 0 {
            return None;
        }
        let (base, last) = (part.long(8)?, part.long(16)?);
        let end = last.checked_add(1).filter(|end| *end > base)?;
        for scope in part.parts(24, scope_length) {
            let device = device(&scope)?;
            self.memory(Reserved { first: device, last: device, base, end, read: true, write: true });
        }
        Some(())
    }

    fn memory(&mut self, range: Reserved) {
        self.incomplete |= !put(&mut self.reserved, range);
    }
}

/// Length of a device scope (VT-d 8.3.1), which has one step of a path at least.
fn scope_length<B: Bytes + ?Sized>(scope: &Part<'_, B>) -> Option<u64> {
    scope.byte(1).map(u64::from).filter(|length| *length >= 8)
}

/// The device that a scope's path leads to.
fn below_bridges<B: Bytes + ?Sized>(below: &impl Fn(Requester) -> u8) -> impl Fn(&Part<'_, B>) -> Option<Requester> {
    move |scope| {
        let step = |bus, step: u64| Some(Requester::new(bus, scope.byte(6 + 2 * step)?, scope.byte(7 + 2 * step)?));
        let last = ((scope.size - 6) / 2).min(BRIDGES) - 1;
        let bus = (0..last).try_fold(scope.byte(5)?, |bus, at| Some(below(step(bus, at)?)))?;
        step(bus, last)
    }
}

/// Adds what is not there. Answers whether it is there now.
fn put<T: PartialEq>(list: &mut [Option<T>], item: T) -> bool {
    let place = list.iter_mut().find(|place| place.as_ref().is_none_or(|known| *known == item));
    place.map(|place| *place = Some(item)).is_some()
}
