// SPDX-License-Identifier: MIT OR Apache-2.0
//! Page tables of the kernel, of components, and of guests.
//!
//! The kernel half (slots 256 to 511 of every root) is built once at boot and shared: the kernel's image with W^X at the top,
//! and the direct map of what the kernel owns: its pool (not executable), and device registers. Nothing else of physical memory is
//! mapped in the kernel.
//!
//! Sources: AMD APM vol. 2, 5.3 (long-mode tables), 5.4 (entries), 15.25.5 (nested tables); Intel SDM vol. 3, 4.5.

use crate::memory::{self, DIRECT_MAP};
use cloister_abi::cap::Access;
use cloister_mechanism::radix::{Format, PageTable, TableFrames};
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

const PRESENT: u64 = 1 << 0;
const WRITE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const PWT: u64 = 1 << 3;
const PCD: u64 = 1 << 4;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
const LARGE: u64 = 1 << 7;
const GLOBAL: u64 = 1 << 8;
/// Software bit: the page is the kernel's (a UTCB or state page) and cannot be delegated on, since it goes with its object.
pub(crate) const KERNEL_FRAME: u64 = 1 << 9;
const NO_EXEC: u64 = 1 << 63;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// Where the stacks of further cores are mapped.
const STACKS: u64 = 0xffff_ff00_0000_0000;

/// Tables of four levels. An entry that points to a table has these bits; so many slots of the root are not shared.
pub(crate) struct FourLevels<const TABLE: u64, const ROOT_SLOTS: usize>;

impl<const TABLE: u64, const ROOT_SLOTS: usize> Format for FourLevels<TABLE, ROOT_SLOTS> {
    const LEVELS: u32 = 4;
    const PRESENT: u64 = PRESENT;
    const LARGE: u64 = LARGE;
    const TABLE: u64 = TABLE;
    const ADDRESS: u64 = ADDRESS;
    const ROOT_SLOTS: usize = ROOT_SLOTS;
}

/// Tables of a component.
pub(crate) type Host = FourLevels<{ PRESENT | WRITE | USER | ACCESSED }, 256>;
/// Nested tables of a guest. In SVM they have the format of host tables, and every access of a guest is a user access; in EPT the
/// three low bits are the rights to read, write and execute. What is said here holds for both, since every page can be read; only
/// the attributes of leaves differ.
pub(crate) type Guest = FourLevels<{ PRESENT | WRITE | USER }, 512>;
/// The kernel's own half.
type Kernel = FourLevels<{ PRESENT | WRITE | ACCESSED }, 512>;

/// Attribute bits for user memory of these rights; `None` for rights that no mapping may have: none at all, not readable, or
/// writable and executable in a component (a guest's memory may be both: what a guest does inside is its own matter).
pub(crate) fn attributes(access: Access, guest: bool) -> Option<u64> {
    let write = access.contains(Access::WRITE);
    let exec = access.contains(Access::EXEC);
    if !access.contains(Access::READ) || (write && exec && !guest) {
        return None;
    }
    if guest && super::guest::uses_ept() {
        return Some(ept_attributes(access));
    }
    let mut bits = PRESENT | USER | ACCESSED | DIRTY;
    bits |= if write { WRITE } else { 0 };
    bits |= if exec { 0 } else { NO_EXEC };
    bits |= if access.contains(Access::UNCACHED) { PCD | PWT } else { 0 };
    // PAT entry 1 (PWT alone) is set to write-combining at boot.
    bits |= if access.contains(Access::WRITE_COMBINING) { PWT } else { 0 };
    Some(bits)
}

/// Attribute bits of a page of EPT (Intel SDM vol. 3C, table 29-6): rights, memory type.
fn ept_attributes(access: Access) -> u64 {
    const READ: u64 = 1 << 0;
    const EXECUTE: u64 = 1 << 2;
    const WRITE_BACK: u64 = 6 << 3;
    const WRITE_COMBINING: u64 = 1 << 3;
    let write = if access.contains(Access::WRITE) { WRITE } else { 0 };
    let execute = if access.contains(Access::EXEC) { EXECUTE } else { 0 };
    let kind = match (access.contains(Access::UNCACHED), access.contains(Access::WRITE_COMBINING)) {
        (true, _) => 0,
        (false, true) => WRITE_COMBINING,
        (false, false) => WRITE_BACK,
    };
    READ | write | execute | kind
}

/// Attribute bits for as much of `access` as an existing mapping allows.
pub(crate) fn restrict(access: Access, bits: u64) -> Access {
    let mut most = Access::all();
    most.set(Access::WRITE, bits & WRITE != 0);
    most.set(Access::EXEC, bits & NO_EXEC == 0);
    let kind = Access::from_bits_retain(match bits & (PCD | PWT) {
        0 => 0,
        PWT => Access::WRITE_COMBINING.bits(),
        _ => Access::UNCACHED.bits(),
    });
    ((access & most) - (Access::UNCACHED | Access::WRITE_COMBINING)) | kind
}

/// Switches to an address space.
///
/// # Safety
/// The root has the kernel's half.
#[inline]
pub(crate) unsafe fn activate(root: u64) {
    // SAFETY: the caller vouches for the root; the kernel's half is the same everywhere.
    unsafe { x86::controlregs::cr3_write(root) };
}

