// SPDX-License-Identifier: MIT OR Apache-2.0
//! Access to the state page, which the monitor can write at any time.
//!
//! The kernel sees a [`StatePage`] as atomic words: what lies behind it may change between two reads, so each field is read
//! once, into a value of the kernel's own, before anything is decided on it. Fields are named by their offset in
//! [`VcpuState`], which the compiler checks.

use cloister_abi::arch::x86_64::vcpu::{Segment, VcpuState};
use core::mem::offset_of;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Number of words of the page.
pub const WORDS: usize = size_of::<VcpuState>() / 8;
/// Number of words of the XSAVE image.
pub const FPU_WORDS: usize = (size_of::<VcpuState>() - offset_of!(VcpuState, fpu)) / 8;

/// The state page of a virtual CPU as the kernel sees it.
#[derive(Clone, Copy, Debug)]
pub struct StatePage(&'static [AtomicU64; WORDS]);

impl StatePage {
    /// The page at that address of the kernel's.
    ///
    /// # Safety
    /// The page must be mapped writable, and stay so for as long as the value or a copy of it is used. No reference to
    /// anything in it may exist meanwhile.
    #[must_use]
    pub const unsafe fn new(page: NonNull<VcpuState>) -> Self {
        // SAFETY: the caller vouches for the page, which is aligned words; others access it by aligned words, too.
        Self(unsafe { page.cast().as_ref() })
    }

    /// Where it is.
    #[must_use]
    pub const fn pointer(self) -> NonNull<VcpuState> {
        NonNull::from_ref(self.0).cast()
    }

    /// Reads the word at that offset.
    #[inline]
    #[must_use]
    pub fn read<const OFFSET: usize>(self) -> u64 {
        const { assert!(OFFSET.is_multiple_of(8)) };
        self.0[OFFSET / 8].load(Relaxed)
    }

    /// Writes the word at that offset.
    #[inline]
    pub fn write<const OFFSET: usize>(self, value: u64) {
        const { assert!(OFFSET.is_multiple_of(8)) };
        self.0[OFFSET / 8].store(value, Relaxed);
    }

    /// The array of so many words at that offset.
    #[inline]
    #[must_use]
    pub fn array<const OFFSET: usize, const LENGTH: usize>(self) -> &'static [AtomicU64] {
        const { assert!(OFFSET.is_multiple_of(8) && OFFSET / 8 + LENGTH <= WORDS) };
        &self.0[OFFSET / 8..OFFSET / 8 + LENGTH]
    }

    /// Reads the segment register at that offset.
    #[inline]
    #[must_use]
    pub fn read_segment<const OFFSET: usize>(self) -> Segment {
        let [first, second, base] = [0, 1, 2].map(|word| self.0[OFFSET / 8 + word].load(Relaxed));
        let [s0, s1, _, _, a0, a1, a2, a3] = first.to_le_bytes();
        let [l0, l1, l2, l3, ..] = second.to_le_bytes();
        let (selector, access) = (u16::from_le_bytes([s0, s1]), u32::from_le_bytes([a0, a1, a2, a3]));
        Segment { selector, access, limit: u32::from_le_bytes([l0, l1, l2, l3]), base, ..Segment::default() }
    }

    /// Writes the segment register at that offset.
    #[inline]
    pub fn write_segment<const OFFSET: usize>(self, segment: Segment) {
        let first = u64::from(segment.selector) | u64::from(segment.access) << 32;
        for (word, value) in [first, u64::from(segment.limit), segment.base].into_iter().enumerate() {
            self.0[OFFSET / 8 + word].store(value, Relaxed);
        }
    }
}

const _: () = assert!(size_of::<Segment>() == 24 && offset_of!(Segment, access) == 4);
const _: () = assert!(offset_of!(Segment, limit) == 8 && offset_of!(Segment, base) == 16);
