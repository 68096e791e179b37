// SPDX-License-Identifier: MIT OR Apache-2.0
//! The reader on tables that the writer made, and on rubbish.

use alloc::string::ToString;
use alloc::vec::Vec;

use proptest::prelude::{any, proptest};

use crate::{Function, Place, Rule, Table, Writer};

const PUSHED: Rule = Rule::Frame { base: false, words: 2, saved: 2 };
const CALLED: Rule = Rule::Frame { base: false, words: 1, saved: 0 };

fn function(address: u32, name: &str, rows: &[(u32, Rule)]) -> Function {
    Function { address, name: name.to_string(), rows: rows.to_vec() }
}

fn sample() -> Vec<u8> {
    let mut writer = Writer::default();
    writer.add(function(0x200, "second", &[(0, CALLED), (1, PUSHED), (4, PUSHED), (9, CALLED)]));
    writer.add(function(0x100, "first", &[(0, CALLED)]));
    writer.add(function(0x300, "assembly", &[]));
    writer.finish(0x340).expect("small")
}

#[test]
fn finds_function_and_rule() {
    let bytes = sample();
    let table = Table::new(&bytes).expect("a table");
    let find = |address| table.find(address).map(|place| (place.name, place.offset, place.rule));
    assert_eq!(find(0xff), None);
    assert_eq!(find(0x100), Some(("first", 0, CALLED)));
    assert_eq!(find(0x1ff), Some(("first", 0xff, CALLED)));
    assert_eq!(find(0x200), Some(("second", 0, CALLED)));
    assert_eq!(find(0x206), Some(("second", 6, PUSHED)));
    assert_eq!(find(0x20a), Some(("second", 10, CALLED)));
    assert_eq!(table.find(0x33f), Some(Place { name: "assembly", offset: 0x3f, rule: Rule::End }));
    assert_eq!(find(0x340), None);
}

#[test]
fn equal_rows_are_stored_once() {
    let bytes = sample();
    // One of the first function, which holds at the start of the second, two more there, and none for all else.
    assert_eq!(bytes[12], 4);
}

#[test]
fn rules_survive_the_table() {
    for rule in [CALLED, PUSHED, Rule::End, Rule::Interrupted, Rule::Frame { base: true, words: u16::MAX, saved: 255 }]
    {
        assert_eq!(Rule::from_raw(rule.to_raw()), rule);
    }
}

#[test]
fn long_names_are_cut() {
    let mut writer = Writer::default();
    writer.add(function(0, &"é".repeat(200), &[]));
    let bytes = writer.finish(8).expect("small");
    let table = Table::new(&bytes).expect("a table");
    assert_eq!(table.find(4).expect("found").name, "é".repeat(60));
}

#[test]
fn a_truncated_table_is_none() {
    let bytes = sample();
    for length in 0..bytes.len() {
        assert!(Table::new(&bytes[..length]).is_none(), "{length}");
    }
    assert!(Table::new(&[0; 4096]).is_none());
}

proptest! {
    #[test]
    fn rubbish_never_panics(at in 8usize..1000, value: u8, address in any::<u32>()) {
        let mut bytes = sample();
        let place = at.checked_rem(bytes.len()).unwrap_or(0);
        bytes[place] = value;
        if let Some(table) = Table::new(&bytes) {
            for address in [address, address & 0x3ff] {
                let _ = table.find(address);
            }
        }
    }
}
