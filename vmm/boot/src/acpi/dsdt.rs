// SPDX-License-Identifier: MIT OR Apache-2.0
//! The DSDT: the PCI host bridge with its windows and interrupt routes, the devices on the board, sleep state S5.
//! Sources: ACPI 6.5 chapters 6 (device configuration), 7.4.2 (sleep states); PCI Firmware 3.3, 4.1 (host bridge).

use acpi_tables::Aml;
use acpi_tables::aml::{
    AddressSpace, AddressSpaceCacheable, Device, EISAName, IO, Interrupt, Memory32Fixed, Name, Package, PackageBuilder,
    ResourceTemplate, Scope,
};
use acpi_tables::sdt::Sdt;

use super::{Machine, OEM, REVISION, TABLE};
use crate::layout;

/// SLP_TYP of S5; the power management model agrees.
const S5_TYPE: u8 = 5;
/// Ports of the PCI configuration mechanism.
const CONFIG_PORTS: (u16, u16) = (0xcf8, 0xcff);

pub(super) fn bytes(machine: &Machine) -> Vec<u8> {
    let mut code = Vec::new();
    let [host, config] = [pci_host(machine), config_space()];
    let mut devices = vec![host, config];
    devices.extend(machine.serial.iter().zip(0..).map(|(&(port, irq), uid)| serial(port, irq, uid)));
    if machine.rtc {
        devices.push(rtc());
    }
    let devices: Vec<Bytes> = devices.into_iter().map(Bytes).collect();
    let devices = devices.iter().map(|d| -> &dyn Aml { d }).collect();
    Scope::new("_SB_".into(), devices).to_aml_bytes(&mut code);
    let s5 = Package::new(vec![&S5_TYPE, &S5_TYPE, &0_u8, &0_u8]);
    Name::new("_S5_".into(), &s5).to_aml_bytes(&mut code);

    let mut table = Sdt::new(*b"DSDT", 36, 6, OEM, TABLE, REVISION);
    table.append_slice(&code);
    table.as_slice().to_vec()
}

/// Finished code.
struct Bytes(Vec<u8>);

impl Aml for Bytes {
    fn to_aml_bytes(&self, sink: &mut dyn acpi_tables::AmlSink) {
        sink.vec(&self.0);
    }
}

fn code(object: &dyn Aml) -> Vec<u8> {
    let mut bytes = Vec::new();
    object.to_aml_bytes(&mut bytes);
    bytes
}

fn address(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

fn pci_host(machine: &Machine) -> Vec<u8> {
    let (config, config_end) = CONFIG_PORTS;
    let window_end = address((layout::PCI_MMIO + layout::PCI_MMIO_SIZE).saturating_sub(1));
    let cacheable = AddressSpaceCacheable::NotCacheable;
    code(&Device::new(
        "PCI0".into(),
        vec![
            &Name::new("_HID".into(), &EISAName::new("PNP0A08")),
            &Name::new("_CID".into(), &EISAName::new("PNP0A03")),
            &Name::new("_SEG".into(), &0_u8),
            &Name::new("_UID".into(), &0_u8),
            &Name::new("_CCA".into(), &1_u8),
            &Name::new(
                "_CRS".into(),
                &ResourceTemplate::new(vec![
                    &AddressSpace::new_bus_number(0_u16, 0_u16),
                    &IO::new(config, config, 1, 8),
                    &AddressSpace::new_io(0_u16, config.saturating_sub(1), None),
                    &AddressSpace::new_io(config_end.saturating_add(1), 0xffff_u16, None),
                    &AddressSpace::new_memory(cacheable, true, address(layout::PCI_MMIO), window_end, None),
                ]),
            ),
            &Name::new("_PRT".into(), &routes(machine)),
        ],
    ))
}

/// One package per device and pin: address, pin, no link device, global interrupt.
fn routes(machine: &Machine) -> PackageBuilder {
    let mut all = PackageBuilder::new();
    for (device, pins) in (1_u32..).zip(machine.pci_routes.iter().skip(1)) {
        for (pin, gsi) in (0_u8..).zip(pins) {
            let address = device << 16 | 0xffff;
            all.add_element(&Package::new(vec![&address, &pin, &0_u8, gsi]));
        }
    }
    all
}

/// The memory-mapped configuration space, claimed as a board resource (PCI Firmware 3.3, 4.1.2).
fn config_space() -> Vec<u8> {
    code(&Device::new(
        "MBRD".into(),
        vec![
            &Name::new("_HID".into(), &EISAName::new("PNP0C02")),
            &Name::new("_UID".into(), &0_u8),
            &Name::new(
                "_CRS".into(),
                &ResourceTemplate::new(vec![&Memory32Fixed::new(
                    true,
                    address(layout::ECAM),
                    address(layout::ECAM_SIZE),
                )]),
            ),
        ],
    ))
}

fn serial(port: u16, irq: u8, uid: u8) -> Vec<u8> {
    let name = format!("COM{}", uid.saturating_add(1).min(9));
    code(&Device::new(
        name.as_str().into(),
        vec![
            &Name::new("_HID".into(), &EISAName::new("PNP0501")),
            &Name::new("_UID".into(), &uid),
            &Name::new(
                "_CRS".into(),
                &ResourceTemplate::new(vec![
                    &IO::new(port, port, 1, 8),
                    &Interrupt::new(true, true, false, false, u32::from(irq)),
                ]),
            ),
        ],
    ))
}

fn rtc() -> Vec<u8> {
    code(&Device::new(
        "RTC0".into(),
        vec![
            &Name::new("_HID".into(), &EISAName::new("PNP0B00")),
            &Name::new(
                "_CRS".into(),
                &ResourceTemplate::new(vec![&IO::new(0x70, 0x70, 1, 2), &Interrupt::new(true, true, false, false, 8)]),
            ),
        ],
    ))
}

#[cfg(test)]
mod tests {
    use super::bytes;
    use crate::acpi::{Machine, Profile};

    fn contains(code: &[u8], what: &[u8]) -> bool {
        code.windows(what.len()).any(|w| w == what)
    }

    #[test]
    fn only_what_exists_is_described() {
        let mut machine = Machine {
            cpus: 1,
            profile: Profile::Reduced { sleep_control: 0x600 },
            reset: (0xcf9, 6),
            serial: vec![],
            rtc: false,
            keyboard_controller: false,
            pci_routes: [[16; 4]; 32],
            overrides: vec![],
        };
        let without = bytes(&machine);
        assert!(contains(&without, b"PCI0") && contains(&without, b"_PRT") && contains(&without, b"_S5_"));
        assert!(!contains(&without, b"COM1") && !contains(&without, b"RTC0"));
        machine.serial = vec![(0x3f8, 4), (0x2f8, 3)];
        machine.rtc = true;
        let with = bytes(&machine);
        assert!(contains(&with, b"COM1") && contains(&with, b"COM2") && contains(&with, b"RTC0"));
    }
}
