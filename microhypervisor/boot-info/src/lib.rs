// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a boot loader says: memory map, boot image, command line, ACPI root, frame buffer; by PVH or by Multiboot 2.
//!
//! Two loaders and many firmwares write these structures, so they are read as foreign data: every access goes through a function that
//! answers a byte of physical memory or nothing, every length is checked, and what makes no sense is an error that says so. So the
//! readers also run on the host, on structures that no loader would make.
//!
//! Key types: [`read`] answers an [`Info`] and tells the ranges of memory one by one; [`acpi_root`] follows a root pointer.
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

/// How the kernel was loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// PVH: the direct kernel boot of emulators.
    Pvh,
    /// Multiboot 2: GRUB.
    Multiboot2,
}

/// A frame buffer of pixels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Framebuffer {
    /// Physical address.
    pub address: u64,
    /// Pixels in a line.
    pub width: u32,
    /// Lines.
    pub height: u32,
    /// Bytes from one line to the next.
    pub pitch: u32,
    /// Bits per pixel.
    pub depth: u8,
    /// Position of the lowest bit and number of bits of red, of green and of blue.
    pub colors: [u8; 6],
}

/// What was said, but for the memory map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// Command line, NUL-terminated; what is longer was cut.
    pub cmdline: [u8; CMDLINE],
    /// Boot image: physical address and size.
    pub image: (u64, u64),
    /// ACPI root pointer, 0 if it was not told.
    pub rsdp: u64,
    /// Frame buffer, if there is one that shows pixels.
    pub framebuffer: Option<Framebuffer>,
}

impl Info {
    const fn new() -> Self {
        Self { cmdline: [0; CMDLINE], image: (0, 0), rsdp: 0, framebuffer: None }
    }

    /// Command line as text; empty if it is none.
    #[must_use]
    pub fn command_line(&self) -> &str {
        self.cmdline.split(|byte| *byte == 0).next().and_then(|text| core::str::from_utf8(text).ok()).unwrap_or("")
    }
}

/// Physical memory.
struct Memory<'a>(&'a dyn Fn(u64) -> Option<u8>);

impl Memory<'_> {
    fn number(&self, address: u64, bytes: u64) -> Option<u64> {
        let mut sum = 0;
        for index in (0..bytes).rev() {
            sum = sum << 8 | u64::from((self.0)(address.checked_add(index)?)?);
        }
        Some(sum)
    }

    fn u8(&self, address: u64) -> Option<u8> {
        (self.0)(address)
    }

    fn u32(&self, address: u64) -> Option<u32> {
        u32::try_from(self.number(address, 4)?).ok()
    }

    fn u64(&self, address: u64) -> Option<u64> {
        self.number(address, 8)
    }

    fn string(&self, address: u64, into: &mut [u8; CMDLINE]) {
        let (_, places) = into.split_last_mut().unwrap_or((&mut 0, &mut []));
        for (place, at) in places.iter_mut().zip(address..) {
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

/// Reads what the loader left at an address. `byte` reads physical memory, as far as there is any that can be read; `range` gets each
/// range of memory: first byte, length, kind. These come in any order and may overlap, as the firmware will have it.
///
/// # Errors
/// What is wrong or missing.
pub fn read(
    protocol: Protocol,
    address: u64,
    byte: &dyn Fn(u64) -> Option<u8>,
    range: &mut dyn FnMut(u64, u64, MemoryKind),
) -> Result<Info, &'static str> {
    let (memory, mut info, mut ranges) = (Memory(byte), Info::new(), 0u32);
    let mut counted = |base: u64, size: u64, kind: MemoryKind| {
        // What runs over the end of the address space is no memory.
        if size != 0 && base.checked_add(size).is_some() {
            ranges = ranges.saturating_add(1);
            range(base, size, kind);
        }
    };
    let done = match protocol {
        Protocol::Pvh => pvh::read(&memory, address, &mut info, &mut counted),
        Protocol::Multiboot2 => multiboot::read(&memory, address, &mut info, &mut counted),
    };
    done.ok_or("the loader's information is not complete")?;
    if ranges == 0 {
        return Err("the loader gives no memory map");
    }
    if info.image.1 == 0 {
        return Err("no boot image: the loader must give one module");
    }
    if info.image.0.checked_add(info.image.1).is_none_or(|end| end > 1 << 32) {
        return Err("the boot image lies above 4 GiB, where the kernel cannot read it yet");
    }
    Ok(info)
}

/// Physical address of the table of tables (XSDT, or RSDT in old firmware) that a root pointer names. Unlike the pointer, of which a
/// loader may have made a copy somewhere, it lies in memory that the firmware keeps.
#[must_use]
pub fn acpi_root(rsdp: u64, byte: &dyn Fn(u64) -> Option<u8>) -> Option<u64> {
    let memory = Memory(byte);
    if memory.u64(rsdp)? != u64::from_le_bytes(*b"RSD PTR ") {
        return None;
    }
    let extended = if memory.u8(rsdp.checked_add(15)?)? >= 2 { memory.u64(rsdp.checked_add(24)?)? } else { 0 };
    let root = if extended == 0 { u64::from(memory.u32(rsdp.checked_add(16)?)?) } else { extended };
    (root != 0).then_some(root)
}
