// SPDX-License-Identifier: MIT OR Apache-2.0
//! The kernel's memory: one pool of page frames, chosen at boot, mapped at a fixed distance from its physical addresses.
//!
//! The kernel touches no other memory: messages are in UTCBs and state pages that come out of the pool, so no pointer of a
//! component is ever followed.

use crate::width::index;
use cloister_mechanism::pool::Pool;
use cloister_mechanism::radix::TableFrames;
use cloister_mechanism::{Exhausted, FRAME, Frames};
use core::ptr::NonNull;
use core::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering::Relaxed};

/// Distance between a physical address and where the kernel sees it.
pub(crate) const DIRECT_MAP: u64 = 0xffff_8000_0000_0000;

/// All free frames of the kernel.
pub(crate) static POOL: Pool = Pool::empty();
static POOL_SIZE: AtomicU64 = AtomicU64::new(0);
/// Physical ranges that are the kernel's alone: first byte and first after. Set at boot.
static OWN: [(AtomicU64, AtomicU64); OWN_MOST] = [const { (AtomicU64::new(0), AtomicU64::new(0)) }; OWN_MOST];
static OWN_COUNT: AtomicUsize = AtomicUsize::new(0);
/// Image, pool, pages of device registers, and the interrupt window.
const OWN_MOST: usize = 80;

/// What the kernel itself has taken of its pool, frames, by [`Own`].
static BOOKED: [AtomicU64; 3] = [const { AtomicU64::new(0) }; 3];
/// Bytes of the firmware's memory map, and of the kernel's image.
static FIRMWARE: (AtomicU64, AtomicU64) = (AtomicU64::new(0), AtomicU64::new(0));

/// What the kernel takes of its pool for itself, at boot. All else is the root task's budget, and is charged.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Own {
    /// Structures and stacks of cores.
    Cores,
    /// Page tables of the kernel's half.
    Tables,
    /// Interrupts, devices, guests, tracing.
    Other,
}

static KERNEL_ROOT: AtomicPtr<u8> = AtomicPtr::new(core::ptr::null_mut());

/// Physical address of something in the direct map.
#[inline]
pub(crate) fn physical<T>(pointer: NonNull<T>) -> u64 {
    pointer.as_ptr().expose_provenance() as u64 - DIRECT_MAP
}

/// Where the kernel sees a physical address of its own.
#[inline]
pub(crate) fn direct<T>(physical: u64) -> *mut T {
    core::ptr::with_exposed_provenance_mut(index(physical + DIRECT_MAP))
}

/// Size of the pool, bytes.
pub(crate) fn pool_size() -> u64 {
    POOL_SIZE.load(Relaxed)
}

/// Books what was taken of the pool since the last time.
pub(crate) fn book(own: Own) {
    let taken = pool_size() / FRAME as u64 - POOL.available();
    let booked = BOOKED.iter().map(|frames| frames.load(Relaxed)).sum::<u64>();
    BOOKED[own as usize].fetch_add(taken.saturating_sub(booked), Relaxed);
}

/// What was booked, bytes.
pub(crate) fn booked(own: Own) -> u64 {
    BOOKED[own as usize].load(Relaxed) * FRAME as u64
}

/// Notes the size of the firmware's memory map and of the kernel's image.
pub(crate) fn set_firmware(total: u64, image: u64) {
    FIRMWARE.0.store(total, Relaxed);
    FIRMWARE.1.store(image, Relaxed);
}

/// Bytes of the firmware's memory map, and of the kernel's image.
pub(crate) fn firmware() -> (u64, u64) {
    (FIRMWARE.0.load(Relaxed), FIRMWARE.1.load(Relaxed))
}

/// Gives the pool its memory.
///
/// # Safety
/// The physical range is page-aligned, mapped at [`DIRECT_MAP`], and nobody else's.
pub(crate) unsafe fn init(start: u64, end: u64) {
    let Some(base) = NonNull::new(direct::<u8>(start)) else { return };
    let frames = index((end - start) / FRAME as u64);
    POOL_SIZE.store(frames as u64 * FRAME as u64, Relaxed);
    // SAFETY: the caller vouches for the range.
    unsafe { POOL.fill(base, frames) };
}

/// Keeps a physical range to the kernel. Called at boot.
///
/// # Errors
/// There are too many.
pub(crate) fn keep(start: u64, end: u64) -> Result<(), &'static str> {
    let place = OWN.get(OWN_COUNT.load(Relaxed)).ok_or("too many ranges of memory are the kernel's")?;
    place.0.store(start, Relaxed);
    place.1.store(end, Relaxed);
    OWN_COUNT.fetch_add(1, Relaxed);
    Ok(())
}

/// Whether a byte of that physical range is the kernel's.
pub(crate) fn is_own(start: u64, end: u64) -> bool {
    let own = OWN.iter().take(OWN_COUNT.load(Relaxed));
    own.into_iter().any(|(first, after)| start < after.load(Relaxed) && end > first.load(Relaxed))
}

/// Root of the kernel's page tables.
pub(crate) fn kernel_root() -> Option<NonNull<u8>> {
    NonNull::new(KERNEL_ROOT.load(Relaxed))
}

/// Sets the root of the kernel's page tables.
pub(crate) fn set_kernel_root(root: NonNull<u8>) {
    KERNEL_ROOT.store(root.as_ptr(), Relaxed);
}

/// A zeroed frame for the kernel itself, at boot.
pub(crate) fn boot_frame() -> Result<NonNull<u8>, &'static str> {
    BootFrames.take_zeroed().map_err(|_| "the kernel's pool is too small")
}

/// Frames for the kernel itself, at boot: on nobody's account.
#[derive(Debug)]
pub(crate) struct BootFrames;

impl Frames for BootFrames {
    fn take(&self) -> Result<NonNull<u8>, Exhausted> {
        POOL.take()
    }
    unsafe fn give(&self, frame: NonNull<u8>) {
        // SAFETY: the caller vouches for the frame.
        unsafe { POOL.give(frame) };
    }
}

impl TableFrames for BootFrames {
    fn physical(&self, frame: NonNull<u8>) -> u64 {
        physical(frame)
    }
    fn frame(&self, physical: u64) -> NonNull<u8> {
        NonNull::new(direct(physical)).unwrap_or(NonNull::dangling())
    }
}
