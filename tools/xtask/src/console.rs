// SPDX-License-Identifier: MIT OR Apache-2.0
//! Between the machine and whoever uses it: a user at a terminal, or a script.
//!
//! A [`Session`] owns a running machine and keeps what both serial lines said, cleaned of control sequences, so
//! that it can be searched ([`transcript`]), and in a file ([`record`]). [`keys`] finds the user's own commands
//! among what is typed, [`terminal`] shows and reads a terminal. `run` and `test` drive a session, each in its way.

pub(crate) mod keys;
pub(crate) mod record;
pub(crate) mod terminal;
pub(crate) mod transcript;

use std::time::{Duration, Instant};

use anyhow::Result;
use regex::Regex;

use self::record::Record;
use self::transcript::Transcript;
use crate::machine::{Ending, Event, Machine};
use crate::scenario::Side;

/// How often a waiting session looks at the clock.
const TICK: Duration = Duration::from_millis(100);

/// A running machine with the history of its lines.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) machine: Machine,
    pub(crate) console: Transcript,
    pub(crate) log: Transcript,
    record: Record,
    lines_left: u8,
}

/// Why something that was expected did not come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unmet {
    TimeOut,
    Ended,
}

impl Session {
    pub(crate) fn new(machine: Machine, record: Record) -> Self {
        Self { machine, console: Transcript::default(), log: Transcript::default(), record, lines_left: 2 }
    }

    /// Waits a little for the next event and remembers it.
    pub(crate) fn next(&mut self) -> Option<Event> {
        let event = self.machine.next(TICK)?;
        match &event {
            Event::Console(bytes) => {
                for line in self.console.push(bytes) {
                    self.record.line(Side::Console, &line);
                }
            }
            Event::Log(bytes) => {
                for line in self.log.push(bytes) {
                    self.record.line(Side::Log, &line);
                }
            }
            Event::Closed => self.lines_left = self.lines_left.saturating_sub(1),
            Event::Typed(_) | Event::TypedAll => {}
        }
        Some(event)
    }

    /// Whether the machine has said its last.
    pub(crate) const fn is_over(&self) -> bool {
        self.lines_left == 0
    }

    /// The end of a machine that is over.
    pub(crate) fn ending(&mut self) -> Result<Ending> {
        self.machine.ending()
    }

    /// Waits until one side shows this, and goes on searching behind it the next time.
    pub(crate) fn expect(&mut self, side: Side, wanted: &Regex, deadline: Instant) -> Result<(), Unmet> {
        self.transcript(side).search_anew();
        loop {
            if self.transcript(side).take_match(wanted) {
                return Ok(());
            }
            if self.is_over() {
                return Err(Unmet::Ended);
            }
            if Instant::now() >= deadline {
                return Err(Unmet::TimeOut);
            }
            self.next();
        }
    }

    const fn transcript(&mut self, side: Side) -> &mut Transcript {
        match side {
            Side::Console => &mut self.console,
            Side::Log => &mut self.log,
        }
    }

    /// Waits for the machine's end.
    pub(crate) fn wait_for_end(&mut self, deadline: Instant) -> Result<(), Unmet> {
        while !self.is_over() {
            if Instant::now() >= deadline {
                return Err(Unmet::TimeOut);
            }
            self.next();
        }
        Ok(())
    }

    /// The last lines of both sides, for a failure's report; those without an end yet stand last.
    pub(crate) fn last_lines(&self, count: usize) -> Vec<String> {
        let mut lines = self.record.last_lines(count);
        lines.extend(self.open_lines().map(|(side, text)| Record::shown(self.record.elapsed(), side, text)));
        lines
    }

    fn open_lines(&self) -> impl Iterator<Item = (Side, &str)> {
        let lines = [(Side::Console, self.console.open_line()), (Side::Log, self.log.open_line())];
        lines.into_iter().filter(|(_, text)| !text.is_empty())
    }
}

impl Drop for Session {
    /// Records what has no line end yet.
    fn drop(&mut self) {
        for (side, transcript) in [(Side::Console, &self.console), (Side::Log, &self.log)] {
            if !transcript.open_line().is_empty() {
                self.record.line(side, transcript.open_line());
            }
        }
    }
}
