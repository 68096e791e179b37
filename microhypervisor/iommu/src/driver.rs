// SPDX-License-Identifier: MIT OR Apache-2.0
//! The driver of all units of a machine: what each device may reach, what units forget, what they refused.
//!
//! All units share one set of tables, in memory that is set aside at boot, so that assigning a device allocates nothing. From the start every device is
//! blocked, but for memory that firmware says it needs ([`Reserved`]), until it is assigned to a DMA space. The space's page tables are its owner's.
//!
//! A *domain* is the number under which units cache translations of one page table. A space has one while it has devices: numbers are few, and
//! only who may assign devices uses them up.
//!
//! Whoever makes units forget something waits until all have done it. Nothing here locks: the owner does.

use crate::firmware::{Found, Reserved, UNITS};
use crate::intel::Abilities;
use crate::unit::Unit;
use crate::{Fault, Kind, Requester, amd, intel};
use cloister_abi::status::Status;
use core::sync::atomic::{AtomicU16, Ordering::Relaxed};

/// Most devices that are in a space at the same time.
const DEVICES: usize = 256;
/// Domain of devices that reach nothing, and of those that reach what firmware wants.
pub const BLOCKED: u16 = 0;
const FIRMWARE: u16 = 1;

/// Registers and memory by physical address, and how to wait.
pub trait Bus {
    /// Reads 64 bits.
    fn read(&self, address: u64) -> u64;
    /// Writes 64 bits.
    fn write(&self, address: u64, value: u64);
    /// Reads 32 bits.
    fn read32(&self, address: u64) -> u32;
    /// Writes 32 bits.
    fn write32(&self, address: u64, value: u32);
    /// A zeroed frame that is kept for ever, by its physical address.
    ///
    /// # Errors
    /// There is no memory.
    fn kept_frame(&self) -> Result<u64, &'static str>;
    /// Waits until a unit has done something, which takes it microseconds; one that does not is broken, and nothing that it was to protect is safe.
    fn wait(&self, what: &str, done: impl FnMut() -> bool);
    /// Lets everything that was written reach memory, for units that do not snoop the processors' caches.
    fn write_back(&self);
}

/// What the driver is told at its start.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// Physical address of [`memory`] zeroed bytes.
    pub tables: u64,
    /// Interrupts are to go through tables.
    pub remaps: bool,
    /// Local APICs have identities of 32 bits.
    pub x2apic: bool,
    /// Local APIC and vector of the units' own interrupt (VT-d; that of AMD-Vi is programmed as that of a PCI function).
    pub interrupt: (u32, u8),
    /// A unit caches that nothing is mapped (AMD-Vi, where it is said elsewhere).
    pub caches_absence: bool,
}

/// What units are to forget.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Forget {
    /// The entry of a device, which was in that domain.
    Device(Requester, u16),
    /// All translations of a domain.
    Domain(u16),
    /// Those of an aligned range of 2^order pages of a domain, at that address.
    Range(u16, u64, u32),
    /// An interrupt of a device, by its index.
    Interrupt(Requester, u16),
}

/// All units, and the tables that they share.
#[derive(Debug)]
pub struct Iommu<B> {
    pub(crate) bus: B,
    pub(crate) kind: Kind,
    units: [Option<Unit>; UNITS],
    pub(crate) tables: u64,
    /// Interrupts go through tables.
    pub remaps: bool,
    /// Entries of interrupt tables have destinations of 32 bits.
    pub(crate) wide: bool,
    /// Interrupt tables that are in use (AMD-Vi).
    pub(crate) used: u64,
    coherent: bool,
    /// Levels of page tables.
    pub levels: u32,
    /// Largest pages: 0 for 4 KiB, 1 for 2 MiB, 2 for 1 GiB.
    pub large: u8,
    /// Also what was mapped must be told to the units.
    pub flush_mapped: bool,
    /// Devices that are in a space, with its domain.
    devices: [Option<(Requester, u16)>; DEVICES],
    /// Domains in use, one bit each.
    domains: [u64; 4],
    found: Found,
    /// Root of the page table of what firmware wants.
    firmware: Option<u64>,
}

/// Bytes of contiguous memory that the tables take: device table and interrupt tables of the widest kind; or root table, a context table for each
/// bus, and the interrupt remapping table.
#[must_use]
pub const fn memory(kind: Kind) -> u64 {
    use crate::interrupts::{OF_ALL, OF_DEVICE, TABLES};
    match kind {
        Kind::Amd => amd::DEVICE_TABLE + TABLES * OF_DEVICE * 16,
        Kind::Intel => (257 * intel::TABLE + OF_ALL * intel::ENTRY).next_multiple_of(4096),
    }
}

