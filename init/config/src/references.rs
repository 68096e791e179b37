// SPDX-License-Identifier: MIT OR Apache-2.0
//! Objections to what spans several nodes: names used twice, routes that lead nowhere, quotas of nothing.

use alloc::format;
use alloc::vec::Vec;

use cloister_hid::Node;

use crate::diagnostic::Diagnostic;
use crate::model::{Config, Rule, Start, To};
use crate::words::nearest;

pub(crate) fn check_references(root: &Node<'_>, config: &Config, found: &mut Vec<Diagnostic>) {
    check_names(root, config, found);
    for start in &config.starts {
        if start.ram == 0 {
            found.push(Diagnostic::error(start.position, format!("child `{}` has no `ram`", start.name)));
        }
        if start.caps == 0 {
            found.push(Diagnostic::error(start.position, format!("child `{}` has no `caps`", start.name)));
        }
    }
    // A default route shows up in many start nodes; each of its rules is looked at once.
    let mut seen = Vec::new();
    for rule in config.starts.iter().flat_map(|start| &start.route.rules) {
        if !seen.contains(&rule.position) {
            seen.push(rule.position);
            check_rule(rule, config, found);
        }
    }
}

fn check_names(root: &Node<'_>, config: &Config, found: &mut Vec<Diagnostic>) {
    for name in root.all("start").filter_map(|node| node.attribute("name")) {
        let first = config.starts.iter().find(|start| start.name == name.value);
        if let Some(first) = first.filter(|first| first.position != name.value_position) {
            let message = format!("a second child `{}`, the one at {} counts", name.value, first.position);
            found.push(Diagnostic::error(name.value_position, message));
        }
        if name.value.contains("->") {
            found.push(Diagnostic::error(name.value_position, format!("`->` in the name of child `{}`", name.value)));
        }
    }
}

fn check_rule(rule: &Rule, config: &Config, found: &mut Vec<Diagnostic>) {
    if rule.targets.is_empty() {
        let message = format!("a rule for {} without targets", service_of(rule));
        found.push(Diagnostic::warning(rule.position, message));
    }
    for target in &rule.targets {
        match &target.to {
            To::Child(name) => match config.starts.iter().find(|start| start.name == *name) {
                None => {
                    let names = config.starts.iter().map(|start: &Start| start.name.as_str());
                    let hint = nearest(name, names).map_or_else(Default::default, |n| format!(", did you mean `{n}`?"));
                    found.push(Diagnostic::error(target.position, format!("there is no child `{name}`{hint}")));
                }
                Some(child) => {
                    if let Some(service) = rule.service.as_ref().filter(|service| !child.provides.contains(service)) {
                        let message = format!("child `{name}` does not provide `{service}`");
                        found.push(Diagnostic::error(target.position, message));
                    }
                }
            },
            To::Parent => {
                if let Some(service) = rule.service.as_ref().filter(|s| !config.parent_provides.contains(s)) {
                    let words = config.parent_provides.iter().map(alloc::string::String::as_str);
                    let hint =
                        nearest(service, words).map_or_else(Default::default, |n| format!(", did you mean `{n}`?"));
                    let message = format!("`{service}` is not in `parent-provides`{hint}");
                    found.push(Diagnostic::warning(target.position, message));
                }
            }
            To::AnyChild | To::Local => {}
        }
    }
}

fn service_of(rule: &Rule) -> alloc::string::String {
    rule.service.as_ref().map_or_else(|| "any service".into(), |service| format!("`{service}`"))
}
