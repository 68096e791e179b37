// SPDX-License-Identifier: MIT OR Apache-2.0
//! The machine's IOMMU: what each device may reach, which interrupts it may raise, and what is told when it tries more.
//!
//! From boot every device is blocked, but for memory that firmware says it needs ([`Reserved`]), until the root task assigns it to a DMA
//! space. All units share one set of tables, in memory that is set aside at boot, so that assigning a device allocates nothing. The space's
//! page tables are its payer's ([`Tables`]).
//!
//! A *domain* is the number under which units cache translations of one page table. A space has one while it has devices: numbers are few, and
//! only who may assign devices uses them up.
//!
//! Order of locks: space, then [`STATE`], innermost. Whoever gives a command waits until all units have done it, which takes them some
//! microseconds; one that does not answer for a second is broken, and nothing that it was to protect is safe any more: the kernel stops.

mod amd;
mod fault;
mod intel;
mod pci;
mod remap;
mod tables;

pub(crate) use fault::{bind, forget, interrupt, take};
pub(crate) use remap::{Entry, Source};
pub(crate) use tables::{Format, Tables};

use super::{acpi, apic, cpu, idt, timer};
use crate::memory::{self, BootFrames, boot_frame, direct, is_own, physical};
use crate::width::{index, low16, low32};
use cloister_abi::hip::features;
use cloister_abi::status::Status;
use cloister_iommu::{IoApic, Item, Requester, Reserved};
use cloister_mechanism::FRAME;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, AtomicU8, Ordering::Relaxed};
use spin::Mutex;

/// Most units.
const UNITS: usize = 16;
/// Most devices that are in a space at the same time.
const DEVICES: usize = 256;
/// Most ranges that firmware reserves, and the largest of them.
const RANGES: usize = 32;
const LARGEST: u64 = 256 << 20;
/// Where interrupt messages go.
const INTERRUPT_WINDOW: u64 = 0xfee0_0000;
/// Domain of devices that reach nothing, and of those that reach what firmware wants.
const BLOCKED: u16 = 0;
const FIRMWARE: u16 = 1;

/// What firmware tells.
#[derive(Debug)]
struct Found {
    amd: bool,
    allows_interrupts: bool,
    units: [(u64, Requester); UNITS],
    count: usize,
    io_apics: [Option<IoApic>; acpi::MANY],
    reserved: [Option<Reserved>; RANGES],
}

impl Found {
    fn units(&self) -> impl Iterator<Item = &(u64, Requester)> {
        self.units.iter().take(self.count)
    }

    fn add(&mut self, item: Item) {
        match item {
            Item::Unit { base, segment: 0, device } if !self.units().any(|(known, _)| *known == base) => {
                if let Some(place) = self.units.get_mut(self.count) {
                    *place = (base, device);
                    self.count += 1;
                }
            }
            Item::Unit { .. } => {}
            Item::IoApic(found) => put(&mut self.io_apics, found),
            Item::Reserved(found) => put(&mut self.reserved, found),
        }
    }

    /// Pages of registers of a unit.
    fn pages(&self, base: u64) -> u64 {
        if self.amd {
            return cloister_iommu::amd::register::PAGES;
        }
        intel::pages(Registers(base).read(cloister_iommu::intel::register::CAPABILITY))
    }
}

fn put<T: PartialEq>(list: &mut [Option<T>], item: T) {
    if !list.iter().flatten().any(|known| *known == item)
        && let Some(place) = list.iter_mut().find(|place| place.is_none())
    {
        *place = Some(item);
    }
}

#[derive(Debug)]
enum Units {
    None,
    Amd(amd::Amd),
    Intel(intel::Intel),
}

/// Everything that changes.
#[derive(Debug)]
struct State {
    found: Found,
    /// Memory of the units' tables.
    memory: (u64, u64),
    units: Units,
    /// Devices that are in a space, with its domain.
    devices: [Option<(Requester, u16)>; DEVICES],
    /// Domains in use, one bit each.
    domains: [u64; 4],
    firmware: Option<Tables>,
}

