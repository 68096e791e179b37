// SPDX-License-Identifier: MIT OR Apache-2.0
//! The ACPI tables that describe the machine to the guest (ACPI specification 6.5, chapter 5).
//!
//! All tables lie one after the other from [`layout::ACPI`]: RSDP, then XSDT, FADT, FACS, MADT, MCFG and DSDT, each
//! aligned to 64 bytes. [`Machine`] says which devices the VM has, so that nothing is described that isn't there: each
//! device that a guest probes for in vain costs it exits.
//!
//! Two profiles: the full one describes a PC with its power management event and control blocks; the hardware-reduced
//! one (ACPI 4.1) tells the guest that there are no legacy timers and interrupt controllers, which spares a modern
//! guest their probing and calibration, and gives it the sleep registers instead.

mod dsdt;

use acpi_tables::Aml;
use acpi_tables::fadt::{FADTBuilder, Flags, PmProfile};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use acpi_tables::mcfg::MCFG;
use acpi_tables::rsdp::Rsdp;
use acpi_tables::sdt::Sdt;
use acpi_tables::xsdt::XSDT;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use crate::{Error, layout};

const OEM: [u8; 6] = *b"CLOIST";
const TABLE: [u8; 8] = *b"CLOISTER";
const REVISION: u32 = 1;
const ALIGN: u64 = 64;
/// FACS: firmware control structure, 64 bytes, version 2.
const FACS_SIZE: u8 = 64;

/// FADT "IA-PC boot architecture" flags (table 5.11).
mod boot_arch {
    pub(super) const LEGACY_DEVICES: u16 = 1 << 0;
    pub(super) const I8042: u16 = 1 << 1;
    pub(super) const NO_VGA: u16 = 1 << 2;
    pub(super) const NO_ASPM: u16 = 1 << 4;
    pub(super) const NO_CMOS_RTC: u16 = 1 << 5;
}

/// How power management is described.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Profile {
    /// A PC with power management blocks at this I/O port, and legacy timers and interrupt controllers.
    Full {
        /// First port of the event block (4 ports), control block (at +4, 2 ports), timer (at +8, 4 ports).
        pm_base: u16,
        /// The interrupt of power management events.
        sci: u16,
    },
    /// No fixed hardware but the sleep control (this port) and sleep status (the next one) registers.
    Reduced {
        /// Port of the sleep control register.
        sleep_control: u16,
    },
}

/// What the tables describe.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Number of VCPUs; APIC ids are 0 and up.
    pub cpus: u8,
    /// Power management.
    pub profile: Profile,
    /// Reset register: port and value.
    pub reset: (u16, u8),
    /// Serial ports: first I/O port and interrupt.
    pub serial: Vec<(u16, u8)>,
    /// There is a real-time clock at ports 0x70 and 0x71.
    pub rtc: bool,
    /// There is a keyboard controller at ports 0x60 and 0x64.
    pub keyboard_controller: bool,
    /// For PCI device numbers 0 to 31: the global interrupts of pins A to D.
    pub pci_routes: [[u32; 4]; 32],
    /// ISA interrupts that arrive at another global interrupt, edge-triggered: (ISA, global).
    pub overrides: Vec<(u8, u32)>,
}

/// Writes the tables; returns the address of the root pointer.
///
/// # Errors
/// [`Error::DoesNotFit`] and [`Error::Memory`].
pub fn write(memory: &GuestMemoryMmap, machine: &Machine) -> Result<u64, Error> {
    let mut place = Placer { memory, next: layout::ACPI.saturating_add(ALIGN) };
    let dsdt = place.put(&dsdt::bytes(machine))?;
    let facs = place.put(&facs())?;
    let fadt = place.put(&bytes(&fadt(machine, dsdt, facs)))?;
    let madt = place.put(madt(machine).as_slice())?;
    let mut mcfg = MCFG::new(OEM, TABLE, REVISION);
    mcfg.add_ecam(layout::ECAM, 0, 0, 0);
    let mcfg = place.put(&bytes(&mcfg))?;
    let mut xsdt = XSDT::new(OEM, TABLE, REVISION);
    for table in [fadt, madt, mcfg] {
        xsdt.add_entry(table);
    }
    let xsdt = place.put(&bytes(&xsdt))?;
    place.next = layout::ACPI;
    place.put(&bytes(&Rsdp::new(OEM, xsdt)))
}

