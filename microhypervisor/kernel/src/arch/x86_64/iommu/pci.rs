// SPDX-License-Identifier: MIT OR Apache-2.0
//! As much of PCI configuration space as finding and programming an IOMMU needs, at boot only, by the ports that every PC has (PCI Local Bus 3.0,
//! 3.2.2.3.2). Afterwards the ports are the platform driver's.

use cloister_iommu::Requester;
use x86::io::{inl, outl};

const ADDRESS: u16 = 0xcf8;
const DATA: u16 = 0xcfc;

fn select(device: Requester, register: u8) {
    // SAFETY: at boot the ports are the kernel's.
    unsafe { outl(ADDRESS, 1 << 31 | u32::from(device.0) << 8 | u32::from(register & 0xfc)) };
}

/// Reads a register of 32 bits.
pub(super) fn read(device: Requester, register: u8) -> u32 {
    select(device, register);
    // SAFETY: as above.
    unsafe { inl(DATA) }
}

/// Writes a register of 32 bits.
pub(super) fn write(device: Requester, register: u8, value: u32) {
    select(device, register);
    // SAFETY: as above; what is written is an IOMMU's own interrupt.
    unsafe { outl(DATA, value) };
}

/// The bus behind a bridge.
pub(super) fn secondary_bus(bridge: Requester) -> u8 {
    read(bridge, 0x18).to_le_bytes()[1]
}

/// Offset of a capability.
pub(super) fn capability(device: Requester, id: u8) -> Option<u8> {
    // A list exists if bit 4 of the status says so. It has at most 48 members, unless it is a loop.
    let mut at = (read(device, 4) >> 20 & 1 != 0).then(|| read(device, 0x34).to_le_bytes()[0] & 0xfc)?;
    for _ in 0..48 {
        let [found, next, ..] = read(device, at).to_le_bytes();
        if at < 0x40 || found == 0xff {
            return None;
        }
        if found == id {
            return Some(at);
        }
        at = next & 0xfc;
    }
    None
}

/// Lets a device with the MSI capability send that message as its interrupt (PCI Local Bus 3.0, 6.8.1). Answers whether it has one.
pub(super) fn enable_msi(device: Requester, address: u32, data: u32) -> bool {
    let Some(at) = capability(device, 5) else { return false };
    let control = read(device, at);
    write(device, at + 4, address);
    let wide = control >> 23 & 1 != 0;
    if wide {
        write(device, at + 8, 0);
    }
    write(device, at + if wide { 12 } else { 8 }, data);
    // One message, enabled; and the device may write to memory, which a message is.
    write(device, at, control & !(7 << 20) | 1 << 16);
    write(device, 4, read(device, 4) & 0xffff | 1 << 2);
    true
}