// SAFETY: the tables are the IOMMU's, and the state is behind a lock.
unsafe impl Send for State {}

static STATE: Mutex<State> = Mutex::new(State {
    found: Found {
        amd: false,
        allows_interrupts: false,
        units: [(0, Requester(0)); UNITS],
        count: 0,
        io_apics: [None; acpi::MANY],
        reserved: [None; RANGES],
    },
    memory: (0, 0),
    units: Units::None,
    devices: [None; DEVICES],
    domains: [3, 0, 0, 0],
    firmware: None,
});

static FORMAT: AtomicU8 = AtomicU8::new(0);
static LARGE: AtomicU8 = AtomicU8::new(0);
static FLUSH_MAPPED: AtomicBool = AtomicBool::new(false);

/// Size of what was set aside beside the kernel's pool for the units' tables, bytes.
pub(crate) fn memory() -> u64 {
    STATE.lock().memory.1
}

/// Reads what firmware says of IOMMUs. Early at boot, when its tables can be read. Sets aside the start of the kernel's pool for the units' tables, and
/// answers where the pool begins then.
pub(crate) fn find(command_line: &str, pool: u64) -> u64 {
    if command_line.split(' ').any(|word| word == "iommu=off") {
        return pool;
    }
    let Some((amd, table)) = acpi::tables().iommu else { return pool };
    let mut state = STATE.lock();
    let found = &mut state.found;
    found.amd = amd;
    if amd {
        found.allows_interrupts = true;
        cloister_iommu::amd::ivrs::read(&table, table.size(), &mut |item| found.add(item));
    } else {
        found.allows_interrupts = cloister_iommu::intel::dmar::allows_interrupts(&table);
        let each = &mut |item| found.add(item);
        cloister_iommu::intel::dmar::read(&table, table.size(), &pci::secondary_bus, each);
    }
    if found.units().any(|(base, _)| base % 4096 != 0 || *base >= (1 << 32) - (16 << 12)) {
        log::warn!("IOMMU: registers above 4 GiB are not supported");
        found.count = 0;
    }
    if found.count == 0 {
        return pool;
    }
    let size = if amd { amd::MEMORY } else { intel::MEMORY }.next_multiple_of(FRAME as u64);
    state.memory = (pool, size);
    pool + size
}

/// Physical addresses of register pages that the kernel uses. After [`find`], before the kernel's own page tables.
pub(crate) fn register_pages(pages: &mut [u64]) -> usize {
    let state = STATE.lock();
    let all =
        state.found.units().flat_map(|(base, _)| (0..state.found.pages(*base)).map(move |page| base + page * 4096));
    pages.iter_mut().zip(all).map(|(place, page)| *place = page).count()
}

/// Switches the IOMMU on. Answers what there is, as bits of [`features`].
pub(crate) fn init() -> u64 {
    let mut state = STATE.lock();
    if state.found.count == 0 {
        log::warn!("no IOMMU: devices reach all memory, so whoever drives one is trusted like the kernel");
        return 0;
    }
    match state.start() {
        Ok(()) => features::IOMMU | if state.remaps() { features::INTERRUPT_REMAPPING } else { 0 },
        Err(why) => {
            log::error!("IOMMU: {why}: devices reach all memory, so whoever drives one is trusted like the kernel");
            state.units = Units::None;
            FORMAT.store(0, Relaxed);
            0
        }
    }
}

/// The format of DMA spaces; `None` if there is no IOMMU.
pub(crate) fn format() -> Option<Format> {
    match FORMAT.load(Relaxed) {
        1 => Some(Format::Amd),
        2 => Some(Format::Intel3),
        3 => Some(Format::Intel4),
        _ => None,
    }
}

