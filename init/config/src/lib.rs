// SPDX-License-Identifier: MIT OR Apache-2.0
//! init's configuration: what it may say, what it says, and where it sends a session.
//!
//! [`load`] reads a configuration in two independent passes over the same tree. The first walks it beside the tables of
//! the language (`language.rs`) and reports each word that is not in them as a [`Diagnostic`] with line, column and the
//! nearest known word. The second takes out what is meant into a [`Config`]; it takes what it understands and leaves
//! out what it does not, since a typing error in one child's start node is no reason to stop the other children.
//! [`check`] is the first pass for tools on the developer's host. [`route::resolve`] decides where a session of a child
//! goes, as a pure function of the child's start node and of who is there to serve.
//!
//! `docs/spec/init.md` describes the language; the tables here and there agree.
#![cfg_attr(not(test), no_std)]
#![cfg_attr(
    not(test),
    deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::panic, clippy::expect_used)
)]

extern crate alloc;

mod check;
mod diagnostic;
mod label;
mod language;
mod load;
mod model;
mod references;
pub mod route;
mod value;
mod words;

pub use check::check;
pub use diagnostic::{Diagnostic, Severity};
pub use label::{Label, prefixed};
pub use load::{Loaded, load, load_sandbox};
pub use model::{Config, OnAllExited, Route, Rule, Selector, Start, Target, To};
pub use value::{format_size, parse_bool, parse_number, parse_size};
pub use words::nearest;

#[cfg(test)]
mod tests;
