// SPDX-License-Identifier: MIT OR Apache-2.0
//! How the firmware says that a machine is switched off and reset: registers of the FADT, and values of the DSDT's `_S5_` package.
//!
//! The tables are foreign data, read by a function that answers `None` beyond their end; nothing here can fail otherwise. There is no
//! interpreter: `_S5_` is found by its bytes, as it is a constant in each DSDT that is known, and methods that firmware would like to be
//! run before (`_PTS`) are not.
//!
//! Sources: ACPI 6.5, 4.8.3 (fixed registers), 5.2.3.2 (generic addresses), 5.2.9 (FADT), 7.4.2 (`_Sx`), 20.2 (byte code).

/// Where a register is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Register {
    /// At a physical address.
    Memory(u64),
    /// At a port.
    Port(u16),
    /// In the configuration space of bus 0: device, function, offset.
    Configuration(u8, u8, u8),
}

/// What the tables say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Power {
    /// PM1a and PM1b control.
    pub control: [Option<Register>; 2],
    /// Sleep control, of machines without the former.
    pub sleep: Option<Register>,
    /// There is no PM1 control, whatever the table has there.
    pub reduced: bool,
    /// Reset register, and what is written to it.
    pub reset: Option<(Register, u8)>,
    /// Port and value that make firmware hand over the PM1 registers.
    pub enable: Option<(u16, u8)>,
    /// SLP_TYPa and SLP_TYPb of S5.
    pub types: Option<[u8; 2]>,
}

/// Reads so many bytes at an offset of a table as a number; `None` beyond its end.
pub trait Reader: Fn(u64, u64) -> Option<u64> {}
impl<F: Fn(u64, u64) -> Option<u64>> Reader for F {}

/// Flags of the FADT: a reset register; reduced hardware.
const HAS_RESET: u64 = 1 << 10;
const REDUCED: u64 = 1 << 20;

/// A generic address.
fn generic(table: &impl Reader, offset: u64) -> Option<Register> {
    let (space, address) = (table(offset, 1)?, table(offset + 4, 8)?);
    match space {
        _ if address == 0 => None,
        0 => Some(Register::Memory(address)),
        1 => u16::try_from(address).ok().map(Register::Port),
        2 => {
            let [low, high, function, _, device, ..] = address.to_le_bytes();
            (high == 0 && function < 8 && device < 32).then_some(Register::Configuration(device, function, low))
        }
        _ => None,
    }
}

/// A register that has a generic address in tables that are long enough, else a port.
fn register(table: &impl Reader, extended: u64, port: u64) -> Option<Register> {
    let legacy = || u16::try_from(table(port, 4)?).ok().filter(|port| *port != 0).map(Register::Port);
    generic(table, extended).or_else(legacy)
}

/// Addresses of the DSDT, the better one first; 0 for none.
pub fn dsdt(fadt: impl Reader) -> [u64; 2] {
    [fadt(140, 8).unwrap_or(0), fadt(40, 4).unwrap_or(0)]
}

/// Reads an FADT. `types` is what [`sleep_types`] found in its DSDT.
pub fn power(fadt: impl Reader, types: Option<[u8; 2]>) -> Power {
    let flags = fadt(112, 4).unwrap_or(0);
    let byte = |offset| fadt(offset, 1).and_then(|value| u8::try_from(value).ok());
    let smi = fadt(48, 4).and_then(|port| u16::try_from(port).ok()).filter(|port| *port != 0);
    let reset = generic(&fadt, 116).filter(|_| flags & HAS_RESET != 0);
    Power {
        control: [register(&fadt, 172, 64), register(&fadt, 184, 68)],
        sleep: generic(&fadt, 244),
        reduced: flags & REDUCED != 0,
        reset: reset.zip(byte(128)),
        enable: smi.zip(byte(52).filter(|value| *value != 0)),
        types,
    }
}

/// SLP_TYPa and SLP_TYPb of the package named `_S5_` in a DSDT of that size.
pub fn sleep_types(dsdt: impl Reader, size: u64) -> Option<[u8; 2]> {
    let name = u64::from(u32::from_le_bytes(*b"_S5_"));
    (36..size.saturating_sub(8)).find_map(|offset| {
        // The name, PackageOp, a length of one to four bytes, the number of elements, the elements.
        if dsdt(offset, 4)? != name || dsdt(offset + 4, 1)? != 0x12 {
            return None;
        }
        let first = offset + 7 + (dsdt(offset + 5, 1)? >> 6);
        let (a, next) = constant(&dsdt, first)?;
        let b = constant(&dsdt, next).map_or(a, |(b, _)| b);
        Some([a, b])
    })
}

