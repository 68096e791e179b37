// SPDX-License-Identifier: MIT OR Apache-2.0
//! The firmware's tables: IVRS of AMD-Vi (48882, 5.2) and DMAR of VT-d (VT-d, chapter 8).
//!
//! Both are a header and then parts, each with its length: a part for each unit (several, of different age, for the same unit in an IVRS), which has
//! I/O APICs among its own parts, and one for each range of memory that devices need as it is (IVMD, RMRR). A part is read within its own bounds;
//! what is missing in it ends it, and one that is longer than what it is in ends that.
//!
//! A DMAR names devices by paths: a bus, and device and function of each bridge on the way.

use crate::{Kind, Requester};
use cloister_boot_info::Part;

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
    /// Local APICs are to stay without x2APIC mode: firmware has reasons against that (VT-d 8.1).
    pub refuses_x2apic: bool,
    /// Physical addresses of registers, and the unit's own PCI function (AMD-Vi).
    pub units: [Option<(u64, Requester)>; UNITS],
    /// I/O APICs: identity in the MADT, and who it is to the units.
    pub io_apics: [Option<(u8, Requester)>; IO_APICS],
    /// Memory that devices need.
    pub reserved: [Option<Reserved>; RANGES],
    /// There is more than could be kept, or units of other PCI segments: not all devices are held.
    pub incomplete: bool,
}

