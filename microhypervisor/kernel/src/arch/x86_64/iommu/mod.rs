// SPDX-License-Identifier: MIT OR Apache-2.0
//! The machine's IOMMU: what each device may reach, which interrupts it may raise, and what is told when it tries more.
//!
//! What is done with units is [`cloister_iommu`]'s; here are the machine that it works on ([`machine`]), what firmware tells of units, the page tables
//! of spaces ([`Tables`]), interrupts as sources have them ([`Entry`]), and faults as they are told ([`fault`]).
//!
//! Order of locks: space, then [`STATE`], innermost. Whoever makes units forget something waits with the lock until all have done it, some microseconds.

mod fault;
mod machine;
mod pci;
mod remap;
mod tables;

pub(crate) use fault::{bind, forget, interrupt, take};
pub(crate) use remap::{Entry, Source};
pub(crate) use tables::{Format, Tables};

use super::{acpi, apic, idt};
use crate::memory::{BootFrames, boot_frame, direct, is_own, physical};
use crate::width::{index, low8};
use cloister_abi::hip::features;
use cloister_abi::status::Status;
use cloister_iommu::firmware::{Found, Reserved};
use cloister_iommu::{BLOCKED, Iommu, Kind, Requester, Setup};
use cloister_mechanism::FRAME;
use core::sync::atomic::{AtomicBool, AtomicU8, Ordering::Relaxed};
use machine::Machine;
use spin::Mutex;

/// Largest range that firmware gets reserved.
const LARGEST: u64 = 256 << 20;
/// What the user is told where devices are not held.
const OPEN: &str = "devices reach all memory, so whoever drives one is trusted like the kernel";

/// Everything that changes.
struct State {
    found: Option<Found>,
    /// Memory of the units' tables: start and size.
    memory: (u64, u64),
    iommu: Option<Iommu<Machine>>,
    /// Page table of what firmware wants.
    firmware: Option<Tables>,
}

// SAFETY: the tables are the IOMMU's, and the state is behind a lock.
unsafe impl Send for State {}

static STATE: Mutex<State> = Mutex::new(State { found: None, memory: (0, 0), iommu: None, firmware: None });

/// What never changes after boot: format and one, or 0 without an IOMMU; the largest pages; whether also what was mapped must be flushed.
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
    let kind = if amd { Kind::Amd } else { Kind::Intel };
    let found = Found::read(kind, &table, table.size(), pci::secondary_bus);
    let mut bases = found.units.iter().flatten().map(|(base, _)| *base).peekable();
    if bases.peek().is_none() {
        return pool;
    }
    if bases.any(|base| base % 4096 != 0 || base >= (1 << 32) - (16 << 12)) {
        log::warn!("IOMMU: registers above 4 GiB are not supported");
        return pool;
    }
    let mut state = STATE.lock();
    state.found = Some(found);
    state.memory = (pool, cloister_iommu::memory(kind));
    pool + state.memory.1
}

/// Physical addresses of register pages that the kernel uses. After [`find`], before the kernel's own page tables.
pub(crate) fn register_pages() -> impl Iterator<Item = u64> {
    let found = STATE.lock().found.unwrap_or(Found::none(Kind::Intel));
    let count = move |base| cloister_iommu::register_pages(&Machine, found.kind, base);
    found.units.into_iter().flatten().flat_map(move |(base, _)| (0..count(base)).map(move |page| base + page * 4096))
}

/// Switches the IOMMU on. Answers what there is, as bits of [`features`].
pub(crate) fn init() -> u64 {
    let mut state = STATE.lock();
    let Some(found) = state.found else {
        log::warn!("no IOMMU: {OPEN}");
        return 0;
    };
    match state.start(&found) {
        Ok(true) => features::IOMMU | features::INTERRUPT_REMAPPING,
        Ok(false) => features::IOMMU,
        Err(why) => {
            log::error!("IOMMU: {why}: {OPEN}");
            state.iommu = None;
            FORMAT.store(0, Relaxed);
            0
        }
    }
}

/// The format of DMA spaces; `None` if there is no IOMMU.
pub(crate) fn format() -> Option<Format> {
    let known = [Format::Amd, Format::Intel3, Format::Intel4];
    known.get(usize::from(FORMAT.load(Relaxed)).wrapping_sub(1)).copied()
}

/// Largest pages of DMA spaces, as log2 of small ones.
pub(crate) fn largest_order() -> u32 {
    u32::from(LARGE.load(Relaxed)) * 9 + 8
}

