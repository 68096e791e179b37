// SPDX-License-Identifier: MIT OR Apache-2.0
//! Several text streams on one terminal.
//!
//! With one stream, all bytes go through as they are, so that full-screen programs work. With more, each line of output
//! carries the label of its stream in front, lines are never mixed, and an unfinished line (a prompt) is shown after a short
//! time. What is typed goes to the stream that has the focus. `Ctrl-a` and a digit moves the focus, `Ctrl-a Ctrl-a` sends a
//! `Ctrl-a`; with one stream, `Ctrl-a` and anything else goes through too.
//!
//! Key type: [`Terminal`]. It is driven by its owner and does nothing by itself: what is to be sent is collected in a queue
//! ([`Terminal::take_output`]), time comes as a parameter. Neighbours: the UART driver owns one.
//!
//! Everything is bounded: a stream that nobody reads loses its oldest input, and output that can't be taken is refused, so
//! that the writer tries again.
#![no_std]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::panic, clippy::expect_used)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod keys;
mod stream;
#[cfg(test)]
mod tests;

use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;
use keys::{Key, Keys};
use stream::Stream;

/// Most bytes that wait to be sent.
pub const OUTPUT: usize = 64 << 10;

/// Names a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(u64);

/// The terminal.
#[derive(Debug)]
pub struct Terminal {
    streams: Vec<Stream>,
    next: u64,
    focus: Option<StreamId>,
    keys: Keys,
    output: VecDeque<u8>,
    /// Whose unfinished line is on the screen.
    open: Option<StreamId>,
    /// How long an unfinished line waits before it is shown, in the owner's unit of time.
    patience: u64,
}

impl Terminal {
    /// A terminal without streams.
    #[must_use]
    pub const fn new(patience: u64) -> Self {
        Self {
            streams: Vec::new(),
            next: 0,
            focus: None,
            keys: Keys::new(),
            output: VecDeque::new(),
            open: None,
            patience,
        }
    }

    /// Adds a stream. The first one gets the focus.
    pub fn open(&mut self, label: &str) -> StreamId {
        let id = StreamId(self.next);
        self.next = self.next.wrapping_add(1);
        self.streams.push(Stream::new(id, label));
        if self.streams.len() == 2 {
            // What the only stream left unfinished has no prefix: let the next line begin cleanly.
            self.end_line();
        }
        if self.focus.is_none() {
            self.focus = Some(id);
        }
        id
    }

    /// Removes a stream. What it had not finished is shown.
    pub fn close(&mut self, id: StreamId) {
        self.show_rest(id);
        self.streams.retain(|stream| stream.id != id);
        if self.open == Some(id) {
            self.end_line();
        }
        if self.focus == Some(id) {
            self.focus = self.streams.first().map(|stream| stream.id);
            self.announce();
        }
    }

    /// The stream that gets what is typed.
    #[must_use]
    pub const fn focus(&self) -> Option<StreamId> {
        self.focus
    }

    // ---- output

    /// Takes output of a stream, as much as there is room for. Answers how much.
    pub fn write(&mut self, id: StreamId, data: &[u8], now: u64) -> usize {
        // A label may stand before each byte that is a line end: leave room for the worst that one write can do.
        let room = OUTPUT.saturating_sub(self.output.len());
        if self.streams.len() < 2 {
            let count = data.len().min(room);
            self.output.extend(data.iter().take(count));
            return count;
        }
        let mut taken = 0_usize;
        for byte in data {
            if self.output.len() >= OUTPUT {
                break;
            }
            self.put(id, *byte, now);
            taken = taken.saturating_add(1);
        }
        taken
    }

    /// Shows unfinished lines that waited long enough. Answers when to call again, if at all.
    pub fn show_unfinished(&mut self, now: u64) -> Option<u64> {
        let due: Vec<_> = self.streams.iter().filter(|stream| stream.is_due(now)).map(|stream| stream.id).collect();
        // The stream in focus comes last, so that its prompt is where the cursor is.
        let focus = self.focus;
        due.iter().filter(|id| Some(**id) != focus).for_each(|id| self.show_rest(*id));
        due.iter().filter(|id| Some(**id) == focus).for_each(|id| self.show_rest(*id));
        self.streams.iter().filter_map(Stream::due).min()
    }