/// Pages of registers of a unit that are used. The registers can be read already.
pub fn register_pages(bus: &impl Bus, kind: Kind, base: u64) -> u64 {
    if kind == Kind::Amd {
        return amd::register::PAGES;
    }
    let (first, count) = abilities(bus, base).faults();
    (first + count * 16).div_ceil(4096).max(1)
}

fn abilities(bus: &impl Bus, base: u64) -> Abilities {
    Abilities(bus.read(base + intel::register::CAPABILITY), bus.read(base + intel::register::EXTENDED))
}

impl<B: Bus> Iommu<B> {
    /// Lets all units block everything.
    ///
    /// # Errors
    /// What is missing.
    pub fn start(bus: B, found: &Found, setup: Setup) -> Result<Self, &'static str> {
        let mut this = Self {
            bus,
            kind: found.kind,
            units: [const { None }; UNITS],
            tables: setup.tables,
            remaps: setup.remaps,
            wide: setup.x2apic,
            used: 0,
            coherent: true,
            levels: 4,
            large: 2,
            flush_mapped: setup.caches_absence,
            devices: [None; DEVICES],
            domains: [1 << BLOCKED | 1 << FIRMWARE, 0, 0, 0],
            found: *found,
            firmware: None,
        };
        match found.kind {
            Kind::Amd => this.start_amd()?,
            Kind::Intel => this.start_intel(setup)?,
        }
        Ok(this)
    }

    fn bases(&self) -> impl Iterator<Item = (u64, Requester)> + use<B> {
        self.found.units.into_iter().flatten()
    }

    fn start_amd(&mut self) -> Result<(), &'static str> {
        let features = self.bases().map(|(base, _)| self.bus.read(base + amd::register::FEATURES));
        let all = features.fold(u64::MAX, |all, one| all & one);
        self.wide = all & amd::HAS_WIDE == amd::HAS_WIDE;
        let interrupts = if self.remaps { amd::interrupts(None) } else { 0 };
        for id in 0..=u16::MAX {
            // What a unit says of itself is not remapped.
            let own = self.bases().any(|(_, unit)| unit.0 == id);
            self.bus.write(self.entry(Requester(id)) + amd::INTERRUPTS, if own { 0 } else { interrupts });
            self.bus.write(self.entry(Requester(id)), amd::translation(None));
        }
        for (place, (base, _)) in self.bases().enumerate() {
            self.units[place] = Some(Unit::start_amd(&self.bus, base, self.tables, self.wide)?);
        }
        if all & amd::HAS_INVALIDATE_ALL != 0 {
            self.submit(&[amd::EVERYTHING]);
            return Ok(());
        }
        for id in (0..=u16::MAX).map(Requester) {
            self.forget(&[Forget::Device(id, BLOCKED), Forget::Interrupt(id, 0)]);
        }
        self.forget(&[Forget::Domain(BLOCKED)]);
        Ok(())
    }

    fn start_intel(&mut self, setup: Setup) -> Result<(), &'static str> {
        let all = |has: &dyn Fn(Abilities) -> bool| self.bases().all(|(base, _)| has(abilities(&self.bus, base)));
        // Bits of what units can do: a queue; remapped interrupts, to APICs of 32-bit identities; tables of so many levels.
        if !all(&|it| it.has_further(1)) {
            return Err("a VT-d unit has no invalidation queue");
        }
        let levels = [4, 3].into_iter().find(|levels| all(&|it| it.has(8 + levels - 2)));
        let large = (0..3).rev().find(|large| all(&|it| it.large() >= *large)).unwrap_or(0);
        let coherent = all(&|it| it.has_further(0));
        let remaps = self.remaps && all(&|it| it.has_further(3)) && (!self.wide || all(&|it| it.has_further(4)));
        let flush_mapped = !all(&|it| !it.wants_news());
        let domains = self.bases().map(|(base, _)| abilities(&self.bus, base).domains()).min().unwrap_or(0);
        self.levels = levels.ok_or("VT-d units do not agree on a page-table format")?;
        (self.large, self.coherent, self.remaps, self.flush_mapped) = (large, coherent, remaps, flush_mapped);
        for (word, bits) in (0u32..).zip(&mut self.domains) {
            *bits |= u64::MAX.checked_shl(domains.saturating_sub(word * 64)).unwrap_or(0);
        }
        for bus in 0..256 {
            let contexts = self.tables + (1 + bus) * intel::TABLE;
            self.bus.write(self.tables + bus * intel::ENTRY, contexts | intel::PRESENT);
        }
        for (place, (base, _)) in self.bases().enumerate() {
            let abilities = abilities(&self.bus, base);
            self.units[place] = Some(Unit::start_intel(&self.bus, base, abilities, setup.interrupt)?);
        }
        self.switch_on();
        Ok(())
    }

    /// Gives the tables to VT-d units that are ready for it, and lets them translate.
    fn switch_on(&mut self) {
        let (root, interrupts) = (self.tables, self.interrupt_register());
        self.each_unit(|unit, bus| {
            bus.write(unit.base + intel::register::ROOT, root);
            unit.switch(bus, intel::SET_ROOT, true);
            bus.write(unit.base + intel::register::INTERRUPT_TABLE, interrupts);
        });
        if self.remaps {
            self.each_unit(|unit, bus| unit.switch(bus, intel::SET_INTERRUPT_TABLE, true));
        }
        self.submit(&intel::EVERYTHING);
        let remap = self.remaps;
        self.each_unit(|unit, bus| {
            if remap {
                unit.switch(bus, intel::REMAP, true);
            }
            unit.switch(bus, intel::TRANSLATE, true);
            unit.unprotect(bus);
        });
    }

    fn each_unit(&mut self, mut what: impl FnMut(&mut Unit, &B)) {
        self.units.iter_mut().flatten().for_each(|unit| what(unit, &self.bus));
    }

    /// Gives records to all units and waits until they are done.
    fn submit(&mut self, records: &[[u64; 2]]) {
        self.give(records.iter().copied(), |record, _| record);
    }

    /// Makes all units forget.
    pub(crate) fn forget(&mut self, what: &[Forget]) {
        match self.kind {
            Kind::Amd => self.give(what.iter().copied(), |what, _| amd::command(what)),
            Kind::Intel => self.give(what.iter().copied(), intel::descriptor),
        }
    }

    /// Gives units what `record` makes of some items, fewer than a ring has room for, and waits until it is done.
    fn give<T>(&mut self, items: impl Iterator<Item = T> + Clone, record: impl Fn(T, Abilities) -> [u64; 2]) {
        let (bus, kind) = (&self.bus, self.kind);
        if !self.coherent {
            bus.write_back();
        }
        for unit in self.units.iter_mut().flatten() {
            unit.flush_buffer(bus);
            for item in items.clone() {
                unit.push(bus, record(item, unit.abilities));
            }
            unit.finish(bus, kind);
        }
    }

    // ---- devices

    /// Address of a device's entry.
    pub(crate) fn entry(&self, device: Requester) -> u64 {
        match self.kind {
            Kind::Amd => self.tables + u64::from(device.0) * amd::ENTRY,
            Kind::Intel => self.tables + intel::TABLE + u64::from(device.0) * intel::ENTRY,
        }
    }

    fn translation(&self, table: Option<u64>) -> u64 {
        match self.kind {
            Kind::Amd => amd::translation(table),
            Kind::Intel => intel::translation(table),
        }
    }

    /// Puts a device under a page table and domain, or under none; `old` is the domain that it was in.
    fn set(&mut self, device: Requester, (table, domain): (Option<u64>, u16), old: u16) {
        let entry = self.entry(device);
        // Blocked first, so that no access meets the table of one domain under the number of another.
        self.bus.write(entry, self.translation(None));
        self.forget(&[Forget::Device(device, old), Forget::Domain(old)]);
        let second = match self.kind {
            Kind::Amd => domain.into(),
            Kind::Intel => intel::domain(domain, self.levels),
        };
        self.bus.write(entry + 8, second);
        self.bus.write(entry, self.translation(table));
        // Of an entry that is not present nothing is cached, but where absence is: under domain 0.
        self.forget(&[Forget::Device(device, BLOCKED), Forget::Domain(domain)]);
    }

    /// Whether a device is the machine's own: an I/O APIC, or a unit.
    #[must_use]
    pub fn is_own(&self, device: Requester) -> bool {
        self.bases().any(|(_, id)| self.kind == Kind::Amd && id == device)
            || self.found.io_apics.iter().flatten().any(|(_, id)| *id == device)
    }

    /// Who an I/O APIC is, by its identity in the MADT.
    #[must_use]
    pub fn io_apic(&self, id: u8) -> Option<Requester> {
        self.found.io_apics.iter().flatten().find(|(known, _)| *known == id).map(|(_, device)| *device)
    }

    /// Puts a device into the space with that page table and domain, which gets one if it has none.
    ///
    /// # Errors
    /// `BadDevice`: the device is part of the machine's own. `Busy`: it is in a space. `OutOfMemory`: there are too many devices or spaces with
    /// devices.
    pub fn assign(&mut self, device: Requester, root: u64, domain: &AtomicU16) -> Result<(), Status> {
        if self.is_own(device) {
            return Err(Status::BadDevice);
        }
        if self.devices.iter().flatten().any(|(other, _)| *other == device) {
            return Err(Status::Busy);
        }
        let place = self.devices.iter().position(Option::is_none).ok_or(Status::OutOfMemory)?;
        let number = match domain.load(Relaxed) {
            BLOCKED => self.new_domain().ok_or(Status::OutOfMemory)?,
            number => number,
        };
        // Before the device can reach anything: who changes the space from now on makes units forget.
        domain.store(number, Relaxed);
        self.devices[place] = Some((device, number));
        let old = self.home(device).1;
        self.set(device, (Some(root), number), old);
        Ok(())
    }

    /// Takes a device out of the space with that domain. It reaches none of it any more when this returns.
    ///
    /// # Errors
    /// `BadDevice`: it is not in the space.
    pub fn remove(&mut self, device: Requester, domain: &AtomicU16) -> Result<(), Status> {
        let own = Some((device, domain.load(Relaxed)));
        let place = self.devices.iter().position(|it| *it == own).ok_or(Status::BadDevice)?;
        self.take_out(place);
        self.leave(domain);
        Ok(())
    }

    /// Takes all devices out of a space that goes.
    pub fn remove_all(&mut self, domain: &AtomicU16) {
        let number = domain.load(Relaxed);
        for place in 0..DEVICES {
            if number != BLOCKED && self.devices[place].is_some_and(|(_, of)| of == number) {
                self.take_out(place);
            }
        }
        self.leave(domain);
    }

    fn take_out(&mut self, place: usize) {
        if let Some((device, domain)) = self.devices[place].take() {
            self.set(device, self.home(device), domain);
        }
    }

    fn new_domain(&mut self) -> Option<u16> {
        let (word, bits) = (0u16..).zip(&mut self.domains).find(|(_, bits)| **bits != u64::MAX)?;
        let bit = bits.trailing_ones();
        *bits |= 1 << bit;
        u16::try_from(u32::from(word) * 64 + bit).ok()
    }

    /// Gives back the domain of a space that has no devices any more.
    fn leave(&mut self, domain: &AtomicU16) {
        let number = domain.load(Relaxed);
        if number != BLOCKED && !self.devices.iter().flatten().any(|(_, of)| *of == number) {
            domain.store(BLOCKED, Relaxed);
            self.domains[usize::from(number / 64)] &= !(1 << (number % 64));
        }
    }

    /// Lets units forget translations of an aligned range of 2^order pages of a domain, or all of them.
    pub fn flush(&mut self, domain: u16, range: Option<(u64, u32)>) {
        self.forget(&[match range {
            Some((address, order)) => Forget::Range(domain, address, order),
            None => Forget::Domain(domain),
        }]);
    }

    // ---- what firmware wants

    /// Gives devices what firmware says they need, as long as they are in no space: `map` puts a range into the page table with that root, as it is,
    /// or refuses it.
    pub fn reserve(&mut self, root: u64, mut map: impl FnMut(&Reserved) -> bool) {
        for range in &mut self.found.reserved {
            *range = range.filter(|range| map(range));
        }
        self.firmware = Some(root);
        for range in self.found.reserved.into_iter().flatten() {
            for id in range.first.0..=range.last.0 {
                let old = self.home(Requester(id));
                self.set(Requester(id), old, BLOCKED);
            }
        }
    }

    /// Where a device is that is in no space.
    fn home(&self, device: Requester) -> (Option<u64>, u16) {
        let needs = |range: &Reserved| (range.first..=range.last).contains(&device);
        match self.firmware {
            Some(root) if self.found.reserved.iter().flatten().any(needs) => (Some(root), FIRMWARE),
            _ => (None, BLOCKED),
        }
    }

    // ---- faults

    /// Tells what units refused; a device of which `each` has heard enough is told of no more until it is put somewhere else, at no cost to
    /// anybody. Answers whether units lost some for want of room.
    pub fn faults(&mut self, mut each: impl FnMut(Fault) -> bool) -> bool {
        let mut lost = false;
        for place in 0..UNITS {
            while let Some(fault) =
                self.units[place].as_mut().and_then(|unit| unit.fault(&self.bus, self.kind, &mut lost))
            {
                if each(fault) {
                    self.silence(fault.device);
                }
            }
        }
        lost
    }

    fn silence(&mut self, device: Requester) {
        let entry = self.entry(device);
        let (place, bit) = match self.kind {
            Kind::Amd => (entry + 8, amd::SILENT),
            Kind::Intel => (entry, intel::SILENT),
        };
        self.bus.write(place, self.bus.read(place) | bit);
        let own = self.devices.iter().flatten().find(|(it, _)| *it == device).map(|(_, domain)| *domain);
        self.forget(&[Forget::Device(device, own.unwrap_or_else(|| self.home(device).1))]);
    }
}
