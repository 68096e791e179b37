// SPDX-License-Identifier: MIT OR Apache-2.0
//! Figures beside what they are held against: as a table for people, as JSON for programs.

use std::fmt::Write;

use serde_json::json;

use super::Measured;
use super::figures::{REFERENCES, Reference, find};

/// A figure and its reference.
#[derive(Debug)]
pub(crate) struct Row {
    measured: Measured,
    reference: Option<&'static Reference>,
}

impl Row {
    pub(crate) fn new(measured: &Measured) -> Self {
        Self { reference: find(&measured.name), measured: measured.clone() }
    }

    fn is_good(&self) -> Option<bool> {
        self.reference.map(|reference| self.measured.value <= reference.limit)
    }

    /// Hundredths of the reference.
    fn percent(&self) -> Option<u64> {
        let limit = self.reference?.limit;
        self.measured.value.saturating_mul(100).checked_div(limit)
    }

    pub(crate) fn as_json(&self) -> serde_json::Value {
        json!({
            "name": self.measured.name,
            "value": self.measured.value,
            "unit": self.measured.unit,
            "limit": self.reference.map(|reference| reference.limit),
            "source": self.reference.map(|reference| reference.source),
            "good": self.is_good(),
        })
    }
}

/// The names that have a reference and were not measured.
pub(crate) fn unmeasured(rows: &[Row]) -> Vec<&'static str> {
    let names = REFERENCES.iter().map(|reference| reference.name);
    names.filter(|name| rows.iter().all(|row| row.measured.name != *name)).collect()
}

/// All rows, aligned.
pub(crate) fn show(rows: &[Row]) -> String {
    let mut text = format!("{:<18} {:>14} {:<13} {:>14} {:>6}  \n", "", "Cloister", "", "at most", "ratio");
    for row in rows {
        let Measured { name, value, unit } = &row.measured;
        let limit = row.reference.map_or_else(|| "-".to_owned(), |reference| grouped(reference.limit));
        let ratio = row.percent().map_or_else(String::new, |percent| format!("{}.{:02}", percent / 100, percent % 100));
        let verdict = row.is_good().map_or("", |good| if good { "good" } else { "TOO MUCH" });
        let about = row.reference.map_or_else(String::new, |reference| {
            let Reference { what, source, .. } = reference;
            format!("{what} ({source})")
        });
        let line =
            format!("{name:<18} {:>14} {unit:<13} {limit:>14} {ratio:>6}  {verdict:<8}  {about}", grouped(*value));
        // Writing into a string does not fail.
        _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

/// 1234567 as `1 234 567`.
fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{Measured, REFERENCES, Row, grouped, show, unmeasured};

    fn row(name: &str, value: u64) -> Row {
        Row::new(&Measured { name: name.to_owned(), value, unit: "instructions".to_owned() })
    }

    #[test]
    fn numbers_are_grouped() {
        assert_eq!(["7", "1 000", "12 345 678"], [7, 1000, 12_345_678].map(grouped));
    }

    #[test]
    fn what_was_not_measured_is_named() {
        let missing = unmeasured(&[row("null", 90)]);
        assert_eq!(missing.len(), REFERENCES.len() - 1);
        assert!(!missing.contains(&"null"));
    }

    #[test]
    fn the_verdict_follows_the_limit() {
        let text = show(&[row("null", 90), row("semaphore-up", 157), row("own", 5)]);
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[1].contains("1.00  good"), "{}", lines[1]);
        assert!(lines[2].contains("1.00  TOO MUCH"), "{}", lines[2]);
        assert!(!lines[3].contains("good"), "{}", lines[3]);
    }
}
