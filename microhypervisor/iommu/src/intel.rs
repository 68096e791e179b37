// SPDX-License-Identifier: MIT OR Apache-2.0
//! Formats of VT-d in legacy mode: root and context tables (VT-d 9.1, 9.3), second-level page tables (9.8), the interrupt remapping table (9.10),
//! invalidation descriptors (6.5.2), fault records (11.4.7, reasons in appendix A), registers (chapter 11).

use crate::driver::Forget;
use crate::{Cause, Fault, Requester};
use cloister_mechanism::radix::Format;

/// Registers by offset; those of 32 bits say so.
pub(crate) mod register {
    pub(crate) const CAPABILITY: u64 = 0x08;
    pub(crate) const EXTENDED: u64 = 0x10;
    /// 32 bits.
    pub(crate) const COMMAND: u64 = 0x18;
    /// 32 bits.
    pub(crate) const STATUS: u64 = 0x1c;
    pub(crate) const ROOT: u64 = 0x20;
    /// 32 bits; bits are cleared by writing them.
    pub(crate) const FAULT_STATUS: u64 = 0x34;
    /// Control, data, address and upper half of the address of the fault interrupt, 32 bits each. Bit 31 of the first masks.
    pub(crate) const FAULT_EVENT: [u64; 4] = [0x38, 0x3c, 0x40, 0x44];
    /// 32 bits.
    pub(crate) const PROTECTED_MEMORY: u64 = 0x64;
    pub(crate) const QUEUE_TAIL: u64 = 0x88;
    pub(crate) const QUEUE_BASE: u64 = 0x90;
    pub(crate) const INTERRUPT_TABLE: u64 = 0xb8;
}

/// Command and status: translate; take the root table; flush the write buffer; take invalidations from the queue; remap interrupts; take the interrupt
/// remapping table.
pub(crate) const TRANSLATE: u32 = 1 << 31;
pub(crate) const SET_ROOT: u32 = 1 << 30;
pub(crate) const FLUSH_BUFFER: u32 = 1 << 27;
pub(crate) const QUEUE: u32 = 1 << 26;
pub(crate) const REMAP: u32 = 1 << 25;
pub(crate) const SET_INTERRUPT_TABLE: u32 = 1 << 24;
/// Of these, what stays on when another one is given: the others are commands of one time.
pub(crate) const KEPT: u32 = TRANSLATE | QUEUE | REMAP;
/// Fault status: records were lost; there is a record; errors of the invalidation queue.
pub(crate) const FAULT_OVERFLOW: u32 = 1 << 0;
pub(crate) const FAULT_PENDING: u32 = 1 << 1;
pub(crate) const QUEUE_ERRORS: u32 = 7 << 4;
/// Interrupt table: destinations of 32 bits.
pub(crate) const X2APIC: u64 = 1 << 11;

/// Bytes of a root or context table, and of an entry.
pub(crate) const TABLE: u64 = 4096;
pub(crate) const ENTRY: u64 = 16;
/// First word of an entry of any table: it is there; its faults are not recorded.
pub(crate) const PRESENT: u64 = 1 << 0;
pub(crate) const SILENT: u64 = 1 << 1;

/// What a unit can do: its two registers of capabilities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Abilities(pub(crate) u64, pub(crate) u64);

impl Abilities {
    /// What the bit at that place of the first register stands for.
    pub(crate) const fn has(self, bit: u32) -> bool {
        self.0 >> bit & 1 != 0
    }

    /// The same for the second register.
    pub(crate) const fn has_further(self, bit: u32) -> bool {
        self.1 >> bit & 1 != 0
    }

    /// Number of domains.
    pub(crate) const fn domains(self) -> u32 {
        let code = self.0 & 7;
        if code >= 6 { 1 << 16 } else { 1 << (4 + 2 * code) }
    }

    /// It caches that something is not mapped (a unit that is emulated), or does not see what processors write until it is told.
    pub(crate) const fn wants_news(self) -> bool {
        self.has(7) || self.has(4) || !self.has_further(0)
    }

    /// Most levels above the first of a page, counted from pages of 4 KiB: 1 with 2 MiB pages, 2 with those of 1 GiB.
    pub(crate) const fn large(self) -> u8 {
        match self.0 >> 34 & 3 {
            3 => 2,
            1 => 1,
            _ => 0,
        }
    }

