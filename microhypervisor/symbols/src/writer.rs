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

    /// The table; `end` is where the text ends. Nothing if it is too large for the format (4 Gi of anything), which no kernel is.
    #[must_use]
    pub fn finish(mut self, end: u32) -> Option<Vec<u8>> {
        self.functions.sort_by_key(|function| function.address);
        self.functions.dedup_by_key(|function| function.address);
        self.functions.push(Function { address: end, name: String::new(), rows: Vec::new() });
        let (mut functions, mut rows, mut names) = (Vec::new(), Vec::new(), Vec::new());
        for Function { address, name, rows: own } in &self.functions {
            functions.push([*address, u32::try_from(names.len()).ok()?]);
            let name = cut(name);
            names.push(u8::try_from(name.len()).ok()?);
            names.extend_from_slice(name.as_bytes());
            // Up to its first rule a function has none, whatever the one before ends with.
            for (offset, rule) in
                [(0, Rule::End)].iter().filter(|_| own.first().is_none_or(|(at, _)| *at > 0)).chain(own)
            {
                rows.push([address.checked_add(*offset)?, rule.to_raw()]);
            }
        }
        rows.dedup_by_key(|[_, rule]| *rule);
        let mut table = MAGIC.to_vec();
        for count in [functions.len(), rows.len(), names.len()] {
            table.extend(u32::try_from(count).ok()?.to_le_bytes());
        }
        table.extend(functions.iter().chain(&rows).flatten().flat_map(|number| number.to_le_bytes()));
        table.extend(names);
        Some(table)
    }
}

impl Rule {
    /// As it stands in the table.
    pub(crate) fn to_raw(self) -> u32 {
        match self {
            Self::End => 0,
            Self::Frame { base, words, saved } => {
                u32::from(words) | u32::from(saved) << 16 | if base { 2 } else { 1 } << 24
            }
            Self::Interrupted => 3 << 24,
        }
    }
}

fn cut(name: &str) -> &str {
    name.get(..name.floor_char_boundary(LONGEST_NAME)).unwrap_or(name)
}
