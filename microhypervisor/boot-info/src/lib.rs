// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a boot loader says: memory map, boot image, command line, ACPI root, frame buffer; by PVH or by Multiboot 2.
//!
//! Two loaders and many firmwares write these structures, so they are read as foreign data: every access goes through a function that
//! answers a byte of physical memory or nothing, every length is checked, and what makes no sense is an error that says so. So the
//! readers also run on the host, on structures that no loader would make.
//!
//! Key types: [`Part`] is a stretch of memory, read within its bounds; [`read`] answers an [`Info`] and tells the ranges of memory one by
//! one; [`acpi_root`] follows a root pointer.
//!
//! Sources: Xen `public/arch-x86/hvm/start_info.h` (PVH); Multiboot 2 specification, 3.6 (boot information); UEFI 2.10, 7.2
//! (memory descriptors); ACPI 6.5, 5.2.5 (root pointer).
#![no_std]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::panic, clippy::expect_used)]

mod multiboot;
mod pvh;
#[cfg(test)]
mod tests;

use cloister_abi::hip::{CMDLINE, MemoryKind};

/// Loaded by PVH: the direct kernel boot of emulators.
pub const PVH: u64 = 1;
/// Loaded by Multiboot 2: GRUB.
pub const MULTIBOOT2: u64 = 2;

/// What was said, but for the memory map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// Command line, NUL-terminated; what is longer was cut.
    pub cmdline: [u8; CMDLINE],
    /// Boot image: physical address and size.
    pub image: (u64, u64),
    /// ACPI root pointer, 0 if it was not told.
    pub rsdp: u64,
    /// Frame buffer, if there is one that shows pixels: as the information page has it, from [`Hip::framebuffer`] on; else zeros.
    ///
    /// [`Hip::framebuffer`]: cloister_abi::hip::Hip::framebuffer
    pub framebuffer: [u64; 4],
}

impl Info {
    const fn new() -> Self {
        Self { cmdline: [0; CMDLINE], image: (0, 0), rsdp: 0, framebuffer: [0; 4] }
    }

    /// Command line as text; empty if it is none.
    #[must_use]
    pub fn command_line(&self) -> &str {
        self.cmdline.split(|byte| *byte == 0).next().and_then(|text| core::str::from_utf8(text).ok()).unwrap_or("")
    }
}

/// Reads a byte of physical memory, where there is any that can be read.
pub type Reader<'a> = &'a (dyn Fn(u64) -> Option<u8> + Sync);

/// A stretch of physical memory with something in it. No access leaves it.
#[derive(Clone, Copy)]
pub struct Part<'a> {
    memory: Reader<'a>,
    /// Physical address.
    pub base: u64,
    /// Length in bytes.
    pub size: u64,
}

impl core::fmt::Debug for Part<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{:#x} + {:#x}", self.base, self.size)
    }
}

impl<'a> Part<'a> {
    /// A stretch; `None` if it wraps.
    #[must_use]
    pub fn new(memory: Reader<'a>, base: u64, size: u64) -> Option<Self> {
        base.checked_add(size).map(|_| Self { memory, base, size })
    }

    /// An ACPI table with its header, if its checksum is right, and its signature where one is asked for (ACPI 6.5, 5.2.6).
    #[must_use]
    pub fn table(memory: Reader<'a>, base: u64, signature: Option<[u8; 4]>) -> Option<Self> {
        let header = Self::new(memory, base, 36).filter(|header| header.base != 0)?;
        if signature.is_some_and(|wanted| header.u32(0) != Some(u32::from_le_bytes(wanted))) {
            return None;
        }
        let table = Self::new(memory, base, header.number(4, 4).filter(|size| *size >= 36)?)?;
        let sum = (0..table.size).try_fold(0u8, |sum, at| Some(sum.wrapping_add(table.u8(at)?)))?;
        (sum == 0).then_some(table)
    }

