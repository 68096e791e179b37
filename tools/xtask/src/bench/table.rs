// SPDX-License-Identifier: MIT OR Apache-2.0
//! Figures beside what they are held against: as a table for people, as JSON for programs.

use std::fmt::Write;

use serde_json::json;

use super::Measured;
use super::figures::{GROUPS, GROWTHS, Growth, Reference, all, find};

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

    fn line(&self) -> String {
        let Measured { name, value, unit } = &self.measured;
        let limit = self.reference.map_or_else(|| "-".to_owned(), |reference| grouped(reference.limit));
        let ratio = self.reference.map_or_else(String::new, |reference| ratio(*value, reference.limit));
        let about = self.reference.map_or_else(String::new, |reference| {
            let Reference { what, source, .. } = reference;
            format!("{what} ({source})")
        });
        let verdict = self.is_good().map_or("", verdict);
        let line =
            format!("{name:<18} {:>14} {unit:<13} {limit:>14} {ratio:>6}  {verdict:<8}  {about}", grouped(*value));
        line.trim_end().to_owned()
    }
}

const fn verdict(good: bool) -> &'static str {
    if good { "good" } else { "TOO MUCH" }
}

/// Hundredths, as a number with two places.
fn ratio(value: u64, of: u64) -> String {
    let percent = value.saturating_mul(100).checked_div(of).unwrap_or(0);
    format!("{}.{:02}", percent / 100, percent % 100)
}

fn value(rows: &[Row], name: &str) -> Option<u64> {
    rows.iter().find(|row| row.measured.name == name).map(|row| row.measured.value)
}

/// How many hundredths one figure is of another, and whether that is not too much; nothing if they were not measured.
fn grown(rows: &[Row], growth: &Growth) -> Option<(String, bool)> {
    let (many, few) = (value(rows, growth.many)?, value(rows, growth.few)?);
    Some((ratio(many, few), many.saturating_mul(100) <= few.saturating_mul(growth.percent)))
}

/// The names that have a reference and were not measured.
pub(crate) fn unmeasured(rows: &[Row]) -> Vec<&'static str> {
    all().map(|reference| reference.name).filter(|name| value(rows, name).is_none()).collect()
}

/// What is worse than it may be, by name.
pub(crate) fn excesses(rows: &[Row]) -> Vec<String> {
    let figures = rows.iter().filter(|row| row.is_good() == Some(false)).map(|row| row.measured.name.clone());
    let growths = GROWTHS.iter().filter(|growth| grown(rows, growth).is_some_and(|(_, good)| !good));
    figures.chain(growths.map(|growth| format!("{} beside {}", growth.many, growth.few))).collect()
}

/// All rows, aligned, by what they are about; then how they grow.
pub(crate) fn show(rows: &[Row]) -> String {
    let mut text = format!("{:<18} {:>14} {:<13} {:>14} {:>6}  \n", "", "Cloister", "", "at most", "ratio");
    // Writing into a string does not fail.
    for (heading, references) in GROUPS {
        _ = writeln!(text, "{heading}");
        let mine = |row: &&Row| references.iter().any(|reference| reference.name == row.measured.name);
        for row in rows.iter().filter(mine) {
            _ = writeln!(text, "{}", row.line());
        }
    }
    for row in rows.iter().filter(|row| row.reference.is_none()) {
        _ = writeln!(text, "{}", row.line());
    }
    _ = writeln!(text, "Growth");
    for growth in GROWTHS {
        let Some((ratio, good)) = grown(rows, growth) else { continue };
        let name = format!("{} / {}", growth.many, growth.few);
        let most = format!("{}.{:02}", growth.percent / 100, growth.percent % 100);
        _ = writeln!(text, "{name:<47} {most:>14} {ratio:>6}  {:<8}  {}", verdict(good), growth.what);
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
    use super::{GROWTHS, Measured, Row, all, excesses, find, grouped, show, unmeasured};

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
        assert_eq!(missing.len(), all().count() - 1);
        assert!(!missing.contains(&"null"));
    }

    #[test]
    fn each_figure_is_held_against_one_reference() {
        for reference in all() {
            assert_eq!(all().filter(|other| other.name == reference.name).count(), 1, "{}", reference.name);
        }
        for growth in GROWTHS {
            assert!(find(growth.many).is_some() && find(growth.few).is_some(), "{growth:?}");
        }
    }

    #[test]
    fn the_verdict_follows_the_limit() {
        let rows = [row("null", 90), row("semaphore-up", 157), row("own", 5)];
        let text = show(&rows);
        let line = |name: &str| text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        assert!(line("null").contains("1.00  good"), "{text}");
        assert!(line("semaphore-up").contains("1.00  TOO MUCH"), "{text}");
        assert!(!line("own").contains("good"), "{text}");
        assert_eq!(excesses(&rows), ["semaphore-up"]);
        assert!(excesses(&[row("null", 1), row("own", u64::MAX)]).is_empty());
    }

    #[test]
    fn what_grows_is_too_much_though_each_figure_is_good() {
        assert!(excesses(&[row("switch-2", 400), row("switch-1000", 420)]).is_empty());
        let rows = [row("switch-2", 400), row("switch-1000", 421)];
        assert_eq!(excesses(&rows), ["switch-1000 beside switch-2"]);
        assert!(show(&rows).contains("1.05  TOO MUCH  choosing who runs is flat"), "{}", show(&rows));
    }
}
