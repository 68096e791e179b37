// SPDX-License-Identifier: MIT OR Apache-2.0
//! The XSAVE image of the state page, made safe for XRSTOR.
//!
//! XRSTOR faults on an image whose header names components that XCR0 has not, or whose MXCSR has reserved bits (Intel SDM vol. 1,
//! 13.8.1). The monitor's image is copied once into the kernel's own and masked there.

use crate::page::{FPU_WORDS, StatePage, WORDS};
use core::sync::atomic::Ordering::Relaxed;

/// An XSAVE area of the kernel's, as far as the state page reaches.
pub type Image = [u64; FPU_WORDS];

/// Word of MXCSR (bytes 24..28) and its mask (28..32).
const MXCSR: usize = 3;
/// First word of the header: XSTATE_BV.
const HEADER: usize = 64;
/// Words of the header.
const HEADER_WORDS: usize = 8;

/// Copies the monitor's image. `components` are those that XRSTOR may load (XCR0 of the host), `mxcsr_mask` is what the
/// processor says in an FXSAVE image (0xffff on each processor with SVM).
pub fn take(page: StatePage, image: &mut Image, components: u64, mxcsr_mask: u32) {
    for (index, (word, given)) in image.iter_mut().zip(&page[WORDS - FPU_WORDS..]).enumerate() {
        let value = given.load(Relaxed);
        *word = match index {
            MXCSR => value & u64::from(mxcsr_mask),
            HEADER => value & components,
            _ if index > HEADER && index < HEADER + HEADER_WORDS => 0,
            _ => value,
        };
    }
}

/// Copies the kernel's image to the page, in the standard format: that of the kernel's own, as far as the page reaches, but for the header,
/// which says whether components above close up.
pub fn give(page: StatePage, image: &Image) {
    for (index, (word, place)) in image.iter().zip(&page[WORDS - FPU_WORDS..]).enumerate() {
        let is_format = index > HEADER && index < HEADER + HEADER_WORDS;
        place.store(if is_format { 0 } else { *word }, Relaxed);
    }
}