/// Largest pages of DMA spaces, as log2 of small ones.
pub(crate) fn largest_order() -> u32 {
    u32::from(LARGE.load(Relaxed)) * 9 + 8
}

fn flush_mapped() -> bool {
    FLUSH_MAPPED.load(Relaxed)
}

/// Forgets translations of an aligned range of 2^order pages of a domain, or all of them.
fn flush(domain: u16, range: Option<(u64, u32)>) {
    if domain != BLOCKED {
        STATE.lock().flush(domain, range);
    }
}

/// Puts a device into a space.
///
/// # Errors
/// `BadFeature`: there is no IOMMU. `BadDevice`: the device is part of the machine's own. `Busy`: it is in a space. `OutOfMemory`: there
/// are too many devices or spaces with devices.
pub(crate) fn assign(tables: &Tables, device: u16) -> Result<(), Status> {
    let mut state = STATE.lock();
    state.check(Requester(device))?;
    if state.devices.iter().flatten().any(|(other, _)| other.0 == device) {
        return Err(Status::Busy);
    }
    let place = state.devices.iter().position(Option::is_none).ok_or(Status::OutOfMemory)?;
    let domain = match tables.domain.load(Relaxed) {
        BLOCKED => state.new_domain()?,
        domain => domain,
    };
    tables.domain.store(domain, Relaxed);
    state.devices[place] = Some((Requester(device), domain));
    let old = state.home(Requester(device)).1;
    state.set(Requester(device), (Some(physical(tables.root())), domain), old);
    Ok(())
}

/// Takes a device out of a space. It reaches none of it any more when this returns.
///
/// # Errors
/// `BadFeature`: there is no IOMMU. `BadDevice`: it is not in the space.
pub(crate) fn remove(tables: &Tables, device: u16) -> Result<(), Status> {
    let mut state = STATE.lock();
    state.check(Requester(device))?;
    let own = Some((Requester(device), tables.domain.load(Relaxed)));
    let place = state.devices.iter().position(|it| *it == own).ok_or(Status::BadDevice)?;
    state.take_out(place);
    state.leave_domain(tables);
    Ok(())
}

/// Takes all devices out of a space that goes.
pub(crate) fn remove_all(tables: &Tables) {
    let domain = tables.domain.load(Relaxed);
    if domain == BLOCKED {
        return;
    }
    let mut state = STATE.lock();
    for place in 0..DEVICES {
        if state.devices[place].is_some_and(|(_, of)| of == domain) {
            state.take_out(place);
        }
    }
    state.leave_domain(tables);
}

