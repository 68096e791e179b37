// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the kernel must know from the firmware's tables: interrupt controllers and how to switch the machine off.
//!
//! Read once at boot, as long as all of physical memory can be seen. Tables are foreign data: every access is checked against
//! lengths, and a table that does not fit or whose checksum is wrong is as good as absent. Sources: ACPI 6.5, 5.2.5 (RSDP), 5.2.6
//! (headers), 5.2.12 (MADT). The FADT is decoded by [`cloister_processor::shutdown`].

use super::bootinfo::PHYSICAL;
use crate::percore::CORES;
use crate::width::{index, low16, low32};
use cloister_boot_info::{Part, acpi_root};
use cloister_iommu::Kind;
use cloister_processor::shutdown::{self, Power};
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

/// What was found.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tables {
    pub(crate) rsdp: u64,
    /// The table of tables.
    pub(crate) root: u64,
    pub(crate) io_apics: [IoApic; MANY],
    pub(crate) io_apic_count: usize,
    /// Identities of the local APICs of processors that are enabled.
    pub(crate) local_apics: [u32; CORES],
    pub(crate) local_apic_count: usize,
    pub(crate) overrides: [Override; MANY],
    pub(crate) override_count: usize,
    /// Input of the local APICs (LINT0 or LINT1) at which non-maskable interrupts come.
    pub(crate) nmi_input: Option<u8>,
    /// How to switch off and reset.
    pub(crate) power: Power,
    /// The table of IOMMUs. It can be read as long as the boot direct map is there.
    pub(crate) iommu: Option<(Kind, Part<'static>)>,
}

static NOTHING: Tables = Tables {
    rsdp: 0,
    root: 0,
    io_apics: [IoApic { id: 0, address: 0, first_gsi: 0 }; MANY],
    io_apic_count: 0,
    local_apics: [0; CORES],
    local_apic_count: 0,
    overrides: [Override { gsi: 0, flags: 0 }; MANY],
    override_count: 0,
    nmi_input: None,
    power: Power { control: [None; 2], sleep: None, reduced: false, reset: None, enable: None, types: None },
    iommu: None,
};

static TABLES: Once<Tables> = Once::new();

/// What was found at boot.
pub(crate) fn tables() -> &'static Tables {
    TABLES.get().unwrap_or(&NOTHING)
}

/// Finds the root pointer in the BIOS area, if the loader did not give it (ACPI 6.5, 5.2.5.1).
fn find_rsdp() -> Option<u64> {
    (0xe_0000..0x10_0000).step_by(16).find(|base| acpi_root(*base, PHYSICAL).is_some())
}

/// Reads the tables.
pub(crate) fn init(rsdp: u64) {
    let rsdp = if rsdp != 0 { Some(rsdp) } else { find_rsdp() };
    if let Some(rsdp) = rsdp {
        let mut found = Tables { rsdp, ..NOTHING };
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

impl Tables {
    fn add_core(&mut self, apic_id: u32) {
        let known = self.local_apics.iter().take(self.local_apic_count).any(|id| *id == apic_id);
        if let (false, Some(place)) = (known, self.local_apics.get_mut(self.local_apic_count)) {
            *place = apic_id;
            self.local_apic_count += 1;
        }
    }
}

fn read_madt(madt: Part<'_>, found: &mut Tables) -> Option<()> {
    let mut offset = 44;
    while offset + 2 <= madt.size {
        let length = u64::from(madt.u8(offset + 1)?).max(2);
        match madt.u8(offset)? {
            // Processor local APIC and x2APIC: usable if enabled (bit 0 of the flags).
            0 if madt.number(offset + 4, 4)? & 1 != 0 => found.add_core(u32::from(madt.u8(offset + 3)?)),
            9 if madt.number(offset + 8, 4)? & 1 != 0 => found.add_core(low32(madt.number(offset + 4, 4)?)),
            1 if found.io_apic_count < MANY => {
                found.io_apics[found.io_apic_count] = IoApic {
                    id: madt.u8(offset + 2)?,
                    address: madt.number(offset + 4, 4)?,
                    first_gsi: low32(madt.number(offset + 8, 4)?),
                };
                found.io_apic_count += 1;
            }
            2 if found.override_count < MANY => {
                found.overrides[found.override_count] =
                    Override { gsi: low32(madt.number(offset + 4, 4)?), flags: low16(madt.number(offset + 8, 2)?) };
                found.override_count += 1;
            }
            // Local APIC NMI. Firmware that treats processors differently is not known.
            4 => found.nmi_input = Some(madt.u8(offset + 5)? & 1),
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
