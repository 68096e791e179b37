// SPDX-License-Identifier: MIT OR Apache-2.0
//! The lexer: one line becomes segments.
//!
//! [`Segments`] walks over one line. A `|` ends a segment, except that comments and quoted text swallow the rest of the
//! line; empty segments vanish. What kind a segment is of shows in its first two characters.

use crate::Position;

/// One piece of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment<'t> {
    /// Where its first character stands, the `+` of a node for instance.
    pub(crate) position: Position,
    pub(crate) kind: Kind<'t>,
    /// All of it, trimmed.
    pub(crate) text: &'t str,
}

/// What a segment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind<'t> {
    /// `+ body` or, disabled, `x body`.
    Node { disabled: bool, body: &'t str },
    /// `. anything`
    Comment,
    /// `: text`
    Quote(&'t str),
    /// Anything else, which should be an attribute.
    Other,
}

/// Iterator over the segments of a line.
#[derive(Debug)]
pub(crate) struct Segments<'t> {
    rest: &'t str,
    position: Position,
}

impl<'t> Segments<'t> {
    /// The segments of `line`, which is line number `number` and has no line end.
    pub(crate) fn of(line: &'t str, number: u32) -> Self {
        Self { rest: line, position: Position::new(number, 1) }
    }

    /// The segments of `rest`, the remainder of a line from `position` on.
    pub(crate) fn at(rest: &'t str, position: Position) -> Self {
        Self { rest, position }
    }

    fn skip_spaces_and_guides(&mut self) {
        let rest = self.rest.trim_start_matches([' ', '|']);
        let skipped = self.rest.strip_suffix(rest).unwrap_or("");
        self.position = self.position.behind(skipped);
        self.rest = rest;
    }

    fn take_all(&mut self) -> &'t str {
        core::mem::take(&mut self.rest)
    }
}

impl<'t> Iterator for Segments<'t> {
    type Item = Segment<'t>;

    fn next(&mut self) -> Option<Segment<'t>> {
        self.skip_spaces_and_guides();
        if self.rest.is_empty() {
            return None;
        }
        let position = self.position;
        if let Some(comment) = marked(self.rest, '.') {
            self.take_all();
            return Some(Segment { position, kind: Kind::Comment, text: comment });
        }
        if let Some(quote) = marked(self.rest, ':') {
            self.take_all();
            return Some(Segment { position, kind: Kind::Quote(quote), text: quote });
        }
        let (segment, behind) = match self.rest.split_once('|') {
            Some((segment, behind)) => (segment, behind),
            None => (self.rest, ""),
        };
        self.position = self.position.behind(segment).right_by(1);
        self.rest = behind;
        let text = segment.trim_end_matches(' ');
        let kind = if let Some(body) = marked(text, '+') {
            Kind::Node { disabled: false, body }
        } else if let Some(body) = marked(text, 'x').filter(|body| !body.is_empty()) {
            Kind::Node { disabled: true, body }
        } else {
            Kind::Other
        };
        Some(Segment { position, kind, text })
    }
}

/// What follows `mark` and one space, or the end of the text.
fn marked(text: &str, mark: char) -> Option<&str> {
    let behind = text.strip_prefix(mark)?;
    if behind.is_empty() { Some(behind) } else { behind.strip_prefix(' ') }
}

/// Splits off an identifier: a lower-case letter, then lower-case letters, digits, `_` and `-`.
pub(crate) fn identifier(text: &str) -> Option<(&str, &str)> {
    if !text.starts_with(|c: char| c.is_ascii_lowercase()) {
        return None;
    }
    let end = text.find(|c: char| !is_identifier_character(c)).unwrap_or(text.len());
    text.split_at_checked(end)
}

/// Splits `tag: value`; the value is trimmed. The flag says whether the space behind the colon is there.
pub(crate) fn tag_and_value(text: &str) -> Option<(&str, &str, bool)> {
    let (tag, behind) = identifier(text)?;
    let value = behind.strip_prefix(':')?;
    Some((tag, value.trim_matches(' '), value.is_empty() || value.starts_with(' ')))
}

/// Whether a value has something in it that reads like the start of another attribute or node.
pub(crate) fn looks_merged(value: &str) -> bool {
    let mut words = value.split(' ').filter(|word| !word.is_empty()).peekable();
    let mut first = true;
    while let Some(word) = words.next() {
        let tag = word.strip_suffix(':').is_some_and(|tag| identifier(tag).is_some_and(|(_, rest)| rest.is_empty()));
        let node = word == "+" && words.peek().is_some_and(|next| identifier(next).is_some());
        if !first && (tag || node) {
            return true;
        }
        first = false;
    }
    false
}

fn is_identifier_character(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-'
}