impl State {
    fn start(&mut self) -> Result<(), &'static str> {
        let memory = NonNull::new(direct::<u8>(self.memory.0)).ok_or("no memory for tables")?;
        // SAFETY: the start of the pool, mapped, and set aside by `find`.
        unsafe { memory.write_bytes(0, index(self.memory.1)) };
        let memory = Words { base: memory.cast(), count: index(self.memory.1 / 8) };
        let tables = acpi::tables();
        let known = |id: u8| self.found.io_apics.iter().flatten().any(|io_apic| io_apic.id == id);
        let complete = tables.io_apics.iter().take(tables.io_apic_count).all(|io_apic| known(io_apic.id));
        let remaps = self.found.allows_interrupts && complete;
        let (format, large, flush_mapped, remaps) = if self.found.amd {
            let amd = amd::Amd::init(&self.found, memory, remaps)?;
            let told = (Format::Amd, 2, amd.flush_mapped, amd.remaps());
            self.units = Units::Amd(amd);
            told
        } else {
            let intel = intel::Intel::init(&self.found, memory, remaps)?;
            if intel.domains < 256 {
                self.domains[1..].fill(u64::MAX);
                self.domains[0] |= u64::MAX.checked_shl(intel.domains).unwrap_or(0);
            }
            let told = (intel.format(), intel.large, intel.flush_mapped, intel.remaps());
            self.units = Units::Intel(intel);
            told
        };
        FORMAT.store(format as u8 + 1, Relaxed);
        LARGE.store(crate::width::low8(large.into()), Relaxed);
        FLUSH_MAPPED.store(flush_mapped, Relaxed);
        let kind = if self.found.amd { "AMD-Vi" } else { "VT-d" };
        let interrupts = if remaps { "remapped" } else { "NOT remapped: a device can raise any interrupt" };
        log::info!("IOMMU: {kind}, units: {}, interrupts {interrupts}", self.found.count);
        self.reserve(format)
    }

    /// Gives devices what firmware says they need.
    fn reserve(&mut self, format: Format) -> Result<(), &'static str> {
        if self.found.reserved[0].is_none() {
            return Ok(());
        }
        // SAFETY: a fresh frame, kept for ever.
        let tables = unsafe { Tables::new(format, boot_frame()?) };
        for place in 0..RANGES {
            let Some(range) = self.found.reserved[place] else { break };
            let (start, end) = (range.base & !0xfff, range.end.next_multiple_of(4096));
            let what = format_args!("memory {start:#x} to {end:#x} for devices {} to {}", range.first, range.last);
            if is_own(start, end) || end - start > LARGEST {
                log::warn!("IOMMU: firmware wants {what}, which it does not get");
                self.found.reserved[place] = Some(Reserved { first: Requester(1), last: Requester(0), ..range });
                continue;
            }
            log::info!("IOMMU: firmware keeps {what}, as long as they are not assigned");
            let Some(bits) = tables.attributes(range.read, range.write) else { continue };
            for page in (start..end).step_by(FRAME) {
                // What several ranges have in common is mapped once.
                let _ = tables.map(&BootFrames, page, 0, |_| Some((page, bits)));
            }
        }
        let root = physical(tables.root());
        self.firmware = Some(tables);
        for range in self.found.reserved.into_iter().flatten() {
            for id in range.first.0..=range.last.0 {
                self.set(Requester(id), (Some(root), FIRMWARE), BLOCKED);
            }
        }
        Ok(())
    }

    /// Where a device is that is in no space.
    fn home(&self, device: Requester) -> (Option<u64>, u16) {
        let needs = |range: &Reserved| (range.first..=range.last).contains(&device);
        match &self.firmware {
            Some(tables) if self.found.reserved.iter().flatten().any(needs) => {
                (Some(physical(tables.root())), FIRMWARE)
            }
            _ => (None, BLOCKED),
        }
    }

    fn check(&self, device: Requester) -> Result<(), Status> {
        let unit = self.found.amd && self.found.units().any(|(_, id)| *id == device);
        let io_apic = self.found.io_apics.iter().flatten().any(|io_apic| io_apic.device == device);
        match self.units {
            Units::None => Err(Status::BadFeature),
            _ if unit || io_apic => Err(Status::BadDevice),
            _ => Ok(()),
        }
    }

    fn new_domain(&mut self) -> Result<u16, Status> {
        for (word, bits) in self.domains.iter_mut().enumerate() {
            let bit = bits.trailing_ones();
            if bit < 64 {
                *bits |= 1 << bit;
                return Ok(low16(word as u64 * 64 + u64::from(bit)));
            }
        }
        Err(Status::OutOfMemory)
    }

    fn take_out(&mut self, place: usize) {
        if let Some((device, domain)) = self.devices[place].take() {
            let home = self.home(device);
            self.set(device, home, domain);
        }
    }

    /// Gives back the domain of a space that has no devices any more.
    fn leave_domain(&mut self, tables: &Tables) {
        let domain = tables.domain.load(Relaxed);
        if !self.devices.iter().flatten().any(|(_, of)| *of == domain) {
            tables.domain.store(BLOCKED, Relaxed);
            self.domains[usize::from(domain / 64)] &= !(1 << (domain % 64));
        }
    }

    /// Puts a device under a page table and domain; `old` is the domain that it was in.
    fn set(&mut self, device: Requester, (table, domain): (Option<u64>, u16), old: u16) {
        match &mut self.units {
            Units::None => {}
            Units::Amd(amd) => amd.set(device, table, domain, old),
            Units::Intel(intel) => intel.set(device, table, domain, old),
        }
    }

    fn flush(&mut self, domain: u16, range: Option<(u64, u32)>) {
        match &mut self.units {
            Units::None => {}
            Units::Amd(amd) => amd.flush(domain, range),
            Units::Intel(intel) => intel.flush(domain, range),
        }
    }
}

