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
