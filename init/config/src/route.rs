// SPDX-License-Identifier: MIT OR Apache-2.0
//! Routing: where a session of a child goes, and under which label.
//!
//! [`resolve`] is a pure function of the child's start node, the request, and a [`Directory`] of who is there to serve.
//! Before the table of the child's route is looked at, two sessions have a place of their own: the ROM `config` (if the
//! start node has one) and the ROM with the child's program.
//!
//! A rule for a service whose targets all fail denies the session; a rule for any service passes it on to the next rule.

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use cloister_hid::Position;

use crate::label::{Label, prefixed};
use crate::language::LABEL;
use crate::model::{Route, Rule, Selector, Start, Target, To};

/// A session that a child asks for.
#[derive(Clone, Copy, Debug)]
pub struct Request<'r> {
    /// The service.
    pub service: &'r str,
    /// The label with the child's name in front; the name alone for the environment's sessions.
    pub label: &'r str,
}

/// Who is there to serve.
pub trait Directory {
    /// Whether the parent may be asked for `service`.
    fn parent(&self, service: &str) -> bool;
    /// Whether there is a child `name` that provides `service`.
    fn child(&self, name: &str, service: &str) -> bool;
    /// The names of all children that provide `service`.
    fn children(&self, service: &str) -> Vec<String>;
    /// Whether the runtime environment itself offers `service`.
    fn local(&self, service: &str) -> bool;
}

/// Where a session goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// Who serves it.
    pub server: Server,
    /// The label that the server sees.
    pub label: String,
}

/// Who serves a session.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Server {
    /// The parent.
    Parent,
    /// The child of this name.
    Child(String),
    /// The runtime environment itself.
    Local,
    /// The ROM `config` inside of the start node.
    InlineConfig,
}

/// Why a session goes nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unroutable {
    /// No rule matches.
    NoRule,
    /// The rule at this place matches and none of its targets serves.
    NoServer(Position),
    /// The rule at this place asks for any child, and more than one provides the service.
    Ambiguous(Position),
    /// The label is longer than a label may be.
    LabelTooLong,
}

impl fmt::Display for Unroutable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRule => f.write_str("no route leads to it"),
            Self::NoServer(at) => write!(f, "no target of the rule at {at} serves it"),
            Self::Ambiguous(at) => write!(f, "several children could serve it by the rule at {at}"),
            Self::LabelTooLong => write!(f, "its label is longer than {LABEL} bytes"),
        }
    }
}

/// Where `request` of the child `start` goes.
///
/// # Errors
///
/// See [`Unroutable`].
pub fn resolve(start: &Start, request: Request<'_>, directory: &impl Directory) -> Result<Destination, Unroutable> {
    if request.label.len() > LABEL {
        return Err(Unroutable::LabelTooLong);
    }
    if request.service == "ROM" {
        if Label(request.label).last() == "config" && start.config.is_some() {
            return Ok(Destination { server: Server::InlineConfig, label: request.label.to_owned() });
        }
        if request.label == start.name && start.binary != start.name {
            let request = Request { service: "ROM", label: &start.binary };
            return by_table(&start.route, &start.name, request, directory);
        }
    }
    by_table(&start.route, &start.name, request, directory)
}

fn by_table(
    route: &Route,
    child: &str,
    request: Request<'_>,
    directory: &impl Directory,
) -> Result<Destination, Unroutable> {
    let mut failure = Unroutable::NoRule;
    for rule in route.rules.iter().filter(|rule| matches(rule, child, request)) {
        for target in &rule.targets {
            match server(target, request.service, directory) {
                Found::One(server) => {
                    let label = rewritten(target, request.label);
                    if label.len() > LABEL {
                        return Err(Unroutable::LabelTooLong);
                    }
                    return Ok(Destination { server, label });
                }
                Found::None => failure = Unroutable::NoServer(rule.position),
                Found::Several => failure = Unroutable::Ambiguous(rule.position),
            }
        }
        if rule.service.is_some() {
            return Err(if rule.targets.is_empty() { Unroutable::NoServer(rule.position) } else { failure });
        }
    }
    Err(failure)
}

enum Found {
    None,
    One(Server),
    Several,
}

fn server(target: &Target, service: &str, directory: &impl Directory) -> Found {
    match &target.to {
        To::Parent if directory.parent(service) => Found::One(Server::Parent),
        To::Child(name) if directory.child(name, service) => Found::One(Server::Child(name.clone())),
        To::Local if directory.local(service) => Found::One(Server::Local),
        To::AnyChild => match directory.children(service).as_slice() {
            [] => Found::None,
            [one] => Found::One(Server::Child(one.clone())),
            _ => Found::Several,
        },
        To::Parent | To::Child(_) | To::Local => Found::None,
    }
}

/// Whether `rule` is for this request of `child`.
#[must_use]
pub fn matches(rule: &Rule, child: &str, request: Request<'_>) -> bool {
    rule.service.as_ref().is_none_or(|service| service == request.service)
        && selects(&rule.selector, child, Label(request.label))
}

fn selects(selector: &Selector, child: &str, label: Label<'_>) -> bool {
    let scoped = label.scoped(child);
    let holds = |wanted: &Option<String>, actual: Option<&str>, compare: fn(&str, &str) -> bool| {
        wanted.as_ref().is_none_or(|wanted| actual.is_some_and(|actual| compare(actual, wanted)))
    };
    holds(&selector.label, scoped, |actual, wanted| actual == wanted)
        && holds(&selector.prefix, scoped, |actual, wanted| actual.starts_with(wanted))
        && holds(&selector.suffix, scoped, |actual, wanted| actual.ends_with(wanted))
        && holds(&selector.last, Some(label.last()), |actual, wanted| actual == wanted)
        && holds(&selector.unscoped, Some(label.0), |actual, wanted| actual == wanted)
}

/// The label that `target` sees for a session labelled `label`.
#[must_use]
pub fn rewritten(target: &Target, label: &str) -> String {
    if let Some(label) = &target.label {
        return label.clone();
    }
    let label = Label(label);
    let identity = target.identity.as_deref().unwrap_or(label.before_last());
    let resource = target.resource.as_deref().unwrap_or(label.last());
    let mut last = target.prepend_resource.clone().unwrap_or_default();
    last.push_str(resource);
    prefixed(identity, &last)
}
