// SPDX-License-Identifier: MIT OR Apache-2.0
//! Building a table.

use alloc::string::String;
use alloc::vec::Vec;

use crate::{MAGIC, Rule};

/// Longer names are cut.
const LONGEST_NAME: usize = 120;

/// A function and how to unwind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// Offset from where the text is linked.
    pub address: u32,
    /// Its name.
    pub name: String,
    /// Rules, ascending: each holds from its offset in the function on.
    pub rows: Vec<(u32, Rule)>,
}

/// Builds a table.
#[derive(Debug, Default)]
pub struct Writer {
    functions: Vec<Function>,
}

impl Writer {
    /// Adds a function, in any order. Of several at one address the first stays.
    pub fn add(&mut self, function: Function) {
        self.functions.push(function);
    }

    /// The table; `end` is where the text ends. Nothing if it is too large for the format (64 Ki rules, 4 Gi of anything else), which no
    /// kernel is.
    #[must_use]
    pub fn finish(mut self, end: u32) -> Option<Vec<u8>> {
        self.functions.sort_by_key(|function| function.address);
        self.functions.dedup_by_key(|function| function.address);
        let mut rules = Vec::new();
        let (mut functions, mut rows, mut names) = (Vec::new(), Vec::new(), Vec::new());
        let mut row_count = 0u32;
        let stop = Function { address: end, name: String::new(), rows: Vec::new() };
        for function in self.functions.iter().chain([&stop]) {
            for number in [function.address, u32::try_from(names.len()).ok()?, row_count] {
                functions.extend_from_slice(&number.to_le_bytes());
            }
            let name = cut(&function.name);
            names.push(u8::try_from(name.len()).ok()?);
            names.extend_from_slice(name.as_bytes());
            let mut last = None;
            // What lies further in a function than 64 KiB has the rule of what lies there, which is wrong, but never happens.
            for (offset, rule) in function.rows.iter().filter_map(|(at, rule)| Some((u16::try_from(*at).ok()?, *rule)))
            {
                if last.replace(rule) == Some(rule) {
                    continue;
                }
                let known = rules.iter().position(|known| *known == rule).unwrap_or_else(|| {
                    rules.push(rule);
                    rules.len().saturating_sub(1)
                });
                rows.extend_from_slice(&offset.to_le_bytes());
                rows.extend_from_slice(&u16::try_from(known).ok()?.to_le_bytes());
                row_count = row_count.checked_add(1)?;
            }
        }
        let mut table = MAGIC.to_vec();
        let count = self.functions.len().checked_add(1)?;
        for number in [u32::try_from(count), Ok(row_count), u32::try_from(rules.len()), u32::try_from(names.len())] {
            table.extend_from_slice(&number.ok()?.to_le_bytes());
        }
        table.extend(functions);
        table.extend(rows);
        table.extend(rules.iter().flat_map(|rule| rule.to_raw().to_le_bytes()));
        table.extend(names);
        Some(table)
    }
}

fn cut(name: &str) -> &str {
    name.get(..name.floor_char_boundary(LONGEST_NAME)).unwrap_or(name)
}
