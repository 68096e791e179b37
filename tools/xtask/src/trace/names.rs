// SPDX-License-Identifier: MIT OR Apache-2.0
//! Names of ECs, and which EC is meant by an address at a time.
//!
//! The kernel numbers ECs by their addresses, and uses an address again after its EC has gone. Whoever names ECs when it makes them, as
//! core does, lets those at one address be told apart: each name that begins is another EC.

use std::collections::BTreeMap;

use cloister_abi::trace::{Event, Record};

use super::rings::Ring;

/// The bits of an address; those above, the same in all of the kernel's addresses, give way to the number of its use.
const ADDRESS: u64 = (1 << SHIFT) - 1;
const SHIFT: u32 = 48;

/// The names, by address: since when, and what.
#[derive(Debug, Default)]
pub(crate) struct Names(BTreeMap<u64, Vec<(u64, String)>>);

impl Names {
    /// Gathers all names that were given.
    pub(crate) fn new(rings: &[Ring]) -> Self {
        let kept: Vec<_> = rings.iter().filter(|ring| ring.is_of_names()).collect();
        // A core notes a name twice: among its events, and where these do not overwrite it.
        let best = if kept.is_empty() { rings.iter().collect() } else { kept };
        let records = best.into_iter().flat_map(|ring| &ring.records);
        let mut records: Vec<&Record> = records.filter(|record| record.event() == Some(Event::Name)).collect();
        records.sort_by_key(|record| record.time);
        let mut names = Self::default();
        records.into_iter().for_each(|record| names.add(record));
        names
    }

    fn add(&mut self, record: &Record) {
        let bytes = record.second.to_le_bytes();
        let text = String::from_utf8_lossy(bytes.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned();
        let given = self.0.entry(record.first & ADDRESS).or_default();
        match given.last_mut() {
            Some((_, name)) if record.detail() != 0 => name.push_str(&text),
            _ => given.push((record.time, text)),
        }
    }

    /// The EC that is at that address at that time, as a number of its own.
    pub(crate) fn ec(&self, address: u64, time: u64) -> u64 {
        let given = self.0.get(&(address & ADDRESS)).map_or(&[][..], |given| given);
        let earlier = given.iter().filter(|(since, _)| *since <= time).count() as u64;
        address & ADDRESS | earlier.saturating_sub(1) << SHIFT
    }

    /// Its name, if it has one.
    pub(crate) fn get(&self, ec: u64) -> Option<&str> {
        let given = self.0.get(&(ec & ADDRESS))?;
        given.get(usize::try_from(ec >> SHIFT).ok()?).map(|(_, name)| name.as_str())
    }
}

#[cfg(test)]
mod tests {
    use cloister_abi::trace::{Event, Record};

    use super::Names;
    use crate::trace::rings::Ring;

    fn name(time: u64, part: u16, ec: u64, text: [u8; 8]) -> Record {
        Record { time, ..Record::new(Event::Name, part, ec, u64::from_le_bytes(text)) }
    }

    fn ring(records: &[Record]) -> Ring {
        Ring { core: 0, tsc_hz: 1, lost: 0, records: records.to_vec() }
    }

    const EC: u64 = 0xffff_8000_0000_1000;

    #[test]
    fn names_are_put_together_from_both_rings() {
        let run = Record { time: 14, ..Record::new(Event::Switch, 0, EC, 0) };
        let events = [name(10, 0, EC, *b"init -> "), name(12, 1, EC, *b"x: y\0\0\0\0"), run];
        let kept = [name(11, 0, EC, *b"init -> "), name(13, 1, EC, *b"x: y\0\0\0\0")];
        for rings in [vec![ring(&events), ring(&kept)], vec![ring(&[]), ring(&kept)], vec![ring(&events)]] {
            let names = Names::new(&rings);
            assert_eq!(names.get(names.ec(EC, 20)), Some("init -> x: y"));
        }
    }

    #[test]
    fn an_address_that_is_used_again_is_another_ec() {
        let names = Names::new(&[ring(&[name(10, 0, EC, *b"one\0\0\0\0\0"), name(20, 0, EC, *b"two\0\0\0\0\0")])]);
        let at = |time| names.get(names.ec(EC, time));
        assert_eq!((at(5), at(15), at(25)), (Some("one"), Some("one"), Some("two")));
        assert_eq!(names.get(names.ec(EC + 8, 5)), None);
    }
}