/// Forgets all translations of the current address space that are not global.
pub(crate) fn flush() {
    // SAFETY: reads a control register.
    let root = unsafe { x86::controlregs::cr3() };
    // SAFETY: the same root again.
    unsafe { x86::controlregs::cr3_write(root) };
}

unsafe extern "C" {
    static TEXT_START: u8;
    static TEXT_END: u8;
    static RODATA_END: u8;
    static KERNEL_END: u8;
    static BOOT_START: u8;
}

/// Where the kernel's image runs, minus where it is loaded.
pub(crate) const IMAGE_OFFSET: u64 = 0xffff_ffff_8000_0000;

/// Physical range of the kernel's image, page-aligned: first byte and first after.
pub(crate) fn image() -> (u64, u64) {
    ((&raw const BOOT_START).addr() as u64, (&raw const KERNEL_END).addr() as u64 - IMAGE_OFFSET)
}

/// Builds the kernel's tables and switches to them: the boot tables, and with them the identity mapping, are history.
///
/// # Errors
/// The pool is too small.
///
/// # Safety
/// Called once at boot, when nothing refers to memory outside image and pool any more, except through the boot direct map
/// that ends here.
pub(crate) unsafe fn build(pool: (u64, u64), devices: &[u64]) -> Result<(), &'static str> {
    let frames = memory::BootFrames;
    let root = memory::boot_frame()?;
    // SAFETY: a fresh frame, kept for ever.
    let table = unsafe { PageTable::<Kernel>::new(root) };
    let guards = super::percore::guard_pages();
    let text = ((&raw const TEXT_START).addr() as u64, (&raw const TEXT_END).addr() as u64);
    let rodata = (text.1, (&raw const RODATA_END).addr() as u64);
    let data = (rodata.1, (&raw const KERNEL_END).addr() as u64);
    let common = PRESENT | ACCESSED | DIRTY | GLOBAL;
    let parts = [(text, common), (rodata, common | NO_EXEC), (data, common | WRITE | NO_EXEC)];
    for ((start, end), bits) in parts {
        for page in (start..end).step_by(4096).filter(|page| !guards.contains(page)) {
            table
                .map(&frames, page & 0xffff_ffff_ffff, 0, |_| Some((page - IMAGE_OFFSET, bits)))
                .map_err(|_| "kernel image could not be mapped")?;
        }
    }
    let direct = DIRECT_MAP & 0xffff_ffff_ffff;
    for page in (pool.0..pool.1).step_by(2 << 20) {
        table
            .map(&frames, direct + page, 9, |_| Some((page, common | WRITE | NO_EXEC)))
            .map_err(|_| "kernel pool could not be mapped")?;
    }
    for page in devices {
        table
            .map(&frames, direct + page, 0, |_| Some((*page, common | WRITE | NO_EXEC | PCD | PWT)))
            .map_err(|_| "device registers could not be mapped")?;
    }
    // Shared by all roots, so every slot of the half must exist before the first component does.
    memory::set_kernel_root(root);
    // SAFETY: the tables map the code that runs, the stack in the image, and the pool.
    unsafe { activate(frames.physical(root)) };
    Ok(())
}

/// Maps a stretch of the pool for the kernel, page by page with the page before it left out: a stack. Answers its first address.
///
/// # Errors
/// The pool is too small.
pub(crate) fn map_stack(first: NonNull<u8>, size: usize) -> Result<u64, &'static str> {
    static NEXT: AtomicU64 = AtomicU64::new(STACKS);
    let root = memory::kernel_root().ok_or("no kernel page table")?;
    // SAFETY: the kernel's root, kept for ever; only the boot core changes it, before components run.
    let table = unsafe { PageTable::<Kernel>::new(root) };
    let base = NEXT.fetch_add(size as u64 + 4096, Relaxed) + 4096;
    let physical = memory::physical(first);
    for offset in (0..size as u64).step_by(4096) {
        let bits = PRESENT | ACCESSED | DIRTY | GLOBAL | WRITE | NO_EXEC;
        table
            .map(&memory::BootFrames, (base + offset) & 0xffff_ffff_ffff, 0, |_| Some((physical + offset, bits)))
            .map_err(|_| "a stack could not be mapped")?;
    }
    Ok(base)
}

/// Whether there is memory of the kernel at an address: anywhere in its tables, or in its image before there are any.
pub(crate) fn is_kernel_memory(address: u64) -> bool {
    let Some(root) = memory::kernel_root() else {
        return (image().0..image().1).contains(&address.wrapping_sub(IMAGE_OFFSET));
    };
    // SAFETY: the kernel's root is kept for ever.
    let table = unsafe { PageTable::<Kernel>::new(root) };
    // The lower half is the components', and what lies between the halves is no address.
    address >= DIRECT_MAP && table.lookup(&memory::BootFrames, address & 0xffff_ffff_ffff).is_some()
}

/// Fills the kernel's half of a new root.
pub(crate) fn share_kernel_half(root: NonNull<u8>) {
    let Some(kernel) = memory::kernel_root() else { return };
    let half = |root: NonNull<u8>| root.cast::<u64>().as_ptr().wrapping_add(256);
    // SAFETY: both are frames of 512 entries; the kernel's half does not change after boot.
    unsafe { core::ptr::copy_nonoverlapping(half(kernel), half(root), 256) };
}
