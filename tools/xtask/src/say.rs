// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the tool tells its user, on stderr, in cargo's manner: a verb, and what it is about.
//!
//! Standard output is left to the guest's console and to results. Spinners are shown only on a terminal.

use std::io::{IsTerminal, stderr};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

const GREEN: &str = "\x1b[1;32m";
const YELLOW: &str = "\x1b[1;33m";
const RED: &str = "\x1b[1;31m";
const RESET: &str = "\x1b[0m";

/// A step that is done or begins: `  Building the kernel`.
pub(crate) fn step(verb: &str, what: &str) {
    line(GREEN, &format!("{verb:>12}"), what);
}

/// Something that the user should know, and that stops nothing.
pub(crate) fn warn(what: &str) {
    line(YELLOW, &format!("{:>12}", "Note"), what);
}

/// The end of a command that failed, with its chain of causes.
pub(crate) fn error(error: &anyhow::Error) {
    line(RED, "error:", &error.to_string());
    for cause in error.chain().skip(1) {
        line("", "  because:", &cause.to_string());
    }
}

/// A result line in red.
pub(crate) fn failed(verb: &str, what: &str) {
    line(RED, &format!("{verb:>12}"), what);
}

fn line(colour: &str, head: &str, what: &str) {
    if stderr().is_terminal() && !colour.is_empty() {
        eprintln!("{colour}{head}{RESET} {what}");
    } else {
        eprintln!("{head} {what}");
    }
}

/// A step that takes a while: a spinner on a terminal, one line elsewhere.
#[derive(Debug)]
pub(crate) struct LongStep(Option<ProgressBar>);

impl LongStep {
    pub(crate) fn begin(verb: &str, what: &str) -> Self {
        if !stderr().is_terminal() {
            step(verb, what);
            return Self(None);
        }
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{prefix:>12.green.bold} {msg} {spinner} {elapsed:.dim}") {
            bar.set_style(style);
        }
        bar.set_prefix(verb.to_owned());
        bar.set_message(what.to_owned());
        bar.enable_steady_tick(Duration::from_millis(120));
        Self(Some(bar))
    }
}

impl Drop for LongStep {
    fn drop(&mut self) {
        if let Some(bar) = self.0.take() {
            bar.finish_and_clear();
            step(&bar.prefix(), &bar.message());
        }
    }
}

/// A step of so many parts that takes long: a bar with the time that is left on a terminal, elsewhere a line for each twentieth.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: ProgressBar,
    total: u64,
    told: u64,
}

impl Progress {
    /// `done` of `total` are done before it begins.
    pub(crate) fn begin(verb: &str, total: u64, done: u64) -> Self {
        let bar = if stderr().is_terminal() { ProgressBar::new(total) } else { ProgressBar::hidden() };
        bar.set_length(total);
        let template = "{prefix:>12.green.bold} [{bar:30}] {human_pos} of {human_len}, {per_sec}, {eta} left";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_prefix(verb.to_owned());
        bar.set_position(done);
        // What was done before says nothing of how fast this is.
        bar.reset_eta();
        Self { bar, total, told: done.saturating_mul(20).checked_div(total).unwrap_or(0) }
    }

    /// So many are done.
    pub(crate) fn set(&mut self, done: u64) {
        self.bar.set_position(done);
        let part = done.saturating_mul(20).checked_div(self.total).unwrap_or(0);
        if self.bar.is_hidden() && part > self.told {
            self.told = part;
            let left = indicatif::HumanDuration(self.bar.eta());
            step(&self.bar.prefix(), &format!("{}% ({done} of {}), {left} left", part * 5, self.total));
        }
    }

    /// Writes a line to standard output that the bar does not overwrite.
    pub(crate) fn print(&self, line: &str) {
        self.bar.suspend(|| println!("{line}"));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
