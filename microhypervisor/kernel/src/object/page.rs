// SPDX-License-Identifier: MIT OR Apache-2.0
//! Frames that are part of an object. Each goes back to who paid for it when its owner goes, be that a creation that fails halfway
//! or an object that nobody refers to any more. So whatever is made of pages is made in any order, and undone by dropping it.

use super::{Pd, Ref, Space, status};
use cloister_abi::status::Status;
use cloister_mechanism::Frames;
use core::ptr::NonNull;

/// A frame that a PD pays for.
pub(crate) struct Page {
    frame: NonNull<u8>,
    payer: Ref<Pd>,
}

impl Page {
    /// A frame of zeros.
    ///
    /// # Errors
    /// Memory could not be had.
    pub(crate) fn zeroed(payer: &Pd) -> Result<Self, Status> {
        let frame = payer.take_zeroed().map_err(status)?;
        Ok(Self { frame, payer: Ref::of(payer) })
    }

    /// The frame.
    #[inline]
    pub(crate) const fn frame(&self) -> NonNull<u8> {
        self.frame
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // SAFETY: taken from this payer; whoever used it has gone with the page.
        unsafe { self.payer.give(self.frame) };
    }
}

/// A page that a component sees, readable and writable, and cannot delegate on.
pub(crate) struct SharedPage {
    page: Page,
    host: Ref<Space>,
    address: u64,
}

impl SharedPage {
    /// A page of zeros, mapped into `host` at `address`.
    ///
    /// # Errors
    /// Memory could not be had, or something is mapped there.
    pub(crate) fn map(payer: &Pd, host: Ref<Space>, address: u64) -> Result<Self, Status> {
        let page = Page::zeroed(payer)?;
        host.map_frame(address, page.frame())?;
        Ok(Self { page, host, address })
    }

    /// The frame.
    #[inline]
    pub(crate) const fn frame(&self) -> NonNull<u8> {
        self.page.frame
    }

    /// Where the component sees it.
    #[inline]
    pub(crate) const fn address(&self) -> u64 {
        self.address
    }
}

impl Drop for SharedPage {
    fn drop(&mut self) {
        self.host.unmap_frame(self.address, self.frame());
    }
}