    /// A part of it.
    #[must_use]
    pub fn part(self, offset: u64, size: u64) -> Option<Self> {
        (offset.checked_add(size)? <= self.size).then_some(Self { base: self.base.checked_add(offset)?, size, ..self })
    }

    /// A little-endian number of up to eight bytes.
    #[must_use]
    pub fn number(self, offset: u64, bytes: u64) -> Option<u64> {
        let Self { memory, base, .. } = self.part(offset, bytes)?;
        (0..bytes).rev().try_fold(0, |sum, at| Some(sum << 8 | u64::from(memory(base.checked_add(at)?)?)))
    }

    /// One of four bytes.
    #[must_use]
    pub fn u32(self, offset: u64) -> Option<u32> {
        u32::try_from(self.number(offset, 4)?).ok()
    }

    /// A byte.
    #[must_use]
    pub fn u8(self, offset: u64) -> Option<u8> {
        (self.memory)(self.part(offset, 1)?.base)
    }

    /// Copies a string, up to its NUL; what is too long is cut.
    fn string(self, offset: u64, into: &mut [u8; CMDLINE]) {
        let (_, places) = into.split_last_mut().unwrap_or((&mut 0, &mut []));
        for (place, at) in places.iter_mut().zip(offset..) {
            match self.u8(at) {
                None | Some(0) => return,
                Some(byte) => *place = byte,
            }
        }
    }
}

/// Kind of memory by number, as in the BIOS call E820 (ACPI 6.5, 15.1), which both protocols use.
const fn kind(e820: u32) -> MemoryKind {
    match e820 {
        1 => MemoryKind::Available,
        3 => MemoryKind::AcpiReclaim,
        4 => MemoryKind::AcpiNvs,
        _ => MemoryKind::Reserved,
    }
}

/// Reads what the loader of a protocol ([`PVH`] or [`MULTIBOOT2`]) left at an address. `range` gets each range of memory: first byte, length, kind. These come in any order and
/// may overlap, as the firmware will have it.
///
/// # Errors
/// What is wrong or missing.
pub fn read(
    protocol: u64,
    address: u64,
    memory: Reader<'_>,
    range: &mut dyn FnMut(u64, u64, MemoryKind),
) -> Result<Info, &'static str> {
    let (mut info, mut ranges) = (Info::new(), 0u32);
    let mut counted = |base: u64, size: u64, kind: MemoryKind| {
        // What runs over the end of the address space is no memory.
        if size != 0 && base.checked_add(size).is_some() {
            ranges = ranges.saturating_add(1);
            range(base, size, kind);
        }
    };
    let done = match protocol {
        PVH => pvh::read(memory, address, &mut info, &mut counted),
        MULTIBOOT2 => multiboot::read(memory, address, &mut info, &mut counted),
        _ => return Err("loaded by neither PVH nor Multiboot 2"),
    };
    done.ok_or("the loader's information is not complete")?;
    if ranges == 0 {
        return Err("the loader gives no memory map");
    }
    if info.image.1 == 0 {
        return Err("no boot image: the loader must give one module");
    }
    Ok(info)
}

/// The table of tables that a root pointer names (XSDT, or RSDT in old firmware): its physical address, and how many bytes its entries
/// have. Unlike the pointer, of which a loader may have made a copy somewhere, it lies in memory that the firmware keeps.
#[must_use]
pub fn acpi_root(rsdp: u64, memory: Reader<'_>) -> Option<(u64, u64)> {
    let old = Part::new(memory, rsdp, 20)?;
    if old.number(0, 8)? != u64::from_le_bytes(*b"RSD PTR ") {
        return None;
    }
    let extended = if old.u8(15)? >= 2 { Part::new(memory, rsdp, 36)?.number(24, 8)? } else { 0 };
    let root = if extended == 0 { (old.number(16, 4)?, 4) } else { (extended, 8) };
    (root.0 != 0).then_some(root)
}
