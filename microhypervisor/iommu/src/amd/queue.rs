// SPDX-License-Identifier: MIT OR Apache-2.0
//! Commands to a unit (48882, 2.4) and its events (2.5), 16 bytes each.

use crate::{Cause, Fault, Requester};

/// A command or an event.
pub type Record = [u64; 2];

/// Code of a ring of 256 records, as the base registers have it.
pub const LENGTH_CODE: u64 = 8 << 56;
/// Bytes of such a ring.
pub const RING: u64 = 4096;

/// Writes `value` to a physical address, 8-byte aligned, when all commands before it are done.
#[must_use]
pub const fn completion_wait(address: u64, value: u64) -> Record {
    [1 << 60 | address | 1, value]
}

/// Forgets a device-table entry.
#[must_use]
pub const fn invalidate_device(device: Requester) -> Record {
    [2 << 60 | device.0 as u64, 0]
}

/// Forgets all translations of a domain, inner ones too.
#[must_use]
pub const fn invalidate_domain(domain: u16) -> Record {
    // Size flag, and an address of ones: everything.
    [3 << 60 | (domain as u64) << 32, 0x7fff_ffff_ffff_f000 | 3]
}

/// Forgets translations of an aligned range of 2^order pages of a domain, and the inner ones on the way to it.
#[must_use]
pub const fn invalidate_range(domain: u16, address: u64, order: u32) -> Record {
    let size = if order == 0 { 0 } else { ((1 << (11 + order)) - 1) & !0xfff | 1 };
    [3 << 60 | (domain as u64) << 32, address | size | 2]
}

/// Forgets the interrupt table of a device.
#[must_use]
pub const fn invalidate_interrupts(device: Requester) -> Record {
    [5 << 60 | device.0 as u64, 0]
}

/// Forgets everything.
#[must_use]
pub const fn invalidate_all() -> Record {
    [8 << 60, 0]
}

/// The fault that an event tells of; `None` for an empty record.
#[must_use]
pub fn fault(event: Record) -> Option<Fault> {
    if event == [0; 2] {
        return None;
    }
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
    let device = Requester(u16::from_le_bytes([low, high]));
    Some(Fault { device, address: event[1], write: flag(53), cause })
}

#[cfg(test)]
mod tests {
    use super::{completion_wait, fault, invalidate_device, invalidate_domain, invalidate_range};
    use crate::{Cause, Fault, Requester};

    #[test]
    fn commands_48882_2_4() {
        assert_eq!(completion_wait(0x1238, 9), [0x1000_0000_0000_1239, 9]);
        assert_eq!(invalidate_device(Requester(0x20)), [0x2000_0000_0000_0020, 0]);
        assert_eq!(invalidate_domain(5), [0x3000_0005_0000_0000, 0x7fff_ffff_ffff_f003]);
        // One page: no size. Two: bit 12 is 0, and the size flag; a large page: bits 12 to 19 are 1.
        assert_eq!(invalidate_range(5, 0x20_0000, 0)[1], 0x20_0002);
        assert_eq!(invalidate_range(5, 0x20_0000, 1)[1], 0x20_0003);
        assert_eq!(invalidate_range(5, 0x20_0000, 9)[1], 0x2f_f003);
    }

    #[test]
    fn events_48882_2_5() {
        assert_eq!(fault([0, 0]), None);
        let expected = Fault { device: Requester(0x20), address: 0x5000, write: true, cause: Cause::Address };
        assert_eq!(fault([2 << 60 | 1 << 53 | 3 << 32 | 0x20, 0x5000]), Some(expected));
        assert_eq!(fault([2 << 60 | 1 << 51 | 3 << 32 | 0x20, 0x5000]).map(|it| it.cause), Some(Cause::Interrupt));
        assert_eq!(fault([2 << 60 | 0x20, 0x5000]).map(|it| it.cause), Some(Cause::Device));
        assert_eq!(fault([1 << 60 | 0x20, 0]).map(|it| it.cause), Some(Cause::Table));
    }
}
