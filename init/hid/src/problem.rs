// SPDX-License-Identifier: MIT OR Apache-2.0
//! What can be wrong with a text: [`Error`] leaves no tree, [`Problem`] comes beside a tree.

use alloc::string::String;
use core::fmt;

use crate::Position;

/// Why a text has no tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// Where it was noticed.
    pub position: Position,
    /// What is wrong.
    pub kind: ErrorKind,
}

/// What is wrong with a text that has no tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The first line does not start with a node type at column 1.
    NoTopLevelNode,
    /// The text ends before a line `-` closes the top-level node.
    NoEndMarker,
    /// A control character outside of comments and quoted text (a tab is accepted inside of them).
    ControlCharacter(char),
    /// The bytes are not UTF-8.
    NotUtf8,
    /// The text is longer than the limit, in bytes.
    TooLong(usize),
    /// Nodes are nested deeper than the limit.
    TooDeep(usize),
    /// The text has more nodes, attributes and quoted lines together than the limit.
    TooManyItems(usize),
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoTopLevelNode => f.write_str("the text does not start with the type of a top-level node"),
            Self::NoEndMarker => f.write_str("no line `-` closes the top-level node"),
            Self::ControlCharacter(c) => write!(f, "control character U+{:04X}", u32::from(*c)),
            Self::NotUtf8 => f.write_str("not UTF-8"),
            Self::TooLong(limit) => write!(f, "longer than {limit} bytes"),
            Self::TooDeep(limit) => write!(f, "nested deeper than {limit} levels"),
            Self::TooManyItems(limit) => write!(f, "more than {limit} nodes, attributes and quoted lines"),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.position, self.kind)
    }
}

impl core::error::Error for Error {}

/// Something that a strict reader objects to; the meaning of the text is settled all the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where the text in question starts.
    pub position: Position,
    /// What is wrong.
    pub kind: ProblemKind,
    /// The text in question.
    pub text: String,
}

/// What a strict reader objects to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProblemKind {
    /// A segment that is no node, attribute, comment or quoted text; it is ignored.
    NotUnderstood,
    /// A line starts at column 1 as if it opened a second top-level node; it is ignored.
    SecondTopLevelNode,
    /// A sub node without a type; it is ignored.
    NodeWithoutType,
    /// An attribute that its node has already, at this place; the first one counts.
    Duplicate(Position),
    /// A value that looks like two things with a missing `|`; it is taken as it stands.
    MissingDelimiter,
    /// An attribute left of the node that it belongs to, which is the node opened last.
    AttributeLeftOfNode,
    /// An attribute behind quoted text of the same node; it is ignored.
    AttributeAfterText,
    /// A sub node that is indented by a single space more than the node around it.
    ShallowNesting,
    /// A value or comment that is not separated by a space from what comes before it.
    NoSpace,
    /// Quoted text beside sub nodes: readers take one or the other.
    TextBesideNodes,
    /// Something behind the end marker; it is ignored.
    AfterEnd,
}

impl fmt::Display for ProblemKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotUnderstood => f.write_str("neither node, attribute, comment nor quoted text"),
            Self::SecondTopLevelNode => f.write_str("a second top-level node"),
            Self::NodeWithoutType => f.write_str("a node without a type"),
            Self::Duplicate(first) => write!(f, "duplicate attribute, the one at {first} counts"),
            Self::MissingDelimiter => f.write_str("this looks like two things, is a `|` missing?"),
            Self::AttributeLeftOfNode => f.write_str("attribute stands left of its node"),
            Self::AttributeAfterText => f.write_str("attribute behind quoted text"),
            Self::ShallowNesting => f.write_str("a sub node needs at least two more spaces"),
            Self::NoSpace => f.write_str("a space is missing"),
            Self::TextBesideNodes => f.write_str("quoted text beside sub nodes"),
            Self::AfterEnd => f.write_str("text behind the end marker"),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: `{}`", self.position, self.kind, self.text)
    }
}
