// SPDX-License-Identifier: MIT OR Apache-2.0
//! Multiboot 2: a list of tags, each with kind and size.
//!
//! The memory map is the tag that has the boot loader's own (6). Only where there is none, that of UEFI (17) serves: GRUB makes
//! the former out of the latter after it has left the firmware's boot services, and knows best what it has used itself.

use cloister_abi::hip::MemoryKind;

use crate::{Info, Part, Reader, kind};

/// More information than this is nonsense, bytes.
const MOST: u64 = 1 << 20;
/// Kind of a tag.
mod tag {
    pub(super) const END: u32 = 0;
    pub(super) const CMDLINE: u32 = 1;
    pub(super) const MODULE: u32 = 3;
    pub(super) const MEMORY: u32 = 6;
    pub(super) const FRAMEBUFFER: u32 = 8;
    pub(super) const ACPI_OLD: u32 = 14;
    pub(super) const ACPI_NEW: u32 = 15;
    pub(super) const EFI_MEMORY: u32 = 17;
}

pub(crate) fn read(
    memory: Reader<'_>,
    start: u64,
    info: &mut Info,
    range: &mut dyn FnMut(u64, u64, MemoryKind),
) -> Option<()> {
    let total = Part::new(memory, start, 4)?.number(0, 4).filter(|total| *total <= MOST)?;
    let (list, mut at) = (Part::new(memory, start, total)?, 8);
    let (mut map, mut efi) = (None, None);
    // A list without its end tag ends where the whole does.
    while let Some(head) = list.part(at, 8) {
        let (number, size) = (head.u32(0)?, head.number(4, 4)?);
        let tag = list.part(at, size).filter(|tag| tag.size >= 8)?;
        match number {
            tag::END => break,
            tag::CMDLINE => tag.string(8, &mut info.cmdline),
            tag::MODULE if info.image.1 == 0 => {
                let (first, last) = (tag.number(8, 4)?, tag.number(12, 4)?);
                info.image = (first, last.checked_sub(first)?);
            }
            tag::MEMORY => map = Some(tag),
            tag::EFI_MEMORY => efi = Some(tag),
            tag::FRAMEBUFFER => info.framebuffer = framebuffer(tag).unwrap_or_default(),
            // A copy of the root pointer, of which a new one says more than an old one.
            tag::ACPI_OLD if info.rsdp == 0 => info.rsdp = tag.part(8, 20)?.base,
            tag::ACPI_NEW => info.rsdp = tag.part(8, 36)?.base,
            _ => {}
        }
        at = at.checked_add(size.checked_next_multiple_of(8)?)?;
    }
    if let Some(map) = map {
        entries(map, 24, |entry| {
            range(entry.number(0, 8)?, entry.number(8, 8)?, kind(entry.u32(16)?));
            Some(())
        })
    } else if let Some(map) = efi {
        entries(map, 40, |entry| {
            range(entry.number(8, 8)?, entry.number(24, 8)?.checked_mul(4096)?, efi_kind(entry.u32(0)?));
            Some(())
        })
    } else {
        Some(())
    }
}

/// Takes the entries of a map one by one. They are as large as the map says, at least `least`.
fn entries(map: Part<'_>, least: u64, mut take: impl FnMut(Part<'_>) -> Option<()>) -> Option<()> {
    let step = map.number(8, 4).filter(|step| *step >= least)?;
    let mut at = 16;
    while let Some(entry) = map.part(at, least) {
        take(entry)?;
        at = at.checked_add(step)?;
    }
    Some(())
}

/// Kind of memory in UEFI's map, after its boot services have ended.
const fn efi_kind(number: u32) -> MemoryKind {
    match number {
        // Of the loader, of boot services, conventional.
        1..=4 | 7 => MemoryKind::Available,
        9 => MemoryKind::AcpiReclaim,
        10 => MemoryKind::AcpiNvs,
        _ => MemoryKind::Reserved,
    }
}

/// A frame buffer of direct colours; palettes and text modes are of no use above.
fn framebuffer(tag: Part<'_>) -> Option<[u64; 4]> {
    const DIRECT: u8 = 1;
    let (address, pitch, width, height) =
        (tag.number(8, 8)?, tag.number(16, 4)?, tag.number(20, 4)?, tag.number(24, 4)?);
    let depth = tag.u8(28)?;
    let line = width.checked_mul(u64::from(depth.div_ceil(8)))?;
    // Whoever draws would otherwise draw elsewhere.
    let sound = width > 0 && height > 0 && (15..=32).contains(&depth) && line <= pitch && tag.u8(29)? == DIRECT;
    let words = [address, width | height << 32, pitch | u64::from(depth) << 32, tag.number(32, 6)?];
    sound.then_some(words)
}
