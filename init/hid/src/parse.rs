// SPDX-License-Identifier: MIT OR Apache-2.0
//! The parser: segments become a tree.
//!
//! The nodes that are still open lie on a stack, each with the column of its `+`. A node whose `+` stands right of the
//! top of the stack goes inside it; otherwise the stack is unwound until that is so. The top-level node contains
//! everything. Attributes and quoted text go to the node opened last, whatever their column: this is what the notation
//! says, and a column that contradicts it is reported.

use alloc::string::ToString;
use alloc::vec::Vec;

use crate::Position;
use crate::problem::{Error, ErrorKind, Problem, ProblemKind};
use crate::segment::{Kind, Segment, Segments, identifier, looks_merged, tag_and_value};
use crate::tree::{Attribute, Document, Node, TextLine};

/// How much a text may hold.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Length in bytes.
    pub bytes: usize,
    /// Levels of nodes, the top-level node included.
    pub depth: usize,
    /// Nodes, attributes and quoted lines together.
    pub items: usize,
    /// Attributes of one node.
    pub attributes: usize,
}

impl Limits {
    /// What configurations and reports are read with: 1 MiB, 32 levels, 65,536 items, 128 attributes a node.
    pub const DEFAULT: Self = Self { bytes: 1 << 20, depth: 32, items: 1 << 16, attributes: 128 };
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Parses `text` within [`Limits::DEFAULT`].
///
/// # Errors
///
/// See [`ErrorKind`].
pub fn parse(text: &str) -> Result<Document<'_>, Error> {
    parse_with(text, Limits::DEFAULT)
}

/// Parses the content of a ROM: bytes behind the end marker may be anything, zero bytes that fill a page for instance.
///
/// # Errors
///
/// See [`ErrorKind`].
pub fn parse_bytes(bytes: &[u8]) -> Result<Document<'_>, Error> {
    let end = end_of_document(bytes);
    let bytes = bytes.get(..end).unwrap_or(bytes);
    match core::str::from_utf8(bytes) {
        Ok(text) => parse(text),
        Err(error) => {
            let good = bytes.get(..error.valid_up_to()).and_then(|good| core::str::from_utf8(good).ok()).unwrap_or("");
            let line = u32::try_from(good.matches('\n').count()).unwrap_or(u32::MAX).saturating_add(1);
            let last = good.rsplit('\n').next().unwrap_or("");
            Err(Error { position: Position::new(line, 1).behind(last), kind: ErrorKind::NotUtf8 })
        }
    }
}

/// Parses `text` within `limits`.
///
/// # Errors
///
/// See [`ErrorKind`].
pub fn parse_with(text: &str, limits: Limits) -> Result<Document<'_>, Error> {
    if text.len() > limits.bytes {
        return Err(Error { position: Position::new(1, 1), kind: ErrorKind::TooLong(limits.bytes) });
    }
    let mut lines = (1_u32..).zip(text.split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line)));
    let Some((_, first)) = lines.next() else {
        return Err(Error { position: Position::new(1, 1), kind: ErrorKind::NoTopLevelNode });
    };
    let mut parser = Parser::open(first, limits)?;
    let mut last = Position::new(1, 1).behind(first);
    for (number, line) in lines.by_ref() {
        last = Position::new(number, 1);
        if let Some(behind) = line.strip_prefix('-') {
            let behind_lines = lines.map(|(number, line)| (Position::new(number, 1), line));
            for (position, rest) in core::iter::once((last.right_by(1), behind)).chain(behind_lines) {
                if rest.contains(|c: char| !c.is_whitespace() && c != '\0') {
                    parser.problem(position, ProblemKind::AfterEnd, rest.trim());
                    break;
                }
            }
            return Ok(parser.close());
        }
        parser.line(number, line)?;
    }
    Err(Error { position: last, kind: ErrorKind::NoEndMarker })
}

/// The index behind the document and what follows of it as text: up to the first zero byte behind the end marker.
fn end_of_document(bytes: &[u8]) -> usize {
    let Some(marker) = bytes.windows(2).position(|pair| pair == b"\n-") else { return bytes.len() };
    let start = marker.saturating_add(2);
    let rest = bytes.get(start..).unwrap_or(&[]);
    let rest = rest.split(|byte| *byte == 0).next().unwrap_or(&[]);
    let text = rest.utf8_chunks().next().map_or(0, |chunk| chunk.valid().len());
    start.saturating_add(text)
}