struct Placer<'a> {
    memory: &'a GuestMemoryMmap,
    next: u64,
}

impl Placer<'_> {
    fn put(&mut self, table: &[u8]) -> Result<u64, Error> {
        let address = self.next;
        let needed = u64::try_from(table.len()).unwrap_or(u64::MAX);
        let end = address.saturating_add(needed);
        let limit = layout::ACPI + layout::ACPI_SIZE;
        if end > limit {
            return Err(Error::DoesNotFit { what: "ACPI tables", needed, available: limit.saturating_sub(address) });
        }
        let place = GuestAddress(address);
        self.memory.write_slice(table, place).map_err(|_| Error::Memory { what: "ACPI tables", address })?;
        self.next = end.next_multiple_of(ALIGN);
        Ok(address)
    }
}

fn bytes(table: &dyn Aml) -> Vec<u8> {
    let mut bytes = Vec::new();
    table.to_aml_bytes(&mut bytes);
    bytes
}

fn facs() -> Vec<u8> {
    let mut table = vec![0; usize::from(FACS_SIZE)];
    let head = b"FACS".iter().copied().chain([FACS_SIZE]);
    table.iter_mut().zip(head).for_each(|(to, from)| *to = from);
    if let Some(version) = table.get_mut(32) {
        *version = 2;
    }
    table
}

fn port(address: u16, bits: u8) -> GAS {
    let size = if bits == 8 { AccessSize::ByteAccess } else { AccessSize::Undefined };
    GAS::new(AddressSpace::SystemIo, bits, 0, size, u64::from(address))
}

fn fadt(machine: &Machine, dsdt: u64, facs: u64) -> acpi_tables::fadt::FADT {
    let mut t = FADTBuilder::new(OEM, TABLE, REVISION)
        .dsdt_64(dsdt)
        .firmware_ctrl_64(facs)
        .preferred_pm_profile(PmProfile::EnterpriseServer)
        .flag(Flags::Wbinvd)
        .flag(Flags::ResetRegSup)
        .flag(Flags::Headless);
    let (reset_port, reset_value) = machine.reset;
    t.reset_reg = port(reset_port, 8);
    t.reset_value = reset_value;
    let mut arch = boot_arch::NO_VGA | boot_arch::NO_ASPM;
    if machine.keyboard_controller {
        arch |= boot_arch::I8042;
    }
    if !machine.rtc {
        arch |= boot_arch::NO_CMOS_RTC;
    }
    match machine.profile {
        Profile::Reduced { sleep_control } => {
            t = t.flag(Flags::HwReducedAcpi);
            t.sleep_control_reg = port(sleep_control, 8);
            t.sleep_status_reg = port(sleep_control.saturating_add(1), 8);
        }
        Profile::Full { pm_base, sci } => {
            arch |= boot_arch::LEGACY_DEVICES;
            let (event, control, timer) = (pm_base, pm_base.saturating_add(4), pm_base.saturating_add(8));
            t = t.flag(Flags::ProcC1).flag(Flags::PwrButton).flag(Flags::SlpButton).flag(Flags::TmrValExt);
            t.sci_int = sci.into();
            (t.pm1_evt_len, t.pm1_cnt_len, t.pm_tmr_len) = (4, 2, 4);
            t.pm1a_evt_blk = u32::from(event).into();
            t.pm1a_cnt_blk = u32::from(control).into();
            t.pm_tmr_blk = u32::from(timer).into();
            (t.x_pm1a_evt_blk, t.x_pm1a_cnt_blk, t.x_pm_tmr_blk) =
                (port(event, 32), port(control, 16), port(timer, 32));
            // Latencies beyond which there is no C2 and C3 (5.2.9).
            (t.p_lvl2_lat, t.p_lvl3_lat) = (0x0fff.into(), 0x0fff.into());
        }
    }
    t.iapc_boot_arch = arch.into();
    t.finalize()
}

