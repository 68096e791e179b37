// SPDX-License-Identifier: MIT OR Apache-2.0
//! Formats of AMD-Vi: device table (48882, 2.2.2.1), I/O page tables (2.2.3), interrupt tables (2.2.5), commands (2.4), events (2.5), registers (3.4).
//!
//! An entry of the device table that is not valid lets everything pass, so no entry ever is: a device is either blocked, or translated.

use crate::driver::Forget;
use crate::{Cause, Fault, Requester};
use cloister_mechanism::radix::Format;

/// Registers by offset.
pub(crate) mod register {
    pub(crate) const DEVICE_TABLE: u64 = 0x00;
    pub(crate) const COMMAND_BASE: u64 = 0x08;
    pub(crate) const EVENT_BASE: u64 = 0x10;
    pub(crate) const CONTROL: u64 = 0x18;
    pub(crate) const FEATURES: u64 = 0x30;
    pub(crate) const COMMAND_HEAD: u64 = 0x2000;
    pub(crate) const COMMAND_TAIL: u64 = 0x2008;
    pub(crate) const EVENT_HEAD: u64 = 0x2010;
    pub(crate) const EVENT_TAIL: u64 = 0x2018;
    /// Bits are cleared by writing them.
    pub(crate) const STATUS: u64 = 0x2020;
    /// Pages that hold these.
    pub(crate) const PAGES: u64 = 3;
}

/// Control: translate; log events, with an interrupt; snoop the processors' caches; take commands.
pub(crate) const ENABLE: u64 = 1 << 0;
pub(crate) const EVENT_LOG: u64 = 1 << 2;
pub(crate) const EVENT_INTERRUPT: u64 = 1 << 3;
pub(crate) const COHERENT: u64 = 1 << 10;
pub(crate) const COMMANDS: u64 = 1 << 12;
/// Control: interrupt tables of 128-bit entries, with destinations of more than 8 bits.
pub(crate) const WIDE: u64 = 1 << 17 | 1 << 50;
/// Features: the same, and the command that invalidates everything.
pub(crate) const HAS_WIDE: u64 = 1 << 7 | 1 << 2;
pub(crate) const HAS_INVALIDATE_ALL: u64 = 1 << 6;
/// Status: events were lost; an event was logged; the log is being written.
pub(crate) const EVENT_OVERFLOW: u64 = 1 << 0;
pub(crate) const EVENT_PENDING: u64 = 1 << 1;
pub(crate) const EVENT_RUNNING: u64 = 1 << 3;

/// Code of a ring of 256 records of 16 bytes, as the base registers have it.
pub(crate) const RING_CODE: u64 = 8 << 56;

/// Bytes of an entry of the device table, and of the table.
pub(crate) const ENTRY: u64 = 32;
pub(crate) const DEVICE_TABLE: u64 = ENTRY << 16;
/// Offset in an entry of the word that decides about interrupts.
pub(crate) const INTERRUPTS: u64 = 16;
/// In the domain's word: no events for this device.
pub(crate) const SILENT: u64 = 1 << (98 - 64);
/// Levels of page tables: 48 bits of address, which each unit can.
const LEVELS: u32 = 4;

const READ: u64 = 1 << 61;
const WRITE: u64 = 1 << 62;

/// First word of an entry: a page table, or nothing reached (translation is valid and switched off by mode 0; no right is given).
pub(crate) const fn translation(table: Option<u64>) -> u64 {
    // Entry and translation are valid.
    let always = 1 << 0 | 1 << 1;
    match table {
        None => always,
        Some(root) => always | READ | WRITE | (LEVELS as u64) << 9 | root,
    }
}

/// The word that lets a device raise the interrupts of the table at this physical address (aligned to 128 bytes) of 2^order entries; with
/// none, it raises no interrupt. All kinds that a table cannot remap (NMI, INIT, external) are blocked.
pub(crate) const fn interrupts(table: Option<(u64, u32)>) -> u64 {
    const VALID: u64 = 1 << 0;
    const REMAP: u64 = 2 << 60;
    match table {
        None => VALID,
        Some((address, order)) => VALID | (order as u64) << 1 | address | REMAP,
    }
}

/// Physical address of the table in a word of [`interrupts`], 0 for none.
pub(crate) const fn interrupt_table(word: u64) -> u64 {
    word & 0x000f_ffff_ffff_ffc0
}

/// An entry of an interrupt table that leads to a vector of a local APIC: fixed delivery. A narrow one is its first part. `None` if the APIC cannot
/// be named.
pub(crate) fn interrupt(apic: u32, vector: u8, wide: bool) -> Option<[u32; 4]> {
    let enabled = 1 | (apic & 0xff_ffff) << 8;
    if wide {
        return Some([enabled, 0, vector.into(), apic >> 24 << 24]);
    }
    (apic < 0xff).then_some([enabled | u32::from(vector) << 16, 0, 0, 0])
}

/// Pages of a DMA space: an entry names the level that it leads to, and 0 makes it a page of its table's own size.
#[derive(Debug)]
pub struct Paging;

const PRESENT: u64 = 1 << 0;
const NEXT_SHIFT: u32 = 9;

impl Format for Paging {
    const LEVELS: u32 = LEVELS;
    const PRESENT: u64 = PRESENT;
    const LARGE: u64 = 0;
    const TABLE: u64 = PRESENT | READ | WRITE;
    const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
    const ROOT_SLOTS: usize = 512;

    fn table(level: u32) -> u64 {
        Self::TABLE | u64::from(level) << NEXT_SHIFT
    }

    fn is_leaf(entry: u64, _: u32) -> bool {
        entry & 7 << NEXT_SHIFT == 0
    }
}

