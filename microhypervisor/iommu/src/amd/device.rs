// SPDX-License-Identifier: MIT OR Apache-2.0
//! Entries of the device table: 32 bytes for each requester (48882, 2.2.2.1).
//!
//! An entry that is not valid lets everything pass, so no entry ever is: a device is either blocked, or translated. What decides lies in
//! one word ([`Translation::word`]), and the interrupts in another ([`interrupts`]), so that each change is one store. The domain, in a word of its
//! own, is written while the device is blocked.

use super::paging::LEVELS;

/// Bytes of an entry.
pub const SIZE: u64 = 32;
/// Number of entries: one for each requester.
pub const COUNT: u64 = 1 << 16;
/// Word of an entry that decides about DMA.
pub const TRANSLATION: usize = 0;
/// Word of an entry with the domain.
pub const DOMAIN: usize = 1;
/// Word of an entry that decides about interrupts.
pub const INTERRUPTS: usize = 2;

const VALID: u64 = 1 << 0;
const TRANSLATION_VALID: u64 = 1 << 1;
const MODE_SHIFT: u32 = 9;
const READ: u64 = 1 << 61;
const WRITE: u64 = 1 << 62;
/// In the domain's word: no events for this device.
const SILENT: u64 = 1 << (98 - 64);

const INTERRUPTS_VALID: u64 = 1 << 0;
const LENGTH_SHIFT: u32 = 1;
const REMAP: u64 = 2 << 60;

/// What becomes of a device's DMA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Translation {
    /// It reaches nothing. (Translation is valid and switched off by mode 0; read and write are not allowed.)
    Blocked,
    /// It reaches what the page table at this physical address maps.
    Table(u64),
}

impl Translation {
    /// The word that says so.
    #[must_use]
    pub const fn word(self) -> u64 {
        let always = VALID | TRANSLATION_VALID;
        match self {
            Self::Blocked => always,
            Self::Table(root) => always | READ | WRITE | (LEVELS as u64) << MODE_SHIFT | root,
        }
    }
}

/// The word with the domain, and whether faults of the device are logged.
#[must_use]
pub const fn domain(domain: u16, silent: bool) -> u64 {
    domain as u64 | if silent { SILENT } else { 0 }
}

/// The word that lets a device raise the interrupts of the table at this physical address (aligned to 128 bytes) of 2^order entries; with
/// none, it raises no interrupt. All kinds that a table cannot remap (NMI, INIT, external) are blocked.
#[must_use]
pub const fn interrupts(table: Option<(u64, u32)>) -> u64 {
    match table {
        None => INTERRUPTS_VALID,
        Some((address, order)) => INTERRUPTS_VALID | (order as u64) << LENGTH_SHIFT | address | REMAP,
    }
}

/// Physical address of the table in a word of [`interrupts`].
#[must_use]
pub const fn interrupt_table(word: u64) -> Option<u64> {
    let address = word & 0x000f_ffff_ffff_ffc0;
    if address == 0 { None } else { Some(address) }
}

#[cfg(test)]
mod tests {
    use super::{Translation, domain, interrupt_table, interrupts};

    #[test]
    fn every_entry_is_valid_48882_2_2_2_1() {
        assert_eq!(Translation::Blocked.word(), 3);
        assert_eq!(Translation::Table(0x12_3000).word(), 0x6000_0000_0012_3803);
        assert_eq!(domain(7, false), 7);
        assert_eq!(domain(7, true), 0x4_0000_0007);
        assert_eq!(interrupts(None), 1);
        assert_eq!(interrupt_table(interrupts(None)), None);
        assert_eq!(interrupt_table(interrupts(Some((0x4080, 5)))), Some(0x4080));
        assert_eq!(interrupts(Some((0x4000, 5))), 0x2000_0000_0000_400b);
    }
}
