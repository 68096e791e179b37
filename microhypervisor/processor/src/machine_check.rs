// SPDX-License-Identifier: MIT OR Apache-2.0
//! Machine checks: what the status of an error bank says, and how bad it is.
//!
//! Sources: Intel SDM vol. 3, 16.3.2 (banks), 16.6 (recoverable errors), 16.9 (error codes); AMD APM vol. 2, 9.3.2.

use crate::feature::{AMD, INTEL};

/// First register of bank 0: control, status, address, miscellaneous; four registers per bank.
pub const BANKS: u32 = 0x400;

/// `MCi_STATUS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status(pub u64);

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Nothing was reported.
    None,
    /// Hardware put it right, or nobody has used what was damaged.
    Corrected,
    /// Data are damaged, but nobody needs to stop for it now.
    Deferred,
    /// What runs cannot go on.
    Fatal,
}

impl Status {
    const fn bit(self, index: u32) -> bool {
        self.0 >> index & 1 != 0
    }

    /// An error was reported.
    #[must_use]
    pub const fn is_valid(self) -> bool {
        self.bit(63)
    }

    /// Others came before it was read.
    #[must_use]
    pub const fn has_overflowed(self) -> bool {
        self.bit(62)
    }

    /// The address register says where.
    #[must_use]
    pub const fn has_address(self) -> bool {
        self.bit(58)
    }

    /// The miscellaneous register says more.
    #[must_use]
    pub const fn has_more(self) -> bool {
        self.bit(59)
    }

    /// How bad it is, on a processor with these [`crate::feature`]s. `recoverable`: the processor tells errors that need no action from others (MCG_CAP.SER_P; Intel).
    #[must_use]
    pub const fn severity(self, features: u64, recoverable: bool) -> Severity {
        if !self.is_valid() {
            return Severity::None;
        }
        let (uncorrected, corrupt) = (self.bit(61), self.bit(57));
        if corrupt {
            return Severity::Fatal;
        }
        // Deferred: on AMD's processors bit 44, without UC; on Intel's neither signalled as a machine check (bit 56) nor to be acted upon (bit 55).
        let deferred = match uncorrected {
            false => features & AMD != 0 && self.bit(44),
            true => features & INTEL != 0 && recoverable && !self.bit(55) && !self.has_overflowed(),
        };
        match (deferred, uncorrected) {
            (true, _) => Severity::Deferred,
            (false, true) => Severity::Fatal,
            (false, false) => Severity::Corrected,
        }
    }

    /// What kind of error the code in the low 16 bits means.
    #[must_use]
    pub const fn kind(self) -> &'static str {
        // Bit 12 says that corrected errors are counted coarsely.
        match (self.0 & 0xefff) as u16 {
            0 => "none",
            1 => "unclassified",
            2 => "microcode parity",
            3 => "external",
            4 => "redundancy",
            5 => "internal parity",
            6 => "handler rendezvous",
            0x400 => "internal timer",
            0x401..=0x7ff => "internal",
            0x0c..=0x0f => "cache hierarchy",
            0x10..=0x1f => "translation buffer",
            0x80..=0xff => "memory controller",
            0x100..=0x1ff => "cache or memory",
            0x800..=0xfff => "bus or interconnect",
            _ => "other",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Severity, Status};
    use crate::feature::{AMD, INTEL};

    const VALID: u64 = 1 << 63;
    const UC: u64 = 1 << 61;
    const EN: u64 = 1 << 60;
    const PCC: u64 = 1 << 57;
    const AR: u64 = 1 << 55;
    const DEFERRED: u64 = 1 << 44;

    #[test]
    fn severity_by_the_tables_of_the_manuals() {
        let cases = [
            (0, INTEL, true, Severity::None),
            (UC | PCC, AMD, false, Severity::None),
            (VALID | EN, INTEL, true, Severity::Corrected),
            (VALID | EN, AMD, false, Severity::Corrected),
            (VALID | UC | EN | PCC, INTEL, true, Severity::Fatal),
            (VALID | UC | EN | PCC, AMD, false, Severity::Fatal),
            (VALID | UC | EN, INTEL, true, Severity::Deferred),
            (VALID | UC | EN | AR, INTEL, true, Severity::Fatal),
            (VALID | UC | EN, INTEL, false, Severity::Fatal),
            (VALID | UC | EN | 1 << 62, INTEL, true, Severity::Fatal),
            (VALID | DEFERRED, AMD, false, Severity::Deferred),
            (VALID | UC | EN, AMD, false, Severity::Fatal),
            (VALID | UC, 0, true, Severity::Fatal),
        ];
        for (status, features, recoverable, expected) in cases {
            assert_eq!(Status(status).severity(features, recoverable), expected, "{status:#x} {features:#x}");
        }
    }

    #[test]
    fn kinds_by_the_code() {
        for (code, kind) in [
            (0x0017, "translation buffer"),
            (0x009f, "memory controller"),
            (0x0136, "cache or memory"),
            (0x1136, "cache or memory"),
            (0x0e0b, "bus or interconnect"),
            (0x0400, "internal timer"),
            (0x0005, "internal parity"),
        ] {
            assert_eq!(Status(VALID | code).kind(), kind, "{code:#x}");
        }
    }
}