/// Attribute bits of a page. Bit 60: the processors' caches are snooped, whatever the device asks for.
#[must_use]
pub const fn attributes(read: bool, write: bool) -> u64 {
    PRESENT | 1 << 60 | if read { READ } else { 0 } | if write { WRITE } else { 0 }
}

/// The command that makes a unit forget.
pub(crate) const fn command(what: Forget) -> [u64; 2] {
    // An address of ones is everything. Bits 0 and 1: more than a page, inner entries too.
    const ALL: u64 = 0x7fff_ffff_ffff_f000 | 3;
    match what {
        Forget::Devices | Forget::Translations | Forget::Interrupts => [8 << 60, 0],
        Forget::Device(device, _) => [2 << 60 | device.0 as u64, 0],
        Forget::Domain(domain) => [3 << 60 | (domain as u64) << 32, ALL],
        Forget::Range(domain, address, 0) => [3 << 60 | (domain as u64) << 32, address | 2],
        Forget::Range(domain, address, order) => {
            [3 << 60 | (domain as u64) << 32, address | ((1 << (11 + order)) - 1) & !0xfff | 3]
        }
        Forget::Interrupt(device, _) => [5 << 60 | device.0 as u64, 0],
    }
}

/// Writes `value` to a physical address, 8-byte aligned, when all commands before are done.
pub(crate) const fn wait(address: u64, value: u32) -> [u64; 2] {
    [1 << 60 | address | 1, value as u64]
}

/// The fault that an event tells of.
pub(crate) fn fault(event: [u64; 2]) -> Fault {
    let flag = |bit: u32| event[0] >> bit & 1 != 0;
    let cause = match event[0] >> 60 {
        // Page fault: whether it was an interrupt, and (meaning something only then) whether there was a translation at all.
        2 if flag(51) => Cause::Interrupt,
        // Domain 0 is that of devices that are in no space.
        2 if event[0] >> 32 & 0xffff == 0 => Cause::Device,
        2 => Cause::Address,
        // A device does what no device of its kind may do.
        8 => Cause::Device,
        _ => Cause::Table,
    };
    let [low, high, ..] = event[0].to_le_bytes();
    Fault { device: Requester(u16::from_le_bytes([low, high])), address: event[1], write: flag(53), cause }
}

#[cfg(test)]
mod tests {
    use super::{Paging, attributes, command, fault, interrupt, interrupt_table, interrupts, translation, wait};
    use crate::driver::Forget;
    use crate::{Cause, Fault, Requester};
    use cloister_mechanism::radix::Format;

    #[test]
    fn every_entry_is_valid_48882_2_2_2_1() {
        assert_eq!(translation(None), 3);
        assert_eq!(translation(Some(0x12_3000)), 0x6000_0000_0012_3803);
        assert_eq!(interrupts(None), 1);
        assert_eq!(interrupt_table(interrupts(None)), 0);
        assert_eq!(interrupt_table(interrupts(Some((0x4080, 6)))), 0x4080);
        assert_eq!(interrupts(Some((0x4000, 5))), 0x2000_0000_0000_400b);
    }

    #[test]
    fn interrupt_entries_48882_2_2_5() {
        assert_eq!(interrupt(3, 0x41, false), Some([0x41_0301, 0, 0, 0]));
        assert_eq!(interrupt(0x100, 0x41, false), None);
        assert_eq!(interrupt(0x0102_0304, 0x41, true), Some([0x0203_0401, 0, 0x41, 0x0100_0000]));
    }

    #[test]
    fn page_entries_name_the_next_level_48882_2_2_3() {
        // The root, level 4 in the manual, leads to level 3; the last table, level 1, has pages.
        assert_eq!(Paging::table(3), 0x6000_0000_0000_0601);
        assert_eq!(Paging::table(1), 0x6000_0000_0000_0201);
        assert!(!Paging::is_leaf(Paging::table(1), 1));
        assert!(Paging::is_leaf(attributes(true, true), 2));
        assert_eq!(attributes(true, false), 0x3000_0000_0000_0001);
        assert_eq!(attributes(false, true), 0x5000_0000_0000_0001);
    }

    #[test]
    fn commands_48882_2_4() {
        assert_eq!(wait(0x1238, 9), [0x1000_0000_0000_1239, 9]);
        assert_eq!(command(Forget::Device(Requester(0x20), 7)), [0x2000_0000_0000_0020, 0]);
        assert_eq!(command(Forget::Domain(5)), [0x3000_0005_0000_0000, 0x7fff_ffff_ffff_f003]);
        // One page: no size. Two: bit 12 is 0, and the size flag; a large page: bits 12 to 19 are 1.
        assert_eq!(command(Forget::Range(5, 0x20_0000, 0))[1], 0x20_0002);
        assert_eq!(command(Forget::Range(5, 0x20_0000, 1))[1], 0x20_0003);
        assert_eq!(command(Forget::Range(5, 0x20_0000, 9))[1], 0x2f_f003);
    }

    #[test]
    fn events_48882_2_5() {
        let expected = Fault { device: Requester(0x20), address: 0x5000, write: true, cause: Cause::Address };
        assert_eq!(fault([2 << 60 | 1 << 53 | 3 << 32 | 0x20, 0x5000]), expected);
        assert_eq!(fault([2 << 60 | 1 << 51 | 3 << 32 | 0x20, 0x5000]).cause, Cause::Interrupt);
        assert_eq!(fault([2 << 60 | 0x20, 0x5000]).cause, Cause::Device);
        assert_eq!(fault([1 << 60 | 0x20, 0]).cause, Cause::Table);
    }
}
