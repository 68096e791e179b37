// SPDX-License-Identifier: MIT OR Apache-2.0
//! Session arguments: `key=value, key=value`. What a client tells a server when it asks for a session.

/// The value of a key, trimmed. The first of two wins.
#[must_use]
pub fn argument<'a>(args: &'a str, key: &str) -> Option<&'a str> {
    args.split(',')
        .filter_map(|part| part.split_once('='))
        .find(|(name, _)| name.trim() == key)
        .map(|(_, value)| value.trim())
}

/// The value of a key as a number: decimal, or hexadecimal after `0x`.
#[must_use]
pub fn number(args: &str, key: &str) -> Option<u64> {
    let value = argument(args, key)?;
    match value.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => value.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::{argument, number};

    #[test]
    fn finds_and_trims() {
        assert_eq!(argument("base=0x3f8, size = 8", "size"), Some("8"));
        assert_eq!(argument("base=0x3f8, size = 8", "bas"), None);
        assert_eq!(argument("", "size"), None);
    }

    #[test]
    fn reads_numbers() {
        assert_eq!(number("base=0x3f8, size=8", "base"), Some(0x3f8));
        assert_eq!(number("base=0x3f8, size=8", "size"), Some(8));
        assert_eq!(number("size=eight", "size"), None);
        assert_eq!(number("size=0x1ffffffffffffffff", "size"), None);
    }
}
