// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where in physical memory the kernel's pool lies, and how that is told to the root task.

use crate::arch::bootinfo::BootInfo;
use crate::arch::paging;
use cloister_abi::hip::{MemoryKind, MemoryRange, RANGES};

const LARGE: u64 = 2 << 20;
/// Smallest and largest pool.
const LEAST: u64 = 16 << 20;
const MOST: u64 = 256 << 20;

/// Chooses the pool: an eighteenth of memory within limits, in 2 MiB pages, as high below 4 GiB as possible. Marks in the memory
/// map what is the kernel's and what is the boot image.
///
/// # Errors
/// There is no room.
pub(super) fn choose_pool(info: &mut BootInfo) -> Result<(u64, u64), &'static str> {
    let usable = |range: &&MemoryRange| range.kind == MemoryKind::Available as u32;
    let available = info.ranges[..info.range_count].iter().filter(usable).map(|range| range.size).sum::<u64>();
    let size = (available / 18).clamp(LEAST, MOST).next_multiple_of(LARGE);
    let image = (info.image.0, info.image.0 + info.image.1.next_multiple_of(4096));
    let kernel = paging::image();
    carve(info, image, MemoryKind::BootImage);
    carve(info, kernel, MemoryKind::Kernel);
    // The first MiB holds firmware data and start-up code of further cores.
    carve(info, (0, 1 << 20), MemoryKind::Reserved);
    let mut best = None;
    for range in info.ranges[..info.range_count].iter().filter(usable) {
        let end = (range.base + range.size).min(1 << 32) / LARGE * LARGE;
        if end >= size && end - size >= range.base.next_multiple_of(LARGE) {
            best = best.max(Some(end - size));
        }
    }
    let start = best.ok_or("no room below 4 GiB for the kernel's pool")?;
    carve(info, (start, start + size), MemoryKind::Kernel);
    Ok((start, start + size))
}

/// Gives part of the available ranges another kind.
fn carve(info: &mut BootInfo, (start, end): (u64, u64), kind: MemoryKind) {
    let mut out = [MemoryRange { base: 0, size: 0, kind: 0, reserved: 0 }; RANGES];
    let mut count = 0;
    let mut push = |base: u64, end: u64, kind: u32| {
        if base < end && count < RANGES {
            out[count] = MemoryRange { base, size: end - base, kind, reserved: 0 };
            count += 1;
        }
    };
    for range in &info.ranges[..info.range_count] {
        let range_end = range.base + range.size;
        if range.kind != MemoryKind::Available as u32 || range_end <= start || range.base >= end {
            push(range.base, range_end, range.kind);
            continue;
        }
        push(range.base, start, range.kind);
        push(start.max(range.base), end.min(range_end), kind as u32);
        push(end, range_end, range.kind);
    }
    info.ranges = out;
    info.range_count = count;
}