/// Address and data of the message that is the units' own interrupt, to this core.
fn own_interrupt() -> (u32, u32) {
    (low32(INTERRUPT_WINDOW) | apic::id() << 12, low32(idt::IOMMU))
}

/// Waits for a unit.
fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let start = cpu::ticks();
    while !done() {
        if cpu::ticks() - start > timer::tsc_hz() {
            panic!("the IOMMU does not answer: {what}");
        }
        core::hint::spin_loop();
    }
}

/// Registers of a unit, by their physical address.
#[derive(Clone, Copy, Debug)]
struct Registers(u64);

impl Registers {
    fn read(self, offset: u64) -> u64 {
        // SAFETY: the page is mapped, and the offset one of a register.
        unsafe { direct::<u64>(self.0 + offset).read_volatile() }
    }

    fn write(self, offset: u64, value: u64) {
        // SAFETY: as above.
        unsafe { direct::<u64>(self.0 + offset).write_volatile(value) };
    }

    fn read32(self, offset: u64) -> u32 {
        // SAFETY: as above.
        unsafe { direct::<u32>(self.0 + offset).read_volatile() }
    }

    fn write32(self, offset: u64, value: u32) {
        // SAFETY: as above.
        unsafe { direct::<u32>(self.0 + offset).write_volatile(value) };
    }
}

/// Memory of the kernel's that units read and write at any time.
#[derive(Debug)]
struct Words {
    base: NonNull<u64>,
    count: usize,
}

impl Words {
    fn physical(&self) -> u64 {
        memory::physical(self.base)
    }

    fn place(&self, word: usize) -> *mut u64 {
        assert!(word < self.count);
        self.base.as_ptr().wrapping_add(word)
    }

    fn get(&self, word: usize) -> u64 {
        // SAFETY: inside the memory, as `place` has checked.
        unsafe { self.place(word).read_volatile() }
    }

    fn set(&self, word: usize, value: u64) {
        // SAFETY: as above.
        unsafe { self.place(word).write_volatile(value) };
    }
}

/// A frame of records of two words, which one side fills and the other empties.
#[derive(Debug)]
struct Ring {
    words: Words,
    /// Offset of the next record, bytes.
    at: u64,
}

impl Ring {
    const RECORDS: u64 = FRAME as u64 / 16;

    fn new() -> Result<Self, &'static str> {
        let words = Words { base: boot_frame()?.cast(), count: FRAME / 8 };
        Ok(Self { words, at: 0 })
    }

    /// First word of the next record; moves on.
    fn next(&mut self) -> usize {
        let word = index(self.at / 8);
        self.at = (self.at + 16) % FRAME as u64;
        word
    }

    fn push(&mut self, record: [u64; 2]) {
        let word = self.next();
        self.words.set(word, record[0]);
        self.words.set(word + 1, record[1]);
    }

    /// Takes the next record, if it is not empty.
    fn pop(&mut self) -> [u64; 2] {
        let word = index(self.at / 8);
        let record = [self.words.get(word), self.words.get(word + 1)];
        if record[0] != 0 {
            self.push([0; 2]);
            return record;
        }
        [0; 2]
    }

    fn clear(&mut self) {
        (0..self.words.count).for_each(|word| self.words.set(word, 0));
        self.at = 0;
    }
}
