// SPDX-License-Identifier: MIT OR Apache-2.0
//! The firmware's table of VT-d units (VT-d, chapter 8): DMAR, with a structure for each unit (DRHD) and for each range of memory that devices need
//! (RMRR). Devices are named by paths: a bus, and device and function of each bridge on the way.

use crate::{Bytes, IoApic, Item, Requester, Reserved};

/// First structure of the table.
const FIRST: u64 = 48;
const UNIT: u16 = 0;
const MEMORY: u16 = 1;
/// Kind of a device scope.
const IO_APIC: u8 = 3;
/// Longest path that is followed.
const BRIDGES: u64 = 16;

/// Flags of the table: interrupts may be remapped, unless firmware has reasons against it.
#[must_use]
pub fn allows_interrupts<B: Bytes + ?Sized>(table: &B) -> bool {
    table.byte(37).is_some_and(|flags| flags & 1 != 0)
}

/// Reads a table whose header and checksum are right; `each` sees what is in it; `below` answers the bus behind a bridge. What is cut off or longer than
/// its structure is left out.
pub fn read<B: Bytes + ?Sized>(table: &B, size: u64, below: &impl Fn(Requester) -> u8, each: &mut impl FnMut(Item)) {
    let mut at = FIRST;
    while let Some(length) = table.short(at + 2).map(u64::from).filter(|length| *length >= 4) {
        if at + length > size {
            return;
        }
        // What is missing in a structure ends the structure.
        let _ = match table.short(at) {
            Some(UNIT) => unit(table, at, at + length, below, each),
            Some(MEMORY) => memory(table, at, at + length, below, each),
            _ => Some(()),
        };
        at += length;
    }
}

fn unit<B: Bytes + ?Sized>(
    table: &B,
    at: u64,
    end: u64,
    below: &impl Fn(Requester) -> u8,
    each: &mut impl FnMut(Item),
) -> Option<()> {
    if at + 16 > end {
        return None;
    }
    let device = Requester(u16::MAX);
    each(Item::Unit { base: table.number(at + 8, 8)?, segment: table.short(at + 6)?, device });
    scopes(table, at + 16, end, below, |kind, id, device| {
        if kind == IO_APIC {
            each(Item::IoApic(IoApic { id, device }));
        }
    })
}

fn memory<B: Bytes + ?Sized>(
    table: &B,
    at: u64,
    end: u64,
    below: &impl Fn(Requester) -> u8,
    each: &mut impl FnMut(Item),
) -> Option<()> {
    if at + 24 > end || table.short(at + 6)? != 0 {
        return None;
    }
    let (base, last) = (table.number(at + 8, 8)?, table.number(at + 16, 8)?);
    let after = last.checked_add(1).filter(|after| *after > base)?;
    scopes(table, at + 24, end, below, |_, _, device| {
        each(Item::Reserved(Reserved { first: device, last: device, base, end: after, read: true, write: true }));
    })
}

/// Device scopes (VT-d 8.3.1).
fn scopes<B: Bytes + ?Sized>(
    table: &B,
    mut at: u64,
    end: u64,
    below: &impl Fn(Requester) -> u8,
    mut each: impl FnMut(u8, u8, Requester),
) -> Option<()> {
    while at + 6 <= end {
        let length = u64::from(table.byte(at + 1)?);
        if length < 8 || at + length > end {
            return None;
        }
        let mut bus = table.byte(at + 5)?;
        let steps = ((length - 6) / 2).min(BRIDGES);
        for step in 0..steps {
            let device = Requester::new(bus, table.byte(at + 6 + 2 * step)?, table.byte(at + 7 + 2 * step)?);
            if step + 1 == steps {
                each(table.byte(at)?, table.byte(at + 4)?, device);
            } else {
                bus = below(device);
            }
        }
        at += length;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::{allows_interrupts, read};
    use crate::{IoApic, Item, Requester, Reserved};
    use proptest::prelude::{any, proptest};

    fn items(table: &[u8]) -> Vec<Item> {
        let mut found = Vec::new();
        read(table, table.len() as u64, &|bridge| bridge.bus().wrapping_add(1), &mut |item| found.push(item));
        found
    }

    fn table(structures: &[&[u8]]) -> Vec<u8> {
        let mut table = vec![0; 48];
        table[37] = 1;
        structures.iter().for_each(|structure| table.extend_from_slice(structure));
        table
    }

    #[test]
    fn units_vt_d_8_3() {
        let mut unit = vec![0, 0, 24, 0, 1, 0, 0, 0];
        unit.extend_from_slice(&0xfed9_0000u64.to_le_bytes());
        unit.extend_from_slice(&[3, 8, 0, 0, 2, 0xff, 0, 0]);
        let table = table(&[&unit]);
        assert!(allows_interrupts(table.as_slice()));
        let apic = Item::IoApic(IoApic { id: 2, device: Requester(0xff00) });
        assert_eq!(items(&table), [Item::Unit { base: 0xfed9_0000, segment: 0, device: Requester(0xffff) }, apic]);
    }

    #[test]
    fn memory_vt_d_8_4_behind_a_bridge() {
        let mut memory = vec![1, 0, 34, 0, 0, 0, 0, 0];
        memory.extend_from_slice(&0x8000_0000u64.to_le_bytes());
        memory.extend_from_slice(&0x8000_ffffu64.to_le_bytes());
        memory.extend_from_slice(&[1, 10, 0, 0, 0, 0, 0x1c, 1, 0, 2]);
        let device = Requester::new(1, 0, 2);
        let range =
            Reserved { first: device, last: device, base: 0x8000_0000, end: 0x8001_0000, read: true, write: true };
        assert_eq!(items(&table(&[&memory])), [Item::Reserved(range)]);
        // Ends before it begins, or wraps.
        memory[16..24].copy_from_slice(&0x7fff_ffffu64.to_le_bytes());
        assert_eq!(items(&table(&[&memory])), []);
        memory[16..24].copy_from_slice(&u64::MAX.to_le_bytes());
        assert_eq!(items(&table(&[&memory])), []);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(mut bytes in proptest::collection::vec(any::<u8>(), 48..400), kind in 0u8..3, length in 0u8..120) {
            if bytes.len() > 52 {
                bytes[48..52].copy_from_slice(&[kind, 0, length, 0]);
            }
            assert!(items(&bytes).len() <= bytes.len() / 4);
        }
    }
}
