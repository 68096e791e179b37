// SPDX-License-Identifier: MIT OR Apache-2.0
//! Identities of portals: an index and a generation, so that a capability to something that is gone is an error.

/// Identity of an object of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectId {
    /// Place in the registry.
    pub index: u32,
    /// How often the place was used before.
    pub generation: u32,
}

impl ObjectId {
    /// As the kernel keeps it.
    #[must_use]
    pub const fn to_raw(self) -> u64 {
        (self.generation as u64) << 32 | self.index as u64
    }

    /// From what the kernel says.
    #[must_use]
    pub fn from_raw(raw: u64) -> Self {
        let low = u32::try_from(raw & 0xffff_ffff).unwrap_or(0);
        Self { index: low, generation: u32::try_from(raw >> 32).unwrap_or(0) }
    }
}
