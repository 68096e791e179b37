// SPDX-License-Identifier: MIT OR Apache-2.0
//! Unit tests on the host, by `cargo test`, of all crates that are not freestanding.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::tally::Tally;
use crate::process;
use crate::say::{self, LongStep};
use crate::workspace::{Target, Workspace, cargo};

pub(super) fn run(workspace: &Workspace, filter: Option<&str>) -> Result<Tally> {
    let members: Vec<_> = workspace.members.iter().filter(|member| member.target != Target::None).collect();
    let test = |more: &[&str]| {
        let mut command = Command::new(cargo());
        command.arg("test").args(more).current_dir(&workspace.root);
        for member in &members {
            command.args(["--package", &member.name]);
        }
        command
    };
    say::step("Compiling", "unit tests");
    if !process::visibly(&mut test(&["--quiet", "--no-run"]))? {
        bail!("the unit tests do not compile; cargo's messages stand above");
    }
    let step = LongStep::begin("Testing", "on the host");
    let mut command = test(&["--no-fail-fast"]);
    command.args(filter.map(|filter| ["--", filter]).into_iter().flatten());
    let output = command.stdin(Stdio::null()).output().context("cargo could not be started")?;
    drop(step);

    let text = String::from_utf8_lossy(&output.stdout);
    let mut tally = tally_of(&text);
    if !output.status.success() {
        eprintln!("{text}{}", process::last_lines(&String::from_utf8_lossy(&output.stderr), 40));
        // A test program that died before its last line has counted nothing.
        tally.failed = tally.failed.max(1);
    }
    say::step("Tested", &format!("on the host: {tally}"));
    Ok(tally)
}

/// Adds up the last lines of all test programs: `test result: ok. 8 passed; 0 failed; 0 ignored; …`.
fn tally_of(output: &str) -> Tally {
    let mut tally = Tally::default();
    for line in output.lines().filter_map(|line| line.strip_prefix("test result: ")) {
        let counts = line.split_once(". ").map_or("", |(_, counts)| counts);
        for part in counts.split(';') {
            let mut words = part.split_whitespace();
            let number = words.next().and_then(|word| word.parse().ok()).unwrap_or(0);
            match words.next() {
                Some("passed") => tally.passed += number,
                Some("failed") => tally.failed += number,
                Some("ignored") => tally.skipped += number,
                _ => {}
            }
        }
    }
    tally
}

#[cfg(test)]
mod tests {
    use super::{Tally, tally_of};

    #[test]
    fn results_of_all_programs_are_added_up() {
        let output = "running 1 test\n\
            test result: ok. 8 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; finished in 1.72s\n\
            test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n";
        assert_eq!(tally_of(output), Tally { passed: 11, failed: 2, skipped: 1 });
        assert_eq!(tally_of("nothing of the kind"), Tally::default());
    }
}
