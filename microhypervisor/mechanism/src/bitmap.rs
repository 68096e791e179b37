// SPDX-License-Identifier: MIT OR Apache-2.0
//! What of 65,536 things is allowed: a bit for each in two frames, 0 for allowed, as processors read it for ports.
//!
//! The frames are made when the first one is allowed. Who reads them without the owner's lock finds for each bit what it was or is.

use crate::{Exhausted, FRAME, Frames};
use core::ops::RangeInclusive;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU8, Ordering::Relaxed};

/// Bytes of one frame, as they are changed.
type Bytes = [AtomicU8; FRAME];

/// The bits. Not synchronized: the owner's lock covers it.
#[derive(Debug)]
pub struct Bitmap(Option<[NonNull<Bytes>; 2]>);

// SAFETY: the frames belong to the bitmap, and their bytes are atomic.
unsafe impl Send for Bitmap {}

impl Bitmap {
    /// Nothing is allowed.
    #[must_use]
    pub const fn empty() -> Self {
        Self(None)
    }

    /// The frames, if anything was ever allowed.
    #[must_use]
    pub fn frames(&self) -> Option<[NonNull<u8>; 2]> {
        self.0.map(|frames| frames.map(NonNull::cast))
    }

    /// Allows or forbids a range.
    ///
    /// # Errors
    /// Memory for the frames could not be had; nothing was changed.
    pub fn set(&mut self, frames: &impl Frames, range: RangeInclusive<u16>, allowed: bool) -> Result<(), Exhausted> {
        let places = match self.0 {
            Some(places) => places,
            None if !allowed => return Ok(()),
            None => *self.0.insert(Self::make(frames)?),
        };
        for bit in range.map(usize::from) {
            let (frame, byte) = (bit / 8 / FRAME, bit / 8 % FRAME);
            // SAFETY: the frames are the bitmap's; there are two, since there are 2^16 bits.
            let byte = &unsafe { places[frame].as_ref() }[byte];
            let (old, mask) = (byte.load(Relaxed), 1 << (bit % 8));
            byte.store(if allowed { old & !mask } else { old | mask }, Relaxed);
        }
        Ok(())
    }

    /// Two frames in which nothing is allowed.
    fn make(frames: &impl Frames) -> Result<[NonNull<Bytes>; 2], Exhausted> {
        let low = frames.take()?;
        // SAFETY: taken just now and not used.
        let high = frames.take().inspect_err(|_| unsafe { frames.give(low) })?;
        Ok([low, high].map(|frame| {
            // SAFETY: the frames are ours.
            unsafe { frame.write_bytes(0xff, FRAME) };
            frame.cast()
        }))
    }

    /// Gives the frames back. Nothing is allowed afterwards.
    ///
    /// # Safety
    /// They came from these frames, and nobody reads them any more.
    pub unsafe fn destroy(&mut self, frames: &impl Frames) {
        for frame in self.0.take().into_iter().flatten() {
            // SAFETY: the caller vouches for it.
            unsafe { frames.give(frame.cast()) };
        }
    }
}

#[cfg(test)]
mod tests;
