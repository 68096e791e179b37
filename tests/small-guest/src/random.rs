// SPDX-License-Identifier: MIT OR Apache-2.0
//! Numbers that look random and are the same for the same seed: xorshift64* (Vigna, "An experimental exploration of Marsaglia's
//! xorshift generators, scrambled", 2016).

/// The generator.
pub(crate) struct Random(u64);

impl Random {
    /// A generator; seed 0 counts as 1.
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.max(1))
    }

    /// The next number.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// The next number below a bound.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    /// The low half of the next number.
    pub(crate) fn next32(&mut self) -> u32 {
        u32::try_from(self.next() >> 32).unwrap_or(0)
    }
}
