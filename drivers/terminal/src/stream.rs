// SPDX-License-Identifier: MIT OR Apache-2.0
//! One stream: what it has not shown yet, and what was typed for it.

use crate::StreamId;
use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;

/// Most bytes of a line that are kept back.
const LINE: usize = 1024;
/// Most bytes that wait to be read.
const INPUT: usize = 4096;

#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) id: StreamId,
    pub(crate) label: String,
    line: Vec<u8>,
    /// What is on the screen of its unfinished line.
    shown: Vec<u8>,
    due: u64,
    input: VecDeque<u8>,
}

impl Stream {
    pub(crate) fn new(id: StreamId, label: &str) -> Self {
        Self { id, label: label.into(), line: Vec::new(), shown: Vec::new(), due: 0, input: VecDeque::new() }
    }

    /// Keeps a byte of output. Whether the line is to be shown now: it is finished, or too long.
    pub(crate) fn keep(&mut self, byte: u8, due: u64) -> bool {
        if self.line.is_empty() {
            self.due = due;
        }
        self.line.push(byte);
        byte == b'\n' || self.line.len() >= LINE
    }

    /// Takes what was kept.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        core::mem::take(&mut self.line)
    }

    /// Notes that bytes of its line went to the screen.
    pub(crate) fn note_shown(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if *byte == b'\n' {
                self.shown.clear();
            } else if self.shown.len() < LINE {
                self.shown.push(*byte);
            }
        }
    }

    /// What is on the screen of its unfinished line.
    pub(crate) fn shown(&self) -> &[u8] {
        &self.shown
    }

    /// When what was kept is to be shown although it is not finished.
    pub(crate) fn due(&self) -> Option<u64> {
        (!self.line.is_empty()).then_some(self.due)
    }

    pub(crate) fn is_due(&self, now: u64) -> bool {
        self.due().is_some_and(|due| due <= now)
    }

    /// Takes a byte that was typed; the oldest goes if nobody reads.
    pub(crate) fn receive(&mut self, byte: u8) {
        if self.input.len() >= INPUT {
            self.input.pop_front();
        }
        self.input.push_back(byte);
    }

    pub(crate) fn read(&mut self, count: usize) -> Vec<u8> {
        let count = count.min(self.input.len());
        self.input.drain(..count).collect()
    }
}
