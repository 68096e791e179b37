// SPDX-License-Identifier: MIT OR Apache-2.0
//! A set of the 256 interrupt vectors, as IRR, ISR and TMR are (SDM volume 3 section 11.8.4).

/// A set of vectors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vectors([u64; 4]);

impl Vectors {
    /// No vector.
    pub const EMPTY: Self = Self([0; 4]);

    /// Adds `vector`; true if it was not in.
    pub fn insert(&mut self, vector: u8) -> bool {
        let bit = Self::bit(vector);
        self.word(vector).is_some_and(|w| {
            let new = *w & bit == 0;
            *w |= bit;
            new
        })
    }

    /// Removes `vector`; true if it was in.
    pub fn remove(&mut self, vector: u8) -> bool {
        let bit = Self::bit(vector);
        self.word(vector).is_some_and(|w| {
            let old = *w & bit != 0;
            *w &= !bit;
            old
        })
    }

    /// True if `vector` is in.
    #[must_use]
    pub fn contains(&self, vector: u8) -> bool {
        self.0.get(usize::from(vector >> 6)).is_some_and(|w| w & Self::bit(vector) != 0)
    }

    /// The highest vector that is in.
    #[must_use]
    pub fn highest(&self) -> Option<u8> {
        let [w0, w1, w2, w3] = self.0;
        let (word, base) = match (w3, w2, w1, w0) {
            (0, 0, 0, 0) => return None,
            (0, 0, 0, w) => (w, 0u8),
            (0, 0, w, _) => (w, 64),
            (0, w, ..) => (w, 128),
            (w, ..) => (w, 192),
        };
        u8::try_from(word.ilog2()).ok().map(|bit| base | bit)
    }

    /// True if no vector is in.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::EMPTY
    }

    /// Register `index` (0 to 7) of the eight that show the set, 32 vectors each.
    #[must_use]
    pub fn register(&self, index: u8) -> u32 {
        let word = self.0.get(usize::from(index >> 1)).copied().unwrap_or(0);
        crate::bits::lo32(if index & 1 == 0 { word } else { word >> 32 })
    }

    /// The set shown by eight registers of 32 vectors each.
    #[must_use]
    pub fn from_registers(registers: [u32; 8]) -> Self {
        let [a, b, c, d, e, f, g, h] = registers.map(u64::from);
        Self([a | (b << 32), c | (d << 32), e | (f << 32), g | (h << 32)])
    }

    const fn bit(vector: u8) -> u64 {
        1 << (vector & 63)
    }

    fn word(&mut self, vector: u8) -> Option<&mut u64> {
        self.0.get_mut(usize::from(vector >> 6))
    }
}

#[cfg(test)]
mod tests {
    use super::Vectors;

    #[test]
    fn every_vector_goes_in_shows_and_comes_out() {
        let mut set = Vectors::EMPTY;
        for v in 0..=255u8 {
            assert!(set.insert(v) && !set.insert(v));
            assert_eq!(set.highest(), Some(v));
            assert_ne!(set.register(v / 32) & (1 << (v % 32)), 0);
        }
        assert_eq!(Vectors::from_registers([u32::MAX; 8]), set);
        for v in (0..=255u8).rev() {
            assert!(set.contains(v) && set.remove(v) && !set.remove(v));
            assert_eq!(set.highest(), v.checked_sub(1));
        }
        assert!(set.is_empty());
    }
}