/// A constant of byte code, as far as SLP_TYP has bits, and where the next one is.
fn constant(dsdt: &impl Reader, at: u64) -> Option<(u8, u64)> {
    let (value, next) = match dsdt(at, 1)? {
        0 => (0, at + 1),
        1 => (1, at + 1),
        0x0a => (dsdt(at + 1, 1)?, at + 2),
        0x0b => (dsdt(at + 1, 2)?, at + 3),
        0x0c => (dsdt(at + 1, 4)?, at + 5),
        _ => return None,
    };
    Some((u8::try_from(value & 7).ok()?, next))
}

#[cfg(test)]
mod tests {
    use super::{Power, Reader, Register, dsdt, power, sleep_types};

    fn reader(bytes: &[u8]) -> impl Reader + '_ {
        |offset, count| {
            let start = usize::try_from(offset).ok()?;
            let bytes = bytes.get(start..start.checked_add(usize::try_from(count).ok()?)?)?;
            Some(bytes.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
        }
    }

    fn table(size: usize, fields: &[(usize, &[u8])]) -> Vec<u8> {
        let mut bytes = vec![0; size];
        for (offset, field) in fields {
            bytes[*offset..*offset + field.len()].copy_from_slice(field);
        }
        bytes
    }

    #[test]
    fn old_table_has_ports_alone() {
        let fadt = table(116, &[(40, &[0, 0, 0xf, 0]), (48, &[0xb2, 0, 0, 0, 2]), (64, &[4, 6])]);
        assert_eq!(dsdt(reader(&fadt)), [0, 0xf_0000]);
        let found = power(reader(&fadt), Some([5, 5]));
        assert_eq!(found.control, [Some(Register::Port(0x604)), None]);
        assert_eq!((found.enable, found.reset, found.sleep), (Some((0xb2, 2)), None, None));
    }

    #[test]
    fn generic_addresses_come_first() {
        let memory = [0, 16, 0, 2, 0, 0x10, 0xd0, 0xfe, 1, 0, 0, 0];
        let fadt = table(
            276,
            &[
                (64, &[4, 6]),
                (68, &[8, 6]),
                (112, &[0, 4, 0, 0]),
                (116, &[2, 8, 0, 1, 0x40, 0, 3, 0, 0x1f, 0, 0, 0, 0x0e]),
                (140, &[0, 0, 0, 0, 2]),
                (172, &memory),
                (184, &[1, 16, 0, 2]),
                (244, &[1, 8, 0, 1, 0x10, 5]),
            ],
        );
        assert_eq!(dsdt(reader(&fadt)), [2 << 32, 0]);
        let found = power(reader(&fadt), None);
        // The second one has no address, so the port holds.
        assert_eq!(found.control, [Some(Register::Memory(0x1_fed0_1000)), Some(Register::Port(0x608))]);
        assert_eq!(found.reset, Some((Register::Configuration(0x1f, 3, 0x40), 0x0e)));
        assert_eq!((found.sleep, found.reduced), (Some(Register::Port(0x510)), false));
    }

    #[test]
    fn reset_needs_its_flag_and_a_place() {
        let reset = [1, 8, 0, 1, 0xf9, 0x0c, 0, 0, 0, 0, 0, 0, 6];
        let found = |flags: [u8; 4]| power(reader(&table(129, &[(112, &flags), (116, &reset)])), None);
        assert_eq!(found([0, 4, 0, 0]).reset, Some((Register::Port(0xcf9), 6)));
        assert_eq!(found([0, 0, 0x10, 0]), Power { reduced: true, ..Power::default() });
    }

    #[test]
    fn sleep_types_in_all_encodings() {
        let dsdt = |package: &[u8]| {
            let mut bytes = table(40, &[]);
            bytes.extend_from_slice(b"\x08_S5_");
            bytes.extend_from_slice(package);
            bytes.extend_from_slice(&[0; 12]);
            sleep_types(reader(&bytes), bytes.len() as u64)
        };
        assert_eq!(dsdt(&[0x12, 0x06, 4, 0, 0, 0, 0]), Some([0, 0]));
        assert_eq!(dsdt(&[0x12, 0x08, 4, 0x0a, 5, 0x0a, 7, 0, 0]), Some([5, 7]));
        assert_eq!(dsdt(&[0x12, 0x48, 0, 2, 1, 0x0b, 5, 0]), Some([1, 5]));
        assert_eq!(dsdt(&[0x12, 0x06, 1, 0x0c, 7, 0, 0, 0, 0xff]), Some([7, 7]));
        assert_eq!(dsdt(&[0x13, 0x06, 4, 0, 0, 0, 0]), None);
        assert_eq!(dsdt(&[0x12, 0x06, 4, 0x0d]), None);
    }

    #[test]
    fn noise_is_survived() {
        let mut state = 1u64;
        for size in 0..600 {
            let bytes: Vec<u8> = (0..size)
                .map(|_| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    state.to_be_bytes()[0]
                })
                .collect();
            let types = sleep_types(reader(&bytes), size + 100);
            let _ = (power(reader(&bytes), types), dsdt(reader(&bytes)));
        }
    }
}
