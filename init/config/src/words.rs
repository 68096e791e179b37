// SPDX-License-Identifier: MIT OR Apache-2.0
//! The nearest known word of a mistyped one.

use alloc::vec::Vec;

/// The candidate with the fewest changed, missing, additional or swapped letters, if they are few enough to be a slip:
/// one of two letters, two of up to seven, three of more.
pub fn nearest<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    let letters = word.chars().count();
    let tolerated = match letters {
        0 | 1 => 0,
        2 => 1,
        3..=7 => 2,
        _ => 3,
    };
    // A long word against hundreds of long names would cost more than it helps.
    if letters > 64 {
        return None;
    }
    let near = candidates.into_iter().map(|candidate| (distance(word, candidate), candidate));
    near.filter(|(distance, _)| *distance <= tolerated).min_by_key(|(distance, _)| *distance).map(|(_, word)| word)
}

/// Number of letters to insert, delete or replace to come from `a` to `b` (Levenshtein's distance).
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (index, left) in a.chars().enumerate() {
        let mut diagonal = index;
        let mut before = index.saturating_add(1);
        let mut cells = row.iter_mut();
        if let Some(first) = cells.next() {
            *first = before;
        }
        for (cell, right) in cells.zip(b.chars()) {
            let replaced = diagonal.saturating_add(usize::from(left != right));
            let edited = before.min(*cell).saturating_add(1);
            diagonal = *cell;
            before = replaced.min(edited);
            *cell = before;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::{distance, nearest};

    #[test]
    fn distances() {
        for (a, b, expected) in
            [("", "", 0), ("ram", "rma", 2), ("kitten", "sitting", 3), ("", "abc", 3), ("abc", "", 3)]
        {
            assert_eq!(distance(a, b), expected, "{a} {b}");
        }
    }

    #[test]
    fn only_slips_have_a_nearest_word() {
        let words = ["ram", "caps", "name", "binary"];
        assert_eq!(nearest("rma", words), Some("ram"));
        assert_eq!(nearest("binnary", words), Some("binary"));
        assert_eq!(nearest("cap", words), Some("caps"));
        assert_eq!(nearest("colour", words), None);
        assert_eq!(nearest("r", words), None);
    }
}
