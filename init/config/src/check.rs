// SPDX-License-Identifier: MIT OR Apache-2.0
//! The strict reader: a configuration beside the tables of its language.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use cloister_hid::{Attribute, Document, Node};

use crate::diagnostic::Diagnostic;
use crate::language::{AttributeKind, CONFIG, Content, NodeKind, ValueKind};
use crate::load::load;
use crate::value::{parse_bool, parse_number, parse_size};
use crate::words::nearest;

/// All objections to the configuration `text`, in the order of the text.
#[must_use]
pub fn check(text: &str) -> Vec<Diagnostic> {
    match load(text.as_bytes()) {
        Ok(loaded) => loaded.diagnostics,
        Err(diagnostic) => alloc::vec![diagnostic],
    }
}

/// Objections to the notation, and to what the top-level node is.
pub(crate) fn check_document(document: &Document<'_>) -> Vec<Diagnostic> {
    let mut found: Vec<_> =
        document.problems.iter().map(|p| Diagnostic::error(p.position, format!("{}: `{}`", p.kind, p.text))).collect();
    if document.root.kind != CONFIG.kind {
        let message = format!("the top-level node is `{}`, must be `config`", document.root.kind);
        found.push(Diagnostic::error(document.root.position, message));
    }
    found
}

/// Objections to the words of a configuration, without those to references between nodes.
pub(crate) fn check_words(root: &Node<'_>, found: &mut Vec<Diagnostic>) {
    check_node(root, &CONFIG, found);
}

fn check_node(node: &Node<'_>, kind: &NodeKind, found: &mut Vec<Diagnostic>) {
    if kind.later {
        found.push(Diagnostic::warning(
            node.position,
            format!("`{}` is not implemented yet, it has no effect", node.kind),
        ));
    }
    let Content::Nodes(nodes) = kind.content else { return };
    for attribute in &node.attributes {
        check_attribute(node, attribute, kind, found);
    }
    for required in kind.attributes.iter().filter(|known| known.required) {
        if node.attribute(required.tag).is_none() {
            let message = format!("`{}` lacks its attribute `{}`", node.kind, required.tag);
            found.push(Diagnostic::error(node.position, message));
        }
    }
    if let Some(line) = node.text.first() {
        let message = format!("`{}` takes no quoted text", node.kind);
        found.push(Diagnostic::error(line.position, message));
    }
    check_sub_nodes(node, nodes, found);
}

fn check_sub_nodes(node: &Node<'_>, nodes: &[&NodeKind], found: &mut Vec<Diagnostic>) {
    for sub in &node.nodes {
        let Some(known) = nodes.iter().find(|known| known.kind == sub.kind) else {
            let hint = hint(sub.kind, nodes.iter().map(|known| known.kind), "it may have no nodes");
            let mut message = format!("unknown node `{}` in `{}`{hint}", sub.kind, node.kind);
            if sub.position.line == node.position.line {
                message.push_str(&format!("; to stand beside `{}`, it needs a line of its own", node.kind));
            }
            found.push(Diagnostic::error(sub.position, message));
            continue;
        };
        let first = node.first(sub.kind).map(|first| first.position);
        if let Some(first) = first.filter(|first| !known.many && !sub.disabled && *first != sub.position) {
            let message = format!("a second `{}` in `{}`, the one at {first} counts", sub.kind, node.kind);
            found.push(Diagnostic::error(sub.position, message));
        }
        check_node(sub, known, found);
    }
}

fn check_attribute(node: &Node<'_>, attribute: &Attribute<'_>, kind: &NodeKind, found: &mut Vec<Diagnostic>) {
    let Some(known) = kind.attributes.iter().find(|known| known.tag == attribute.tag) else {
        let hint = hint(attribute.tag, kind.attributes.iter().map(|known| known.tag), "it may have no attributes");
        let message = format!("unknown attribute `{}` of `{}`{hint}", attribute.tag, node.kind);
        found.push(Diagnostic::error(attribute.position, message));
        return;
    };
    if known.later {
        let message = format!("attribute `{}` is not implemented yet, it has no effect", attribute.tag);
        found.push(Diagnostic::warning(attribute.position, message));
    }
    if let Some(expected) = objection(known, attribute.value) {
        let message = format!("`{}` of `{}` must be {expected}, not `{}`", attribute.tag, node.kind, attribute.value);
        found.push(Diagnostic::error(attribute.value_position, message));
    }
}

/// What the value should have been.
fn objection(known: &AttributeKind, value: &str) -> Option<String> {
    let (good, expected) = match known.value {
        ValueKind::Text(max) => (value.len() <= max, format!("at most {max} bytes long")),
        ValueKind::Name(max) => {
            (!value.is_empty() && value.len() <= max, format!("text of at least one and at most {max} bytes"))
        }
        ValueKind::Bool => (parse_bool(value).is_some(), "`yes` or `no`".to_string()),
        ValueKind::Number => (parse_number(value).is_some(), "a number".to_string()),
        ValueKind::Signed => {
            let digits = value.strip_prefix('-').unwrap_or(value);
            (parse_number(digits).is_some(), "a number".to_string())
        }
        ValueKind::Size => (parse_size(value).is_some(), "a size such as `4096`, `16K`, `8M` or `1G`".to_string()),
        ValueKind::Word(words) => (words.contains(&value), format!("one of {}", listed(words))),
    };
    if good { None } else { Some(expected) }
}

fn listed(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
    quoted.join(", ")
}

/// `, did you mean ...` or the list of what would be known, if it is short.
fn hint<'k>(word: &str, known: impl Iterator<Item = &'k str> + Clone, none: &str) -> String {
    if let Some(nearest) = nearest(word, known.clone()) {
        return format!(", did you mean `{nearest}`?");
    }
    let all: Vec<&str> = known.collect();
    match all.as_slice() {
        [] => format!(", {none}"),
        words => format!(", known are {}", listed(words)),
    }
}
