// SPDX-License-Identifier: MIT OR Apache-2.0
//! The tree of a configuration becomes a [`Config`].
//!
//! Nothing is reported here: what is not understood was reported by the pass of `check.rs`, and is left out.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use cloister_hid::{Document, Element, Node, parse_bytes};

use crate::check::{check_document, check_words};
use crate::diagnostic::Diagnostic;
use crate::language::CONFIG;
use crate::model::{Config, OnAllExited, Route, Rule, Selector, Start, Target, To};
use crate::references::check_references;
use crate::value::{parse_bool, parse_number, parse_size};

/// A configuration and the objections to it.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What it says.
    pub config: Config,
    /// What is wrong with it, in the order of the text.
    pub diagnostics: Vec<Diagnostic>,
}

/// Reads the content of a ROM `config`.
///
/// # Errors
///
/// The single objection to a text that is no HID at all.
pub fn load(bytes: &[u8]) -> Result<Loaded, Diagnostic> {
    let document = parse(bytes)?;
    Ok(loaded(&document, (document.root.kind == CONFIG.kind).then_some(&document.root)))
}

/// Reads the configuration of a runtime environment that hosts components as init does: `own` takes what is said for itself out of the top-level
/// node, and the node `sandbox` there says what init's `config` would.
///
/// # Errors
///
/// The text is no HID at all, `own` finds nothing, or there is no such node.
pub fn load_sandbox<T>(bytes: &[u8], own: impl FnOnce(&Node<'_>) -> Option<T>) -> Result<(T, Loaded), Diagnostic> {
    let document = parse(bytes)?;
    let objection = |what: &str| Diagnostic::error(document.root.position, what.to_owned());
    let own = own(&document.root).ok_or_else(|| objection("an attribute is missing, or makes no sense"))?;
    let sandbox = document.root.first("sandbox").ok_or_else(|| objection("the node `sandbox` is missing"))?;
    Ok((own, loaded(&document, Some(sandbox))))
}

fn parse(bytes: &[u8]) -> Result<Document<'_>, Diagnostic> {
    parse_bytes(bytes).map_err(|error| Diagnostic::error(error.position, format!("{}", error.kind)))
}

/// What a node says, with the objections to it if its words are to be looked at.
fn loaded(document: &Document<'_>, node: Option<&Node<'_>>) -> Loaded {
    let mut diagnostics = check_document(document);
    if let Some(node) = node {
        check_words(node, &mut diagnostics);
    }
    let node = node.unwrap_or(&document.root);
    let config = config(node);
    check_references(node, &config, &mut diagnostics);
    diagnostics.sort_by_key(|diagnostic| diagnostic.position);
    Loaded { config, diagnostics }
}

fn config(root: &Node<'_>) -> Config {
    let default = root.first("default");
    let defaults = Defaults {
        ram: default.and_then(|node| node.value("ram")).and_then(parse_size).unwrap_or(0),
        caps: default.and_then(|node| node.value("caps")).and_then(parse_number).unwrap_or(0),
        route: root.first("default-route").map(route).unwrap_or_default(),
    };
    let mut starts: Vec<Start> = Vec::new();
    for node in root.all("start") {
        let Some(start) = start(node, &defaults) else { continue };
        if !starts.iter().any(|other| other.name == start.name) {
            starts.push(start);
        }
    }
    let keep = |name: &str| {
        let node = root.all("resource").find(|node| node.name() == Some(name));
        node.and_then(|node| node.value("preserve")).and_then(parse_size)
    };
    Config {
        version: text(root, "version").unwrap_or_default(),
        verbose: flag(root, "verbose", false),
        on_all_exited: match root.value("on_all_exited") {
            Some("poweroff") => OnAllExited::PowerOff,
            Some("exit") => OnAllExited::Exit,
            _ => OnAllExited::Stay,
        },
        keep_ram: keep("RAM").unwrap_or(320 << 10),
        keep_caps: keep("CAP").unwrap_or(20),
        parent_provides: root.first("parent-provides").map(services).unwrap_or_default(),
        starts,
    }
}

struct Defaults {
    ram: u64,
    caps: u64,
    route: Route,
}

fn start(node: &Node<'_>, defaults: &Defaults) -> Option<Start> {
    let name = node.attribute("name").filter(|name| !name.value.is_empty())?;
    let provides = node.first("provides").map(services).unwrap_or_default();
    Some(Start {
        name: name.value.to_owned(),
        version: text(node, "version").unwrap_or_default(),
        position: name.value_position,
        ram: node.value("ram").and_then(parse_size).unwrap_or(defaults.ram),
        caps: node.value("caps").and_then(parse_number).unwrap_or(defaults.caps),
        binary: node.first("binary").and_then(|binary| binary.name()).unwrap_or(name.value).to_owned(),
        route: node.first("route").map_or_else(|| defaults.route.clone(), route),
        config: node.first("config").and_then(|config| Element::from_node(config).to_text().ok()),
        propagate_exit: node.first("exit").is_some_and(|exit| flag(exit, "propagate", false)),
        awaited: flag(node, "awaited", provides.is_empty()),
        provides,
    })
}

fn services(node: &Node<'_>) -> Vec<String> {
    node.all("service").filter_map(|service| text(service, "name")).collect()
}

fn route(node: &Node<'_>) -> Route {
    Route { rules: node.enabled().filter_map(rule).collect() }
}

fn rule(node: &Node<'_>) -> Option<Rule> {
    let service = match node.kind {
        "any-service" => None,
        "service" => Some(text(node, "name")?),
        _ => return None,
    };
    let selector = Selector {
        label: text(node, "label"),
        prefix: text(node, "label_prefix"),
        suffix: text(node, "label_suffix"),
        last: text(node, "label_last"),
        unscoped: text(node, "unscoped_label"),
    };
    Some(Rule { position: node.position, service, selector, targets: node.enabled().filter_map(target).collect() })
}

fn target(node: &Node<'_>) -> Option<Target> {
    let to = match node.kind {
        "parent" => To::Parent,
        "child" => To::Child(text(node, "name")?),
        "any-child" => To::AnyChild,
        "local" => To::Local,
        _ => return None,
    };
    Some(Target {
        to,
        position: node.position,
        label: text(node, "label"),
        identity: text(node, "identity"),
        resource: text(node, "resource"),
        prepend_resource: text(node, "prepend_resource"),
    })
}

fn text(node: &Node<'_>, tag: &str) -> Option<String> {
    node.value(tag).map(ToOwned::to_owned)
}

fn flag(node: &Node<'_>, tag: &str, default: bool) -> bool {
    node.value(tag).and_then(parse_bool).unwrap_or(default)
}
