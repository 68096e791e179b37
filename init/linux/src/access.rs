// SPDX-License-Identifier: MIT OR Apache-2.0
//! The program's memory, by address. The personality is part of the program: an address that the program gives is as good as
//! a pointer of its own.

use core::sync::atomic::{AtomicU32, Ordering};

fn pointer(address: u64) -> *mut u8 {
    core::ptr::with_exposed_provenance_mut(usize::try_from(address).unwrap_or(0))
}

fn size(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(0)
}

/// Copies out of the program's memory.
pub(crate) fn read(address: u64, bytes: &mut [u8]) {
    // SAFETY: the program says where its data is, and the personality is part of the program.
    unsafe { core::ptr::copy_nonoverlapping(pointer(address).cast_const(), bytes.as_mut_ptr(), bytes.len()) };
}

/// Copies into the program's memory.
pub(crate) fn write(address: u64, bytes: &[u8]) {
    // SAFETY: as in `read`.
    unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), pointer(address), bytes.len()) };
}

/// Copies within it.
pub(crate) fn copy(to: u64, from: u64, bytes: u64) {
    // SAFETY: as in `read`.
    unsafe { core::ptr::copy(pointer(from).cast_const(), pointer(to), size(bytes)) };
}

/// Clears a range of it.
pub(crate) fn zero(address: u64, bytes: u64) {
    // SAFETY: as in `read`.
    unsafe { core::ptr::write_bytes(pointer(address), 0, size(bytes)) };
}

/// Reads a word that other threads change.
pub(crate) fn load(address: u64) -> u32 {
    // SAFETY: as in `read`; the personality checked the alignment.
    unsafe { AtomicU32::from_ptr(pointer(address).cast()) }.load(Ordering::SeqCst)
}

/// Writes a word that other threads read.
pub(crate) fn store(address: u64, value: u32) {
    // SAFETY: as in `read`; words that are stored are `int`s of libc, which are aligned.
    unsafe { AtomicU32::from_ptr(pointer(address).cast()) }.store(value, Ordering::SeqCst);
}
