// SPDX-License-Identifier: MIT OR Apache-2.0
//! The tree that a text means.

use alloc::vec::Vec;

use crate::{Position, Problem};

/// A text that was understood.
#[derive(Clone, Debug)]
pub struct Document<'t> {
    /// The top-level node.
    pub root: Node<'t>,
    /// What a strict reader objects to, in the order of the text.
    pub problems: Vec<Problem>,
}

/// A node: type, attributes, and either sub nodes or quoted text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node<'t> {
    /// Its type.
    pub kind: &'t str,
    /// Where its type stands.
    pub position: Position,
    /// Whether `x` stands in place of `+`: the node is to be checked but has no effect.
    pub disabled: bool,
    /// Its attributes without duplicates, in the order of the text; the name is an attribute with the tag `name`.
    pub attributes: Vec<Attribute<'t>>,
    /// Its sub nodes, disabled ones too.
    pub nodes: Vec<Node<'t>>,
    /// Its quoted text, line by line.
    pub text: Vec<TextLine<'t>>,
}

/// An attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attribute<'t> {
    /// The word before the colon, `name` for a value behind a node type.
    pub tag: &'t str,
    /// What follows, without the spaces around it.
    pub value: &'t str,
    /// Where the tag stands (the value, if it is a name behind a node type).
    pub position: Position,
    /// Where the value stands.
    pub value_position: Position,
}

/// One line of quoted text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TextLine<'t> {
    /// The line, without the `: ` before it.
    pub text: &'t str,
    /// Where the `:` stands.
    pub position: Position,
}

impl<'t> Node<'t> {
    pub(crate) fn new(kind: &'t str, position: Position, disabled: bool) -> Self {
        Self { kind, position, disabled, attributes: Vec::new(), nodes: Vec::new(), text: Vec::new() }
    }

    /// The attribute with this tag.
    #[must_use]
    pub fn attribute(&self, tag: &str) -> Option<&Attribute<'t>> {
        self.attributes.iter().find(|attribute| attribute.tag == tag)
    }

    /// The value of the attribute with this tag.
    #[must_use]
    pub fn value(&self, tag: &str) -> Option<&'t str> {
        self.attribute(tag).map(|attribute| attribute.value)
    }

    /// The value of `name`.
    #[must_use]
    pub fn name(&self) -> Option<&'t str> {
        self.value("name")
    }

    /// The sub nodes that are not disabled.
    pub fn enabled(&self) -> impl Iterator<Item = &Node<'t>> {
        self.nodes.iter().filter(|node| !node.disabled)
    }

    /// The sub nodes of this type that are not disabled.
    pub fn all<'n>(&'n self, kind: &'n str) -> impl Iterator<Item = &'n Node<'t>> {
        self.enabled().filter(move |node| node.kind == kind)
    }

    /// The first sub node of this type that is not disabled.
    #[must_use]
    pub fn first(&self, kind: &str) -> Option<&Node<'t>> {
        self.enabled().find(|node| node.kind == kind)
    }
}
