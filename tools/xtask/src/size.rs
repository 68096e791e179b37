// SPDX-License-Identifier: MIT OR Apache-2.0
//! Amounts of memory as people write them: `256M`, `3G`, `4096K`; a bare number is MiB, as for QEMU's `-m`.

use std::fmt;
use std::str::FromStr;

/// An amount of memory in bytes, a multiple of 1 KiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Size(u64);

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

impl Size {
    pub(crate) const fn mib(count: u64) -> Self {
        Self(count.saturating_mul(MIB))
    }

    /// Whole MiB, rounded up.
    pub(crate) const fn in_mib(self) -> u64 {
        self.0.div_ceil(MIB)
    }

    pub(crate) const fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let (digits, unit) = match text.strip_suffix(['K', 'k']) {
            Some(digits) => (digits, KIB),
            None => match text.strip_suffix(['G', 'g']) {
                Some(digits) => (digits, GIB),
                None => (text.strip_suffix(['M', 'm']).unwrap_or(text), MIB),
            },
        };
        let count: u64 = digits.parse().map_err(|_| format!("{text:?} is no size: write 256M, 3G or 4096K"))?;
        count.checked_mul(unit).map(Self).ok_or_else(|| format!("{text} is more than a machine can address"))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            bytes if bytes.is_multiple_of(GIB) => write!(f, "{}G", bytes / GIB),
            bytes if bytes.is_multiple_of(MIB) => write!(f, "{}M", bytes / MIB),
            bytes => write!(f, "{}K", bytes / KIB),
        }
    }
}

impl<'de> serde::Deserialize<'de> for Size {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::Size;

    fn shown(text: &str) -> String {
        text.parse::<Size>().map_or_else(|error| error, |size| size.to_string())
    }

    #[test]
    fn sizes_are_read_with_and_without_units() {
        assert_eq!(shown("256M"), "256M");
        assert_eq!(shown("3072"), "3G");
        assert_eq!(shown("3g"), "3G");
        assert_eq!(shown("4096K"), "4M");
        assert_eq!(shown("100K"), "100K");
        assert_eq!("1025K".parse::<Size>().map(Size::in_mib), Ok(2));
    }

    #[test]
    fn nonsense_is_refused() {
        assert!("".parse::<Size>().is_err());
        assert!("12X".parse::<Size>().is_err());
        assert!("-1M".parse::<Size>().is_err());
        assert!("99999999999999999999G".parse::<Size>().is_err());
        assert!("18446744073709551615G".parse::<Size>().is_err());
    }
}
