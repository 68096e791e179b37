// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is wrong with a configuration, and where.

use alloc::string::String;
use core::fmt;

use cloister_hid::Position;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// It is understood and has no effect, or probably not the intended one.
    Warning,
    /// It is not understood; what it stands in works as if it was not there.
    Error,
}

/// One objection to a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// The place in the text.
    pub position: Position,
    /// What is wrong, and if known what was probably meant.
    pub message: String,
}

impl Diagnostic {
    /// An error at this place.
    #[must_use]
    pub const fn error(position: Position, message: String) -> Self {
        Self { severity: Severity::Error, position, message }
    }

    /// A warning at this place.
    #[must_use]
    pub const fn warning(position: Position, message: String) -> Self {
        Self { severity: Severity::Warning, position, message }
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Warning => "warning",
            Severity::Error => "error",
        };
        write!(f, "{}: {severity}: {}", self.position, self.message)
    }
}
