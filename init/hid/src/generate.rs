// SPDX-License-Identifier: MIT OR Apache-2.0
//! The generator: a tree becomes text.
//!
//! Attributes stand on the line of their node. A sub node that has no sub nodes in turn, and quoted text of a single
//! line, stand there too. Neighbouring nodes that each fit into one line are laid out as a table: the type and name are
//! its first column, and the attributes make further columns for as long as all rows agree about the tag.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use crate::segment::{identifier, tag_and_value};
use crate::tree::Node;

/// A node to be written: like [`Node`], but it owns its text and has no positions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Element {
    /// Its type.
    pub kind: String,
    /// Its attributes as tag and value, in order.
    pub attributes: Vec<(String, String)>,
    /// Its sub nodes, in order.
    pub nodes: Vec<Element>,
    /// Its quoted text, line by line.
    pub text: Vec<String>,
}

/// What cannot be written in the notation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GenerateError {
    /// Not a node type: it starts with a lower-case letter and has only those, digits, `_` and `-`.
    Kind(String),
    /// Not a tag of an attribute; the rules are those of types.
    Tag(String),
    /// A value with `|`, a control character, or a space at its start or end; the tag, then the value.
    Value(String, String),
    /// Quoted text with a control character other than a tab.
    Text(String),
}

impl fmt::Display for GenerateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kind(kind) => write!(f, "`{}` is no node type", kind.escape_debug()),
            Self::Tag(tag) => write!(f, "`{}` is no attribute tag", tag.escape_debug()),
            Self::Value(tag, value) => write!(f, "`{}` cannot be the value of `{tag}`", value.escape_debug()),
            Self::Text(text) => write!(f, "`{}` cannot be quoted text", text.escape_debug()),
        }
    }
}

impl core::error::Error for GenerateError {}

impl Element {
    /// A node of this type without anything.
    #[must_use]
    pub fn new(kind: &str) -> Self {
        Self { kind: kind.to_owned(), ..Self::default() }
    }

    /// A node of this type and name.
    #[must_use]
    pub fn named(kind: &str, name: impl fmt::Display) -> Self {
        Self::new(kind).with("name", name)
    }

    /// The same with one more attribute.
    #[must_use]
    pub fn with(mut self, tag: &str, value: impl fmt::Display) -> Self {
        self.attributes.push((tag.to_owned(), value.to_string()));
        self
    }

    /// The same with one more sub node.
    #[must_use]
    pub fn with_node(mut self, node: Element) -> Self {
        self.nodes.push(node);
        self
    }

    /// The same with one more line of quoted text.
    #[must_use]
    pub fn with_text(mut self, line: &str) -> Self {
        self.text.push(line.to_owned());
        self
    }

    /// A copy of a parsed node without the disabled nodes in it.
    #[must_use]
    pub fn from_node(node: &Node<'_>) -> Self {
        Self {
            kind: node.kind.to_owned(),
            attributes: node.attributes.iter().map(|a| (a.tag.to_owned(), a.value.to_owned())).collect(),
            nodes: node.enabled().map(Self::from_node).collect(),
            text: node.text.iter().map(|line| line.text.to_owned()).collect(),
        }
    }

    /// The text that has this node as its top-level node.
    ///
    /// # Errors
    ///
    /// See [`GenerateError`].
    pub fn to_text(&self) -> Result<String, GenerateError> {
        let mut out = String::new();
        out.push_str(checked_kind(&self.kind)?);
        let row = Row::of(self, "")?;
        out.push_str(row.head.trim_end());
        for cell in &row.cells {
            out.push_str(" | ");
            out.push_str(&cell.text());
        }
        out.push('\n');
        write_content(self, 0, &mut out)?;
        out.push_str("-\n");
        Ok(out)
    }

    /// Whether it fits into one line.
    fn fits_one_line(&self) -> bool {
        match (self.nodes.as_slice(), self.text.as_slice()) {
            ([], [] | [_]) => true,
            ([only], []) => only.nodes.is_empty() && only.text.len() <= 1,
            _ => false,
        }
    }
}

/// Writes quoted text and sub nodes of `element`, whose sub nodes start at column `indent`.
fn write_content(element: &Element, indent: usize, out: &mut String) -> Result<(), GenerateError> {
    for line in &element.text {
        out.push_str(&format!("{:indent$}: {}\n", "", checked_text(line)?));
    }
    let mut rest = element.nodes.as_slice();
    while let Some(first) = rest.first() {
        let run = if first.fits_one_line() { rest.iter().take_while(|n| n.fits_one_line()).count() } else { 1 };
        let (table, behind) = rest.split_at_checked(run).unwrap_or((rest, &[]));
        rest = behind;
        write_table(table, indent, out)?;
        if !first.fits_one_line() {
            write_content(first, indent.saturating_add(2), out)?;
        }
    }
    Ok(())
}

/// One attribute of a row.
struct Cell<'e> {
    tag: &'e str,
    value: &'e str,
}

