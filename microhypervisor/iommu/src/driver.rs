// SPDX-License-Identifier: MIT OR Apache-2.0
//! The driver of all units of a machine: what each device may reach, what units forget, what they refused.
//!
//! All units share one set of tables, in memory that is set aside at boot, so that assigning a device allocates nothing. From the start every device is
//! blocked, but for memory that firmware says it needs ([`Reserved`]), until it is assigned to a DMA space. The space's page tables are its owner's.
//!
//! A *domain* is the number under which units cache translations of one page table. A space has one while it has devices: numbers are few, and
//! only who may assign devices uses them up.
//!
//! Whoever makes units forget something waits until all have done it. Nothing here locks: the owner does. Here is how units start and forget; what
//! devices get is [`crate::devices`].

use crate::firmware::{Found, UNITS};
use crate::intel::Abilities;
use crate::interrupts::{OF_ALL, OF_DEVICE, TABLES};
use crate::unit::{self, Unit};
use crate::{Kind, Requester, amd, intel};

/// Most devices that are in a space at the same time.
pub(crate) const DEVICES: usize = 256;
/// Most domains.
pub(crate) const DOMAINS: u16 = 256;
/// Domain of devices that reach nothing, and of those that reach what firmware wants.
pub const BLOCKED: u16 = 0;
pub(crate) const FIRMWARE: u16 = 1;

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
    /// Waits until a unit has done something, which takes it microseconds; one that does not is broken, and nothing that it was to protect is safe.
    fn wait(&self, what: &str, done: impl FnMut() -> bool);
    /// Lets everything that was written reach memory, for units that do not snoop the processors' caches.
    fn write_back(&self);
}

/// What the driver is told at its start.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// Interrupts are to go through tables, if firmware allows it.
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
    /// All entries of devices; all translations; all interrupts. AMD-Vi knows only all of that.
    Devices,
    /// See [`Forget::Devices`].
    Translations,
    /// See [`Forget::Devices`].
    Interrupts,
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
    /// What firmware tells.
    pub found: Found,
    pub(crate) units: [Option<Unit>; UNITS],
    /// Physical address of [`Iommu::memory`] bytes, zeroed before the start.
    pub tables: u64,
    /// Interrupts go through tables.
    pub remaps: bool,
    /// Entries of interrupt tables have destinations of 32 bits.
    pub(crate) wide: bool,
    /// Interrupt tables that are in use (AMD-Vi).
    pub(crate) used: u64,
    /// Units find in the processors' caches what was not written back.
    pub coherent: bool,
    /// Levels of page tables.
    pub levels: u32,
    /// Largest pages: 0 for 4 KiB, 1 for 2 MiB, 2 for 1 GiB.
    pub large: u8,
    /// Also what was mapped must be told to the units.
    pub flush_mapped: bool,
    /// Devices that are in a space, with its domain.
    pub(crate) devices: [Option<(Requester, u16)>; DEVICES],
    /// Number of domains.
    pub(crate) domains: u16,
    /// Root of the page table of what firmware wants.
    pub(crate) firmware: Option<u64>,
}

impl<B> Iommu<B> {
    /// One that has no units, unless firmware tells of some.
    pub const fn new(bus: B) -> Self {
        Self {
            bus,
            found: Found::none(Kind::Amd),
            units: [const { None }; UNITS],
            tables: 0,
            remaps: false,
            wide: false,
            used: 0,
            coherent: true,
            levels: 4,
            large: 2,
            flush_mapped: false,
            devices: [None; DEVICES],
            domains: DOMAINS,
            firmware: None,
        }
    }

    /// Bytes of memory, contiguous, that the tables take: device table and interrupt tables of the widest kind, or root table, a context table for each
    /// bus, and the interrupt remapping table; then that of each unit. None without units.
    #[must_use]
    pub fn memory(&self) -> u64 {
        match self.found.units.iter().flatten().count() as u64 {
            0 => 0,
            units => self.shared() + units * unit::MEMORY,
        }
    }

    const fn shared(&self) -> u64 {
        match self.found.kind {
            Kind::Amd => amd::DEVICE_TABLE + TABLES * OF_DEVICE * 16,
            Kind::Intel => (257 * intel::TABLE + OF_ALL * intel::ENTRY).next_multiple_of(4096),
        }
    }

    /// Each unit's registers, own PCI function, and memory.
    pub(crate) fn bases(&self) -> impl Iterator<Item = (u64, Requester, u64)> + use<B> {
        let memory = self.tables + self.shared();
        let units = self.found.units.into_iter().flatten().zip(0..);
        units.map(move |((base, id), number)| (base, id, memory + number * unit::MEMORY))
    }
}

impl<B: Bus> Iommu<B> {
    /// Pages of registers of the units that are used. The registers can be read already.
    pub fn register_pages(&self) -> impl Iterator<Item = u64> {
        self.bases().flat_map(|(base, ..)| {
            let (first, count) = self.abilities(base).faults();
            let pages = match self.found.kind {
                Kind::Amd => amd::register::PAGES,
                Kind::Intel => (first + count * 16).div_ceil(4096).max(1),
            };
            (0..pages).map(move |page| base + page * 4096)
        })
    }