    /// Takes what is to be sent, at most `count` bytes.
    pub fn take_output(&mut self, count: usize) -> impl Iterator<Item = u8> + '_ {
        let count = count.min(self.output.len());
        self.output.drain(..count)
    }

    /// Whether there is something to be sent.
    #[must_use]
    pub fn has_output(&self) -> bool {
        !self.output.is_empty()
    }

    fn put(&mut self, id: StreamId, byte: u8, now: u64) {
        let direct = self.open == Some(id);
        let due = now.saturating_add(self.patience);
        let Some(stream) = self.streams.iter_mut().find(|stream| stream.id == id) else { return };
        if direct {
            stream.note_shown(&[byte]);
            self.output.push_back(byte);
            if byte == b'\n' {
                self.open = None;
            }
        } else if stream.keep(byte, due) {
            self.show_rest(id);
        }
    }

    /// Shows what a stream has kept back, under its label.
    fn show_rest(&mut self, id: StreamId) {
        let Some(stream) = self.streams.iter_mut().find(|stream| stream.id == id) else { return };
        let kept = stream.take();
        let Some(last) = kept.last() else { return };
        let finished = *last == b'\n';
        stream.note_shown(&kept);
        let label = stream.label.clone();
        self.end_line();
        self.prefix(&label);
        self.output.extend(kept);
        self.open = if finished { None } else { Some(id) };
    }

    fn prefix(&mut self, label: &str) {
        self.output.push_back(b'[');
        self.output.extend(label.as_bytes());
        self.output.extend(b"] ");
    }

    fn end_line(&mut self) {
        if self.open.take().is_some() {
            self.output.extend(b"\r\n");
        }
    }

    // ---- input

    /// Takes a byte that was typed. Answers the stream that got something to read.
    pub fn typed(&mut self, byte: u8) -> Option<StreamId> {
        match self.keys.typed(byte, self.streams.len() > 1) {
            Key::Nothing => None,
            Key::Focus(index) => {
                if let Some(stream) = self.streams.get(index) {
                    self.focus = Some(stream.id);
                }
                self.announce();
                None
            }
            Key::Send(first, second) => {
                let focus = self.focus?;
                let stream = self.streams.iter_mut().find(|stream| stream.id == focus)?;
                first.into_iter().chain(second).for_each(|byte| stream.receive(byte));
                Some(focus)
            }
        }
    }

    /// Takes what was typed for a stream, at most `count` bytes.
    pub fn read(&mut self, id: StreamId, count: usize) -> Vec<u8> {
        let stream = self.streams.iter_mut().find(|stream| stream.id == id);
        stream.map(|stream| stream.read(count)).unwrap_or_default()
    }

    /// Says who has the focus, and shows its unfinished line (its prompt) once more.
    fn announce(&mut self) {
        if self.streams.len() < 2 {
            return;
        }
        let list: Vec<String> = self
            .streams
            .iter()
            .zip(1..)
            .map(|(stream, number)| {
                let mark = if Some(stream.id) == self.focus { "*" } else { "" };
                alloc::format!("{number}:{}{mark}", stream.label)
            })
            .collect();
        self.end_line();
        self.prefix("terminal");
        self.output.extend(list.join(" ").as_bytes());
        self.output.extend(b"\r\n");
        let focus = self.streams.iter().find(|stream| Some(stream.id) == self.focus);
        let prompt = focus.filter(|stream| !stream.shown().is_empty());
        if let Some((id, label, shown)) =
            prompt.map(|stream| (stream.id, stream.label.clone(), stream.shown().to_vec()))
        {
            self.prefix(&label);
            self.output.extend(shown);
            self.open = Some(id);
        }
    }
}
