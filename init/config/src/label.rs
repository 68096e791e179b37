// SPDX-License-Identifier: MIT OR Apache-2.0
//! Session labels: names from the outside in, joined by an arrow.

use alloc::format;
use alloc::string::{String, ToString};

const ARROW: &str = " -> ";

/// A label as a parent sees it: the child's name, then what the child asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label<'l>(pub &'l str);

impl<'l> Label<'l> {
    /// What stands behind the last arrow, or all of it.
    #[must_use]
    pub fn last(self) -> &'l str {
        self.0.rsplit_once(ARROW).map_or(self.0, |(_, last)| last)
    }

    /// What stands before the last arrow, nothing if there is none.
    #[must_use]
    pub fn before_last(self) -> &'l str {
        self.0.rsplit_once(ARROW).map_or("", |(before, _)| before)
    }

    /// What stands behind `child` and an arrow: the label that the child itself gave. The environment's sessions of a
    /// child, and sessions without a label, have none.
    #[must_use]
    pub fn scoped(self, child: &str) -> Option<&'l str> {
        self.0.strip_prefix(child)?.strip_prefix(ARROW)
    }
}

/// The label of a session that `child` opens as `label`; the child's name alone if `label` is empty.
#[must_use]
pub fn prefixed(child: &str, label: &str) -> String {
    match (child, label) {
        (one, "") | ("", one) => one.to_string(),
        (child, label) => format!("{child}{ARROW}{label}"),
    }
}
