// SPDX-License-Identifier: MIT OR Apache-2.0
//! Finds the root task in the boot image: its first module, a static ELF whose segments are mapped where they lie.
//!
//! Foreign data, read before the kernel's own page tables are there. Sources: docs of the boot image (magic, version,
//! directory of 64-byte entries from byte 24); ELF-64 object file format, 2 (header) and 4 (program header).

use crate::arch::bootinfo::PHYSICAL;
use cloister_boot_info::Part;

/// Most segments of a root task.
const SEGMENTS: usize = 8;

/// A loadable segment: pages of the image that become pages of the root task.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Segment {
    /// Physical address in the image.
    pub(super) physical: u64,
    /// Address in the root task.
    pub(super) address: u64,
    /// Size in bytes, a multiple of the page size.
    pub(super) size: u64,
    pub(super) write: bool,
    pub(super) exec: bool,
}

/// The root task.
#[derive(Debug, Default)]
pub(super) struct RootTask {
    pub(super) segments: [Segment; SEGMENTS],
    pub(super) count: usize,
    pub(super) entry: u64,
}

/// Finds and checks the root task.
///
/// # Errors
/// What is wrong with the image.
pub(super) fn root_task((base, size): (u64, u64)) -> Result<RootTask, &'static str> {
    let image = Part::new(PHYSICAL, base, size).filter(|image| image.base % 4096 == 0);
    let image = image.ok_or("the boot image is not page-aligned")?;
    let magic = u64::from_le_bytes(*b"CLSTRIMG");
    if image.number(0, 8) != Some(magic) || image.number(8, 4) != Some(1) {
        return Err("the module is not a boot image of version 1");
    }
    let module = image.number(24 + 40, 8).zip(image.number(24 + 48, 8));
    let elf = module.and_then(|(offset, size)| image.part(offset, size)).ok_or("the boot image is truncated")?;
    if elf.base % 4096 != 0 || image.number(24 + 56, 4) != Some(1) {
        return Err("the first module of the boot image is not a root task");
    }
    read_elf(elf).ok_or("the root task is not a static ELF whose segments are page-aligned and complete in the file")
}

fn read_elf(elf: Part<'_>) -> Option<RootTask> {
    // Class 64, little-endian, version 1, executable; the machine was checked by who built the image.
    if elf.number(0, 7)? != u64::from_le_bytes([0x7f, b'E', b'L', b'F', 2, 1, 1, 0]) || elf.number(16, 2)? != 2 {
        return None;
    }
    let mut root = RootTask { entry: elf.number(24, 8)?, ..RootTask::default() };
    let (table, size, count) = (elf.number(32, 8)?, elf.number(54, 2)?, elf.number(56, 2)?);
    for index in 0..count {
        let header = elf.part(table.checked_add(index * size)?, 56)?;
        if header.number(0, 4)? != 1 || header.number(40, 8)? == 0 {
            continue;
        }
        let (flags, offset, address) = (header.number(4, 4)?, header.number(8, 8)?, header.number(16, 8)?);
        let (in_file, in_memory) = (header.number(32, 8)?, header.number(40, 8)?);
        let pages = in_memory.checked_next_multiple_of(4096)?;
        let data = elf.part(offset, in_file)?;
        if (offset | address) % 4096 != 0 || pages != in_file.checked_next_multiple_of(4096)? || root.count == SEGMENTS
        {
            return None;
        }
        root.segments[root.count] =
            Segment { physical: data.base, address, size: pages, write: flags & 2 != 0, exec: flags & 1 != 0 };
        root.count += 1;
    }
    (root.count > 0).then_some(root)
}
