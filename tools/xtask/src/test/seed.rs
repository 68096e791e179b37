// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the random cases of property tests follow from.
//!
//! Left alone, `proptest` draws other cases each time, and a wrong test fails once in a hundred runs, on a change that has nothing to do
//! with it. So the tests get a seed, always the same one unless the user says otherwise, and a seed that was drawn is shown, so
//! that what failed by it can be run again. A single test draws the same cases with a seed whether others run beside it or not.

use std::collections::hash_map::RandomState;
use std::env;
use std::hash::BuildHasher;
use std::str::FromStr;

use anyhow::{Context, Result};

/// Where `proptest` looks for it.
pub(super) const VARIABLE: &str = "PROPTEST_RNG_SEED";

/// What tests start from if nobody says anything.
const USUAL: u64 = 1;

/// What the user asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seed {
    This(u64),
    /// Another one in each run.
    Random,
}

impl FromStr for Seed {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "random" { Ok(Self::Random) } else { text.parse().map(Self::This) }
    }
}

/// The seed to take: what was `asked` for, else what the environment says, else the usual one.
pub(super) fn choose(asked: Option<Seed>) -> Result<u64> {
    let set = || env::var(VARIABLE).ok().filter(|text| !text.is_empty());
    let seed = match (asked, set()) {
        (Some(seed), _) => seed,
        (None, Some(text)) => {
            text.parse().with_context(|| format!("{VARIABLE}={text} is neither a number nor `random`"))?
        }
        (None, None) => Seed::This(USUAL),
    };
    Ok(match seed {
        Seed::This(seed) => seed,
        // Made of two keys that differ in each process.
        Seed::Random => RandomState::new().hash_one(VARIABLE),
    })
}

#[cfg(test)]
mod tests {
    use proptest::test_runner::{Config, RngSeed};

    use super::{Seed, USUAL, VARIABLE, choose};

    #[test]
    fn a_number_and_the_word_random_are_seeds() {
        assert_eq!("17".parse(), Ok(Seed::This(17)));
        assert_eq!("random".parse(), Ok(Seed::Random));
        assert!("-1".parse::<Seed>().is_err() && "Random".parse::<Seed>().is_err());
        assert_eq!(choose(Some(Seed::This(USUAL + 1))).ok(), Some(USUAL + 1));
    }

    /// Another version of `proptest` could look elsewhere, and nobody would notice.
    #[test]
    fn proptest_takes_the_seed_with_any_number_of_cases() {
        let wanted = std::env::var(VARIABLE).map_or(RngSeed::Random, |seed| seed.parse().unwrap_or(RngSeed::Random));
        assert_eq!(Config::with_cases(7).rng_seed, wanted);
        assert_eq!(Config { cases: 7, ..Config::default() }.rng_seed, wanted);
    }
}
