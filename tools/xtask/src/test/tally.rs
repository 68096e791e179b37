// SPDX-License-Identifier: MIT OR Apache-2.0
//! Counting results, and the one line for each and for all.

use std::fmt;
use std::time::Duration;

use crate::say;

/// What came of one test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Passed,
    Failed(String),
    Skipped(String),
}

/// How many of each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) passed: u64,
    pub(super) failed: u64,
    pub(super) skipped: u64,
}

impl Tally {
    pub(super) const fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }

    /// Counts one test and tells of it.
    pub(super) fn of_one(name: &str, outcome: &Outcome, time: Duration) -> Self {
        let seconds = time.as_secs_f64();
        match outcome {
            Outcome::Passed => say::step("Passed", &format!("{name} ({seconds:.1} s)")),
            Outcome::Skipped(why) => say::step("Skipped", &format!("{name}: {why}")),
            Outcome::Failed(why) => say::failed("Failed", &format!("{name} ({seconds:.1} s): {why}")),
        }
        Self::count(outcome)
    }

    /// Counts one test.
    pub(super) const fn count(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Passed => Self { passed: 1, failed: 0, skipped: 0 },
            Outcome::Failed(_) => Self { passed: 0, failed: 1, skipped: 0 },
            Outcome::Skipped(_) => Self { passed: 0, failed: 0, skipped: 1 },
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)?;
        if self.skipped > 0 {
            write!(f, ", {} skipped", self.skipped)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Tally;

    #[test]
    fn skipped_tests_are_named_only_when_there_are_some() {
        let mut tally = Tally { passed: 2, failed: 0, skipped: 0 };
        assert_eq!(tally.to_string(), "2 passed, 0 failed");
        tally.add(Tally { passed: 1, failed: 1, skipped: 3 });
        assert_eq!(tally.to_string(), "3 passed, 1 failed, 3 skipped");
    }
}