    /// Offset of the first fault record, and number of records.
    pub(crate) const fn faults(self) -> (u64, u64) {
        ((self.0 >> 24 & 0x3ff) * 16, (self.0 >> 40 & 0xff) + 1)
    }

    /// It can invalidate a range of 2^order pages.
    const fn has_range(self, order: u32) -> bool {
        self.has(39) && order as u64 <= self.0 >> 48 & 0x3f
    }
}

/// First word of a context entry: blocked, or with a page table.
pub(crate) const fn translation(table: Option<u64>) -> u64 {
    match table {
        None => 0,
        Some(root) => root | PRESENT,
    }
}

/// Second word of a context entry: domain, and levels of the page table.
pub(crate) const fn domain(domain: u16, levels: u32) -> u64 {
    (domain as u64) << 8 | (levels - 2) as u64
}

/// An entry of the interrupt remapping table: fixed delivery to one physical APIC, for this requester alone. `wide` says how APICs are named. `None` if
/// the APIC cannot be named.
pub(crate) fn interrupt(source: Requester, apic: u32, vector: u8, level: bool, wide: bool) -> Option<[u32; 4]> {
    if !wide && apic >= 0xff {
        return None;
    }
    let destination = if wide { apic } else { apic << 8 };
    // The requester must be as given, all bits of it.
    Some([1 | u32::from(level) << 4 | u32::from(vector) << 16, destination, u32::from(source.0) | 1 << 18, 0])
}

/// Address of the message that uses an entry (5.1.2); its data is 0.
pub(crate) const fn message(index: u16) -> u64 {
    0xfee0_0000 | 1 << 4 | (index as u64 & 0x7fff) << 5 | (index as u64 >> 15) << 2
}

/// High and low word of the redirection entry of an I/O APIC that uses an entry, beside trigger, polarity and mask.
pub(crate) const fn redirection(index: u16, vector: u8) -> (u32, u32) {
    ((index as u32 & 0x7fff) << 17 | 1 << 16, vector as u32 | (index as u32 >> 15) << 11)
}

const READ: u64 = 1 << 0;
const WRITE: u64 = 1 << 1;

/// Pages of a DMA space, in tables of three or four levels, as the units can.
#[derive(Debug)]
pub struct Paging<const LEVELS: u32>;

impl<const LEVELS: u32> Format for Paging<LEVELS> {
    const LEVELS: u32 = LEVELS;
    const PRESENT: u64 = READ | WRITE;
    const LARGE: u64 = 1 << 7;
    const TABLE: u64 = READ | WRITE;
    const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
    const ROOT_SLOTS: usize = 512;
}

/// Attribute bits of a page.
#[must_use]
pub const fn attributes(read: bool, write: bool) -> u64 {
    (if read { READ } else { 0 }) | if write { WRITE } else { 0 }
}

/// The descriptor that makes a unit forget.
pub(crate) const fn descriptor(what: Forget, unit: Abilities) -> [u64; 2] {
    match what {
        Forget::Devices => [1 | 1 << 4, 0],
        Forget::Translations => [2 | 1 << 4 | DRAIN, 0],
        Forget::Interrupts => [4, 0],
        Forget::Device(device, domain) => [1 | 3 << 4 | (domain as u64) << 16 | (device.0 as u64) << 32, 0],
        Forget::Range(domain, address, order) if unit.has_range(order) => {
            [2 | 3 << 4 | DRAIN | (domain as u64) << 16, address | order as u64]
        }
        Forget::Domain(domain) | Forget::Range(domain, ..) => [2 | 2 << 4 | DRAIN | (domain as u64) << 16, 0],
        Forget::Interrupt(_, index) => [4 | 1 << 4 | (index as u64) << 32, 0],
    }
}

/// Waits for reads and writes that are under way.
const DRAIN: u64 = 3 << 6;

/// Writes `value` to a physical address, 4-byte aligned, when all descriptors before it are done.
pub(crate) const fn wait(address: u64, value: u32) -> [u64; 2] {
    [5 | 1 << 5 | (value as u64) << 32, address]
}

/// A record holds a fault.
pub(crate) const fn is_fault(record: [u64; 2]) -> bool {
    record[1] >> 63 != 0
}

