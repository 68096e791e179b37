// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is written is read back; what is damaged is refused and never panics.
#![expect(clippy::arithmetic_side_effects, reason = "a test that fails may panic")]

use alloc::format;
use alloc::vec;
use alloc::vec::Vec;

use super::{WriteError, Writer};
use crate::{BootImage, Directory, ENTRY_SIZE, Error, HEADER_SIZE, Kind, NAME_SIZE, PAGE_SIZE};

fn sample() -> Vec<u8> {
    let mut writer = Writer::new();
    writer.add("init", Kind::Elf, vec![1; 5000]).unwrap();
    writer.add("core", Kind::RootTask, vec![2; 4096]).unwrap();
    writer.add("config", Kind::Data, b"config\n-\n".to_vec()).unwrap();
    writer.add("empty", Kind::Data, Vec::new()).unwrap();
    writer.finish().unwrap()
}

/// Sets bytes of the entry at `position`, counted from the entry's start.
fn patch(image: &mut [u8], position: usize, at: usize, bytes: &[u8]) {
    let start = HEADER_SIZE + position * ENTRY_SIZE + at;
    image[start..start + bytes.len()].copy_from_slice(bytes);
}

fn error(image: &[u8]) -> Error {
    BootImage::parse(image).unwrap_err()
}

#[test]
fn modules_come_back_with_the_root_task_first() {
    let bytes = sample();
    let image = BootImage::parse(&bytes).unwrap();
    let names: Vec<_> = image.modules().map(|module| (module.name, module.kind, module.data.len())).collect();
    assert_eq!(
        names,
        [
            ("core", Kind::RootTask, 4096),
            ("init", Kind::Elf, 5000),
            ("config", Kind::Data, 9),
            ("empty", Kind::Data, 0)
        ]
    );
    assert_eq!(image.find("config").unwrap().data, b"config\n-\n");
    assert!(image.find("conf").is_none());
    assert!(image.directory().modules().all(|entry| entry.offset.is_multiple_of(PAGE_SIZE)));
}

#[test]
fn the_directory_is_readable_without_the_modules() {
    let bytes = sample();
    let directory = Directory::parse(&bytes[..4096]).unwrap();
    assert_eq!(directory.modules().count(), 4);
    assert_eq!(error(&bytes[..4096]), Error::Truncated);
}

#[test]
fn a_directory_of_several_pages_works() {
    let mut writer = Writer::new();
    writer.add("core", Kind::RootTask, vec![9]).unwrap();
    for n in 1..200u8 {
        writer.add(&format!("module-{n}"), Kind::Data, vec![n; usize::from(n)]).unwrap();
    }
    let bytes = writer.finish().unwrap();
    let image = BootImage::parse(&bytes).unwrap();
    for n in 1..200u8 {
        assert_eq!(image.find(&format!("module-{n}")).unwrap().data, vec![n; usize::from(n)]);
    }
}

#[test]
fn a_name_may_fill_its_field() {
    let name = "n".repeat(NAME_SIZE);
    let mut writer = Writer::new();
    writer.add(&name, Kind::RootTask, vec![0]).unwrap();
    assert_eq!(writer.add(&"n".repeat(NAME_SIZE + 1), Kind::Data, vec![]).unwrap_err(), {
        WriteError::BadName("n".repeat(NAME_SIZE + 1))
    });
    let bytes = writer.finish().unwrap();
    assert!(BootImage::parse(&bytes).unwrap().find(&name).is_some());
}

#[test]
fn the_writer_refuses_what_could_not_be_found() {
    let mut writer = Writer::new();
    writer.add("a", Kind::Data, vec![]).unwrap();
    assert_eq!(writer.add("a", Kind::Data, vec![]), Err(WriteError::Duplicate("a".into())));
    assert_eq!(writer.add("", Kind::Data, vec![]), Err(WriteError::BadName("".into())));
    assert_eq!(writer.finish(), Err(WriteError::RootTasks(0)));
}

#[test]
fn each_damage_has_its_error() {
    let check = |expected: Error, damage: &dyn Fn(&mut Vec<u8>)| {
        let mut image = sample();
        damage(&mut image);
        assert_eq!(error(&image), expected);
    };
    check(Error::Truncated, &|image| image.truncate(7));
    check(Error::BadMagic, &|image| image[0] ^= 1);
    check(Error::UnknownVersion(2), &|image| image[8] = 2);
    check(Error::NoRootTask, &|image| image[12] = 0);
    check(Error::BadSize, &|image| image[16] = 1);
    check(Error::Truncated, &|image| image[15] = 0xff);
    check(Error::NoRootTask, &|image| patch(image, 0, NAME_SIZE + 16, &[2]));
    check(Error::SecondRootTask(1), &|image| patch(image, 1, NAME_SIZE + 16, &[1]));
    check(Error::UnknownKind(2), &|image| patch(image, 2, NAME_SIZE + 16, &[7]));
    check(Error::BadName(1), &|image| patch(image, 1, 0, &[0]));
    check(Error::BadName(1), &|image| patch(image, 1, 0, &[0xff]));
    check(Error::BadName(1), &|image| patch(image, 1, NAME_SIZE - 1, b"x"));
    check(Error::BadRange(1), &|image| patch(image, 1, NAME_SIZE, &[1]));
    check(Error::BadRange(1), &|image| patch(image, 1, NAME_SIZE, &0u64.to_le_bytes()));
    check(Error::BadRange(1), &|image| patch(image, 1, NAME_SIZE + 8, &u64::MAX.to_le_bytes()));
    check(Error::BadRange(1), &|image| patch(image, 1, NAME_SIZE, &(u64::MAX - 4095).to_le_bytes()));
}

/// Xorshift: repeatable noise without a dependency.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(limit).unwrap()).unwrap()
    }
}

#[test]
fn no_damage_makes_the_parser_panic_or_reach_outside() {
    let mut noise = Noise(0x9e37_79b9_7f4a_7c15);
    let front = HEADER_SIZE + 4 * ENTRY_SIZE;
    let mut accepted = 0u32;
    for _ in 0..20_000 {
        let mut image = sample();
        for _ in 0..=noise.below(4) {
            let at = noise.below(front);
            image[at] = u8::try_from(noise.next() & 0xff).unwrap();
        }
        image.truncate(noise.below(image.len() * 2));
        let Ok(parsed) = BootImage::parse(&image) else { continue };
        accepted += 1;
        assert_eq!(parsed.modules().count(), parsed.directory().modules().count());
        for (module, entry) in parsed.modules().zip(parsed.directory().modules()) {
            assert_eq!(u64::try_from(module.data.len()), Ok(entry.size));
        }
    }
    assert!(accepted > 0, "the noise must leave some images whole, or the loop shows little");
}

#[test]
fn pure_noise_is_refused() {
    let mut noise = Noise(42);
    for length in 0..600 {
        let bytes: Vec<u8> = (0..length).map(|_| u8::try_from(noise.next() & 0xff).unwrap()).collect();
        assert!(BootImage::parse(&bytes).is_err());
    }
}
