// SPDX-License-Identifier: MIT OR Apache-2.0
//! Ranges that belong to one owner at a time: device memory, ports, interrupts.

use alloc::collections::BTreeMap;
use cloister_session::Error;

/// Taken ranges: start to length.
#[derive(Debug, Default)]
pub struct Ranges {
    taken: BTreeMap<u64, u64>,
}

impl Ranges {
    /// None taken.
    #[must_use]
    pub const fn new() -> Self {
        Self { taken: BTreeMap::new() }
    }

    /// Takes a range.
    ///
    /// # Errors
    /// `Invalid` if it is empty or wraps, `Conflict` if a part of it is taken.
    pub fn take(&mut self, base: u64, size: u64) -> Result<(), Error> {
        let end = base.checked_add(size).filter(|end| *end > base).ok_or(Error::Invalid)?;
        let before = self.taken.range(..end).next_back();
        if before.is_some_and(|(start, length)| start + length > base) {
            return Err(Error::Conflict);
        }
        self.taken.insert(base, size);
        Ok(())
    }

    /// Gives a range back.
    pub fn give(&mut self, base: u64) {
        self.taken.remove(&base);
    }
}

#[cfg(test)]
mod tests {
    use super::Ranges;
    use cloister_session::Error;

    #[test]
    fn a_range_has_one_owner() {
        let mut ports = Ranges::new();
        ports.take(0x3f8, 8).expect("free");
        for (base, size) in [(0x3f8, 8), (0x3f0, 9), (0x3ff, 1), (0x3fa, 1), (0, 0x1000)] {
            assert_eq!(ports.take(base, size), Err(Error::Conflict));
        }
        ports.take(0x3f0, 8).expect("free");
        ports.take(0x400, 8).expect("free");
        ports.give(0x3f8);
        ports.take(0x3f8, 8).expect("free again");
    }

    #[test]
    fn nonsense_is_invalid() {
        let mut ports = Ranges::new();
        assert_eq!(ports.take(7, 0), Err(Error::Invalid));
        assert_eq!(ports.take(u64::MAX, 2), Err(Error::Invalid));
    }
}
