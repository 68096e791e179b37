// SPDX-License-Identifier: MIT OR Apache-2.0
//! The kernel's tests: a root task that calls the kernel rightly and wrongly, and reports on the log line.
//!
//! Each test is a line, `test NAME ... ok`, `... FAILED: WHY` or `... skipped: WHY`. The last one counts them:
//! `kernel tests: N passed, N failed, N skipped`. A machine that ends or falls silent before it has failed, and so
//! has one whose count differs from what was seen.

use std::time::{Duration, Instant};

use regex::Regex;

use super::tally::{Outcome, Tally};
use crate::console::{Session, Unmet};
use crate::say;

const TIME: Duration = Duration::from_secs(600);

/// Follows the root task to its last line.
pub(super) fn watch(session: &mut Session, filter: Option<&str>) -> Tally {
    let start = Instant::now();
    let mut results = Results::default();
    loop {
        for line in session.log.take_lines() {
            results.line(&line);
        }
        if results.claimed.is_some() {
            break;
        }
        let over = session.is_over();
        if over || start.elapsed() > TIME {
            let why = if over { Unmet::Ended } else { Unmet::TimeOut };
            results.cut_off = Some(why);
            break;
        }
        session.next();
    }
    results.report(filter, start.elapsed())
}

#[derive(Debug, Default)]
struct Results {
    tests: Vec<(String, Outcome)>,
    claimed: Option<Tally>,
    cut_off: Option<Unmet>,
}

impl Results {
    fn line(&mut self, line: &str) {
        if let Some((name, outcome)) = test_line(line) {
            self.tests.push((name, outcome));
        } else if let Some(claimed) = last_line(line) {
            self.claimed = Some(claimed);
        }
    }

    fn seen(&self) -> Tally {
        let mut tally = Tally::default();
        for (_, outcome) in &self.tests {
            tally.add(Tally::count(outcome));
        }
        tally
    }

    fn report(&self, filter: Option<&str>, time: Duration) -> Tally {
        let mut tally = Tally::default();
        let wanted = |name: &str| filter.is_none_or(|filter| name.contains(filter));
        for (name, outcome) in self.tests.iter().filter(|(name, _)| wanted(name)) {
            match outcome {
                Outcome::Passed => tally.add(Tally::count(outcome)),
                _ => tally.add(Tally::of_one(&format!("kernel {name}"), outcome, time)),
            }
        }
        if let Some(problem) = self.problem() {
            tally.add(Tally::of_one("kernel", &Outcome::Failed(problem), time));
        }
        say::step("Tested", &format!("the kernel: {tally} ({:.1} s)", time.as_secs_f64()));
        tally
    }

    /// What is wrong with the run as a whole.
    fn problem(&self) -> Option<String> {
        let last = self.tests.last().map_or("no test at all", |(name, _)| name);
        match (self.cut_off, self.claimed) {
            (Some(Unmet::Ended), _) => Some(format!("the machine ended in the middle of the tests, after {last}")),
            (Some(Unmet::TimeOut), _) => Some(format!("nothing came for too long after {last}")),
            (None, Some(claimed)) if claimed != self.seen() => {
                Some(format!("it counted {claimed}, but {} were seen", self.seen()))
            }
            (None, Some(claimed)) if claimed == Tally::default() => Some("it ran no test".to_owned()),
            _ => None,
        }
    }
}

fn test_line(line: &str) -> Option<(String, Outcome)> {
    let (head, result) = line.split_once(" ... ")?;
    let name = head.rsplit_once("test ").filter(|(before, _)| before.is_empty() || before.ends_with(' '))?.1;
    let outcome = match result.trim_end().split_once(": ") {
        Some(("FAILED", why)) => Outcome::Failed(why.to_owned()),
        Some(("skipped", why)) => Outcome::Skipped(why.to_owned()),
        None if result.trim_end() == "ok" => Outcome::Passed,
        None if result.trim_end() == "FAILED" => Outcome::Failed("no reason given".to_owned()),
        _ => return None,
    };
    Some((name.to_owned(), outcome))
}

fn last_line(line: &str) -> Option<Tally> {
    let pattern = Regex::new(r"kernel tests: (\d+) passed, (\d+) failed(?:, (\d+) skipped)?").ok()?;
    let found = pattern.captures(line)?;
    let number = |group| found.get(group).map_or(Some(0), |text| text.as_str().parse().ok());
    Some(Tally { passed: number(1)?, failed: number(2)?, skipped: number(3)? })
}

#[cfg(test)]
mod tests {
    use super::{Outcome, Results, Unmet, test_line};

    fn results(lines: &[&str]) -> Results {
        let mut results = Results::default();
        for line in lines {
            results.line(line);
        }
        results
    }

    #[test]
    fn lines_are_understood_with_and_without_a_label() {
        assert_eq!(test_line("test a.b ... ok"), Some(("a.b".to_owned(), Outcome::Passed)));
        let failed = Outcome::Failed("status 3 ... not 2".to_owned());
        assert_eq!(test_line("[root] test c ... FAILED: status 3 ... not 2"), Some(("c".to_owned(), failed)));
        assert_eq!(test_line("test d ... skipped: no IOMMU").map(|(name, _)| name), Some("d".to_owned()));
        assert_eq!(test_line("latest news ... ok"), None);
        assert_eq!(test_line("test e ... maybe"), None);
    }

    #[test]
    fn a_complete_run_has_no_problem() {
        let results =
            results(&["test a ... ok", "test b ... FAILED: x", "kernel tests: 1 passed, 1 failed, 0 skipped"]);
        assert_eq!(results.problem(), None);
    }

    #[test]
    fn a_wrong_count_and_a_missing_one_are_problems() {
        let wrong = results(&["test a ... ok", "kernel tests: 2 passed, 0 failed"]);
        assert!(wrong.problem().is_some_and(|problem| problem.contains("were seen")));
        let none = results(&["kernel tests: 0 passed, 0 failed"]);
        assert!(none.problem().is_some());
        let mut cut = results(&["test a ... ok"]);
        cut.cut_off = Some(Unmet::Ended);
        assert!(cut.problem().is_some_and(|problem| problem.contains("after a")));
    }
}