struct Open<'t> {
    /// Column of the `+`; 0 for the top-level node, which contains everything.
    column: u32,
    node: Node<'t>,
}

struct Parser<'t> {
    root: Node<'t>,
    /// Open sub nodes, outermost first.
    stack: Vec<Open<'t>>,
    problems: Vec<Problem>,
    limits: Limits,
    items: usize,
}

impl<'t> Parser<'t> {
    fn open(line: &'t str, limits: Limits) -> Result<Self, Error> {
        let position = Position::new(1, 1);
        let (head, behind) = line.split_once('|').unwrap_or((line, ""));
        let Some((kind, _)) = identifier(head) else {
            return Err(Error { position, kind: ErrorKind::NoTopLevelNode });
        };
        let root = Node::new(kind, position, false);
        let mut parser = Self { root, stack: Vec::new(), problems: Vec::new(), limits, items: 0 };
        parser.reject_control_characters(line, position)?;
        parser.name(head, kind, position)?;
        let column = u32::try_from(head.chars().count()).unwrap_or(u32::MAX);
        parser.segments(Segments::at(behind, position.right_by(column.saturating_add(1))))?;
        Ok(parser)
    }

    fn line(&mut self, number: u32, line: &'t str) -> Result<(), Error> {
        let start = Position::new(number, 1);
        self.reject_control_characters(line, start)?;
        if line.starts_with(|c: char| c.is_ascii_alphabetic()) && !line.starts_with("x ") {
            self.problem(start, ProblemKind::SecondTopLevelNode, line.trim());
            return Ok(());
        }
        self.segments(Segments::of(line, number))
    }

    fn segments(&mut self, segments: Segments<'t>) -> Result<(), Error> {
        for segment in segments {
            match segment.kind {
                Kind::Comment => {}
                Kind::Quote(text) => self.quote(text, segment.position)?,
                Kind::Node { disabled, body } => self.node(segment, disabled, body)?,
                Kind::Other => self.attribute(segment.text, segment.position)?,
            }
        }
        Ok(())
    }

    /// Tabs are fine in comments and quoted text; all other control characters are not fine anywhere.
    fn reject_control_characters(&self, line: &'t str, start: Position) -> Result<(), Error> {
        let swallowed = swallowed_from(line);
        for (index, c) in line.char_indices() {
            if c.is_control() && !(c == '\t' && index >= swallowed) {
                let before = line.get(..index).unwrap_or("");
                return Err(Error { position: start.behind(before), kind: ErrorKind::ControlCharacter(c) });
            }
        }
        Ok(())
    }

    fn node(&mut self, segment: Segment<'t>, disabled: bool, body: &'t str) -> Result<(), Error> {
        let column = segment.position.column;
        let lead = body.trim_start_matches(' ');
        let gap = body.strip_suffix(lead).unwrap_or("");
        let position = segment.position.right_by(2).behind(gap);
        let Some((kind, _)) = identifier(lead) else {
            self.problem(segment.position, ProblemKind::NodeWithoutType, segment.text);
            return Ok(());
        };
        self.count(position)?;
        while self.stack.last().is_some_and(|open| open.column >= column) {
            self.close_last();
        }
        if self.stack.len().saturating_add(2) > self.limits.depth {
            return Err(Error { position, kind: ErrorKind::TooDeep(self.limits.depth) });
        }
        if self.stack.last().is_some_and(|open| open.column.saturating_add(1) == column) {
            self.problem(segment.position, ProblemKind::ShallowNesting, segment.text);
        }
        if let Some(line) = self.current().text.first().copied() {
            self.problem(line.position, ProblemKind::TextBesideNodes, line.text);
        }
        self.stack.push(Open { column, node: Node::new(kind, position, disabled) });
        self.name(lead, kind, position)
    }

