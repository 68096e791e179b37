// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the kernel must know from the firmware's tables: interrupt controllers and how to switch the machine off.
//!
//! Read once at boot, as long as all of physical memory can be seen. Tables are foreign data: every access is checked against
//! lengths, and a table that does not fit or whose checksum is wrong is as good as absent. Sources: ACPI 6.5, 5.2.5 (RSDP), 5.2.6
//! (headers), 5.2.12 (MADT). The FADT is decoded by [`cloister_processor::shutdown`].

use super::bootinfo::PHYSICAL;
use crate::percore::CORES;
use crate::width::{index, low16};
use cloister_boot_info::{Part, acpi_root};
use cloister_iommu::Kind;
use cloister_processor::shutdown::{self, Power};
use heapless::Vec;
use spin::Once;

/// Most I/O APICs and interrupt overrides that are kept.
pub(crate) const MANY: usize = 16;

/// An I/O APIC.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct IoApic {
    pub(crate) id: u8,
    pub(crate) address: u64,
    pub(crate) first_gsi: u32,
}

/// An ISA interrupt that is wired otherwise.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Override {
    pub(crate) gsi: u32,
    pub(crate) flags: u16,
}

/// What was found; what there is no room for is left out.
#[derive(Debug, Default)]
pub(crate) struct Tables {
    pub(crate) rsdp: u64,
    /// The table of tables.
    pub(crate) root: u64,
    pub(crate) io_apics: Vec<IoApic, MANY>,
    /// Identities of the local APICs of processors that are enabled.
    pub(crate) local_apics: Vec<u32, CORES>,
    pub(crate) overrides: Vec<Override, MANY>,
    /// Input of the local APICs (LINT0 or LINT1) at which non-maskable interrupts come.
    pub(crate) nmi_input: Option<u8>,
    /// How to switch off and reset.
    pub(crate) power: Power,
    /// The table of IOMMUs. It can be read as long as the boot direct map is there.
    pub(crate) iommu: Option<(Kind, Part<'static>)>,
}

static TABLES: Once<Tables> = Once::new();

/// What was found at boot. Who asks before that ends the boot, and gets nothing.
pub(crate) fn tables() -> &'static Tables {
    TABLES.call_once(Tables::default)
}

/// Finds the root pointer in the BIOS area, if the loader did not give it (ACPI 6.5, 5.2.5.1).
fn find_rsdp() -> Option<u64> {
    (0xe_0000..0x10_0000).step_by(16).find(|base| acpi_root(*base, PHYSICAL).is_some())
}

/// Reads the tables.
pub(crate) fn init(rsdp: u64) {
    let rsdp = if rsdp != 0 { Some(rsdp) } else { find_rsdp() };
    if let Some(rsdp) = rsdp {
        let mut found = Tables { rsdp, ..Tables::default() };
        if walk(rsdp, &mut found).is_none() {
            log::warn!("ACPI tables at {rsdp:#x} are not complete");
        }
        TABLES.call_once(|| found);
    } else {
        log::warn!("no ACPI tables");
    }
}

fn walk(rsdp: u64, found: &mut Tables) -> Option<()> {
    let (root, width) = acpi_root(rsdp, PHYSICAL)?;
    found.root = root;
    let root = Part::table(PHYSICAL, root, None)?;
    for base in (36..root.size).step_by(index(width)).map_while(|offset| root.number(offset, width)) {
        let table = |signature: &[u8; 4]| Part::table(PHYSICAL, base, Some(*signature));
        if let Some(madt) = table(b"APIC") {
            read_madt(madt, found);
        } else if let Some(fadt) = table(b"FACP") {
            read_fadt(fadt, found);
        } else if let Some(ivrs) = table(b"IVRS") {
            found.iommu = Some((Kind::Amd, ivrs));
        } else if let Some(dmar) = table(b"DMAR") {
            found.iommu = Some((Kind::Intel, dmar));
        }
    }
    Some(())
}

fn read_madt(madt: Part<'_>, found: &mut Tables) -> Option<()> {
    let mut offset = 44;
    while let Some(head) = madt.part(offset, 2) {
        let length = u64::from(head.u8(1)?).max(2);
        let entry = madt.part(offset, length)?;
        let core = match head.u8(0)? {
            // Processor local APIC and x2APIC: usable if enabled (bit 0 of the flags).
            0 if entry.u32(4)? & 1 != 0 => Some(u32::from(entry.u8(3)?)),
            9 if entry.u32(8)? & 1 != 0 => Some(entry.u32(4)?),
            _ => None,
        };
        if let Some(core) = core.filter(|core| !found.local_apics.contains(core)) {
            let _ = found.local_apics.push(core);
        }
        match head.u8(0)? {
            1 => {
                let (id, address) = (entry.u8(2)?, entry.number(4, 4)?);
                let _ = found.io_apics.push(IoApic { id, address, first_gsi: entry.u32(8)? });
            }
            2 => {
                let flags = low16(entry.number(8, 2)?);
                let _ = found.overrides.push(Override { gsi: entry.u32(4)?, flags });
            }
            // Local APIC NMI. Firmware that treats processors differently is not known.
            4 => found.nmi_input = Some(entry.u8(5)? & 1),
            _ => {}
        }
        offset += length;
    }
    Some(())
}

fn read_fadt(fadt: Part<'_>, found: &mut Tables) {
    let read = |offset, bytes| fadt.number(offset, bytes);
    let dsdt = shutdown::dsdt(read).into_iter().find_map(|base| Part::table(PHYSICAL, base, Some(*b"DSDT")));
    let types = dsdt.and_then(|dsdt| shutdown::sleep_types(|offset, bytes| dsdt.number(offset, bytes), dsdt.size));
    found.power = shutdown::power(read, types);
}
