// SPDX-License-Identifier: MIT OR Apache-2.0
//! The generator behind `getrandom`, `/dev/urandom` and `AT_RANDOM`: ChaCha20 (RFC 8439) with fast key erasure.
//!
//! Each block's first half becomes the next key, so what was given out can't be computed from a later state. Fresh bits of
//! the machine are mixed into the key at each refill. Without a hardware generator these are the time-stamp counter only:
//! good enough for hash maps, not for keys; `docs/design/linux-abi.md` says so.

const WORDS: usize = 16;
const CONSTANTS: [u32; 4] = [0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574];

/// State of the generator.
#[derive(Debug)]
pub struct Random {
    key: [u32; 8],
}

impl Random {
    /// A generator that has not been seeded; its first refill seeds it.
    #[must_use]
    pub const fn new() -> Self {
        Self { key: [0; 8] }
    }

    /// Mixes 64 bits into the key.
    pub fn stir(&mut self, bits: u64) {
        let [low, high] = halves(bits);
        self.key.rotate_left(2);
        let [first, second, ..] = &mut self.key;
        *first ^= low;
        *second ^= high;
    }

    /// The next bytes (at most 32 at a time are used by callers that loop).
    pub fn fill(&mut self, bytes: &mut [u8], mut fresh: impl FnMut() -> u64) {
        for chunk in bytes.chunks_mut(32) {
            self.stir(fresh());
            let block = block(&self.key, 0, &[0; 3]);
            let (key, output) = block.split_at(8);
            self.key.copy_from_slice(key);
            let output = output.iter().flat_map(|word| word.to_le_bytes());
            chunk.iter_mut().zip(output).for_each(|(to, from)| *to = from);
        }
    }
}

impl Default for Random {
    fn default() -> Self {
        Self::new()
    }
}

fn halves(bits: u64) -> [u32; 2] {
    let [a, b, c, d, e, f, g, h] = bits.to_le_bytes();
    [u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h])]
}

/// The block function of RFC 8439, section 2.3.
fn block(key: &[u32; 8], counter: u32, nonce: &[u32; 3]) -> [u32; WORDS] {
    let mut start = [0; WORDS];
    let parts = CONSTANTS.iter().chain(key).chain(core::iter::once(&counter)).chain(nonce);
    start.iter_mut().zip(parts).for_each(|(to, from)| *to = *from);
    let [mut a, mut b, mut c, mut d] = rows(&start);
    for _ in 0..10 {
        quarter_rounds(&mut a, &mut b, &mut c, &mut d);
        b.rotate_left(1);
        c.rotate_left(2);
        d.rotate_left(3);
        quarter_rounds(&mut a, &mut b, &mut c, &mut d);
        b.rotate_right(1);
        c.rotate_right(2);
        d.rotate_right(3);
    }
    let mixed = a.into_iter().chain(b).chain(c).chain(d);
    start.iter_mut().zip(mixed).for_each(|(to, from)| *to = to.wrapping_add(from));
    start
}

fn rows(state: &[u32; WORDS]) -> [[u32; 4]; 4] {
    let mut rows = [[0; 4]; 4];
    rows.iter_mut().flatten().zip(state).for_each(|(to, from)| *to = *from);
    rows
}

/// Four quarter rounds (RFC 8439, section 2.1) on the four columns of the rows.
fn quarter_rounds(a: &mut [u32; 4], b: &mut [u32; 4], c: &mut [u32; 4], d: &mut [u32; 4]) {
    for (((a, b), c), d) in a.iter_mut().zip(b).zip(c).zip(d) {
        *a = a.wrapping_add(*b);
        *d = (*d ^ *a).rotate_left(16);
        *c = c.wrapping_add(*d);
        *b = (*b ^ *c).rotate_left(12);
        *a = a.wrapping_add(*b);
        *d = (*d ^ *a).rotate_left(8);
        *c = c.wrapping_add(*d);
        *b = (*b ^ *c).rotate_left(7);
    }
}

#[cfg(test)]
mod tests {
    use super::{Random, block};

    /// RFC 8439, section 2.3.2.
    #[test]
    fn block_function_as_in_the_rfc() {
        let key: [u32; 8] = core::array::from_fn(|i| {
            let i = u8::try_from(i).unwrap() * 4;
            u32::from_le_bytes([i, i + 1, i + 2, i + 3])
        });
        let out = block(&key, 1, &[0x0900_0000, 0x4a00_0000, 0]);
        assert_eq!(out[..4], [0xe4e7_f110, 0x1559_3bd1, 0x1fdd_0f50, 0xc471_20a3]);
        assert_eq!(out[15], 0x4e3c_50a2);
    }

    #[test]
    fn output_changes_and_depends_on_the_seed() {
        let mut one = Random::new();
        let (mut a, mut b, mut c) = ([0; 48], [0; 48], [0; 48]);
        one.fill(&mut a, || 1);
        one.fill(&mut b, || 1);
        Random::new().fill(&mut c, || 2);
        assert_ne!(a, b);
        assert_ne!(a, c);
        assert_ne!(a[..16], a[32..]);
    }
}