    /// What stands behind a node's type: its name, or its first attribute.
    fn name(&mut self, head: &'t str, kind: &'t str, position: Position) -> Result<(), Error> {
        let behind = head.strip_prefix(kind).unwrap_or("");
        let text = behind.trim_matches(' ');
        if text.is_empty() {
            return Ok(());
        }
        let gap = behind.strip_suffix(behind.trim_start_matches(' ')).unwrap_or("");
        let at = position.behind(kind).behind(gap);
        if gap.is_empty() {
            self.problem(at, ProblemKind::NoSpace, text);
        }
        if tag_and_value(text).is_some_and(|(_, _, spaced)| spaced) {
            return self.attribute(text, at);
        }
        self.add(Attribute { tag: "name", value: text, position: at, value_position: at })
    }

    fn attribute(&mut self, text: &'t str, position: Position) -> Result<(), Error> {
        let Some((tag, value, spaced)) = tag_and_value(text) else {
            self.problem(position, ProblemKind::NotUnderstood, text);
            return Ok(());
        };
        let offset = text.strip_suffix(value).filter(|_| !value.is_empty()).unwrap_or(text);
        let attribute = Attribute { tag, value, position, value_position: position.behind(offset) };
        if !spaced {
            self.problem(attribute.value_position, ProblemKind::NoSpace, text);
        }
        if self.stack.last().is_some_and(|open| open.column > position.column) {
            self.problem(position, ProblemKind::AttributeLeftOfNode, text);
        }
        self.add(attribute)
    }

    fn add(&mut self, attribute: Attribute<'t>) -> Result<(), Error> {
        self.count(attribute.position)?;
        if looks_merged(attribute.value) {
            self.problem(attribute.value_position, ProblemKind::MissingDelimiter, attribute.value);
        }
        if !self.current().text.is_empty() {
            self.problem(attribute.position, ProblemKind::AttributeAfterText, attribute.tag);
            return Ok(());
        }
        if let Some(first) = self.current().attribute(attribute.tag).map(|first| first.position) {
            self.problem(attribute.position, ProblemKind::Duplicate(first), attribute.tag);
            return Ok(());
        }
        if self.current().attributes.len() >= self.limits.attributes {
            return Err(Error { position: attribute.position, kind: ErrorKind::TooManyItems(self.limits.attributes) });
        }
        self.current().attributes.push(attribute);
        Ok(())
    }

    fn quote(&mut self, text: &'t str, position: Position) -> Result<(), Error> {
        self.count(position)?;
        self.current().text.push(TextLine { text, position });
        Ok(())
    }

    fn current(&mut self) -> &mut Node<'t> {
        self.stack.last_mut().map_or(&mut self.root, |open| &mut open.node)
    }

    fn close_last(&mut self) {
        if let Some(open) = self.stack.pop() {
            self.current().nodes.push(open.node);
        }
    }

    fn close(mut self) -> Document<'t> {
        while !self.stack.is_empty() {
            self.close_last();
        }
        Document { root: self.root, problems: self.problems }
    }

    fn count(&mut self, position: Position) -> Result<(), Error> {
        self.items = self.items.saturating_add(1);
        if self.items > self.limits.items {
            return Err(Error { position, kind: ErrorKind::TooManyItems(self.limits.items) });
        }
        Ok(())
    }

    fn problem(&mut self, position: Position, kind: ProblemKind, text: &str) {
        // A hostile text has as many problems as segments; nobody reads more than the first few hundred.
        if self.problems.len() < 256 {
            let text = text.char_indices().nth(120).and_then(|(end, _)| text.get(..end)).unwrap_or(text);
            self.problems.push(Problem { position, kind, text: text.to_string() });
        }
    }
}

/// The index at which a comment or quoted text starts that swallows the rest of the line.
fn swallowed_from(line: &str) -> usize {
    let mut start = 0_usize;
    for segment in line.split('|') {
        let body = segment.trim_start_matches(' ');
        let rest = line.get(start..).unwrap_or("").trim_start_matches(' ');
        if (body.starts_with('.') || body.starts_with(':')) && rest.get(1..2).is_none_or(|c| c == " ") {
            return start;
        }
        start = start.saturating_add(segment.len()).saturating_add(1);
    }
    line.len()
}