impl Cell<'_> {
    fn text(&self) -> String {
        if self.value.is_empty() { format!("{}:", self.tag) } else { format!("{}: {}", self.tag, self.value) }
    }
}

/// One line of a table.
struct Row<'e> {
    /// Marker, type and name.
    head: String,
    cells: Vec<Cell<'e>>,
    /// The sub node or quoted text at its end.
    tail: Option<String>,
}

impl<'e> Row<'e> {
    fn of(element: &'e Element, marker: &str) -> Result<Self, GenerateError> {
        let kind = if marker.is_empty() { "" } else { checked_kind(&element.kind)? };
        let mut head = format!("{marker}{kind}");
        let mut cells = Vec::new();
        for (index, (tag, value)) in element.attributes.iter().enumerate() {
            let (tag, value) = checked_attribute(tag, value)?;
            if index == 0 && tag == "name" && !value.is_empty() && tag_and_value(value).is_none() {
                head.push(' ');
                head.push_str(value);
            } else {
                cells.push(Cell { tag, value });
            }
        }
        Ok(Self { head, cells, tail: None })
    }

    /// The row of a node that fits into one line, with its tail.
    fn whole(element: &'e Element) -> Result<Self, GenerateError> {
        let mut row = Self::of(element, "+ ")?;
        if !element.fits_one_line() {
            return Ok(row);
        }
        if let Some(node) = element.nodes.first() {
            let inner = Row::whole(node)?;
            let cells = inner.cells.iter().map(|cell| format!(" | {}", cell.text()));
            let tail = inner.tail.map(|tail| format!(" | {tail}"));
            row.tail = Some(core::iter::once(inner.head).chain(cells).chain(tail).collect());
        } else if let Some(line) = element.text.first() {
            row.tail = Some(format!(": {}", checked_text(line)?));
        }
        Ok(row)
    }
}

fn write_table(nodes: &[Element], indent: usize, out: &mut String) -> Result<(), GenerateError> {
    let rows = nodes.iter().map(Row::whole).collect::<Result<Vec<_>, _>>()?;
    let head_width = rows.iter().map(|row| width(&row.head)).max().unwrap_or(0);
    let widths = column_widths(&rows);
    let lines: Vec<String> = rows
        .iter()
        .map(|row| {
            let more = !row.cells.is_empty() || row.tail.is_some();
            let mut line = padded(&row.head, if more { head_width } else { 0 });
            for (index, cell) in row.cells.iter().enumerate() {
                let last = row.tail.is_none() && index.saturating_add(1) == row.cells.len();
                let pad = widths.get(index).copied().filter(|_| !last).unwrap_or(0);
                line.push_str(" | ");
                line.push_str(&padded(&cell.text(), pad));
            }
            line
        })
        .collect();
    let with_tail = rows.iter().zip(&lines).filter(|(row, _)| row.tail.is_some());
    let tail_column = with_tail.map(|(_, line)| width(line)).max().unwrap_or(0);
    for (row, line) in rows.iter().zip(&lines) {
        match &row.tail {
            Some(tail) => out.push_str(&format!("{:indent$}{} | {tail}\n", "", padded(line, tail_column))),
            None => out.push_str(&format!("{:indent$}{line}\n", "")),
        }
    }
    Ok(())
}

/// The widths of the columns, for as long as all rows agree about the tag of a column.
fn column_widths(rows: &[Row<'_>]) -> Vec<usize> {
    let mut widths = Vec::new();
    for index in 0_usize.. {
        let mut cells = rows.iter().filter_map(|row| row.cells.get(index)).peekable();
        let Some(tag) = cells.peek().map(|cell| cell.tag) else { break };
        let mut widest = 0;
        for cell in cells {
            if cell.tag != tag {
                return widths;
            }
            widest = widest.max(width(&cell.text()));
        }
        widths.push(widest);
    }
    widths
}

fn width(text: &str) -> usize {
    text.chars().count()
}

fn padded(text: &str, to: usize) -> String {
    format!("{text:to$}")
}

fn is_identifier(text: &str) -> bool {
    identifier(text).is_some_and(|(_, rest)| rest.is_empty())
}

fn checked_kind(kind: &str) -> Result<&str, GenerateError> {
    if is_identifier(kind) { Ok(kind) } else { Err(GenerateError::Kind(kind.to_owned())) }
}

fn checked_attribute<'e>(tag: &'e str, value: &'e str) -> Result<(&'e str, &'e str), GenerateError> {
    if !is_identifier(tag) {
        return Err(GenerateError::Tag(tag.to_owned()));
    }
    let bad = |c: char| c == '|' || c.is_control();
    if value.contains(bad) || value.starts_with(' ') || value.ends_with(' ') {
        return Err(GenerateError::Value(tag.to_owned(), value.to_owned()));
    }
    Ok((tag, value))
}

fn checked_text(line: &str) -> Result<&str, GenerateError> {
    if line.contains(|c: char| c.is_control() && c != '\t') {
        return Err(GenerateError::Text(line.to_owned()));
    }
    Ok(line)
}