/// Interrupt controllers (5.2.12). Written out, since acpi_tables has no override structure.
fn madt(machine: &Machine) -> Sdt {
    let mut t = Sdt::new(*b"APIC", 44, 5, OEM, TABLE, REVISION);
    t.write_u32(36, u32::try_from(layout::LAPIC).unwrap_or(0));
    let pcat_compatible = matches!(machine.profile, Profile::Full { .. });
    t.write_u32(40, u32::from(pcat_compatible));
    for id in 0..machine.cpus {
        // Type 0, length 8: processor uid, APIC id, flags (enabled).
        t.append_slice(&[0, 8, id, id, 1, 0, 0, 0]);
    }
    // Type 1, length 12: id, reserved, address, first global interrupt.
    let [a, b, c, d, ..] = layout::IOAPIC.to_le_bytes();
    t.append_slice(&[1, 12, machine.cpus, 0, a, b, c, d, 0, 0, 0, 0]);
    for &(isa, gsi) in &machine.overrides {
        // Type 2, length 10: bus ISA, source, global interrupt, flags (as the bus has it).
        let [a, b, c, d] = gsi.to_le_bytes();
        t.append_slice(&[2, 10, 0, isa, a, b, c, d, 0, 0]);
    }
    if let Profile::Full { sci, .. } = machine.profile {
        // The SCI is level-triggered, active high (flags 0x0d).
        let [source, high] = sci.to_le_bytes();
        t.append_slice(&[2, 10, 0, source, source, high, 0, 0, 0x0d, 0]);
    }
    t
}

#[cfg(test)]
mod tests {
    use super::{Machine, Profile, write};
    use crate::{Error, layout};
    use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

    fn machine(profile: Profile) -> Machine {
        Machine {
            cpus: 1,
            profile,
            reset: (0xcf9, 6),
            serial: vec![(0x3f8, 4)],
            rtc: true,
            keyboard_controller: false,
            pci_routes: [[16, 17, 18, 19]; 32],
            overrides: vec![(0, 2)],
        }
    }

    fn table(memory: &GuestMemoryMmap, at: u64) -> Vec<u8> {
        let length: u32 = memory.read_obj(GuestAddress(at + 4)).unwrap();
        let mut bytes = vec![0; usize::try_from(length).unwrap()];
        memory.read_slice(&mut bytes, GuestAddress(at)).unwrap();
        bytes
    }

    fn sum(bytes: &[u8]) -> u8 {
        bytes.iter().fold(0, |s, b| s.wrapping_add(*b))
    }

    #[test]
    fn the_root_leads_to_tables_with_right_checksums() {
        for profile in [Profile::Full { pm_base: 0x600, sci: 9 }, Profile::Reduced { sleep_control: 0x600 }] {
            let memory: GuestMemoryMmap = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap();
            let rsdp = write(&memory, &machine(profile)).unwrap();
            let mut root = [0; 36];
            memory.read_slice(&mut root, GuestAddress(rsdp)).unwrap();
            assert_eq!((&root[..8], sum(&root[..20]), sum(&root)), (&b"RSD PTR "[..], 0, 0));
            let xsdt = table(&memory, u64::from_le_bytes(root[24..32].try_into().unwrap()));
            assert_eq!((&xsdt[..4], sum(&xsdt)), (&b"XSDT"[..], 0));
            let found: Vec<_> = xsdt[36..]
                .chunks(8)
                .map(|at| table(&memory, u64::from_le_bytes(at.try_into().unwrap())))
                .inspect(|t| assert_eq!(sum(t), 0, "{:?}", &t[..4]))
                .collect();
            let names: Vec<_> = found.iter().map(|t| &t[..4]).collect();
            assert_eq!(names, [b"FACP", b"APIC", b"MCFG"]);
            let dsdt = table(&memory, u64::from_le_bytes(found[0][140..148].try_into().unwrap()));
            assert_eq!((&dsdt[..4], sum(&dsdt)), (&b"DSDT"[..], 0));
        }
    }

    #[test]
    fn too_little_memory_is_an_error() {
        let memory: GuestMemoryMmap = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x8000)]).unwrap();
        let result = write(&memory, &machine(Profile::Full { pm_base: 0x600, sci: 9 }));
        assert!(matches!(result, Err(Error::Memory { what: "ACPI tables", address }) if address > layout::ACPI));
    }
}
