// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where something stands in a text.

use core::fmt;

/// A place in a text, counted as editors do: both numbers start at 1, columns count characters, not bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
}

impl Position {
    /// The place `line`, `column`, both from 1.
    #[must_use]
    pub const fn new(line: u32, column: u32) -> Self {
        Self { line, column }
    }

    /// The place `characters` further right in the same line.
    #[must_use]
    pub(crate) const fn right_by(self, characters: u32) -> Self {
        Self { line: self.line, column: self.column.saturating_add(characters) }
    }

    /// The place behind `text`, which stands here and has no line end in it.
    #[must_use]
    pub(crate) fn behind(self, text: &str) -> Self {
        self.right_by(u32::try_from(text.chars().count()).unwrap_or(u32::MAX))
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}
