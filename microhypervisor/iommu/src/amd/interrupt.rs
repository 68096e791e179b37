// SPDX-License-Identifier: MIT OR Apache-2.0
//! Entries of interrupt tables (48882, 2.2.5): 32 bits, or 128 bits where destinations of more than 8 bits are needed. The index into a
//! device's table is in the low eleven bits of its message's data.
//!
//! Fixed delivery to one physical APIC; everything else stays 0. A blocked entry is dropped without an event.

const ENABLE: u64 = 1 << 0;
const SILENT: u64 = 1 << 1;

/// Size and alignment of one kind of entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// 32 bits.
    Narrow,
    /// 128 bits.
    Wide,
}

impl Width {
    /// Bytes of an entry.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        match self {
            Self::Narrow => 4,
            Self::Wide => 16,
        }
    }

    /// Bits of an entry's first word that are its own.
    #[must_use]
    pub const fn mask(self) -> u64 {
        match self {
            Self::Narrow => 0xffff_ffff,
            Self::Wide => u64::MAX,
        }
    }

    /// An entry that leads to a vector of a local APIC, as words from the low one on; a narrow entry is the low half of the first. `None` if the
    /// APIC cannot be named.
    #[must_use]
    pub fn entry(self, apic: u32, vector: u8) -> Option<[u64; 2]> {
        let (apic, vector) = (u64::from(apic), u64::from(vector));
        match self {
            Self::Narrow => (apic < 0xff).then_some([ENABLE | apic << 8 | vector << 16, 0]),
            Self::Wide => Some([ENABLE | (apic & 0xff_ffff) << 8, vector | (apic >> 24) << 56]),
        }
    }
}

/// The first word of an entry, blocked or not.
#[must_use]
pub const fn block(word: u64, blocked: bool) -> u64 {
    if blocked { word & !ENABLE | SILENT } else { word & !SILENT | ENABLE }
}

/// The word of an entry that is nobody's: dropped with an event.
pub const FREE: u64 = 0;

#[cfg(test)]
mod tests {
    use super::{Width, block};

    #[test]
    fn entries_48882_2_2_5() {
        assert_eq!(Width::Narrow.entry(3, 0x41), Some([0x41_0301, 0]));
        assert_eq!(Width::Narrow.entry(0x100, 0x41), None);
        assert_eq!(Width::Wide.entry(0x0102_0304, 0x41), Some([0x0203_0401, 0x0100_0000_0000_0041]));
        assert_eq!(block(0x41_0301, true), 0x41_0302);
        assert_eq!(block(0x41_0302, false), 0x41_0301);
    }
}
