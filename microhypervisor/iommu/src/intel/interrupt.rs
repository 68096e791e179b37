// SPDX-License-Identifier: MIT OR Apache-2.0
//! Entries of the interrupt remapping table (VT-d 9.10), and what a device or an I/O APIC is programmed with to use one (5.1.2).
//!
//! One table serves all; each entry names the one requester that may use it. Fixed delivery to one physical APIC.

use crate::Requester;

/// Bytes of an entry.
pub const SIZE: u64 = 16;

const PRESENT: u64 = 1 << 0;
const SILENT: u64 = 1 << 1;
const LEVEL: u64 = 1 << 4;
/// The requester must be as given, all bits of it.
const VERIFY: u64 = 1 << 18;
/// A message in remappable form.
const REMAPPABLE: u64 = 0xfee0_0000 | 1 << 4;

/// The words of an entry. `wide` says how APICs are named. `None` if the APIC cannot be named.
#[must_use]
pub fn entry(source: Requester, apic: u32, vector: u8, level: bool, wide: bool) -> Option<[u64; 2]> {
    let destination = match wide {
        true => u64::from(apic) << 32,
        false => u64::from(u8::try_from(apic).ok().filter(|apic| *apic != 0xff)?) << 40,
    };
    let trigger = if level { LEVEL } else { 0 };
    Some([PRESENT | trigger | u64::from(vector) << 16 | destination, u64::from(source.0) | VERIFY])
}

/// The first word of an entry, blocked (dropped without a record) or not.
#[must_use]
pub const fn block(word: u64, blocked: bool) -> u64 {
    if blocked { word & !PRESENT | SILENT } else { word & !SILENT | PRESENT }
}

/// Address of the message that uses an entry; its data is 0.
#[must_use]
pub const fn message(index: u16) -> u64 {
    REMAPPABLE | (index as u64 & 0x7fff) << 5 | (index as u64 >> 15) << 2
}

/// Low and high word of the redirection entry that uses an entry, beside trigger, polarity and mask.
#[must_use]
pub const fn redirection(index: u16, vector: u8) -> (u32, u32) {
    (vector as u32 | (index as u32 >> 15) << 11, (index as u32 & 0x7fff) << 17 | 1 << 16)
}

#[cfg(test)]
mod tests {
    use super::{block, entry, message, redirection};
    use crate::Requester;

    #[test]
    fn entries_vt_d_9_10() {
        assert_eq!(entry(Requester(0x20), 3, 0x41, false, false), Some([0x0300_0041_0001, 0x4_0020]));
        assert_eq!(entry(Requester(0x20), 0x103, 0x41, true, true), Some([0x0000_0103_0041_0011, 0x4_0020]));
        assert_eq!(entry(Requester(0x20), 0x103, 0x41, false, false), None);
        assert_eq!(block(0x11, true), 0x12);
        assert_eq!(block(0x12, false), 0x11);
    }

    #[test]
    fn messages_vt_d_5_1() {
        assert_eq!(message(0), 0xfee0_0010);
        assert_eq!(message(0x8001), 0xfee0_0034);
        assert_eq!(redirection(0x8001, 0x41), (0x841, 0x3_0000));
    }
}
