// SPDX-License-Identifier: MIT OR Apache-2.0
//! Multiboot 2: a list of tags, each with kind and size.
//!
//! The memory map is the tag that has the boot loader's own (6). Only where there is none, that of UEFI (17) serves: GRUB makes
//! the former out of the latter after it has left the firmware's boot services, and knows best what it has used itself.

use cloister_abi::hip::MemoryKind;

use crate::{Framebuffer, Info, Memory, kind};

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

/// A tag: where it is, and its size with its head of eight bytes.
#[derive(Clone, Copy)]
struct Tag {
    at: u64,
    size: u64,
}

impl Tag {
    /// Address of a field of so many bytes, if the tag has it.
    fn field(self, offset: u64, bytes: u64) -> Option<u64> {
        (offset.checked_add(bytes)? <= self.size).then_some(self.at.checked_add(offset)?)
    }

    fn u32(self, memory: &Memory<'_>, offset: u64) -> Option<u32> {
        memory.u32(self.field(offset, 4)?)
    }

    fn u64(self, memory: &Memory<'_>, offset: u64) -> Option<u64> {
        memory.u64(self.field(offset, 8)?)
    }

    /// Offsets of entries from `first` on, of the size that the field at offset 8 says, at least `least`.
    fn entries(self, memory: &Memory<'_>, least: u32) -> Option<impl Iterator<Item = u64>> {
        let step = self.u32(memory, 8)?;
        let step = usize::try_from(step).ok().filter(|_| step >= least)?;
        let size = self.size;
        let whole = move |at: &u64| at.checked_add(u64::from(least)).is_some_and(|end| end <= size);
        Some((16..size).step_by(step).take_while(whole))
    }
}

pub(crate) fn read(
    memory: &Memory<'_>,
    start: u64,
    info: &mut Info,
    range: &mut dyn FnMut(u64, u64, MemoryKind),
) -> Option<()> {
    let total = u64::from(memory.u32(start)?);
    if total > MOST {
        return None;
    }
    let end = start.checked_add(total)?;
    let mut at = start.checked_add(8)?;
    let (mut map, mut efi) = (None, None);
    // A list without its end tag ends where the whole does.
    while at.checked_add(8)? <= end {
        let (number, size) = (memory.u32(at)?, u64::from(memory.u32(at.checked_add(4)?)?));
        if size < 8 || at.checked_add(size)? > end {
            return None;
        }
        let tag = Tag { at, size };
        match number {
            tag::END => break,
            tag::CMDLINE => memory.string(tag.field(8, 1)?, &mut info.cmdline),
            tag::MODULE if info.image.1 == 0 => {
                let (first, last) = (tag.u32(memory, 8)?, tag.u32(memory, 12)?);
                info.image = (u64::from(first), u64::from(last.checked_sub(first)?));
            }
            tag::MEMORY => map = Some(tag),
            tag::EFI_MEMORY => efi = Some(tag),
            tag::FRAMEBUFFER => info.framebuffer = framebuffer(memory, tag),
            // A copy of the root pointer, of which a new one says more than an old one.
            tag::ACPI_OLD if info.rsdp == 0 => info.rsdp = tag.field(8, 20)?,
            tag::ACPI_NEW => info.rsdp = tag.field(8, 36)?,
            _ => {}
        }
        at = at.checked_add(size.checked_next_multiple_of(8)?)?;
    }
    match (map, efi) {
        (Some(map), _) => {
            for entry in map.entries(memory, 24)? {
                let number = map.u32(memory, entry.checked_add(16)?)?;
                range(map.u64(memory, entry)?, map.u64(memory, entry.checked_add(8)?)?, kind(number));
            }
        }
        (None, Some(map)) => {
            for entry in map.entries(memory, 40)? {
                let pages = map.u64(memory, entry.checked_add(24)?)?;
                let kind = efi_kind(map.u32(memory, entry)?);
                range(map.u64(memory, entry.checked_add(8)?)?, pages.checked_mul(4096)?, kind);
            }
        }
        (None, None) => {}
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
fn framebuffer(memory: &Memory<'_>, tag: Tag) -> Option<Framebuffer> {
    const DIRECT: u8 = 1;
    let byte = |offset| memory.u8(tag.field(offset, 1)?);
    if byte(29)? != DIRECT {
        return None;
    }
    let mut colors = [0; 6];
    for (color, offset) in colors.iter_mut().zip(32..) {
        *color = byte(offset)?;
    }
    let (pitch, width, height) = (tag.u32(memory, 16)?, tag.u32(memory, 20)?, tag.u32(memory, 24)?);
    let depth = byte(28)?;
    let line = u64::from(width).checked_mul(u64::from(depth.div_ceil(8)))?;
    // Whoever draws would otherwise draw elsewhere.
    let sound = width > 0 && height > 0 && (15..=32).contains(&depth) && line <= u64::from(pitch);
    sound.then_some(Framebuffer { address: tag.u64(memory, 8)?, width, height, pitch, depth, colors })
}
