// SPDX-License-Identifier: MIT OR Apache-2.0
//! Invalidation descriptors (VT-d 6.5.2), 16 bytes each, and fault records (11.4.7, reasons in appendix A).

use crate::{Cause, Fault, Requester};

/// A descriptor or a record.
pub type Record = [u64; 2];

/// Bytes of a queue of 256 descriptors, whose size is coded as 0.
pub const RING: u64 = 4096;

/// Forgets a context entry, whatever domain it was of.
#[must_use]
pub const fn invalidate_device(device: Requester, domain: u16) -> Record {
    [1 | 3 << 4 | (domain as u64) << 16 | (device.0 as u64) << 32, 0]
}

/// Forgets all context entries.
#[must_use]
pub const fn invalidate_contexts() -> Record {
    [1 | 1 << 4, 0]
}

/// Waits for reads and writes that are under way.
const DRAIN: u64 = 3 << 6;

/// Forgets all translations of all domains.
#[must_use]
pub const fn invalidate_translations() -> Record {
    [2 | 1 << 4 | DRAIN, 0]
}

/// Forgets all translations of a domain, inner ones too.
#[must_use]
pub const fn invalidate_domain(domain: u16) -> Record {
    [2 | 2 << 4 | DRAIN | (domain as u64) << 16, 0]
}

/// Forgets translations of an aligned range of 2^order pages of a domain, and the inner ones on the way to it.
#[must_use]
pub const fn invalidate_range(domain: u16, address: u64, order: u32) -> Record {
    [2 | 3 << 4 | DRAIN | (domain as u64) << 16, address | order as u64]
}

/// Forgets all entries of the interrupt remapping table.
#[must_use]
pub const fn invalidate_all_interrupts() -> Record {
    [4, 0]
}

/// Forgets an entry of the interrupt remapping table.
#[must_use]
pub const fn invalidate_interrupt(index: u16) -> Record {
    [4 | 1 << 4 | (index as u64) << 32, 0]
}

/// Writes `value` to a physical address, 4-byte aligned, when all descriptors before it are done.
#[must_use]
pub const fn wait(address: u64, value: u32) -> Record {
    [5 | 1 << 5 | (value as u64) << 32, address]
}

/// The fault of a record, `None` if there is none in it.
#[must_use]
pub fn fault(record: Record) -> Option<Fault> {
    if record[1] >> 63 == 0 {
        return None;
    }
    let [low, high, _, _, reason, ..] = record[1].to_le_bytes();
    let cause = match reason {
        // Root or context entry not present.
        1 | 2 => Cause::Device,
        // Address beyond the space; no right to write, to read; an access to the interrupt window.
        4..=6 | 0xe => Cause::Address,
        0x20..=0x26 => Cause::Interrupt,
        _ => Cause::Table,
    };
    let device = Requester(u16::from_le_bytes([low, high]));
    // For interrupts the index of the entry, in the uppermost bits.
    let address = if cause == Cause::Interrupt { record[0] >> 48 } else { record[0] & !0xfff };
    Some(Fault { device, address, write: record[1] >> 62 & 1 == 0, cause })
}

#[cfg(test)]
mod tests {
    use super::{fault, invalidate_device, invalidate_domain, invalidate_interrupt, invalidate_range, wait};
    use crate::{Cause, Fault, Requester};

    #[test]
    fn descriptors_vt_d_6_5_2() {
        assert_eq!(invalidate_device(Requester(0x20), 3), [0x20_0003_0031, 0]);
        assert_eq!(invalidate_domain(3), [0x3_00e2, 0]);
        assert_eq!(invalidate_range(3, 0x20_0000, 9), [0x3_00f2, 0x20_0009]);
        assert_eq!(invalidate_interrupt(7), [0x7_0000_0014, 0]);
        assert_eq!(wait(0x1234, 5), [0x5_0000_0025, 0x1234]);
    }

    #[test]
    fn records_vt_d_11_4_7() {
        assert_eq!(fault([0x5000, 5 << 32 | 0x20]), None);
        let expected = Fault { device: Requester(0x20), address: 0x5000, write: true, cause: Cause::Address };
        assert_eq!(fault([0x5000, 1 << 63 | 5 << 32 | 0x20]), Some(expected));
        let read = fault([0x5000, 3 << 62 | 6 << 32 | 0x20]);
        assert_eq!(read.map(|it| (it.write, it.cause)), Some((false, Cause::Address)));
        let interrupt = fault([7 << 48, 1 << 63 | 0x26 << 32 | 0x20]);
        assert_eq!(interrupt.map(|it| (it.address, it.cause)), Some((7, Cause::Interrupt)));
        assert_eq!(fault([0, 1 << 63 | 2 << 32 | 0x20]).map(|it| it.cause), Some(Cause::Device));
    }
}
