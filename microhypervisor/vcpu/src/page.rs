// SPDX-License-Identifier: MIT OR Apache-2.0
//! Access to the state page, which the monitor can write at any time.
//!
//! [`StatePage`] is a pointer, not a reference: what lies behind it may change between two reads, so each field is
//! read once, by volatile access, into a value of the kernel's own before anything is decided on it. Fields are
//! named by their offset in [`VcpuState`], which the compiler checks.

use cloister_abi::arch::x86_64::vcpu::{Segment, VcpuState};
use core::mem::offset_of;
use core::ptr::NonNull;

/// Number of 64-bit words of the XSAVE image.
pub const FPU_WORDS: usize = (size_of::<VcpuState>() - offset_of!(VcpuState, fpu)) / 8;

/// The state page of a virtual CPU as the kernel sees it.
#[derive(Clone, Copy, Debug)]
pub struct StatePage(NonNull<VcpuState>);

// SAFETY: the page has no owner: every access is a volatile access to one aligned word, from any core.
unsafe impl Send for StatePage {}
// SAFETY: as above.
unsafe impl Sync for StatePage {}

impl StatePage {
    /// The page at that address of the kernel's.
    ///
    /// # Safety
    /// The page must be mapped writable, and stay so for as long as the value or a copy of it is used. No reference to
    /// anything in it may exist meanwhile.
    #[must_use]
    pub const unsafe fn new(page: NonNull<VcpuState>) -> Self {
        Self(page)
    }

    /// Where it is.
    #[must_use]
    pub const fn pointer(self) -> NonNull<VcpuState> {
        self.0
    }

    /// The word at that offset, a multiple of 8 inside the page.
    #[inline]
    const fn word(self, offset: usize) -> *mut u64 {
        self.0.as_ptr().cast::<u64>().wrapping_add(offset / 8)
    }

    /// Reads the word at that offset.
    #[inline]
    #[must_use]
    pub fn read<const OFFSET: usize>(self) -> u64 {
        const { assert!(OFFSET.is_multiple_of(8) && OFFSET < size_of::<VcpuState>()) };
        // SAFETY: the offset lies in the page and is aligned; `new` promises the page.
        unsafe { self.word(OFFSET).read_volatile() }
    }

    /// Writes the word at that offset.
    #[inline]
    pub fn write<const OFFSET: usize>(self, value: u64) {
        const { assert!(OFFSET.is_multiple_of(8) && OFFSET < size_of::<VcpuState>()) };
        // SAFETY: the offset lies in the page and is aligned; `new` promises the page.
        unsafe { self.word(OFFSET).write_volatile(value) };
    }

    /// Reads element `index` of an array of `LENGTH` words; 0 beyond its end.
    #[inline]
    #[must_use]
    pub fn read_element<const OFFSET: usize, const LENGTH: usize>(self, index: usize) -> u64 {
        const { assert!(OFFSET.is_multiple_of(8) && OFFSET + LENGTH * 8 <= size_of::<VcpuState>()) };
        if index >= LENGTH {
            return 0;
        }
        // SAFETY: the element lies in the page and is aligned; `new` promises the page.
        unsafe { self.word(OFFSET + index * 8).read_volatile() }
    }

    /// Writes element `index` of an array of `LENGTH` words; nothing beyond its end.
    #[inline]
    pub fn write_element<const OFFSET: usize, const LENGTH: usize>(self, index: usize, value: u64) {
        const { assert!(OFFSET.is_multiple_of(8) && OFFSET + LENGTH * 8 <= size_of::<VcpuState>()) };
        if index < LENGTH {
            // SAFETY: the element lies in the page and is aligned; `new` promises the page.
            unsafe { self.word(OFFSET + index * 8).write_volatile(value) };
        }
    }

    /// Reads the segment register at that offset.
    #[inline]
    #[must_use]
    pub fn read_segment<const OFFSET: usize>(self) -> Segment {
        let first = self.read_element::<OFFSET, 3>(0);
        let second = self.read_element::<OFFSET, 3>(1);
        let base = self.read_element::<OFFSET, 3>(2);
        let [s0, s1, _, _, a0, a1, a2, a3] = first.to_le_bytes();
        let [l0, l1, l2, l3, ..] = second.to_le_bytes();
        Segment {
            selector: u16::from_le_bytes([s0, s1]),
            reserved: 0,
            access: u32::from_le_bytes([a0, a1, a2, a3]),
            limit: u32::from_le_bytes([l0, l1, l2, l3]),
            reserved2: 0,
            base,
        }
    }

    /// Writes the segment register at that offset.
    #[inline]
    pub fn write_segment<const OFFSET: usize>(self, segment: Segment) {
        let first = u64::from(segment.selector) | u64::from(segment.access) << 32;
        self.write_element::<OFFSET, 3>(0, first);
        self.write_element::<OFFSET, 3>(1, u64::from(segment.limit));
        self.write_element::<OFFSET, 3>(2, segment.base);
    }
}

const _: () = assert!(size_of::<Segment>() == 24);
const _: () = assert!(offset_of!(Segment, access) == 4);
const _: () = assert!(offset_of!(Segment, limit) == 8);
const _: () = assert!(offset_of!(Segment, base) == 16);
