// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the firmware left behind, as ROM modules: each ACPI table (`acpi/APIC`, `acpi/DSDT`, `acpi/SSDT-2`), and `platform_info`, which
//! says where the table of tables and the frame buffer are.
//!
//! Tables lie anywhere on a page, beside what is nobody's business, so core copies them once into pages of their own. They are read
//! through a second window, page by page, and only where the memory map has neither free memory nor the kernel.

use crate::kernel::{self, pieces};
use crate::memory;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use cloister_abi::cap::Access;
use cloister_abi::hip::{Hip, ROOT_HOST};
use cloister_abi::status::Status;
use cloister_core_model::{Extent, PAGE, Physical, acpi, pages};

/// Where physical address 0 would be, for what the firmware left.
const WINDOW: u64 = 0x2000_0000_0000;

/// A module.
#[derive(Debug)]
pub(crate) struct Module {
    pub(crate) name: String,
    /// Pages of its own.
    pub(crate) base: u64,
    /// Bytes.
    pub(crate) size: u64,
}

/// All modules; their memory is taken out of what is free.
pub(crate) fn modules(hip: &Hip, physical: &mut Physical) -> Vec<Module> {
    let mut modules = Vec::new();
    let mut add = |name: String, content: &[u8]| match copy(content, physical) {
        Some(base) => modules.push(Module { name, base, size: content.len() as u64 }),
        None => log::warn!("no memory for the ROM module \"{name}\""),
    };
    for table in acpi::tables(hip.acpi_root, &mut |base, size| left(hip, base, size)) {
        add(format!("acpi/{}", table.name), table.content);
    }
    add("platform_info".into(), info(hip).as_bytes());
    modules
}

/// Memory that the firmware has left, mapped for core to read.
fn left(hip: &Hip, base: u64, size: u64) -> Option<&'static [u8]> {
    let first = base / PAGE * PAGE;
    let end = base.checked_add(size)?.checked_next_multiple_of(PAGE)?;
    if end > WINDOW || !memory::is_device(hip, first, end - first) {
        return None;
    }
    for chunk in (first..end).step_by(memory::length(PAGE)).flat_map(|page| pieces(page, WINDOW + page, PAGE)) {
        match kernel::map(ROOT_HOST, chunk, Access::READ.bits().into()) {
            // Several tables share a page.
            Ok(()) | Err(Status::Busy) => {}
            Err(_) => return None,
        }
    }
    let start = core::ptr::with_exposed_provenance(memory::length(WINDOW + base));
    // SAFETY: the pages were mapped just now or before, for ever; firmware tables do not change while the machine runs.
    Some(unsafe { core::slice::from_raw_parts(start, memory::length(size)) })
}

/// Copies something into pages of its own.
fn copy(content: &[u8], physical: &mut Physical) -> Option<u64> {
    let size = pages(content.len() as u64)?;
    let extents = physical.allocate(size, 0)?;
    let &[Extent { base, .. }] = extents.as_slice() else { return None };
    memory::zero(&extents);
    // SAFETY: just allocated, for this alone.
    let place = unsafe { memory::own(base, size) };
    place.get_mut(..content.len())?.copy_from_slice(content);
    Some(base)
}

/// What the loader said of the machine.
fn info(hip: &Hip) -> String {
    let mut text = String::from("platform_info\n");
    if hip.acpi_root != 0 {
        text.push_str(&format!("+ acpi | root: {:#x}\n", hip.acpi_root));
    }
    if hip.framebuffer != 0 {
        let (width, height) = (hip.framebuffer_size & 0xffff_ffff, hip.framebuffer_size >> 32);
        let (pitch, depth) = (hip.framebuffer_format & 0xffff_ffff, hip.framebuffer_format >> 32);
        let [red, red_bits, green, green_bits, blue, blue_bits, ..] = hip.framebuffer_colors.to_le_bytes();
        text.push_str(&format!(
            "+ framebuffer | address: {:#x} | width: {width} | height: {height} | pitch: {pitch} | depth: {depth}\n  \
             + red | shift: {red} | bits: {red_bits}\n  + green | shift: {green} | bits: {green_bits}\n  \
             + blue | shift: {blue} | bits: {blue_bits}\n",
            hip.framebuffer
        ));
    }
    text.push_str("-\n");
    text
}
