// SPDX-License-Identifier: MIT OR Apache-2.0
//! How far a run of the fuzzer is, kept in its folder so that one that was stopped can go on.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::say;

const FILE: &str = "progress.json";

/// Calls made, and the seed with which it goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Place {
    pub(super) calls: u64,
    pub(super) seed: u64,
}

impl Place {
    /// Nothing was done.
    pub(super) const fn start(seed: u64) -> Self {
        Self { calls: 0, seed }
    }

    /// What stands behind `fuzz` in a line that says how far it is.
    pub(super) fn read(text: &str) -> Option<Self> {
        let (calls, seed) = text.strip_prefix(": ")?.split_once(" calls so far, next seed ")?;
        Some(Self { calls: calls.parse().ok()?, seed: seed.parse().ok()? })
    }

    /// Where the run in that folder was stopped.
    pub(super) fn load(folder: &Path) -> Result<Self> {
        let path = folder.join(FILE);
        let text = fs::read_to_string(&path)
            .with_context(|| format!("no run with this seed was begun here: {}", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("{} says nothing of use", path.display()))
    }

    /// Keeps it. A run goes on though it cannot be resumed.
    pub(super) fn save(self, folder: &Path) {
        let text = serde_json::to_string(&self).unwrap_or_default();
        if let Err(why) = fs::write(folder.join(FILE), text) {
            say::warn(&format!("this run cannot be resumed later: {why}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Place;

    #[test]
    fn a_place_is_found_again() {
        let folder = std::env::temp_dir().join(format!("cloister-fuzz-place-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        assert!(Place::load(&folder).is_err());
        let place = Place { calls: 1_050_000, seed: u64::MAX };
        place.save(&folder);
        assert_eq!(Place::load(&folder).expect("just written"), place);
        std::fs::remove_dir_all(&folder).expect("just made");
    }
}
