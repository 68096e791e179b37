// SPDX-License-Identifier: MIT OR Apache-2.0
//! Amounts of what is traded.

use core::fmt;

use cloister_init_config::format_size;

/// An amount of RAM and capabilities.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Quota {
    /// RAM in bytes.
    pub ram: u64,
    /// Capabilities.
    pub caps: u64,
}

impl Quota {
    /// Nothing.
    pub const NONE: Self = Self { ram: 0, caps: 0 };

    /// So many bytes and capabilities.
    #[must_use]
    pub const fn new(ram: u64, caps: u64) -> Self {
        Self { ram, caps }
    }

    /// Both together, unless it overflows.
    #[must_use]
    pub fn plus(self, other: Self) -> Option<Self> {
        Some(Self { ram: self.ram.checked_add(other.ram)?, caps: self.caps.checked_add(other.caps)? })
    }

    /// This without `other`, unless one of the two does not suffice.
    #[must_use]
    pub fn minus(self, other: Self) -> Option<Self> {
        Some(Self { ram: self.ram.checked_sub(other.ram)?, caps: self.caps.checked_sub(other.caps)? })
    }

    /// This without `other`, nothing where it does not suffice.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self { ram: self.ram.saturating_sub(other.ram), caps: self.caps.saturating_sub(other.caps) }
    }

    /// The smaller of each.
    #[must_use]
    pub fn at_most(self, other: Self) -> Self {
        Self { ram: self.ram.min(other.ram), caps: self.caps.min(other.caps) }
    }

    /// Whether it is nothing at all.
    #[must_use]
    pub fn is_none(self) -> bool {
        self == Self::NONE
    }
}

impl fmt::Display for Quota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ram {}, caps {}", format_size(self.ram), self.caps)
    }
}
