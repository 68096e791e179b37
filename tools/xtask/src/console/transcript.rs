// SPDX-License-Identifier: MIT OR Apache-2.0
//! What one serial line said, as text that can be searched: without carriage returns and control sequences.

use regex::Regex;

/// How far back a match may begin before what was searched already. Without a limit a line that comes byte by byte
/// would have everything before it searched again for each byte.
const LOOK_BACK: usize = 4096;

/// The text of one line so far.
#[derive(Debug, Default)]
pub(crate) struct Transcript {
    text: String,
    /// The start of a character whose other bytes have not come yet.
    pending: Vec<u8>,
    state: State,
    /// Where the line begins that has no end yet.
    line_start: usize,
    /// Matches may only begin from here on.
    mark: usize,
    /// Up to here there is no match.
    searched: usize,
    /// Whole lines that nobody has taken yet.
    fresh: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Text,
    /// Behind an escape character.
    Escape,
    /// In a control sequence, which ends with a byte from `@` to `~` (ECMA-48, 5.4).
    Sequence,
}

impl Transcript {
    /// Adds bytes; the lines that end in them come back.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Vec<String> {
        let before = self.text.len();
        for &byte in bytes {
            self.state = match (self.state, byte) {
                (_, 0x1b) => State::Escape,
                (State::Escape, b'[') => State::Sequence,
                (State::Escape, _) | (State::Sequence, b'@'..=b'~') => State::Text,
                (State::Sequence, _) => State::Sequence,
                (State::Text, b'\r' | 0 | 7) => State::Text,
                (State::Text, 8) => {
                    self.erase();
                    State::Text
                }
                (State::Text, _) => {
                    self.pending.push(byte);
                    self.decode();
                    State::Text
                }
            };
        }
        self.ended_lines(before)
    }

    /// Moves whole characters out of `pending`.
    fn decode(&mut self) {
        match std::str::from_utf8(&self.pending) {
            Ok(text) => {
                self.text.push_str(text);
                self.pending.clear();
            }
            Err(error) if error.error_len().is_some() => {
                self.text.push(char::REPLACEMENT_CHARACTER);
                self.pending.clear();
            }
            Err(_) => {}
        }
    }

    /// A backspace takes a character back, but never a line's end.
    fn erase(&mut self) {
        if self.text.len() > self.line_start && !self.text.ends_with('\n') {
            self.text.pop();
        }
    }

    fn ended_lines(&mut self, before: usize) -> Vec<String> {
        let mut lines = Vec::new();
        if self.text[before.min(self.text.len())..].contains('\n') {
            while let Some(length) = self.text[self.line_start..].find('\n') {
                lines.push(self.text[self.line_start..self.line_start + length].to_owned());
                self.line_start += length + 1;
            }
        }
        lines
    }

    /// All of it.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// The line that has no end yet.
    pub(crate) fn open_line(&self) -> &str {
        &self.text[self.line_start..]
    }

    /// Whether there is a match behind the last one; the next search begins behind it.
    pub(crate) fn take_match(&mut self, wanted: &Regex) -> bool {
        let mut from = self.searched.saturating_sub(LOOK_BACK).max(self.mark).min(self.text.len());
        while !self.text.is_char_boundary(from) {
            from += 1;
        }
        match wanted.find_at(&self.text, from) {
            Some(found) => {
                self.mark = found.end();
                self.searched = found.end();
                true
            }
            None => {
                self.searched = self.text.len();
                false
            }
        }
    }

    /// Whether the last few lines match, however often they did before.
    pub(crate) fn recent_matches(&self, wanted: &Regex) -> bool {
        let mut from = self.text.len().saturating_sub(2 * LOOK_BACK);
        while !self.text.is_char_boundary(from) {
            from += 1;
        }
        wanted.is_match_at(&self.text, from)
    }

    /// The whole lines since the last time.
    pub(crate) fn take_lines(&mut self) -> Vec<String> {
        let lines = self.text[self.fresh..self.line_start].lines().map(str::to_owned).collect();
        self.fresh = self.line_start;
        lines
    }

    /// Forgets how far was searched, for another pattern.
    pub(crate) fn search_anew(&mut self) {
        self.searched = self.mark;
    }
}

#[cfg(test)]
mod tests {
    use regex::Regex;

    use super::Transcript;

    fn regex(text: &str) -> Regex {
        Regex::new(text).expect("well-formed")
    }

    #[test]
    fn control_sequences_and_carriage_returns_are_dropped() {
        let mut transcript = Transcript::default();
        assert_eq!(transcript.push(b"\x1b[1;31mred\x1b[0m\r\nnext"), ["red"]);
        assert_eq!(transcript.push(b"\x1b[6"), [""; 0]);
        assert_eq!(transcript.push(b"n line\n"), ["next line"]);
        assert_eq!(transcript.open_line(), "");
    }

    #[test]
    fn characters_may_come_in_pieces() {
        let mut transcript = Transcript::default();
        transcript.push(b"\xe2\x86");
        transcript.push(b"\x92 \xff!");
        assert_eq!(transcript.text(), "\u{2192} \u{fffd}!");
    }

    #[test]
    fn backspace_takes_back_what_is_on_the_line() {
        let mut transcript = Transcript::default();
        transcript.push(b"a\nxy\x08\x08\x08z");
        assert_eq!(transcript.text(), "a\nz");
    }

    #[test]
    fn a_match_is_taken_once() {
        let mut transcript = Transcript::default();
        let prompt = regex(r"(?m)^/ # $");
        transcript.push(b"boot\n/ #");
        assert!(!transcript.take_match(&prompt));
        transcript.push(b" ");
        assert!(transcript.take_match(&prompt));
        assert!(!transcript.take_match(&prompt));
        transcript.push(b"ls\n/ # ");
        assert!(transcript.take_match(&prompt));
    }

    #[test]
    fn a_second_pattern_is_searched_from_the_last_match_on() {
        let mut transcript = Transcript::default();
        let filler = "x".repeat(10_000);
        transcript.push(format!("one two {filler}").as_bytes());
        assert!(transcript.take_match(&regex("one")));
        assert!(!transcript.take_match(&regex("three")));
        transcript.search_anew();
        assert!(transcript.take_match(&regex("two")));
    }
}
