// SPDX-License-Identifier: MIT OR Apache-2.0
//! Structures as loaders make them, and as they would never do.

#![expect(clippy::arithmetic_side_effects, reason = "offsets that the tests choose themselves")]

extern crate std;

use std::string::String;
use std::vec;
use std::vec::Vec;

use cloister_abi::hip::MemoryKind;
use proptest::collection::vec as bytes_of;
use proptest::prelude::{any, proptest};

use crate::{Info, MULTIBOOT2, PVH, Part, acpi_root, read};

/// Where the structures lie; physical memory is nothing else.
const BASE: u64 = 0x1000;

type Range = (u64, u64, MemoryKind);

fn byte(memory: &[u8]) -> impl Fn(u64) -> Option<u8> {
    move |address| memory.get(usize::try_from(address.checked_sub(BASE)?).ok()?).copied()
}

fn read_all(protocol: u64, memory: &[u8]) -> Result<(Info, Vec<Range>), &'static str> {
    let mut ranges = Vec::new();
    let info = read(protocol, BASE, &byte(memory), &mut |base, size, kind| ranges.push((base, size, kind)))?;
    Ok((info, ranges))
}

fn words(values: &[u64]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn tag(number: u32, body: &[u8]) -> Vec<u8> {
    let size = u32::try_from(8 + body.len()).expect("small");
    let mut tag = [number.to_le_bytes(), size.to_le_bytes()].concat();
    tag.extend_from_slice(body);
    tag.resize(tag.len().next_multiple_of(8), 0);
    tag
}

fn multiboot(tags: &[Vec<u8>]) -> Vec<u8> {
    let body = [tags.concat(), tag(0, &[])].concat();
    let total = u32::try_from(8 + body.len()).expect("small");
    [total.to_le_bytes().to_vec(), vec![0; 4], body].concat()
}

fn module() -> Vec<u8> {
    tag(3, &[0x0020_0000u32.to_le_bytes(), 0x0030_0001u32.to_le_bytes(), [b'x', 0, 0, 0]].concat())
}

fn map() -> Vec<u8> {
    let entries = words(&[0, 0x9_f000, 1, 0x10_0000, 0x7000_0000, 1, 0x7010_0000, 0x1000, 3, 0xf000_0000, 1 << 20, 9]);
    tag(6, &[[24u32.to_le_bytes(), 0u32.to_le_bytes()].concat(), entries].concat())
}

fn efi_map(step: u32, entries: &[[u64; 3]]) -> Vec<u8> {
    let mut body = [step.to_le_bytes(), 1u32.to_le_bytes()].concat();
    for [kind, base, pages] in entries {
        let mut entry = words(&[*kind, *base, 0, *pages, 0xf]);
        entry.resize(step as usize, 0);
        body.extend(entry);
    }
    tag(17, &body)
}

fn framebuffer(kind: u8, pitch: u32) -> Vec<u8> {
    let numbers = [pitch, 1024, 768].map(u32::to_le_bytes).concat();
    let rest = [32, kind, 0, 0, 16, 8, 8, 8, 0, 8];
    tag(8, &[0xfd00_0000u64.to_le_bytes().to_vec(), numbers, rest.to_vec()].concat())
}

#[test]
fn multiboot_of_grub() {
    let memory = multiboot(&[
        tag(1, b"log=com1 cores=2\0"),
        module(),
        map(),
        framebuffer(1, 4096),
        tag(14, &[1; 20]),
        tag(15, &[2; 36]),
        tag(21, &[0; 4]),
    ]);
    let (info, ranges) = read_all(MULTIBOOT2, &memory).expect("well-formed");
    assert_eq!(info.command_line(), "log=com1 cores=2");
    assert_eq!(info.image, (0x0020_0000, 0x0010_0001));
    assert_eq!(byte(&memory)(info.rsdp), Some(2));
    let kinds: Vec<_> = ranges.iter().map(|(.., kind)| *kind).collect();
    let (free, acpi, held) = (MemoryKind::Available, MemoryKind::AcpiReclaim, MemoryKind::Reserved);
    assert_eq!(kinds, [free, free, acpi, held]);
    assert_eq!(ranges[1], (0x10_0000, 0x7000_0000, free));
    let expected = [0xfd00_0000, 1024 | 768 << 32, 4096 | 32 << 32, 0x0800_0808_0810];
    assert_eq!(info.framebuffer, expected);
}

#[test]
fn the_map_of_uefi_serves_where_there_is_no_other() {
    let entries = [[7, 0x10_0000, 0x100], [4, 0x20_0000, 1], [6, 0x30_0000, 2], [9, 0x40_0000, 3], [10, 0x50_0000, 4]];
    let memory = multiboot(&[module(), efi_map(48, &entries)]);
    let (_, ranges) = read_all(MULTIBOOT2, &memory).expect("well-formed");
    let sizes: Vec<_> = ranges.iter().map(|(_, size, _)| size / 4096).collect();
    assert_eq!(sizes, [0x100, 1, 2, 3, 4]);
    let (free, held) = (MemoryKind::Available, MemoryKind::Reserved);
    let kinds: Vec<_> = ranges.iter().map(|(.., kind)| *kind).collect();
    assert_eq!(kinds, [free, free, held, MemoryKind::AcpiReclaim, MemoryKind::AcpiNvs]);
    let both = multiboot(&[module(), efi_map(48, &entries), map()]);
    assert_eq!(read_all(MULTIBOOT2, &both).expect("well-formed").1.len(), 4);
}

#[test]
fn frame_buffers_that_show_no_pixels_are_none() {
    let seen = |tag| read_all(MULTIBOOT2, &multiboot(&[module(), map(), tag])).expect("fine").0.framebuffer;
    assert_eq!(seen(framebuffer(0, 4096)), [0; 4]);
    assert_eq!(seen(framebuffer(2, 160)), [0; 4]);
    // Lines that overlap.
    assert_eq!(seen(framebuffer(1, 4095)), [0; 4]);
    assert_eq!(seen(tag(8, &[1; 20])), [0; 4]);
}

#[test]
fn what_is_missing_is_said() {
    let error = |tags: &[Vec<u8>]| read_all(MULTIBOOT2, &multiboot(tags)).expect_err("incomplete");
    assert_eq!(error(&[module()]), "the loader gives no memory map");
    assert!(error(&[map()]).starts_with("no boot image"));
    assert!(error(&[map(), tag(3, &[9, 0, 0, 0, 8, 0, 0, 0])]).contains("not complete"));
    assert!(error(&[module(), efi_map(8, &[])]).contains("not complete"));
}

#[test]
fn tags_that_run_over_the_end_are_refused() {
    let mut memory = multiboot(&[module(), map()]);
    for size in [0u32, 7, u32::MAX] {
        memory[12..16].copy_from_slice(&size.to_le_bytes());
        assert!(read_all(MULTIBOOT2, &memory).is_err(), "{size}");
    }
    let mut memory = multiboot(&[module(), map()]);
    memory[..4].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(read_all(MULTIBOOT2, &memory).is_err());
}

#[test]
fn entries_without_size_are_refused() {
    let mut body = vec![0; 40];
    body[..4].copy_from_slice(&0u32.to_le_bytes());
    assert!(read_all(MULTIBOOT2, &multiboot(&[module(), tag(6, &body)])).is_err());
}

fn pvh(entries: u32, map: &[u64]) -> Vec<u8> {
    let at = |offset: u64| BASE + offset;
    let mut memory = [0x336e_c578u32.to_le_bytes(), 1u32.to_le_bytes(), [0; 4], 1u32.to_le_bytes()].concat();
    memory.extend(words(&[at(0x40), at(0x60), 0, at(0x80), u64::from(entries)]));
    memory.resize(0x40, 0);
    memory.extend(words(&[0x100_0000, 0x2000, 0, 0]));
    memory.extend(b"debug-exit\0");
    memory.resize(0x80, 0);
    memory.extend(words(map));
    memory
}

#[test]
fn pvh_of_qemu() {
    let memory = pvh(2, &[0, 0xa_0000, 1, 0x10_0000, 0x1000_0000, 2]);
    let (info, ranges) = read_all(PVH, &memory).expect("well-formed");
    assert_eq!((info.command_line(), info.image), ("debug-exit", (0x100_0000, 0x2000)));
    assert_eq!(ranges[1], (0x10_0000, 0x1000_0000, MemoryKind::Reserved));
}

#[test]
fn pvh_maps_that_are_nonsense_are_refused() {
    assert!(read_all(PVH, &pvh(3, &[0, 0xa_0000, 1])).is_err());
    assert!(read_all(PVH, &pvh(u32::MAX, &[0, 0xa_0000, 1])).is_err());
    assert!(read_all(PVH, &pvh(0, &[])).is_err());
    // A range that wraps is none.
    assert!(read_all(PVH, &pvh(1, &[u64::MAX, 2, 1])).is_err());
}

#[test]
fn an_image_may_lie_above_4_gib() {
    let mut memory = pvh(1, &[0, 0xa_0000, 1]);
    memory[0x44] = 1;
    assert_eq!(read_all(PVH, &memory).expect("well-formed").0.image, (0x1_0100_0000, 0x2000));
}

/// Firmware of some machines has its tables up there.
#[test]
fn tables_above_4_gib_are_read() {
    const HIGH: u64 = 0x12_3450_0000;
    let mut pointer = [b"RSD PTR ".to_vec(), vec![0; 28]].concat();
    pointer[15] = 2;
    pointer[24..32].copy_from_slice(&(HIGH + 0x100).to_le_bytes());
    let mut table = [b"XSDT".to_vec(), vec![44, 0, 0, 0], vec![0; 36]].concat();
    table[36..44].copy_from_slice(&(HIGH + 0x200).to_le_bytes());
    table[9] = table.iter().fold(0u8, |sum, byte| sum.wrapping_sub(*byte));
    pointer.resize(0x100, 0);
    let bytes = [pointer, table].concat();
    let memory = |address: u64| bytes.get(usize::try_from(address.checked_sub(HIGH)?).ok()?).copied();
    assert_eq!(acpi_root(HIGH, &memory), Some((HIGH + 0x100, 8)));
    let root = Part::table(&memory, HIGH + 0x100, Some(*b"XSDT")).expect("whole");
    assert_eq!((root.size, root.number(36, 8)), (44, Some(HIGH + 0x200)));
    assert!(Part::table(&memory, HIGH + 0x100, Some(*b"RSDT")).is_none());
    // Its sum, and its end.
    assert!(Part::table(&memory, HIGH + 0x101, None).is_none());
    assert!(root.number(40, 8).is_none() && root.u8(44).is_none());
}

#[test]
fn long_command_lines_are_cut() {
    let text: String = std::iter::repeat_n('x', 2000).collect();
    let memory = multiboot(&[tag(1, text.as_bytes()), module(), map()]);
    let (info, _) = read_all(MULTIBOOT2, &memory).expect("well-formed");
    assert_eq!(info.command_line().len(), 1023);
}

#[test]
fn root_pointers_old_and_new() {
    let mut pointer = [b"RSD PTR ".to_vec(), vec![0; 28]].concat();
    pointer[16..20].copy_from_slice(&0x7fe0_0000u32.to_le_bytes());
    pointer[24..32].copy_from_slice(&0x1_0000_0000u64.to_le_bytes());
    assert_eq!(acpi_root(BASE, &byte(&pointer)), Some((0x7fe0_0000, 4)));
    pointer[15] = 2;
    assert_eq!(acpi_root(BASE, &byte(&pointer)), Some((0x1_0000_0000, 8)));
    pointer[0] = b'x';
    assert_eq!(acpi_root(BASE, &byte(&pointer)), None);
    assert_eq!(acpi_root(u64::MAX, &byte(&pointer)), None);
}

proptest! {
    #[test]
    fn rubbish_never_panics(memory in bytes_of(any::<u8>(), 0..400), multiboot: bool) {
        let protocol = if multiboot { MULTIBOOT2 } else { PVH };
        drop(read_all(protocol, &memory));
    }

    #[test]
    fn damage_never_panics(at in 0usize..500, value: u8) {
        let entries = [[7, 0x10_0000, 0x100], [4, 0x20_0000, 1]];
        for mut memory in [
            multiboot(&[tag(1, b"a b\0"), module(), map(), framebuffer(1, 4096), tag(15, &[2; 36])]),
            multiboot(&[module(), efi_map(48, &entries)]),
            pvh(2, &[0, 0xa_0000, 1, 0x10_0000, 0x1000_0000, 2]),
        ] {
            let place = at % memory.len();
            memory[place] = value;
            for protocol in [MULTIBOOT2, PVH] {
                drop(read_all(protocol, &memory));
            }
        }
    }
}
