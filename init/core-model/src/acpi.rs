// SPDX-License-Identifier: MIT OR Apache-2.0
//! The firmware's ACPI tables: which there are, and where they end.
//!
//! Firmware is foreign, if not hostile: a table counts only if its length makes sense and its sum is zero, and at most so many are
//! looked at. Source: ACPI 6.5, 5.2.6 (headers), 5.2.7 and 5.2.8 (RSDT, XSDT), 5.2.9 (FADT).

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

/// Size of a header, bytes.
const HEADER: u64 = 36;
/// Larger tables are nonsense, bytes.
const LARGEST: u64 = 4 << 20;
/// More tables are not looked at.
const MOST: usize = 128;

/// A table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table<'a> {
    /// Its signature, such as `APIC`; of several with one signature the second and later ones have a number, `SSDT-2`.
    pub name: String,
    /// All of it, header included.
    pub content: &'a [u8],
}

fn number(bytes: &[u8], at: usize, size: usize) -> Option<u64> {
    let bytes = bytes.get(at..at.checked_add(size)?)?;
    Some(bytes.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
}

/// A table whose header and sum are right: signature and content.
fn table<'a>(address: u64, read: &mut dyn FnMut(u64, u64) -> Option<&'a [u8]>) -> Option<(String, &'a [u8])> {
    let size = number(read(address, HEADER)?, 4, 4)?;
    if address == 0 || !(HEADER..=LARGEST).contains(&size) {
        return None;
    }
    let content = read(address, size)?;
    let signature = core::str::from_utf8(content.get(..4)?).ok()?;
    let sound = signature.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_')
        && content.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)) == 0;
    sound.then(|| (signature.to_string(), content))
}

/// All tables that the table of tables at `root` (XSDT or RSDT) leads to, and that one itself. `read` answers so many bytes of physical
/// memory, if they can be read.
pub fn tables<'a>(root: u64, read: &mut dyn FnMut(u64, u64) -> Option<&'a [u8]>) -> Vec<Table<'a>> {
    let mut found: Vec<Table<'a>> = Vec::new();
    let Some((name, list)) = table(root, read) else { return found };
    let width = if name == "XSDT" { 8 } else { 4 };
    let first = usize::try_from(HEADER).unwrap_or(list.len());
    let mut add = |(name, content): (String, &'a [u8])| {
        let alike = found.iter().filter(|table| table.name.get(..4) == name.get(..4)).count();
        let name = if alike == 0 { name } else { format!("{name}-{}", alike + 1) };
        found.push(Table { name, content });
    };
    for at in (first..list.len()).step_by(width).take(MOST) {
        let Some(found) = number(list, at, width).and_then(|address| table(address, read)) else { continue };
        // The FADT names the DSDT, twice if the firmware is new.
        let dsdt = if found.0 == "FACP" {
            let new = number(found.1, 140, 8).filter(|address| *address != 0);
            new.or_else(|| number(found.1, 40, 4)).and_then(|address| table(address, read))
        } else {
            None
        };
        [Some(found), dsdt].into_iter().flatten().for_each(&mut add);
    }
    add((name, list));
    found
}

#[cfg(test)]
mod tests {
    use super::{Table, tables};
    use alloc::vec::Vec;

    const BASE: u64 = 0x7fe0_0000;

    fn made(signature: &[u8; 4], body: &[u8]) -> Vec<u8> {
        let mut table = signature.to_vec();
        table.extend(u32::try_from(36 + body.len()).expect("small").to_le_bytes());
        table.resize(36, 0);
        table.extend(body);
        let sum = table.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
        table[9] = 0u8.wrapping_sub(sum);
        table
    }

    /// Tables in a row from `BASE` on, and their addresses.
    fn memory(tables: &[Vec<u8>]) -> (Vec<u8>, Vec<u64>) {
        let mut addresses = Vec::new();
        let mut memory = Vec::new();
        for table in tables {
            addresses.push(BASE + memory.len() as u64);
            memory.extend(table);
        }
        (memory, addresses)
    }

    fn find(memory: &[u8], root: u64) -> Vec<Table<'_>> {
        tables(root, &mut |address, size| {
            let first = usize::try_from(address.checked_sub(BASE)?).ok()?;
            memory.get(first..first.checked_add(usize::try_from(size).ok()?)?)
        })
    }

    fn names<'a>(found: &'a [Table<'_>]) -> Vec<&'a str> {
        found.iter().map(|table| table.name.as_str()).collect()
    }

    fn list(addresses: &[u64]) -> Vec<u8> {
        made(b"XSDT", &addresses.iter().flat_map(|address| address.to_le_bytes()).collect::<Vec<_>>())
    }

    #[test]
    fn follows_the_list_and_the_fadt() {
        let mut fadt = alloc::vec![0; 112];
        fadt[104..112].copy_from_slice(&(BASE + 148).to_le_bytes());
        let own = [made(b"FACP", &fadt), made(b"DSDT", b"code"), made(b"SSDT", b"1"), made(b"SSDT", b"22")];
        let (mut memory, addresses) = memory(&own);
        assert_eq!(addresses[1], BASE + 148);
        let root = BASE + memory.len() as u64;
        memory.extend(list(&[addresses[0], addresses[2], addresses[3]]));
        let found = find(&memory, root);
        assert_eq!(names(&found), ["FACP", "DSDT", "SSDT", "SSDT-2", "XSDT"]);
        assert_eq!(found[3].content.len(), 38);
    }

    #[test]
    fn an_old_list_has_narrow_entries() {
        let (mut memory, addresses) = memory(&[made(b"APIC", b"x")]);
        let root = BASE + memory.len() as u64;
        memory.extend(made(b"RSDT", &u32::try_from(addresses[0]).expect("low").to_le_bytes()));
        assert_eq!(names(&find(&memory, root)), ["APIC", "RSDT"]);
    }

    #[test]
    fn what_is_damaged_is_left_out() {
        let mut short = made(b"HPET", b"x");
        short[4] = 35;
        let mut long = made(b"MCFG", b"x");
        long[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        let mut sum = made(b"BERT", b"x");
        sum[36] = b'y';
        let (mut memory, mut addresses) = memory(&[short, long, sum, made(b"A/B.", b""), made(b"WAET", b"")]);
        addresses.extend([0, 1, u64::MAX, BASE - 1]);
        let root = BASE + memory.len() as u64;
        memory.extend(list(&addresses));
        assert_eq!(names(&find(&memory, root)), ["WAET", "XSDT"]);
        assert!(find(&memory, root + 1).is_empty());
    }
}
