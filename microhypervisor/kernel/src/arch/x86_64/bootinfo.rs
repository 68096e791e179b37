// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the loader says: memory map, boot image, command line, ACPI root pointer; from PVH or from Multiboot 2.
//!
//! Read before the kernel's own tables are there, through the boot direct map. Sources: Xen `public/arch-x86/hvm/start_info.h`;
//! Multiboot 2 specification, 3.6.

use crate::memory::DIRECT_MAP;
use crate::width::index;
use cloister_abi::hip::{CMDLINE, Hip, MemoryKind, MemoryRange, RANGES};

/// What was said.
#[derive(Debug)]
pub(crate) struct BootInfo {
    pub(crate) ranges: [MemoryRange; RANGES],
    pub(crate) range_count: usize,
    pub(crate) cmdline: [u8; CMDLINE],
    /// Boot image: physical address and size.
    pub(crate) image: (u64, u64),
    pub(crate) rsdp: u64,
    /// Frame buffer: address, width and height, pitch and depth.
    pub(crate) framebuffer: (u64, u64, u64),
}

/// Reads a value from physical memory below 4 GiB.
fn peek<T: Copy>(address: u64) -> Option<T> {
    if address == 0 || address.checked_add(size_of::<T>() as u64)? > 1 << 32 {
        return None;
    }
    let pointer = core::ptr::with_exposed_provenance::<T>(index(DIRECT_MAP + address));
    // SAFETY: the boot direct map covers the first 4 GiB; only plain numbers are read.
    Some(unsafe { pointer.read_unaligned() })
}

impl BootInfo {
    const fn empty() -> Self {
        Self {
            ranges: [MemoryRange { base: 0, size: 0, kind: 0, reserved: 0 }; RANGES],
            range_count: 0,
            cmdline: [0; CMDLINE],
            image: (0, 0),
            rsdp: 0,
            framebuffer: (0, 0, 0),
        }
    }

    /// Reads what the loader of that protocol (1 PVH, 2 Multiboot 2) left at that address.
    ///
    /// # Errors
    /// What is missing.
    pub(crate) fn read(protocol: u64, address: u64) -> Result<Self, &'static str> {
        let mut info = Self::empty();
        let read = match protocol {
            1 => info.read_pvh(address),
            2 => info.read_multiboot(address),
            _ => return Err("loaded by neither PVH nor Multiboot 2"),
        };
        if read.is_none() || info.range_count == 0 {
            return Err("the loader's information is not complete");
        }
        if info.image.1 == 0 {
            return Err("no boot image: the loader must give one module");
        }
        Ok(info)
    }

    /// Command line as text, as far as it is text.
    pub(crate) fn command_line(&self) -> &str {
        let end = self.cmdline.iter().position(|byte| *byte == 0).unwrap_or(0);
        core::str::from_utf8(&self.cmdline[..end]).unwrap_or("")
    }

    fn add_range(&mut self, base: u64, size: u64, e820: u32) {
        let kind = match e820 {
            1 => MemoryKind::Available,
            3 => MemoryKind::AcpiReclaim,
            4 => MemoryKind::AcpiNvs,
            _ => MemoryKind::Reserved,
        };
        if self.range_count < RANGES && size != 0 {
            self.ranges[self.range_count] = MemoryRange { base, size, kind: kind as u32, reserved: 0 };
            self.range_count += 1;
        }
    }

    fn read_string(&mut self, address: u64) {
        for (index, byte) in self.cmdline.iter_mut().take(CMDLINE - 1).enumerate() {
            match peek::<u8>(address + index as u64) {
                None | Some(0) => return,
                Some(read) => *byte = read,
            }
        }
    }

    fn read_pvh(&mut self, start: u64) -> Option<()> {
        if peek::<u32>(start)? != 0x336e_c578 {
            return None;
        }
        if peek::<u32>(start + 12)? > 0 {
            let module = peek::<u64>(start + 16)?;
            self.image = (peek(module)?, peek(module + 8)?);
        }
        self.read_string(peek(start + 24)?);
        self.rsdp = peek(start + 32)?;
        let (map, entries) = (peek::<u64>(start + 40)?, peek::<u32>(start + 48)?);
        for index in 0..u64::from(entries) {
            let entry = map + 24 * index;
            self.add_range(peek(entry)?, peek(entry + 8)?, peek(entry + 16)?);
        }
        Some(())
    }

    fn read_multiboot(&mut self, start: u64) -> Option<()> {
        let end = start + u64::from(peek::<u32>(start)?);
        let mut tag = start + 8;
        while tag + 8 <= end {
            let (kind, size) = (peek::<u32>(tag)?, u64::from(peek::<u32>(tag + 4)?));
            match kind {
                0 => break,
                1 => self.read_string(tag + 8),
                3 if self.image.1 == 0 => {
                    let (first, last) = (peek::<u32>(tag + 8)?, peek::<u32>(tag + 12)?);
                    self.image = (u64::from(first), u64::from(last.checked_sub(first)?));
                }
                6 => {
                    let step = u64::from(peek::<u32>(tag + 8)?).max(24);
                    for entry in (tag + 16..tag + size).step_by(index(step)) {
                        self.add_range(peek(entry)?, peek(entry + 8)?, peek(entry + 16)?);
                    }
                }
                8 => {
                    let (pitch, width, height) =
                        (peek::<u32>(tag + 16)?, peek::<u32>(tag + 20)?, peek::<u32>(tag + 24)?);
                    let depth = peek::<u8>(tag + 28)?;
                    self.framebuffer = (
                        peek(tag + 8)?,
                        u64::from(width) | u64::from(height) << 32,
                        u64::from(pitch) | u64::from(depth) << 32,
                    );
                }
                // A copy of the RSDP: revision 1 (14) or 2 (15). The copy serves, since it points to the tables.
                14 if self.rsdp == 0 => self.rsdp = tag + 8,
                15 => self.rsdp = tag + 8,
                _ => {}
            }
            tag += size.max(8).next_multiple_of(8);
        }
        Some(())
    }

    /// Copies what the root task is told.
    pub(crate) fn describe(&self, hip: &mut Hip) {
        hip.ranges = self.ranges;
        hip.range_count = u32::try_from(self.range_count).unwrap_or(0);
        hip.cmdline = self.cmdline;
        (hip.image_base, hip.image_size) = self.image;
        hip.acpi_rsdp = self.rsdp;
        (hip.framebuffer, hip.framebuffer_size, hip.framebuffer_format) = self.framebuffer;
    }
}
