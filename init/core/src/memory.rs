// SPDX-License-Identifier: MIT OR Apache-2.0
//! Physical memory as core sees it: all of it that can be handed out is mapped in core, from [`WINDOW`] on.
//!
//! Core needs that to zero memory, to read the boot image, and for its own heap. Devices are not mapped here.

use crate::kernel::{self, pieces};
use cloister_abi::cap::Access;
use cloister_abi::hip::{Hip, MemoryKind, MemoryRange, ROOT_HOST};
use cloister_abi::status::Status;
use cloister_base::heap::{Heap, State};
use cloister_core_model::{Extent, PAGE, Physical};
use cloister_session::Error;

/// Where physical address 0 would be.
const WINDOW: u64 = 0x1000_0000_0000;
/// Core's heap, bytes. Everything on it is paid by capabilities, of which there are [`crate::machine::CAPS`].
pub(crate) const HEAP_SIZE: u64 = 24 << 20;

#[cfg(target_os = "none")]
#[global_allocator]
static HEAP: Heap = Heap::with(no_growth);

#[cfg(not(target_os = "none"))]
static HEAP: Heap = Heap::with(no_growth);

fn no_growth(_: &mut State, needed: u64) -> Result<(), Error> {
    Err(Error::OutOfRam { needed, available: 0 })
}

/// The ranges that the kernel tells of.
pub(crate) fn ranges(hip: &Hip) -> impl Iterator<Item = &MemoryRange> {
    hip.ranges.iter().take(hip.range_count as usize)
}

fn is(range: &MemoryRange, kind: MemoryKind) -> bool {
    range.kind == kind as u32
}

/// A range without the parts of pages at its ends.
fn whole_pages(range: &MemoryRange) -> (u64, u64) {
    let base = range.base.next_multiple_of(PAGE);
    let end = range.base.saturating_add(range.size) / PAGE * PAGE;
    (base, end.saturating_sub(base))
}

/// Maps the window and makes the heap. Nothing before this can allocate.
///
/// # Errors
/// As the kernel says.
pub(crate) fn prepare(hip: &Hip) -> Result<Extent, Status> {
    let read = Access::READ.bits().into();
    let write = (Access::READ | Access::WRITE).bits().into();
    for range in ranges(hip) {
        let (base, size) = whole_pages(range);
        if is(range, MemoryKind::Available) {
            map(base, size, write)?;
        } else if is(range, MemoryKind::BootImage) {
            map(base, size, read)?;
        }
    }
    let heap = heap_place(hip).ok_or(Status::OutOfMemory)?;
    // SAFETY: the memory was mapped just now, is free, and is left out of what is handed out.
    unsafe { HEAP.provide(WINDOW + heap.base, heap.size) };
    Ok(heap)
}

fn map(base: u64, size: u64, rights: u64) -> Result<(), Status> {
    pieces(base, WINDOW + base, size).try_for_each(|chunk| kernel::map(ROOT_HOST, chunk, rights))
}

/// The end of the last available range that is large enough: low memory is left to those who need it.
fn heap_place(hip: &Hip) -> Option<Extent> {
    let last = ranges(hip)
        .filter(|range| is(range, MemoryKind::Available))
        .map(whole_pages)
        .filter(|(_, size)| *size >= HEAP_SIZE)
        .last();
    last.map(|(base, size)| Extent { base: base + size - HEAP_SIZE, size: HEAP_SIZE })
}

/// What can be handed out.
pub(crate) fn free_memory(hip: &Hip, heap: Extent) -> Physical {
    let mut physical = Physical::new();
    for range in ranges(hip).filter(|range| is(range, MemoryKind::Available)) {
        let (base, size) = whole_pages(range);
        let taken = if heap.base >= base && heap.base < base + size { heap.size } else { 0 };
        physical.add(Extent { base, size: size - taken });
    }
    physical
}

/// Whether a range is memory of a kind that is nobody's to ask for as a device.
pub(crate) fn is_device(hip: &Hip, base: u64, size: u64) -> bool {
    let Some(end) = base.checked_add(size) else { return false };
    !ranges(hip).any(|range| {
        let device =
            is(range, MemoryKind::Reserved) || is(range, MemoryKind::AcpiNvs) || is(range, MemoryKind::AcpiReclaim);
        !device && range.base < end && range.base.saturating_add(range.size) > base
    })
}

/// Zeroes memory that is about to be handed out.
pub(crate) fn zero(extents: &[Extent]) {
    for extent in extents {
        let start = core::ptr::with_exposed_provenance_mut::<u8>(address(extent.base));
        // SAFETY: the memory is in the window, and nobody uses it.
        unsafe { core::ptr::write_bytes(start, 0, length(extent.size)) };
    }
}

/// Memory of the boot image.
///
/// # Safety
/// The range is in the boot image, which never changes.
pub(crate) unsafe fn image(base: u64, size: u64) -> &'static [u8] {
    let start = core::ptr::with_exposed_provenance::<u8>(address(base));
    // SAFETY: the caller's word; the image is mapped for ever.
    unsafe { core::slice::from_raw_parts(start, length(size)) }
}

/// Memory that was allocated and is nobody's yet but core's.
///
/// # Safety
/// The range was allocated for this purpose, and no other reference to it exists.
pub(crate) unsafe fn own(base: u64, size: u64) -> &'static mut [u8] {
    let start = core::ptr::with_exposed_provenance_mut::<u8>(address(base));
    // SAFETY: the caller's word; available memory is mapped for ever.
    unsafe { core::slice::from_raw_parts_mut(start, length(size)) }
}

fn address(physical: u64) -> usize {
    length(WINDOW + physical)
}

/// Bytes as the machine counts them. Core runs on 64-bit machines only, so this never cuts off.
pub(crate) fn length(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(0)
}
