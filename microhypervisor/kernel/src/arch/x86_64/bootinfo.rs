// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the loader says, kept until the root task is told of it. `cloister-boot-info` reads it, before the kernel's own tables are there,
//! through those of [`super::boot`].

use super::{acpi, boot};
use crate::memory::DIRECT_MAP;
use crate::width::index;
use cloister_abi::hip::{Hip, MemoryKind, MemoryRange, RANGES};
use cloister_boot_info::{Info, Reader, read};
use cloister_mechanism::ranges::{Kinds, Ranges};

/// Kinds of memory as the memory map sees them.
#[derive(Debug)]
pub(crate) struct Firmware;

impl Kinds for Firmware {
    const AVAILABLE: u32 = MemoryKind::Available as u32;
    const RESERVED: u32 = MemoryKind::Reserved as u32;
    fn wins(kind: u32, over: u32) -> bool {
        over == Self::AVAILABLE || kind == Self::RESERVED
    }
    fn may_be_reserved(kind: u32) -> bool {
        kind != MemoryKind::Kernel as u32 && kind != MemoryKind::BootImage as u32
    }
}

/// The memory map, with room for what is carved out of it.
pub(crate) type Memory = Ranges<Firmware, { 2 * RANGES }>;

/// What was said.
#[derive(Debug)]
pub(crate) struct BootInfo {
    pub(crate) memory: Memory,
    pub(crate) said: Info,
}

/// Physical memory, as long as the boot direct map is there.
pub(crate) const PHYSICAL: Reader<'static> = &peek;

/// A byte of physical memory: in the boot direct map, or what lies above it through the window.
fn peek(address: u64) -> Option<u8> {
    let place = if address < boot::REACH { Some(DIRECT_MAP + address) } else { boot::window(address) };
    let pointer: *const u8 = core::ptr::with_exposed_provenance(index(place.filter(|_| address != 0)?));
    // SAFETY: the boot tables map it; only a number is read.
    Some(unsafe { pointer.read_volatile() })
}

impl BootInfo {
    /// Reads what the loader of that protocol left at that address.
    ///
    /// # Errors
    /// What is wrong or missing.
    pub(crate) fn read(protocol: u64, address: u64) -> Result<Self, &'static str> {
        let mut memory = Memory::empty();
        let said = read(protocol, address, PHYSICAL, &mut |base, size, kind: MemoryKind| {
            memory.add(base, base.saturating_add(size), kind as u32);
        })?;
        Ok(Self { memory, said })
    }

    /// A page below 1 MiB that no firmware uses after boot, for code in real mode.
    pub(crate) fn low_page(&self) -> Option<u64> {
        let free = self.memory.as_slice().iter().filter(|range| range.kind == Firmware::AVAILABLE);
        let pages = free.map(|range| (range.base.max(0x8000).next_multiple_of(4096), range.end.min(0xa_0000)));
        pages.filter(|(page, end)| page + 4096 <= *end).map(|(page, _)| page).min()
    }

    /// Copies what the root task is told.
    pub(crate) fn describe(&self, hip: &mut Hip) {
        for (place, range) in hip.ranges.iter_mut().zip(self.memory.as_slice()) {
            *place = MemoryRange { base: range.base, size: range.size(), kind: range.kind, reserved: 0 };
            hip.range_count += 1;
        }
        hip.cmdline = self.said.cmdline;
        (hip.image_base, hip.image_size) = self.said.image;
        let tables = acpi::tables();
        (hip.acpi_rsdp, hip.acpi_root) = (tables.rsdp, tables.root);
        [hip.framebuffer, hip.framebuffer_size, hip.framebuffer_format, hip.framebuffer_colors] = self.said.framebuffer;
    }
}
