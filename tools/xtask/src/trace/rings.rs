// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reading a ring out of memory (`docs/spec/trace.md`).

use anyhow::{Context, Result, ensure};
use cloister_abi::trace::{Event, MAGIC, Record, VERSION};

const HEADER: usize = 64;
const RECORD: usize = 32;

/// What one core noted, oldest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ring {
    pub(crate) core: u32,
    pub(crate) tsc_hz: u64,
    /// How many were overwritten.
    pub(crate) lost: u64,
    pub(crate) records: Vec<Record>,
}

fn word(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
}

impl Ring {
    /// Reads a ring.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self> {
        let header = |at| word(bytes, at).context("the ring has no header");
        ensure!(header(0)? == MAGIC, "there is no ring where the log says one is");
        let version = header(8)?;
        ensure!(version & 0xffff_ffff == u64::from(VERSION), "the ring has another version: {version:#x}");
        let (tsc_hz, capacity, written) = (header(16)?, header(24)?, header(32)?);
        ensure!(tsc_hz > 0, "the ring does not say how fast its clock is");
        let room = (bytes.len().saturating_sub(HEADER) / RECORD) as u64;
        ensure!((2..=room).contains(&capacity), "the ring says that it has {capacity} records");
        let lost = written.saturating_sub(capacity - 1);
        let record = |number: u64| {
            let first = HEADER + RECORD * usize::try_from(number % capacity).ok()?;
            let words = [0, 8, 16, 24].map(|offset| word(bytes, first + offset));
            let [Some(time), Some(what), Some(one), Some(two)] = words else { return None };
            // A record whose number is another one was only half written when the machine was stopped.
            (what >> 32 == number & 0xffff_ffff).then(|| Record::from_words([time, what, one, two]))
        };
        Ok(Self {
            core: u32::try_from(version >> 32)?,
            tsc_hz,
            lost,
            records: (lost..written).filter_map(record).collect(),
        })
    }

    /// Whether it is one in which a core keeps names.
    pub(crate) fn is_of_names(&self) -> bool {
        !self.records.is_empty() && self.records.iter().all(|record| record.event() == Some(Event::Name))
    }
}

#[cfg(test)]
mod tests {
    use cloister_abi::trace::{Event, MAGIC, Record};

    use super::Ring;

    fn ring(capacity: usize, written: u64) -> Vec<u8> {
        let mut bytes = vec![0; 64 + 32 * capacity];
        for (at, value) in [(0, MAGIC), (8, 1 | 3 << 32), (16, 1_000_000), (24, capacity as u64), (32, written)] {
            bytes[at..at + 8].copy_from_slice(&u64::to_le_bytes(value));
        }
        for (number, place) in (0..written).zip((0..capacity).cycle()) {
            let record = Record::new(Event::Switch, 0, number, 0);
            let words = Record { time: 10 * number, what: record.what | number << 32, ..record }.to_words();
            for (index, value) in words.into_iter().enumerate() {
                let at = 64 + 32 * place + 8 * index;
                bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
            }
        }
        bytes
    }

    #[test]
    fn a_ring_that_is_not_full_is_read_from_its_start() {
        let read = Ring::read(&ring(8, 3)).expect("well-formed");
        assert_eq!((read.core, read.lost, read.records.len()), (3, 0, 3));
        assert_eq!(read.records[2].first, 2);
    }

    #[test]
    fn a_full_ring_is_read_from_its_oldest_whole_record() {
        let read = Ring::read(&ring(8, 21)).expect("well-formed");
        assert_eq!(read.lost, 14);
        let numbers: Vec<_> = read.records.iter().map(|record| record.first).collect();
        assert_eq!(numbers, (14..21).collect::<Vec<_>>());
    }

    #[test]
    fn what_is_no_ring_is_refused() {
        assert!(Ring::read(&[0; 4096]).is_err());
        assert!(Ring::read(&ring(8, 3)[..40]).is_err());
        let mut large = ring(8, 3);
        large[24] = 9;
        assert!(Ring::read(&large).is_err());
    }

    #[test]
    fn a_half_written_record_is_left_out() {
        let mut bytes = ring(8, 3);
        bytes[64 + 32 + 12] = 7;
        assert_eq!(Ring::read(&bytes).expect("well-formed").records.len(), 2);
    }
}
