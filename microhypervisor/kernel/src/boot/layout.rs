// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where in physical memory the kernel's pool lies, and how that is told to the root task.
//!
//! Every byte of the firmware's map is told, as one kind or another: the sum of what the root task sees is the firmware's.

use super::{bytes, option};
use crate::arch::bootinfo::BootInfo;
use crate::arch::paging;
use cloister_abi::hip::{MemoryKind, RANGES};
use cloister_mechanism::layout::{LARGE, lay_out};

/// Smallest and largest pool, unless the command line says otherwise.
const LEAST: u64 = 16 << 20;
const MOST: u64 = 256 << 20;
/// The boot tables cover so much, and the pool lies in it.
const REACH: u64 = 1 << 32;

/// Chooses the pool: as large as `kernel-memory=` on the command line says (bytes, or with K, M or G), else an eighteenth of memory
/// within limits; in 2 MiB pages, as high below 4 GiB as possible. Marks in the memory map what is the kernel's and what is
/// the boot image.
///
/// # Errors
/// There is no room, or the command line says nonsense.
pub(super) fn choose_pool(info: &mut BootInfo) -> Result<(u64, u64), &'static str> {
    let total = info.memory.total();
    let available = info.memory.sum(MemoryKind::Available as u32);
    let wanted = match option(info.said.command_line(), "kernel-memory=") {
        Some(text) => bytes(text).filter(|size| (LARGE..=REACH).contains(size)).ok_or("kernel-memory= is no size")?,
        None => (available / 18).clamp(LEAST, MOST),
    };
    let (image, (kernel, kernel_end)) = (info.said.image, paging::image());
    let parts = [
        (image.0, image.0 + image.1, MemoryKind::BootImage as u32),
        (kernel, kernel_end, MemoryKind::Kernel as u32),
        // The first MiB holds firmware data and start-up code of further cores.
        (0, 1 << 20, MemoryKind::Reserved as u32),
    ];
    let pool = (wanted.next_multiple_of(LARGE), MemoryKind::Kernel as u32);
    let layout = lay_out(&mut info.memory, &parts, pool, REACH, RANGES);
    let layout = layout.ok_or("no room below 4 GiB for the kernel's pool")?;
    if layout.lost != 0 {
        log::warn!("the memory map has too many ranges: {} KiB are not used", layout.lost / 1024);
    }
    crate::memory::set_firmware(total, kernel_end - kernel);
    Ok(layout.pool)
}

/// Budget that the root task has beyond what there is, as `overcommit=` on the command line says: for tests, so that the pool
/// runs dry before a budget does.
pub(super) fn overcommit(info: &BootInfo) -> u64 {
    option(info.said.command_line(), "overcommit=").and_then(bytes).unwrap_or(0)
}
