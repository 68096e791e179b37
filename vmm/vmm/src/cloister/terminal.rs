// SPDX-License-Identifier: MIT OR Apache-2.0
//! The guest's console as a Terminal session.
//!
//! Output is written by whoever flushes the console. Input is read by a thread of its own, which waits for the signal of
//! the session. Both use the session at the same time; the server answers one call after the other.

use std::io::{self, Read, Write};
use std::thread;
use std::time::Duration;

use cloister_linux::sessions::{CHUNK, Resources, TerminalClient};
use cloister_linux::signal::Receiver;
use cloister_linux::{Error, Link, session};

/// What the session is given.
const DONATION: Resources = Resources { ram: 32 << 10, caps: 8 };
/// How long a full terminal is left alone before it is tried again, and how often.
const PAUSE: Duration = Duration::from_millis(2);
const TRIES: u32 = 500;

fn failed(error: Error) -> io::Error {
    io::Error::other(error.to_string())
}

/// Opens the session: where to write, and where to read.
///
/// # Errors
/// What parent and server say.
pub(super) fn open() -> Result<(Output, Input), Error> {
    let link = session::open("Terminal", "", "", DONATION)?.link();
    let news = Receiver::new()?;
    TerminalClient(link).signal_handler(Some(news.cap()))?;
    Ok((Output(link), Input { link, news, held: Vec::new() }))
}

/// Writes to the terminal.
#[derive(Debug)]
pub(super) struct Output(Link);

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let chunk = bytes.get(..bytes.len().min(CHUNK)).unwrap_or(bytes);
        for _ in 0..TRIES {
            let taken = TerminalClient(self.0).write(chunk).map_err(failed)?;
            if taken > 0 || chunk.is_empty() {
                return Ok(usize::try_from(taken).unwrap_or(usize::MAX).min(chunk.len()));
            }
            thread::sleep(PAUSE);
        }
        Err(io::ErrorKind::TimedOut.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads from the terminal.
#[derive(Debug)]
pub(super) struct Input {
    link: Link,
    news: Receiver,
    held: Vec<u8>,
}

impl Read for Input {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.held.is_empty() {
            let typed = TerminalClient(self.link).read().map_err(failed)?;
            self.held.extend_from_slice(typed.as_slice());
            if self.held.is_empty() {
                self.news.wait(None).map_err(failed)?;
            }
        }
        let count = self.held.len().min(into.len());
        for (to, from) in into.iter_mut().zip(self.held.drain(..count)) {
            *to = from;
        }
        Ok(count)
    }
}
