// SPDX-License-Identifier: MIT OR Apache-2.0
//! The VMM's configuration: the attributes of a `config` node. docs/spec/vmm.md lists them.
//!
//! What is not known is reported with its place, and the rest works; a value that can't be understood ends the VMM, since
//! a guest with another amount of memory than asked for is not what anybody asked for.

use std::fmt::Write as _;

use cloister_hid::{Attribute, Node, parse_bytes};

use crate::config::{Profile, VmConfig};

/// Where the personality shows ROMs.
pub const ROMS: &str = "/rom";

const KNOWN: [&str; 9] =
    ["memory", "kernel", "initrd", "cmdline", "profile", "stats", "stats_at", "given", "crash_after_ms"];

/// A configuration, and what there is to object to it.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: VmConfig,
    /// Objections, each with its place: they are told, and change nothing.
    pub objections: Vec<String>,
}

/// Reads a configuration.
///
/// # Errors
/// In words, with line and column: no document, no `config` node, or a value that can't be understood.
pub fn load(text: &[u8]) -> Result<Loaded, String> {
    let document = parse_bytes(text).map_err(|error| format!("config: {error}"))?;
    let mut objections: Vec<String> = document.problems.iter().map(ToString::to_string).collect();
    let root = &document.root;
    if root.kind != "config" {
        return Err(format!("config: {}: the top-level node is `{}`, must be `config`", root.position, root.kind));
    }
    for node in &root.nodes {
        objections.push(format!("{}: unknown node `{}` in `config`", node.position, node.kind));
    }
    let mut config = VmConfig { kernel: rom("bzImage"), ..VmConfig::default() };
    for attribute in &root.attributes {
        match take(attribute, &mut config) {
            Ok(true) => {}
            Ok(false) => objections.push(unknown(attribute)),
            Err(expected) => return Err(wrong(attribute, root, &expected)),
        }
    }
    Ok(Loaded { config, objections })
}

fn rom(name: &str) -> std::path::PathBuf {
    [ROMS, name].iter().collect()
}

/// Takes an attribute: whether it is known; what was expected if its value is none.
fn take(attribute: &Attribute<'_>, config: &mut VmConfig) -> Result<bool, String> {
    let value = attribute.value;
    match attribute.tag {
        "memory" => config.memory = size(value).ok_or("a size such as `256M`")?,
        "kernel" => config.kernel = rom(value),
        "initrd" => config.initrd = Some(rom(value)).filter(|_| !value.is_empty()),
        "cmdline" => value.clone_into(&mut config.command_line),
        "profile" => {
            config.profile = match value {
                "reduced" => Profile::Reduced,
                "full" => Profile::Full,
                _ => return Err("`reduced` or `full`".into()),
            }
        }
        "stats" => config.stats = yes(value).ok_or("`yes` or `no`")?,
        "given" => config.given = Some(size(value).ok_or("a size such as `256M`")?),
        "stats_at" => config.stats_at = Some(value.to_owned()),
        "crash_after_ms" => config.crash_after_ms = Some(value.parse().map_err(|_| "a number")?),
        _ => return Ok(false),
    }
    Ok(true)
}

fn unknown(attribute: &Attribute<'_>) -> String {
    let mut text = format!("{}: unknown attribute `{}` of `config`, known are", attribute.position, attribute.tag);
    for (index, known) in KNOWN.iter().enumerate() {
        let separator = if index == 0 { " " } else { ", " };
        // Writing into a string does not fail.
        let _ = write!(text, "{separator}`{known}`");
    }
    text
}

fn wrong(attribute: &Attribute<'_>, node: &Node<'_>, expected: &str) -> String {
    let Attribute { tag, value, value_position, .. } = attribute;
    format!("config: {value_position}: `{tag}` of `{}` must be {expected}, not `{value}`", node.kind)
}

fn yes(text: &str) -> Option<bool> {
    match text {
        "yes" | "true" | "1" => Some(true),
        "no" | "false" | "0" => Some(false),
        _ => None,
    }
}

/// A number of bytes with an optional K, M or G.
fn size(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(['K', 'M', 'G']);
    let unit = match text.strip_prefix(digits)? {
        "" => 1_u64,
        "K" => 1 << 10,
        "M" => 1 << 20,
        "G" => 1 << 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(unit)
}

/// A number of bytes for people: in the largest unit that divides it, else rounded down to KiB.
#[must_use]
pub fn show_size(bytes: u64) -> String {
    match bytes {
        _ if bytes < 1 << 10 => format!("{bytes}"),
        _ if bytes.is_multiple_of(1 << 30) => format!("{}G", bytes >> 30),
        _ if bytes.is_multiple_of(1 << 20) => format!("{}M", bytes >> 20),
        _ => format!("{}K", bytes >> 10),
    }
}

#[cfg(test)]
mod tests {
    use super::{load, show_size};
    use crate::config::Profile;

    #[test]
    fn attributes_are_read() {
        let text = b"config | memory: 64M | initrd: my-initrd | profile: full | stats: yes\n  cmdline: console=ttyS0 quiet\n-\n";
        let loaded = load(text).unwrap();
        let config = loaded.config;
        assert_eq!((config.memory, config.profile, config.stats), (64 << 20, Profile::Full, true));
        assert_eq!(config.kernel.to_str(), Some("/rom/bzImage"));
        assert_eq!(config.initrd.unwrap().to_str(), Some("/rom/my-initrd"));
        assert_eq!(config.command_line, "console=ttyS0 quiet");
        assert!(loaded.objections.is_empty(), "{:?}", loaded.objections);
    }

    #[test]
    fn unknown_words_are_reported_and_change_nothing() {
        let loaded = load(b"config | memroy: 64M\n  + disk\n-\n").unwrap();
        assert_eq!(loaded.config.memory, 256 << 20);
        assert_eq!(loaded.objections.len(), 2);
        assert!(loaded.objections.iter().any(|o| o.contains("memroy") && o.contains("`memory`")));
        assert!(loaded.objections.iter().any(|o| o.contains("disk")));
    }

    #[test]
    fn values_that_are_none_are_errors_with_their_place() {
        let error = load(b"config\n  memory: lots\n-\n").unwrap_err();
        assert!(error.contains("2:11") || error.contains("line 2"), "{error}");
        assert!(error.contains("lots"));
        assert!(load(b"").is_err());
        assert!(load(b"start\n-\n").is_err());
        assert!(load(b"config | crash_after_ms: soon\n-\n").is_err());
    }

    #[test]
    fn sizes_are_shown_as_they_are_written() {
        assert_eq!(show_size(512 << 20), "512M");
        assert_eq!(show_size(1 << 30), "1G");
        assert_eq!(show_size((280 << 20) + 4096), "286724K");
        assert_eq!(show_size(7), "7");
    }
}
