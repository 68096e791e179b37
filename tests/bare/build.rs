// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reads from the reference which statuses each call may answer.

use std::fmt::Write as _;
use std::path::Path;

const REFERENCE: &str = "../../docs/spec/hypercalls.md";

fn main() {
    println!("cargo:rerun-if-changed={REFERENCE}");
    let text = std::fs::read_to_string(REFERENCE).expect("the reference of the hypercalls");
    let out = std::env::var("OUT_DIR").expect("cargo says where generated files go");
    std::fs::write(Path::new(&out).join("documented.rs"), documented(&text)).expect("the table can be written");
}

/// The statuses by name, in the order of their numbers, and for each call, in the order of its number, the bits of its statuses.
fn documented(reference: &str) -> String {
    let (mut heading, mut in_statuses) = ("", false);
    let mut statuses: Vec<&str> = Vec::new();
    let mut calls: Vec<(usize, u16)> = Vec::new();
    for line in reference.lines() {
        if let Some(title) = line.strip_prefix('#') {
            heading = title.trim_start_matches(['#', ' ']);
            in_statuses = false;
            let number = heading.split_once(' ').and_then(|(number, _)| number.parse().ok());
            calls.extend(number.map(|number| (number, 0)));
            continue;
        }
        let cells: Vec<_> = line.split('|').map(|cell| cell.trim().trim_matches('`')).collect();
        match cells.as_slice() {
            ["", "status", "cause", ..] => in_statuses = true,
            ["", number, name, _, ""] if heading == "Statuses" && number.parse() == Ok(statuses.len()) => {
                statuses.push(name);
            }
            ["", name, ..] if in_statuses => {
                let bit = statuses.iter().position(|status| status == name);
                if let (Some((_, bits)), Some(bit)) = (calls.last_mut(), bit) {
                    *bits |= 1 << bit;
                }
            }
            _ => in_statuses = false,
        }
    }
    assert!(calls.iter().enumerate().all(|(index, (number, bits))| index == *number && *bits != 0), "{calls:?}");
    let mut table = format!(
        "/// By call, the statuses that the reference lists, as bits.\npub static DOCUMENTED: [u16; {}] = [",
        calls.len()
    );
    for (_, bits) in &calls {
        let _ = write!(table, "{bits:#x}, ");
    }
    table + "];\n"
}
