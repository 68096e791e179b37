// SPDX-License-Identifier: MIT OR Apache-2.0
//! Values of attributes: numbers, sizes, yes and no.

use alloc::format;
use alloc::string::String;

/// A number, decimal or with `0x` in front.
#[must_use]
pub fn parse_number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(digits) if digits.bytes().all(|b| b.is_ascii_hexdigit()) => u64::from_str_radix(digits, 16).ok(),
        None if text.bytes().all(|b| b.is_ascii_digit()) => text.parse().ok(),
        _ => None,
    }
}

/// A number of bytes; `K`, `M` and `G` behind the number stand for 2^10, 2^20 and 2^30.
#[must_use]
pub fn parse_size(text: &str) -> Option<u64> {
    let shift = match text.chars().next_back()? {
        'K' => 10_u32,
        'M' => 20,
        'G' => 30,
        _ => 0,
    };
    let digits = if shift == 0 { text } else { text.get(..text.len().checked_sub(1)?)? };
    parse_number(digits)?.checked_mul(1_u64.checked_shl(shift)?)
}

/// Yes (`yes`, `true`, `1`) or no (`no`, `false`, `0`).
#[must_use]
pub fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "yes" | "true" | "1" => Some(true),
        "no" | "false" | "0" => Some(false),
        _ => None,
    }
}

/// A number of bytes as reports show it: with the largest suffix that divides it.
#[must_use]
pub fn format_size(bytes: u64) -> String {
    for (shift, suffix) in [(30_u32, 'G'), (20, 'M'), (10, 'K')] {
        if bytes != 0 && bytes.trailing_zeros() >= shift {
            return format!("{}{suffix}", bytes >> shift);
        }
    }
    format!("{bytes}")
}

#[cfg(test)]
mod tests {
    use super::{format_size, parse_bool, parse_number, parse_size};

    #[test]
    fn sizes() {
        let cases =
            [("4M", Some(4 << 20)), ("0", Some(0)), ("1G", Some(1 << 30)), ("0x10K", Some(16384)), ("192", Some(192))];
        let bad = ["", "K", "4m", "-1", "+1", "4 M", "18446744073709551616", "17179869184G", "0x", "4KM", "1é"];
        for (text, value) in cases.into_iter().chain(bad.map(|bad| (bad, None))) {
            assert_eq!(parse_size(text), value, "{text}");
        }
        assert_eq!(parse_number("4K"), None);
        assert_eq!(parse_bool("ja"), None);
    }

    #[test]
    fn sizes_are_shown_with_a_suffix_only_when_divisible() {
        for (bytes, text) in
            [(4_099_890, "4099890"), (4 << 20, "4M"), (10456 << 10, "10456K"), (0, "0"), (3 << 30, "3G")]
        {
            assert_eq!(format_size(bytes), text);
            assert_eq!(parse_size(text), Some(bytes));
        }
    }
}