/// Does something with the IOMMU.
fn with<T>(what: impl FnOnce(&mut Iommu<Machine>) -> Result<T, Status>) -> Result<T, Status> {
    what(STATE.lock().iommu.as_mut().ok_or(Status::BadFeature)?)
}

/// Puts a device into a space.
///
/// # Errors
/// `BadFeature`: there is no IOMMU. `BadDevice`: the device is part of the machine's own. `Busy`: it is in a space. `OutOfMemory`: there
/// are too many devices or spaces with devices.
pub(crate) fn assign(tables: &Tables, device: u16) -> Result<(), Status> {
    with(|iommu| iommu.assign(Requester(device), physical(tables.root()), &tables.domain))
}

/// Takes a device out of a space. It reaches none of it any more when this returns.
///
/// # Errors
/// `BadFeature`: there is no IOMMU. `BadDevice`: it is not in the space.
pub(crate) fn remove(tables: &Tables, device: u16) -> Result<(), Status> {
    with(|iommu| iommu.remove(Requester(device), &tables.domain))
}

/// Takes all devices out of a space that goes.
pub(crate) fn remove_all(tables: &Tables) {
    if tables.domain.load(Relaxed) != BLOCKED
        && let Some(iommu) = &mut STATE.lock().iommu
    {
        iommu.remove_all(&tables.domain);
    }
}

impl State {
    /// Answers whether interrupts go through tables.
    fn start(&mut self, found: &Found) -> Result<bool, &'static str> {
        let memory = direct::<u8>(self.memory.0);
        // SAFETY: the start of the pool, mapped, and set aside by `find`.
        unsafe { memory.write_bytes(0, index(self.memory.1)) };
        let tables = acpi::tables();
        let known = |id: u8| found.io_apics.iter().flatten().any(|(known, _)| *known == id);
        let complete = tables.io_apics.iter().take(tables.io_apic_count).all(|io_apic| known(io_apic.id));
        let interrupt = (apic::id(), low8(idt::IOMMU));
        let caches_absence = found.kind == Kind::Amd && machine::prepare_amd(found, interrupt);
        let setup = Setup {
            tables: self.memory.0,
            remaps: found.allows_interrupts && complete,
            x2apic: apic::is_x2apic(),
            interrupt,
            caches_absence,
        };
        let iommu = self.iommu.insert(Iommu::start(Machine, found, setup)?);
        let (name, format) = match (found.kind, iommu.levels) {
            (Kind::Amd, _) => ("AMD-Vi", Format::Amd),
            (Kind::Intel, 3) => ("VT-d", Format::Intel3),
            (Kind::Intel, _) => ("VT-d", Format::Intel4),
        };
        FORMAT.store(format as u8 + 1, Relaxed);
        LARGE.store(iommu.large, Relaxed);
        FLUSH_MAPPED.store(iommu.flush_mapped, Relaxed);
        let interrupts = if iommu.remaps { "remapped" } else { "NOT remapped: a device can raise any interrupt" };
        let count = found.units.iter().flatten().count();
        log::info!("IOMMU: {name}, units: {count}, interrupts {interrupts}");
        if found.incomplete {
            log::warn!("IOMMU: firmware tells of other PCI segments or of more units than are kept: there {OPEN}");
        }
        let remaps = iommu.remaps;
        if found.reserved[0].is_some() {
            // SAFETY: a fresh frame, kept for ever.
            let tables = self.firmware.insert(unsafe { Tables::new(format, boot_frame()?) });
            iommu.reserve(physical(tables.root()), |range| keep(tables, range));
        }
        Ok(remaps)
    }
}

/// Maps a range of memory as it is for devices that firmware says need it. Answers whether they get it.
fn keep(tables: &Tables, range: &Reserved) -> bool {
    let Some((start, end)) = range.pages() else { return false };
    let what = format_args!("memory {start:#x} to {end:#x} for devices {} to {}", range.first, range.last);
    let bits = tables.attributes(range.read, range.write).filter(|_| !is_own(start, end) && end - start <= LARGEST);
    let Some(bits) = bits else {
        log::warn!("IOMMU: firmware wants {what}, which it does not get");
        return false;
    };
    log::info!("IOMMU: firmware keeps {what}, as long as they are not assigned");
    for page in (start..end).step_by(FRAME) {
        // What several ranges have in common is mapped once.
        let _ = tables.map(&BootFrames, page, 0, |_| Some((page, bits)));
    }
    true
}
