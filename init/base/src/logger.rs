// SPDX-License-Identifier: MIT OR Apache-2.0
//! The `log` crate's back end: lines to the LOG session.

use crate::env;
use core::fmt::Write;
use log::{Level, LevelFilter, Log, Metadata, Record};

/// A line of text, cut off when it gets too long.
#[derive(Debug, Default)]
pub struct Line(heapless::String<1024>);

impl Line {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        for letter in text.chars() {
            if self.0.push(letter).is_err() {
                break;
            }
        }
        Ok(())
    }
}

#[derive(Debug)]
struct Logger(fn(&str));

impl Log for Logger {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let mut line = Line::default();
        let mark = match record.level() {
            Level::Error => "error: ",
            Level::Warn => "warning: ",
            Level::Info | Level::Debug | Level::Trace => "",
        };
        // Writing to a line cuts off and never fails.
        let _ = write!(line, "{mark}{}", record.args());
        (self.0)(line.as_str());
    }

    fn flush(&self) {}
}

static SESSION: Logger = Logger(to_session);

fn to_session(line: &str) {
    // There is nobody to tell when the log does not work.
    let _ = env::log().write(line);
}

/// Lets the `log` crate's macros write to the LOG session.
pub(crate) fn install() {
    if log::set_logger(&SESSION).is_ok() {
        log::set_max_level(LevelFilter::Info);
    }
}
