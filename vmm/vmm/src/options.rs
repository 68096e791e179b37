// SPDX-License-Identifier: MIT OR Apache-2.0
//! The command line of the VMM as a Linux program.

use std::fmt;

use crate::config::{Profile, VmConfig};

/// How to call the program.
pub const USAGE: &str = "\
usage: cloister-vmm --kernel FILE [--initrd FILE] [--cmdline TEXT] [--memory SIZE[K|M|G]]
                    [--profile reduced|full] [--stats] [--stats-at TEXT] [--crash-after MS]";

/// A mistake on the command line.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Mistake(String);

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n{USAGE}", self.0)
    }
}

impl std::error::Error for Mistake {}

/// Reads the arguments behind the program's name.
///
/// # Errors
/// The first [`Mistake`].
pub fn parse(args: impl IntoIterator<Item = String>) -> Result<VmConfig, Mistake> {
    let mut config = VmConfig::default();
    let mut args = args.into_iter();
    let mut kernel = false;
    while let Some(option) = args.next() {
        if option == "--stats" {
            config.stats = true;
            continue;
        }
        let value = args.next().ok_or_else(|| Mistake(format!("{option} wants a value, or is unknown")))?;
        match option.as_str() {
            "--kernel" => (config.kernel, kernel) = (value.into(), true),
            "--initrd" => config.initrd = Some(value.into()),
            "--cmdline" => config.command_line = value,
            "--memory" => config.memory = size(&value)?,
            "--stats-at" => (config.stats, config.stats_at) = (true, Some(value)),
            "--profile" => config.profile = profile(&value)?,
            "--crash-after" => {
                let ms = value.parse().map_err(|_| Mistake(format!("{value} is not a number of milliseconds")))?;
                config.crash_after_ms = Some(ms);
            }
            _ => return Err(Mistake(format!("unknown option {option}"))),
        }
    }
    if kernel { Ok(config) } else { Err(Mistake("--kernel is missing".into())) }
}

fn profile(text: &str) -> Result<Profile, Mistake> {
    match text {
        "reduced" => Ok(Profile::Reduced),
        "full" => Ok(Profile::Full),
        _ => Err(Mistake(format!("{text} is neither reduced nor full"))),
    }
}

/// A size with an optional suffix K, M or G.
fn size(text: &str) -> Result<u64, Mistake> {
    let wrong = || Mistake(format!("{text} is not a size"));
    let digits = text.trim_end_matches(['K', 'M', 'G']);
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    let unit = match text.strip_prefix(digits) {
        Some("") => 1,
        Some("K") => 1 << 10,
        Some("M") => 1 << 20,
        Some("G") => 1 << 30,
        _ => return Err(wrong()),
    };
    number.checked_mul(unit).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::parse;
    use crate::config::Profile;

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(String::from).collect()
    }

    #[test]
    fn options_are_read() {
        let c = parse(words("--kernel k --initrd i --memory 64M --profile full --stats --crash-after 7")).unwrap();
        assert_eq!((c.kernel.to_str(), c.memory, c.profile), (Some("k"), 64 << 20, Profile::Full));
        assert_eq!((c.stats, c.crash_after_ms), (true, Some(7)));
    }

    #[test]
    fn mistakes_are_named() {
        let wrong = |text: &str| parse(words(text)).unwrap_err().to_string();
        assert!(wrong("--initrd i").contains("--kernel is missing"));
        assert!(wrong("--kernel k --memory 12Q").contains("12Q"));
        assert!(wrong("--kernel k --memory 99999999999G").contains("99999999999G"));
        assert!(wrong("--kernle k").contains("--kernle"));
        assert!(wrong("--kernel k --profile big").contains("big"));
    }
}
