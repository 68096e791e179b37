// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tests of the reader of program images.

use proptest::prelude::{any, prop, prop_assert, proptest};

use crate::testing::{DATA, Program, TEXT, image, program};
use crate::{ElfError, Image, Machine, Policy, Segment, parse};
use std::boxed::Box;
use std::vec;
use std::vec::Vec;

const POLICY: Policy = Policy { machine: Machine::X86_64, low: 0x1000, high: 0x7fff_ffff_f000, base: 0x1000_0000 };

fn read(bytes: &[u8]) -> Result<Image, ElfError> {
    parse(&mut { bytes }, &POLICY)
}

#[test]
fn a_program_has_its_segments_in_order() {
    let expected = read(&image(&[DATA, (0x6474_e551, 6, 0, 0, 0, 0), TEXT], 0x40_1000, 0x3000)).expect("fits");
    assert_eq!(read(&program()).expect("fits"), expected);
    let [text, data] = expected.segments.as_slice() else { panic!("two segments") };
    assert!(text.executable && !text.writable && text.shares_rom());
    let wanted = Segment {
        address: 0x40_3010,
        size: 0x3000,
        offset: 0x2010,
        file_size: 0x100,
        writable: true,
        executable: false,
    };
    assert_eq!(*data, wanted);
    assert_eq!((data.first_page(), data.end_page(), data.shares_rom()), (0x40_3000, 0x40_7000, false));
}

#[test]
fn a_position_independent_program_goes_to_the_base() {
    let mut bytes = image(&[(1, 5, 0, 0, 0x1000, 0x1000)], 0x10, 0x1000);
    bytes[16] = 3;
    let image = read(&bytes).expect("fits");
    assert_eq!((image.entry, image.segments[0].address), (0x1000_0010, 0x1000_0000));
}

#[test]
fn what_is_no_program_is_refused_with_its_place() {
    let with = |at: usize, byte: u8| {
        let mut bytes = program();
        bytes[at] = byte;
        bytes
    };
    let of = |programs: &[Program]| image(programs, 0x40_1000, 0x3000);
    let unfit = |offset| move |error: &ElfError| matches!(error, ElfError::Unfit(at, _) if *at == offset);
    let is = |expected: ElfError| move |error: &ElfError| *error == expected;
    let second = 64 + 56;
    type Check = Box<dyn Fn(&ElfError) -> bool>;
    let cases: Vec<(Vec<u8>, Check)> = vec![
        (vec![], Box::new(is(ElfError::Truncated { offset: 0, size: 64, len: 0 }))),
        (vec![0; 64], Box::new(is(ElfError::NotElf))),
        (with(4, 1), Box::new(unfit(4))),
        (with(16, 1), Box::new(unfit(16))),
        (with(18, 40), Box::new(unfit(18))),
        (with(54, 55), Box::new(unfit(54))),
        (with(56, 65), Box::new(unfit(56))),
        (with(39, 0xff), Box::new(|e| matches!(e, ElfError::Truncated { .. } | ElfError::Unfit(32, _)))),
        (program()[..0x2050].to_vec(), Box::new(is(ElfError::Truncated { offset: 0x2010, size: 0x100, len: 0x2050 }))),
        (program()[..100].to_vec(), Box::new(is(ElfError::Truncated { offset: 64, size: 56, len: 100 }))),
        (of(&[TEXT, (3, 4, 0, 0, 0, 0)]), Box::new(is(ElfError::Interpreter(second)))),
        (of(&[TEXT, (1, 7, 0, 0x50_0000, 1, 1)]), Box::new(is(ElfError::WritableAndExecutable(second)))),
        (of(&[TEXT, (1, 6, 0, 0x50_0000, 2, 1)]), Box::new(unfit(second + 32))),
        (of(&[TEXT, (1, 6, 1, 0x50_0000, 1, 1)]), Box::new(unfit(second + 8))),
        (of(&[TEXT, (1, 6, 0, 0x40_1000, 1, 1)]), Box::new(is(ElfError::Overlap(second)))),
        (of(&[TEXT, (1, 6, 0, 0, 1, 1)]), Box::new(is(ElfError::OutOfRange(second)))),
        (of(&[TEXT, (1, 6, 0, 0x7fff_ffff_f000, 1, 1)]), Box::new(is(ElfError::OutOfRange(second)))),
        (of(&[TEXT, (1, 6, 0, 0xffff_ffff_ffff_f000, 0, 0x1001)]), Box::new(is(ElfError::OutOfRange(second)))),
        (
            of(&[TEXT, (1, 6, u64::MAX - 0xfff, 0x50_0000, 0x1000, 0x1000)]),
            Box::new(|e| matches!(e, ElfError::Truncated { .. })),
        ),
        (of(&[]), Box::new(is(ElfError::NoSegments))),
        (of(&[DATA]), Box::new(is(ElfError::Entry(0x40_1000)))),
        (image(&[TEXT, DATA], 0x40_2000, 0x3000), Box::new(is(ElfError::Entry(0x40_2000)))),
    ];
    for (index, (bytes, check)) in cases.into_iter().enumerate() {
        let error = read(&bytes).expect_err("refused");
        assert!(check(&error), "case {index}: {error}");
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(changes in prop::collection::vec((0..180_usize, any::<u8>()), 0..8)) {
        let mut bytes = program();
        for (at, byte) in changes {
            bytes[at] = byte;
        }
        if let Ok(image) = read(&bytes) {
            let mut end = POLICY.low;
            for segment in &image.segments {
                prop_assert!(segment.first_page() >= end && !(segment.writable && segment.executable));
                prop_assert!(segment.offset + segment.file_size <= bytes.len() as u64);
                end = segment.end_page();
            }
            prop_assert!(end <= POLICY.high);
        }
    }
}