/// The fault of a record.
pub(crate) fn fault(record: [u64; 2]) -> Fault {
    let [low, high, _, _, reason, ..] = record[1].to_le_bytes();
    let cause = match reason {
        // Root or context entry not present.
        1 | 2 => Cause::Device,
        // Address beyond the space; no right to write, to read; an access to the interrupt window.
        4..=6 | 0xe => Cause::Address,
        0x20..=0x26 => Cause::Interrupt,
        _ => Cause::Table,
    };
    // For interrupts the index of the entry, in the uppermost bits.
    let address = if cause == Cause::Interrupt { record[0] >> 48 } else { record[0] & !0xfff };
    let device = Requester(u16::from_le_bytes([low, high]));
    Fault { device, address, write: record[1] >> 62 & 1 == 0, cause }
}

#[cfg(test)]
mod tests {
    use super::{Abilities, descriptor, domain, fault, interrupt, is_fault, message, redirection, translation, wait};
    use crate::driver::Forget;
    use crate::{Cause, Fault, Requester};

    /// 2 MiB pages, ranges up to 2^18 pages, records from 0x220 on, 39 bits, 16-bit domains.
    const UNIT: Abilities = Abilities(18 << 48 | 1 << 39 | 1 << 34 | 0x22 << 24 | 2 << 8 | 6, 1 << 3 | 2);

    #[test]
    fn abilities_vt_d_11_4_2() {
        assert_eq!((UNIT.domains(), UNIT.large(), UNIT.faults()), (1 << 16, 1, (0x220, 1)));
        assert_eq!((UNIT.has(9), UNIT.has(10), UNIT.has_further(3), UNIT.has_further(4)), (true, false, true, false));
        assert_eq!((UNIT.has_range(18), UNIT.has_range(19), UNIT.wants_news()), (true, false, true));
        assert!(!Abilities(0, 1).wants_news() && Abilities(1 << 7, 1).wants_news());
    }

    #[test]
    fn entries_vt_d_9_1_and_9_3() {
        assert_eq!((translation(None), translation(Some(0x7000))), (0, 0x7001));
        assert_eq!((domain(3, 4), domain(3, 3)), (0x302, 0x301));
    }

    #[test]
    fn interrupt_entries_vt_d_9_10() {
        assert_eq!(interrupt(Requester(0x20), 3, 0x41, false, false), Some([0x41_0001, 0x300, 0x4_0020, 0]));
        assert_eq!(interrupt(Requester(0x20), 0x103, 0x41, true, true), Some([0x41_0011, 0x103, 0x4_0020, 0]));
        assert_eq!(interrupt(Requester(0x20), 0x103, 0x41, false, false), None);
    }

    #[test]
    fn messages_vt_d_5_1() {
        assert_eq!(message(0), 0xfee0_0010);
        assert_eq!(message(0x8001), 0xfee0_0034);
        assert_eq!(redirection(0x8001, 0x41), (0x3_0000, 0x841));
    }

    #[test]
    fn descriptors_vt_d_6_5_2() {
        assert_eq!(descriptor(Forget::Device(Requester(0x20), 3), UNIT), [0x20_0003_0031, 0]);
        assert_eq!(descriptor(Forget::Domain(3), UNIT), [0x3_00e2, 0]);
        assert_eq!(descriptor(Forget::Range(3, 0x20_0000, 9), UNIT), [0x3_00f2, 0x20_0009]);
        assert_eq!(descriptor(Forget::Range(3, 0, 19), UNIT), [0x3_00e2, 0]);
        assert_eq!(descriptor(Forget::Interrupt(Requester(0x20), 7), UNIT), [0x7_0000_0014, 0]);
        assert_eq!(wait(0x1234, 5), [0x5_0000_0025, 0x1234]);
    }

    #[test]
    fn records_vt_d_11_4_7() {
        assert!(!is_fault([0x5000, 5 << 32 | 0x20]) && is_fault([0x5000, 1 << 63]));
        let expected = Fault { device: Requester(0x20), address: 0x5000, write: true, cause: Cause::Address };
        assert_eq!(fault([0x5000, 1 << 63 | 5 << 32 | 0x20]), expected);
        let read = fault([0x5000, 3 << 62 | 6 << 32 | 0x20]);
        assert_eq!((read.write, read.cause), (false, Cause::Address));
        let interrupt = fault([7 << 48, 1 << 63 | 0x26 << 32 | 0x20]);
        assert_eq!((interrupt.address, interrupt.cause), (7, Cause::Interrupt));
        assert_eq!(fault([0, 1 << 63 | 2 << 32 | 0x20]).cause, Cause::Device);
    }
}
