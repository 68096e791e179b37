// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where in physical memory the kernel's pool lies, and how all memory is told, out of the firmware's map and what was loaded.

use crate::ranges::{Kinds, Ranges};

const PAGE: u64 = 4096;
/// Pages of which the pool is made.
pub const LARGE: u64 = 2 << 20;

/// A map that was laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// First byte of the pool, and first after it.
    pub pool: (u64, u64),
    /// Bytes that are not used since the map had too many ranges.
    pub lost: u64,
}

/// Lays memory out: takes parts, each a range and its kind, out of what is available; makes the rest whole pages; places a pool of large
/// pages in it, of that size and kind, as high below `limit` as possible; and makes do with `most` ranges. No byte of the map is
/// left out.
///
/// `None` if there is no room for the pool.
pub fn lay_out<K: Kinds, const N: usize>(
    memory: &mut Ranges<K, N>,
    parts: &[(u64, u64, u32)],
    (size, kind): (u64, u32),
    limit: u64,
    most: usize,
) -> Option<Layout> {
    for (start, end, kind) in parts {
        memory.carve(start / PAGE * PAGE, end.next_multiple_of(PAGE), *kind);
    }
    memory.align(PAGE);
    let usable = memory.sum(K::AVAILABLE);
    // The pool takes two ranges at most: room for them is made before its place is chosen, so that it isn't made of that place.
    memory.fit(N.saturating_sub(2));
    let available = memory.as_slice().iter().filter(|range| range.kind == K::AVAILABLE);
    let places = available.filter_map(|range| {
        let start = (range.end.min(limit) / LARGE * LARGE).checked_sub(size)?;
        (start >= range.base).then_some(start)
    });
    let start = places.max()?;
    memory.carve(start, start + size, kind);
    memory.fit(most);
    Some(Layout { pool: (start, start + size), lost: usable - size - memory.sum(K::AVAILABLE) })
}

/// A number of bytes, in which K, M and G may stand for powers of 1024.
#[must_use]
pub fn bytes(text: &str) -> Option<u64> {
    let (digits, shift) = match text.as_bytes().last()? {
        b'K' | b'k' => (text.get(..text.len() - 1)?, 10),
        b'M' | b'm' => (text.get(..text.len() - 1)?, 20),
        b'G' | b'g' => (text.get(..text.len() - 1)?, 30),
        _ => (text, 0),
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests;
