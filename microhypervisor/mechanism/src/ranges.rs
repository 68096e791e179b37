// SPDX-License-Identifier: MIT OR Apache-2.0
//! A map of physical memory: ascending ranges that do not overlap, each of a kind, adjacent ones of a kind joined.
//!
//! What firmware says may overlap, be in any order, and be more than fits. Nothing is ever left out: where too many ranges would be
//! needed, the smallest ones that are free become [reserved](Kinds::RESERVED), so that the sum of all stays what it was and nobody
//! uses what he must not.

/// A range.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// First byte.
    pub base: u64,
    /// First byte after it.
    pub end: u64,
    /// Kind, by number.
    pub kind: u32,
}

impl Range {
    /// Bytes.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.end - self.base
    }
}

/// What the numbers of kinds mean to the map.
pub trait Kinds {
    /// Free to be used.
    const AVAILABLE: u32;
    /// Not to be used.
    const RESERVED: u32;
    /// Whether where two ranges of different kinds overlap the first one counts. Everything wins over [`Kinds::AVAILABLE`].
    fn wins(kind: u32, over: u32) -> bool;
    /// Whether a range of that kind may be told as reserved.
    fn may_be_reserved(kind: u32) -> bool;
}

/// The map, of at most `N` ranges.
#[derive(Debug)]
pub struct Ranges<K, const N: usize> {
    all: [Range; N],
    count: usize,
    kinds: core::marker::PhantomData<K>,
}

impl<K: Kinds, const N: usize> Ranges<K, N> {
    /// No memory.
    #[must_use]
    pub const fn empty() -> Self {
        Self { all: [Range { base: 0, end: 0, kind: 0 }; N], count: 0, kinds: core::marker::PhantomData }
    }

    /// The ranges.
    #[must_use]
    pub fn as_slice(&self) -> &[Range] {
        self.all.get(..self.count).unwrap_or(&[])
    }

    /// Bytes of all ranges of that kind.
    #[must_use]
    pub fn sum(&self, kind: u32) -> u64 {
        self.as_slice().iter().filter(|range| range.kind == kind).map(Range::size).sum()
    }

    /// Bytes of all ranges.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.as_slice().iter().map(Range::size).sum()
    }

    /// Adds a range. Where there is one already, the stronger kind counts.
    pub fn add(&mut self, base: u64, end: u64, kind: u32) {
        self.apply(Range { base, end, kind }, true, K::wins);
    }

    /// Gives what is available in a range another kind.
    pub fn carve(&mut self, base: u64, end: u64, kind: u32) {
        self.apply(Range { base, end, kind }, false, |_, old| old == K::AVAILABLE);
    }

    fn apply(&mut self, new: Range, add: bool, wins: impl Fn(u32, u32) -> bool) {
        *self = loop {
            match self.applied(new, add, &wins) {
                Some(applied) => break applied,
                // One range adds two at most, and splits what it meets.
                None => self.fit(self.count.saturating_sub(2).max(1)),
            }
        };
    }

    /// The map with a range applied; `None` if there are too many.
    fn applied(&self, new: Range, add: bool, wins: impl Fn(u32, u32) -> bool) -> Option<Self> {
        let mut out = Self::empty();
        // Up to where the new range is done.
        let mut done = new.base;
        for old in self.as_slice() {
            out.push(old.base, old.end.min(new.base), old.kind)?;
            let (from, to) = (old.base.max(new.base), old.end.min(new.end));
            if add && old.base > done {
                out.push(done, new.end.min(old.base), new.kind)?;
                done = done.max(new.end.min(old.base));
            }
            if from < to {
                out.push(from, to, if wins(new.kind, old.kind) { new.kind } else { old.kind })?;
                done = to;
            }
            out.push(old.base.max(new.end), old.end, old.kind)?;
        }
        if add {
            out.push(done, new.end, new.kind)?;
        }
        Some(out)
    }

    /// Appends a range, or what there is of it; joins it with the last one if that is of its kind and ends there.
    fn push(&mut self, base: u64, end: u64, kind: u32) -> Option<()> {
        if base >= end {
            return Some(());
        }
        let last = self.count.checked_sub(1).and_then(|last| self.all.get_mut(last));
        if let Some(last) = last.filter(|last| last.end == base && last.kind == kind) {
            last.end = end;
            return Some(());
        }
        *self.all.get_mut(self.count)? = Range { base, end, kind };
        self.count += 1;
        Some(())
    }

    /// Makes available ranges whole pages of that size: what is left over at their ends is reserved.
    pub fn align(&mut self, page: u64) {
        let whole = |range: &Range| range.base.is_multiple_of(page) && range.end.is_multiple_of(page);
        let ragged = |range: &&Range| range.kind == K::AVAILABLE && !whole(range);
        while let Some(range) = self.as_slice().iter().find(ragged).copied() {
            let base = range.base.next_multiple_of(page).min(range.end);
            self.carve(range.base, base, K::RESERVED);
            self.carve((range.end / page * page).max(base), range.end, K::RESERVED);
        }
    }

    /// Makes do with at most so many ranges: reserves the smallest available ones, then others, then what lies between reserved ones.
    pub fn fit(&mut self, most: usize) {
        while self.count > most.max(1) {
            let others = self.as_slice().iter().enumerate();
            let weakest = others
                .filter(|(_, range)| range.kind != K::RESERVED && K::may_be_reserved(range.kind))
                .min_by_key(|(_, range)| (range.kind != K::AVAILABLE, range.size()))
                .map(|(index, _)| index);
            // The gap between two neighbours that are reserved costs nobody anything.
            let gaps = self.as_slice().windows(2).enumerate();
            let gap = gaps
                .filter(|(_, pair)| pair.iter().all(|range| range.kind == K::RESERVED))
                .min_by_key(|(_, pair)| pair[1].base - pair[0].end)
                .map(|(index, _)| index);
            match (gap, weakest) {
                (Some(index), _) => self.all[index].end = self.all[index + 1].base,
                (None, Some(index)) => self.all[index].kind = K::RESERVED,
                (None, None) => return,
            }
            // Joins what is adjacent and of a kind now.
            self.apply(Range::default(), false, |_, _| false);
        }
    }
}

#[cfg(test)]
mod tests;
