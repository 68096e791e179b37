// SPDX-License-Identifier: MIT OR Apache-2.0
//! The firmware's table of AMD-Vi units (48882, 5.2): IVRS, with a block for each unit (IVHD), often several of different age for the same unit, and
//! one for each range of memory that devices need (IVMD).

use crate::{Bytes, IoApic, Item, Requester, Reserved};

/// First block of the table.
const FIRST: u64 = 48;
/// Device entry of a special device, and its variety of an I/O APIC.
const SPECIAL: u8 = 0x48;
const VARIETY_IO_APIC: u8 = 1;

/// Reads a table whose header and checksum are right; `each` sees what is in it, a unit once for each block that tells of it. What is cut off
/// or longer than its block is left out.
pub fn read<B: Bytes + ?Sized>(table: &B, size: u64, each: &mut impl FnMut(Item)) {
    let mut at = FIRST;
    while let Some(length) = table.short(at + 2).map(u64::from).filter(|length| *length >= 4) {
        if at + length > size {
            return;
        }
        // What is missing in a block ends the block.
        let _ = match table.byte(at) {
            Some(0x10) => unit(table, at, at + length, 24, each),
            Some(0x11 | 0x40) => unit(table, at, at + length, 40, each),
            Some(kind @ 0x20..=0x22) => memory(table, at, length, kind, each),
            _ => Some(()),
        };
        at += length;
    }
}

fn unit<B: Bytes + ?Sized>(table: &B, at: u64, end: u64, header: u64, each: &mut impl FnMut(Item)) -> Option<()> {
    if at + header > end {
        return None;
    }
    let device = Requester(table.short(at + 4)?);
    each(Item::Unit { base: table.number(at + 8, 8)?, segment: table.short(at + 16)?, device });
    let mut entry = at + header;
    while entry < end {
        let kind = table.byte(entry)?;
        let length = match kind {
            0..0x40 => 4,
            0x40..0x80 => 8,
            0x80..0xc0 => 16,
            // ACPI device by name: its last field has a length of its own.
            0xf0 => 22 + u64::from(table.byte(entry + 21)?),
            _ => 32,
        };
        if entry + length > end {
            return None;
        }
        if kind == SPECIAL && table.byte(entry + 7)? == VARIETY_IO_APIC {
            let device = Requester(table.short(entry + 5)?);
            each(Item::IoApic(IoApic { id: table.byte(entry + 4)?, device }));
        }
        entry += length;
    }
    Some(())
}

fn memory<B: Bytes + ?Sized>(table: &B, at: u64, length: u64, kind: u8, each: &mut impl FnMut(Item)) -> Option<()> {
    if length < 32 {
        return None;
    }
    let flags = table.byte(at + 1)?;
    let device = Requester(table.short(at + 4)?);
    let (first, last) = match kind {
        0x20 => (Requester(0), Requester(u16::MAX)),
        0x21 => (device, device),
        _ => (device, Requester(table.short(at + 6)?)),
    };
    let (base, size) = (table.number(at + 16, 8)?, table.number(at + 24, 8)?);
    // An exclusion range (bit 3) is one that units need not translate, which here is the same as one that is mapped as it is.
    let exclusion = flags & 8 != 0;
    let range = Reserved {
        first,
        last,
        base,
        end: base.checked_add(size)?,
        read: exclusion || flags & 2 != 0,
        write: exclusion || flags & 4 != 0,
    };
    each(Item::Reserved(range));
    Some(())
}

#[cfg(test)]
mod tests {
    use super::read;
    use crate::{IoApic, Item, Requester, Reserved};
    use proptest::prelude::{any, proptest};

    fn items(table: &[u8]) -> Vec<Item> {
        let mut found = Vec::new();
        read(table, table.len() as u64, &mut |item| found.push(item));
        found
    }

    fn table(blocks: &[&[u8]]) -> Vec<u8> {
        let mut table = vec![0; 48];
        blocks.iter().for_each(|block| table.extend_from_slice(block));
        table
    }

    fn ivhd() -> Vec<u8> {
        let mut block = vec![0x10, 0, 44, 0, 0x08, 0, 0x40, 0];
        block.extend_from_slice(&0xfed8_0000u64.to_le_bytes());
        block.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0]);
        // All devices; an I/O APIC; a HPET.
        block.extend_from_slice(&[1, 0, 0, 0]);
        block.extend_from_slice(&[0x48, 0, 0, 0, 2, 0xa0, 0, 1]);
        block.extend_from_slice(&[0x48, 0, 0, 0, 0, 0xa0, 0, 2]);
        block
    }

    #[test]
    fn units_and_io_apics_48882_5_2_2() {
        let unit = Item::Unit { base: 0xfed8_0000, segment: 0, device: Requester(8) };
        let apic = Item::IoApic(IoApic { id: 2, device: Requester(0xa0) });
        assert_eq!(items(&table(&[&ivhd()])), [unit, apic]);
    }

    #[test]
    fn memory_48882_5_2_3() {
        let mut block = vec![0x22, 7, 32, 0, 0x10, 0, 0x17, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        block.extend_from_slice(&0x8000_0000u64.to_le_bytes());
        block.extend_from_slice(&0x10_0000u64.to_le_bytes());
        let (first, last) = (Requester(0x10), Requester(0x17));
        let range = Reserved { first, last, base: 0x8000_0000, end: 0x8010_0000, read: true, write: true };
        assert_eq!(items(&table(&[&block])), [Item::Reserved(range)]);
        // One that wraps is none.
        block[24..].copy_from_slice(&u64::MAX.to_le_bytes());
        assert_eq!(items(&table(&[&block])), []);
    }

    #[test]
    fn blocks_that_are_too_long_or_too_short_end_the_table() {
        let mut long = ivhd();
        long[2] = 45;
        assert_eq!(items(&table(&[&long])), []);
        let mut short = ivhd();
        short[2] = 3;
        assert_eq!(items(&table(&[&short])), []);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(mut bytes in proptest::collection::vec(any::<u8>(), 48..400), kind in 0u8..4, length in 0u8..120) {
            if bytes.len() > 52 {
                bytes[48] = [0x10, 0x11, 0x40, 0x22][usize::from(kind)];
                bytes[50] = length;
                bytes[51] = 0;
            }
            // Each item takes at least a device entry.
            assert!(items(&bytes).len() <= bytes.len() / 4);
        }
    }
}
