// SPDX-License-Identifier: MIT OR Apache-2.0
//! The user's terminal: the console on stdout, byte by byte, the log on stderr, line by line.
//!
//! While a machine runs the terminal is raw: each key reaches the guest at once, Ctrl-c included. Its output
//! processing stays on, so that this tool's own lines look as ever.

use std::io::{IsTerminal, Read, Write, stderr, stdin, stdout};
use std::sync::mpsc::Sender;
use std::thread;

use anyhow::{Context, Result};
use rustix::termios::{OptionalActions, OutputModes, Termios, tcgetattr, tcsetattr};

use crate::machine::Event;

/// The terminal while a machine runs; as it was before when this is dropped.
#[derive(Debug)]
pub(crate) struct Terminal {
    before: Option<Termios>,
    /// The console's cursor is behind some text.
    in_line: bool,
    dim_log: bool,
}

impl Terminal {
    /// Makes stdin raw, if it is a terminal, and sends what is typed as events.
    pub(crate) fn open(sender: Sender<Event>) -> Result<Self> {
        let before = if stdin().is_terminal() {
            let before = tcgetattr(stdin()).context("the terminal's settings cannot be read")?;
            let mut raw = before.clone();
            raw.make_raw();
            raw.output_modes |= OutputModes::OPOST | OutputModes::ONLCR;
            tcsetattr(stdin(), OptionalActions::Now, &raw).context("the terminal cannot be made raw")?;
            Some(before)
        } else {
            None
        };
        thread::spawn(move || read_keys(&sender));
        Ok(Self { before, in_line: false, dim_log: stderr().is_terminal() })
    }

    /// Whether a person sits here, as opposed to a pipe.
    pub(crate) const fn is_interactive(&self) -> bool {
        self.before.is_some()
    }

    pub(crate) fn show_console(&mut self, bytes: &[u8]) {
        let mut out = stdout().lock();
        // A reader that is gone (`| head`) is no reason to fail.
        drop(out.write_all(bytes).and_then(|()| out.flush()));
        if let Some(&last) = bytes.last() {
            self.in_line = !matches!(last, b'\n' | b'\r');
        }
    }

    pub(crate) fn show_log(&mut self, line: &str) {
        if !self.dim_log {
            eprintln!("[log] {line}");
            return;
        }
        let start = if self.in_line { "\r\n" } else { "" };
        eprintln!("{start}\x1b[2m{line}\x1b[0m");
        self.in_line = false;
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if self.in_line {
            self.show_console(b"\r\n");
        }
        if let Some(before) = &self.before {
            // A terminal that is gone needs no settings.
            _ = tcsetattr(stdin(), OptionalActions::Now, before);
        }
    }
}

fn read_keys(sender: &Sender<Event>) {
    let mut buffer = [0; 256];
    let mut keyboard = stdin().lock();
    while let Ok(count) = keyboard.read(&mut buffer) {
        if count == 0 || sender.send(Event::Typed(buffer[..count].to_vec())).is_err() {
            break;
        }
    }
    drop(sender.send(Event::TypedAll));
}
