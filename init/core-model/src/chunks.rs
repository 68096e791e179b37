// SPDX-License-Identifier: MIT OR Apache-2.0
//! Cutting a range into the naturally aligned pieces that the kernel maps, each as large as alignment of both ends allows.

/// Log2 of the pages of the largest piece: 1 GiB.
const LARGEST: u32 = 18;

/// One piece, in pages (or whatever unit the space has).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// First unit in the source.
    pub source: u64,
    /// First unit in the destination.
    pub destination: u64,
    /// Log2 of the number of units.
    pub order: u32,
}

/// The pieces of `count` units from `source` to `destination`. A range that wraps is cut off.
pub fn chunks(source: u64, destination: u64, count: u64) -> impl Iterator<Item = Chunk> {
    let mut done = 0;
    core::iter::from_fn(move || {
        let left = count.checked_sub(done).filter(|left| *left > 0)?;
        let (source, destination) = (source.checked_add(done)?, destination.checked_add(done)?);
        let aligned = (source | destination).trailing_zeros();
        let order = aligned.min(left.ilog2()).min(LARGEST);
        done += 1 << order;
        Some(Chunk { source, destination, order })
    })
}

#[cfg(test)]
mod tests {
    use super::{Chunk, chunks};
    use proptest::prelude::{prop_assert, prop_assert_eq, proptest};
    use std::vec::Vec;

    #[test]
    fn guest_memory_goes_in_large_pages() {
        let pieces: Vec<_> = chunks(0x80_000, 0, 0x10_000).collect();
        assert_eq!(pieces, [Chunk { source: 0x80_000, destination: 0, order: 16 }]);
        assert_eq!(chunks(0x200, 0x400, 0x200).map(|chunk| chunk.order).collect::<Vec<_>>(), [9]);
        assert_eq!(chunks(5, 5, 0).count(), 0);
    }

    proptest! {
        #[test]
        fn pieces_cover_the_range_once(source in 0_u64..1 << 40, destination in 0_u64..1 << 40, count in 0_u64..1 << 20) {
            let mut next = 0;
            for chunk in chunks(source, destination, count) {
                prop_assert_eq!((chunk.source, chunk.destination), (source + next, destination + next));
                prop_assert!(chunk.source.is_multiple_of(1 << chunk.order));
                prop_assert!(chunk.destination.is_multiple_of(1 << chunk.order));
                next += 1 << chunk.order;
            }
            prop_assert_eq!(next, count);
        }
    }
}
