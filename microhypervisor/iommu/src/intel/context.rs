// SPDX-License-Identifier: MIT OR Apache-2.0
//! Root entries, one for each bus, and context entries, one for each function of a bus (VT-d 9.1, 9.3), two words each.
//!
//! The first word of a context entry decides; the second, with the domain, is written while the device is blocked.

/// Bytes of an entry of either table.
pub const SIZE: u64 = 16;

const PRESENT: u64 = 1 << 0;
const SILENT: u64 = 1 << 1;

/// First word of a root entry that leads to a context table.
#[must_use]
pub const fn root(contexts: u64) -> u64 {
    contexts | PRESENT
}

/// First word of a context entry: blocked, or with a page table; with or without fault records.
#[must_use]
pub const fn translation(table: Option<u64>, silent: bool) -> u64 {
    let silent = if silent { SILENT } else { 0 };
    match table {
        None => silent,
        Some(root) => root | PRESENT | silent,
    }
}

/// Second word of a context entry: domain, and levels of the page table.
#[must_use]
pub const fn domain(domain: u16, levels: u32) -> u64 {
    (domain as u64) << 8 | (levels - 2) as u64
}

#[cfg(test)]
mod tests {
    use super::{domain, root, translation};

    #[test]
    fn entries_vt_d_9_1_and_9_3() {
        assert_eq!(root(0x5000), 0x5001);
        assert_eq!(translation(None, false), 0);
        assert_eq!(translation(Some(0x7000), true), 0x7003);
        assert_eq!(domain(3, 4), 0x302);
        assert_eq!(domain(3, 3), 0x301);
    }
}
