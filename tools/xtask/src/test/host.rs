// SPDX-License-Identifier: MIT OR Apache-2.0
//! Unit tests on the host, by `cargo test`, of all crates that are not freestanding. Crates with a feature `loom` are tested once more
//! with it: their concurrent parts, in every order of steps. Cases that are drawn follow from a [`seed`].

use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::seed;
use super::tally::Tally;
use crate::cli::TestOptions;
use crate::process;
use crate::say::{self, LongStep};
use crate::workspace::{Member, Target, Workspace, cargo};

pub(super) fn run(workspace: &Workspace, options: &TestOptions) -> Result<Tally> {
    let (filter, seed) = (options.filter.as_deref(), seed::choose(options.seed)?);
    let of = |wanted: &dyn Fn(&Member) -> bool| -> Vec<&str> {
        let members = workspace.members.iter().filter(|member| wanted(member));
        members.flat_map(|member| ["--package", member.name.as_str()]).collect()
    };
    let mut tally = pass(workspace, filter, seed, "on the host", &of(&|member| member.target != Target::None))?;
    let mut concurrent = of(&|member| member.loom);
    if !concurrent.is_empty() {
        concurrent.extend(["--features", "loom", "--lib"]);
        tally.add(pass(workspace, filter, seed, "in every order of steps", &concurrent)?);
    }
    Ok(tally)
}

/// Compiles and runs the tests of some packages.
fn pass(workspace: &Workspace, filter: Option<&str>, seed: u64, how: &str, packages: &[&str]) -> Result<Tally> {
    let test = |more: &[&str]| {
        let mut command = Command::new(cargo());
        command
            .arg("test")
            .args(more)
            .args(packages)
            .current_dir(&workspace.root)
            .env(seed::VARIABLE, seed.to_string());
        command
    };
    say::step("Compiling", "unit tests");
    if !process::visibly(&mut test(&["--quiet", "--no-run"]))? {
        bail!("the unit tests do not compile; cargo's messages stand above");
    }
    let step = LongStep::begin("Testing", how);
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
    say::step("Tested", &format!("{how}: {tally} (seed {seed})"));
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
