// SPDX-License-Identifier: MIT OR Apache-2.0
//! Human-inclined data (HID): the notation of configurations and reports.
//!
//! One top-level node, opened by its type at column 0 and closed by a line `-`; sub nodes start with `+ TYPE`, nested by
//! indentation; attributes are `tag: value`; `|` cuts a line into segments that each count as a line of their own with
//! their own column. `docs/spec/init.md` has the notation in full.
//!
//! [`parse()`] turns text into a [`Document`]: a tree of [`Node`]s that borrows from the text, in which everything has a
//! [`Position`], and a list of [`Problem`]s. A problem is what a strict reader objects to although the meaning is
//! settled (a duplicate attribute, a missing `|`, a line that is no line of HID); an [`Error`] is what leaves no tree at
//! all (no top-level node, no end marker, a limit). Generation goes through [`Element`], a tree that owns its text, and
//! [`Element::to_text`]; what cannot be written in the notation is refused, never silently changed.
//!
//! Rule: this crate reads text that nobody has checked. It never panics, never recurses deeper than [`Limits::depth`],
//! and holds no more than [`Limits`] allows.
#![cfg_attr(not(test), no_std)]
#![cfg_attr(
    not(test),
    deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::panic, clippy::expect_used)
)]

extern crate alloc;

mod generate;
mod parse;
mod position;
mod problem;
mod segment;
mod tree;

pub use generate::{Element, GenerateError};
pub use parse::{Limits, parse, parse_bytes, parse_with};
pub use position::Position;
pub use problem::{Error, ErrorKind, Problem, ProblemKind};
pub use tree::{Attribute, Document, Node, TextLine};

#[cfg(test)]
mod tests;
