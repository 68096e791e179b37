// SPDX-License-Identifier: MIT OR Apache-2.0
//! Pages of the machine. They are taken one after the other and never returned: a test program ends with the machine.

use crate::entry::hip;
use crate::kernel::call;
use cloister_abi::cap::Access;
use cloister_abi::hip::{MACHINE_MEMORY, MemoryKind, ROOT_HOST};
use cloister_abi::hypercall::Delegate;
use cloister_abi::status::Status;
use core::sync::atomic::{AtomicU64, Ordering};

/// Bytes of a page.
pub const PAGE: u64 = cloister_abi::PAGE_SIZE as u64;

/// First address that pages are mapped at.
const FIRST: u64 = 0x1000_0000;
/// Memory below is left alone: firmware and the kernel are at home there.
const LOWEST: u64 = 64 << 20;

static NEXT_VIRTUAL: AtomicU64 = AtomicU64::new(FIRST);
static NEXT_PHYSICAL: AtomicU64 = AtomicU64::new(0);

/// Takes `1 << order` pages of free address space, aligned to their size. Answers the address.
#[must_use]
pub fn addresses(order: u32) -> u64 {
    take(&NEXT_VIRTUAL, order)
}

/// Takes `1 << order` pages of free memory, aligned to their size. Answers the physical address.
#[must_use]
pub fn frames(order: u32) -> u64 {
    if NEXT_PHYSICAL.load(Ordering::Relaxed) == 0 {
        NEXT_PHYSICAL.store(largest(), Ordering::Relaxed);
    }
    take(&NEXT_PHYSICAL, order)
}

fn take(next: &AtomicU64, order: u32) -> u64 {
    let size = PAGE << order;
    let after = |taken: u64| Some(taken.next_multiple_of(size) + size);
    match next.fetch_update(Ordering::Relaxed, Ordering::Relaxed, after) {
        Ok(taken) | Err(taken) => taken.next_multiple_of(size),
    }
}

/// Start of the largest free range, or what of it is not too low.
fn largest() -> u64 {
    let ranges = &hip().ranges[..hip().range_count as usize];
    let free = ranges.iter().filter(|range| range.kind == MemoryKind::Available as u32);
    let ends = free.map(|range| (range.base.max(LOWEST), range.base + range.size));
    let best = ends.max_by_key(|(start, end)| end.saturating_sub(*start));
    best.map_or(LOWEST, |(start, _)| start)
}

/// Maps physical pages at an address of this program.
///
/// # Errors
/// As `Delegate`.
pub fn map(physical: u64, address: u64, order: u32, rights: Access) -> Result<(), Status> {
    call(&Delegate {
        src: MACHINE_MEMORY,
        dst: ROOT_HOST,
        src_base: physical / PAGE,
        dst_base: address / PAGE,
        order,
        rights: u64::from(rights.bits()),
    })
    .map(drop)
}

/// Takes `1 << order` pages and maps them to be read and written. Answers address and physical address.
///
/// # Errors
/// As `Delegate`.
pub fn pages(order: u32) -> Result<(u64, u64), Status> {
    let (address, physical) = (addresses(order), frames(order));
    map(physical, address, order, Access::READ | Access::WRITE)?;
    Ok((address, physical))
}

/// Reads a word of the program's memory, wherever it is.
///
/// # Safety
/// It must be mapped, or the fault must be expected.
#[must_use]
pub unsafe fn read(address: u64) -> u64 {
    let place: *const u64 = core::ptr::with_exposed_provenance(address as usize);
    // SAFETY: the caller's word.
    unsafe { place.read_volatile() }
}

/// Writes a word of the program's memory, wherever it is.
///
/// # Safety
/// It must be mapped and be nobody else's, or the fault must be expected.
pub unsafe fn write(address: u64, value: u64) {
    let place: *mut u64 = core::ptr::with_exposed_provenance_mut(address as usize);
    // SAFETY: the caller's word.
    unsafe { place.write_volatile(value) };
}