    fn abilities(&self, base: u64) -> Abilities {
        Abilities(self.bus.read(base + intel::register::CAPABILITY), self.bus.read(base + intel::register::EXTENDED))
    }

    /// Lets all units block everything.
    ///
    /// # Errors
    /// What is missing; the units are as they were.
    pub fn start(&mut self, setup: Setup) -> Result<(), &'static str> {
        (self.wide, self.flush_mapped) = (setup.x2apic, setup.caches_absence);
        self.remaps = setup.remaps && self.found.allows_interrupts;
        let started = match self.found.kind {
            Kind::Amd => self.start_amd(),
            Kind::Intel => self.start_intel(setup.interrupt),
        };
        self.remaps &= started.is_ok();
        started
    }

    fn start_amd(&mut self) -> Result<(), &'static str> {
        let features = self.bases().map(|(base, ..)| self.bus.read(base + amd::register::FEATURES));
        let all = features.fold(u64::MAX, |all, one| all & one);
        self.wide = all & amd::HAS_WIDE == amd::HAS_WIDE;
        // It is younger than what processors must have here.
        if all & amd::HAS_INVALIDATE_ALL == 0 {
            return Err("an AMD-Vi unit cannot be told to forget everything");
        }
        let interrupts = if self.remaps { amd::interrupts(None) } else { 0 };
        for id in (0..=u16::MAX).map(Requester) {
            // What a unit says of itself is not remapped.
            let own = self.bases().any(|(_, unit, _)| unit == id);
            self.bus.write(self.entry(id) + amd::INTERRUPTS, if own { 0 } else { interrupts });
            self.bus.write(self.entry(id), amd::translation(None));
        }
        for (place, (base, _, memory)) in self.bases().enumerate() {
            self.units[place] = Some(Unit::start_amd(&self.bus, base, memory, self.tables, self.wide));
        }
        self.forget(&[Forget::Devices]);
        Ok(())
    }

    fn start_intel(&mut self, interrupt: (u32, u8)) -> Result<(), &'static str> {
        let each = || self.bases().map(|(base, ..)| self.abilities(base));
        let all = each().fold(Abilities(u64::MAX, u64::MAX), |all, one| Abilities(all.0 & one.0, all.1 & one.1));
        // Bits of what units can do: a queue; remapped interrupts, to APICs of 32-bit identities; tables of so many levels.
        if !all.has_further(1) {
            return Err("a VT-d unit has no invalidation queue");
        }
        let levels = [4, 3].into_iter().find(|levels| all.has(8 + levels - 2));
        let flush_mapped = each().any(Abilities::wants_news);
        let domains = each().map(Abilities::domains).min().unwrap_or(0);
        self.levels = levels.ok_or("VT-d units do not agree on a page-table format")?;
        self.domains = u16::try_from(domains).unwrap_or(DOMAINS).min(DOMAINS);
        (self.large, self.coherent, self.flush_mapped) = (all.large(), all.has_further(0), flush_mapped);
        self.remaps &= all.has_further(3) && (!self.wide || all.has_further(4));
        for bus in 0..256 {
            let contexts = self.tables + (1 + bus) * intel::TABLE;
            self.bus.write(self.tables + bus * intel::ENTRY, contexts | intel::PRESENT);
        }
        for (place, (base, _, memory)) in self.bases().enumerate() {
            let abilities = self.abilities(base);
            self.units[place] = Some(Unit::start_intel(&self.bus, base, memory, abilities, interrupt));
        }
        let (root, interrupts, remaps) = (self.tables, self.interrupt_register(), self.remaps);
        self.each_unit(|unit, bus| {
            bus.write(unit.base + intel::register::ROOT, root);
            unit.switch(bus, intel::SET_ROOT, true);
            bus.write(unit.base + intel::register::INTERRUPT_TABLE, interrupts);
            if remaps {
                unit.switch(bus, intel::SET_INTERRUPT_TABLE, true);
            }
        });
        self.forget(&[Forget::Devices, Forget::Translations, Forget::Interrupts]);
        self.each_unit(|unit, bus| {
            if remaps {
                unit.switch(bus, intel::REMAP, true);
            }
            unit.switch(bus, intel::TRANSLATE, true);
            unit.unprotect(bus);
        });
        Ok(())
    }

    fn each_unit(&self, mut what: impl FnMut(&Unit, &B)) {
        self.units.iter().flatten().for_each(|unit| what(unit, &self.bus));
    }

    /// Makes all units forget some things, fewer than a ring has room for, and waits until it is done.
    pub(crate) fn forget(&mut self, what: &[Forget]) {
        let (bus, kind) = (&self.bus, self.found.kind);
        if !self.coherent {
            bus.write_back();
        }
        for unit in self.units.iter_mut().flatten() {
            unit.flush_buffer(bus);
            for item in what {
                let record = match kind {
                    Kind::Amd => amd::command(*item),
                    Kind::Intel => intel::descriptor(*item, unit.abilities),
                };
                unit.push(bus, record);
            }
            unit.finish(bus, kind);
        }
    }
}