/// The parts of a table or part from an offset on, each as long as `length` says.
fn parts<'a>(whole: Part<'a>, first: u64, length: impl Fn(Part<'a>) -> Option<u64>) -> impl Iterator<Item = Part<'a>> {
    let mut offset = first;
    core::iter::from_fn(move || {
        let rest = whole.part(offset, whole.size.checked_sub(offset)?)?;
        let size = length(rest).filter(|length| *length >= 4)?;
        offset += size;
        rest.part(0, size)
    })
}

fn requester(part: Part<'_>, offset: u64) -> Option<Requester> {
    Some(Requester(u16::from_le_bytes([part.u8(offset)?, part.u8(offset + 1)?])))
}

impl Found {
    /// Nothing, so far.
    #[must_use]
    pub const fn none(kind: Kind) -> Self {
        Self {
            kind,
            allows_interrupts: false,
            refuses_x2apic: false,
            units: [None; UNITS],
            io_apics: [None; IO_APICS],
            reserved: [None; RANGES],
            incomplete: false,
        }
    }

    /// Reads a table whose header and checksum are right. `below` answers the bus behind a bridge.
    pub fn read(&mut self, kind: Kind, table: Part<'_>, below: &dyn Fn(Requester) -> u8) {
        let flags = table.u8(37).filter(|_| kind == Kind::Intel);
        self.kind = kind;
        self.allows_interrupts = kind == Kind::Amd || flags.is_some_and(|flags| flags & 1 != 0);
        // Only a platform that remaps interrupts has a say.
        self.refuses_x2apic = flags.is_some_and(|flags| flags & 3 == 3);
        for part in parts(table, FIRST, |part| part.number(2, 2)) {
            // What is missing in a part ends the part.
            let _ = match (kind, part.u8(0), part.number(0, 2)) {
                (Kind::Amd, Some(0x10), _) => self.amd_unit(part, 24),
                (Kind::Amd, Some(0x11 | 0x40), _) => self.amd_unit(part, 40),
                (Kind::Amd, Some(0x20..=0x22), _) => self.amd_memory(part),
                (Kind::Intel, _, Some(0)) => self.intel_unit(part, below),
                (Kind::Intel, _, Some(1)) => self.intel_memory(part, below),
                _ => Some(()),
            };
        }
    }

    fn unit(&mut self, base: u64, segment: u64, device: Requester) {
        let known = self.units.iter().flatten().any(|(known, _)| *known == base);
        self.incomplete |= segment != 0 || !(known || put(&mut self.units, (base, device)));
    }

    fn io_apic(&mut self, id: u8, device: Requester) {
        self.incomplete |= !put(&mut self.io_apics, (id, device));
    }

    fn memory(&mut self, range: Reserved) {
        self.incomplete |= !put(&mut self.reserved, range);
    }

    fn amd_unit(&mut self, part: Part<'_>, header: u64) -> Option<()> {
        part.u8(header - 1)?;
        self.unit(part.number(8, 8)?, part.number(16, 2)?, requester(part, 4)?);
        let length = |entry: Part<'_>| {
            Some(match entry.u8(0)? {
                0..0x40 => 4,
                0x40..0x80 => 8,
                0x80..0xc0 => 16,
                // ACPI device by name: its last field has a length of its own.
                0xf0 => 22 + u64::from(entry.u8(21)?),
                _ => 32,
            })
        };
        for entry in parts(part, header, length) {
            // Special device, of the variety I/O APIC.
            if entry.u8(0) == Some(0x48) && entry.u8(7) == Some(1) {
                self.io_apic(entry.u8(4)?, requester(entry, 5)?);
            }
        }
        Some(())
    }

    fn amd_memory(&mut self, part: Part<'_>) -> Option<()> {
        let flags = part.u8(1)?;
        let device = requester(part, 4)?;
        let (first, last) = match part.u8(0)? {
            0x20 => (Requester(0), Requester(u16::MAX)),
            0x21 => (device, device),
            _ => (device, requester(part, 6)?),
        };
        let (base, size) = (part.number(16, 8)?, part.number(24, 8)?);
        // An exclusion range (bit 3) is one that units need not translate, which here is the same as one that is mapped as it is.
        let [read, write] = [2, 4].map(|right| flags & (8 | right) != 0);
        self.memory(Reserved { first, last, base, end: base.checked_add(size)?, read, write });
        Some(())
    }

    fn intel_unit(&mut self, part: Part<'_>, below: &dyn Fn(Requester) -> u8) -> Option<()> {
        self.unit(part.number(8, 8)?, part.number(6, 2)?, Requester(u16::MAX));
        for scope in parts(part, 16, scope_length) {
            if scope.u8(0)? == 3 {
                self.io_apic(scope.u8(4)?, device(scope, below)?);
            }
        }
        Some(())
    }

    fn intel_memory(&mut self, part: Part<'_>, below: &dyn Fn(Requester) -> u8) -> Option<()> {
        let (base, last) = (part.number(8, 8)?, part.number(16, 8)?);
        let end = last.checked_add(1).filter(|end| *end > base && part.number(6, 2) == Some(0))?;
        for scope in parts(part, 24, scope_length) {
            let device = device(scope, below)?;
            self.memory(Reserved { first: device, last: device, base, end, read: true, write: true });
        }
        Some(())
    }
}

/// Length of a device scope (VT-d 8.3.1), which has one step of a path at least.
fn scope_length(scope: Part<'_>) -> Option<u64> {
    scope.u8(1).map(u64::from).filter(|length| *length >= 8)
}

/// The device that a scope's path leads to.
fn device(scope: Part<'_>, below: &dyn Fn(Requester) -> u8) -> Option<Requester> {
    let step = |bus, step: u64| Some(Requester::new(bus, scope.u8(6 + 2 * step)?, scope.u8(7 + 2 * step)?));
    let last = ((scope.size - 6) / 2).min(BRIDGES) - 1;
    let bus = (0..last).try_fold(scope.u8(5)?, |bus, at| Some(below(step(bus, at)?)))?;
    step(bus, last)
}

/// Adds what is not there. Answers whether it is there now.
fn put<T: PartialEq>(list: &mut [Option<T>], item: T) -> bool {
    let place = list.iter_mut().find(|place| place.as_ref().is_none_or(|known| *known == item));
    place.map(|place| *place = Some(item)).is_some()
}
