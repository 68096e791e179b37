// SPDX-License-Identifier: MIT OR Apache-2.0
//! The machine's IOMMU: what each device may reach, which interrupts it may raise, and what is told when it tries more.
//!
//! What is done with units is [`cloister_iommu`]'s; here are the machine that it works on ([`machine`]), what firmware tells of units, the page tables
//! of spaces ([`Tables`]), interrupts as sources have them ([`Entry`]), and faults as they are told ([`fault`]).
//!
//! Order of locks: space, then [`IOMMU`], innermost. Whoever makes units forget something waits with the lock until all have done it, some microseconds.

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
use cloister_iommu::firmware::{Reserved, UNITS};
use cloister_iommu::{BLOCKED, Iommu, Kind, Requester, Setup};
use cloister_mechanism::FRAME;
use core::sync::atomic::Ordering::Relaxed;
use machine::Machine;
use spin::{Mutex, Once};

/// Largest range that firmware gets reserved.
const LARGEST: u64 = 256 << 20;
/// What the user is told where devices are not held.
const OPEN: &str = "devices reach all memory, so whoever drives one is trusted like the kernel";

/// The units. Without any, nothing that is done with it does anything.
static IOMMU: Mutex<Iommu<Machine>> = Mutex::new(Iommu::new(Machine));

/// What never changes after boot.
#[derive(Debug)]
pub(crate) struct Limits {
    /// Format of page tables.
    pub(crate) format: Format,
    /// Largest pages of DMA spaces, as log2 of small ones, and what fits beside them in one table.
    pub(crate) largest_order: u32,
    /// Also what was mapped must be flushed.
    flush_mapped: bool,
    /// Units find in the processors' caches what was not written back.
    snoops: bool,
}

static LIMITS: Once<Limits> = Once::new();

/// What DMA spaces can be; `None` if there is no IOMMU.
pub(crate) fn limits() -> Option<&'static Limits> {
    LIMITS.get()
}

/// Size of what was set aside beside the kernel's pool for the units' tables, bytes.
pub(crate) fn memory() -> u64 {
    IOMMU.lock().memory()
}

/// Whether firmware wants the local APICs to stay out of x2APIC mode. After [`find`].
pub(super) fn refuses_x2apic() -> bool {
    IOMMU.lock().found.refuses_x2apic
}

/// Reads what firmware says of IOMMUs. Early at boot, when its tables can be read. Sets aside the start of the kernel's pool for the units' tables, and
/// answers where the pool begins then.
pub(crate) fn find(command_line: &str, pool: u64) -> u64 {
    let Some((kind, table)) = acpi::tables().iommu else { return pool };
    let mut iommu = IOMMU.lock();
    iommu.found.read(kind, table, &pci::secondary_bus);
    if command_line.split(' ').any(|word| word == "iommu=off") {
        iommu.found.units = [None; UNITS];
    }
    let far = |base: u64| !base.is_multiple_of(4096) || base >= (1 << 32) - (16 << 12);
    if iommu.found.units.iter().flatten().any(|(base, _)| far(*base)) {
        log::warn!("IOMMU: registers above 4 GiB are not supported");
        iommu.found.units = [None; UNITS];
    }
    iommu.tables = pool;
    pool + iommu.memory()
}

/// Tells of each page of registers that the kernel uses, by physical address. After [`find`], before the kernel's own page tables.
pub(crate) fn register_pages(each: impl FnMut(u64)) {
    IOMMU.lock().register_pages().for_each(each);
}

/// Switches the IOMMU on. Answers what there is, as bits of [`features`].
pub(crate) fn init() -> u64 {
    let mut iommu = IOMMU.lock();
    if iommu.memory() == 0 {
        log::warn!("no IOMMU: {OPEN}");
        return 0;
    }
    if let Err(why) = start(&mut iommu) {
        log::error!("IOMMU: {why}: {OPEN}");
        return 0;
    }
    features::IOMMU | if iommu.remaps { features::INTERRUPT_REMAPPING } else { 0 }
}

fn start(iommu: &mut Iommu<Machine>) -> Result<(), &'static str> {
    let memory = direct::<u8>(iommu.tables);
    // SAFETY: the start of the pool, mapped, and set aside by `find`.
    unsafe { memory.write_bytes(0, index(iommu.memory())) };
    // Without its tables firmware's memory would not be there from the start.
    let firmware = boot_frame()?;
    let mut io_apics = acpi::tables().io_apics.iter();
    let interrupt = (apic::id(), low8(idt::IOMMU));
    let setup = Setup {
        remaps: io_apics.all(|io_apic| iommu.io_apic(io_apic.id).is_some()),
        x2apic: apic::is_x2apic(),
        interrupt,
        caches_absence: iommu.found.kind == Kind::Amd && machine::prepare_amd(&iommu.found, interrupt),
    };
    iommu.start(setup)?;
    let (name, format) = match (iommu.found.kind, iommu.levels) {
        (Kind::Amd, _) => ("AMD-Vi", Format::Amd),
        (Kind::Intel, 3) => ("VT-d", Format::Intel3),
        (Kind::Intel, _) => ("VT-d", Format::Intel4),
    };
    let largest_order = u32::from(iommu.large) * 9 + 8;
    LIMITS.call_once(|| Limits { format, largest_order, flush_mapped: iommu.flush_mapped, snoops: iommu.coherent });
    let interrupts = if iommu.remaps { "remapped" } else { "NOT remapped: a device can raise any interrupt" };
    log::info!("IOMMU: {name}, units: {}, interrupts {interrupts}", iommu.found.units.iter().flatten().count());
    if iommu.found.incomplete {
        log::warn!("IOMMU: firmware tells of other PCI segments or of more units than are kept: there {OPEN}");
    }
    // SAFETY: a fresh frame, kept for ever.
    let tables = unsafe { Tables::new(format, firmware) };
    iommu.reserve(physical(firmware), |range| keep(&tables, range));
    Ok(())
}

/// Puts a device into a space.
///
/// # Errors
/// `BadDevice`: the device is part of the machine's own. `Busy`: it is in a space. `OutOfMemory`: there are too many devices or spaces with
/// devices.
pub(crate) fn assign(tables: &Tables, device: u16) -> Result<(), Status> {
    IOMMU.lock().assign(Requester(device), physical(tables.root()), &tables.domain)
}

/// Takes a device out of a space. It reaches none of it any more when this returns.
///
/// # Errors
/// `BadDevice`: it is not in the space.
pub(crate) fn remove(tables: &Tables, device: u16) -> Result<(), Status> {
    IOMMU.lock().remove(Requester(device), &tables.domain)
}

/// Takes all devices out of a space that goes.
pub(crate) fn remove_all(tables: &Tables) {
    if tables.domain.load(Relaxed) != BLOCKED {
        IOMMU.lock().remove_all(&tables.domain);
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
