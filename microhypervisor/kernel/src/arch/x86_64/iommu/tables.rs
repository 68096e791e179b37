// SPDX-License-Identifier: MIT OR Apache-2.0
//! Page tables of a DMA space, in the format of the machine's IOMMU.
//!
//! Tables that fall out ([`Freed`]) may be known to the units until [`Tables::flush`] has returned. The word that links them has its low bits 0, which
//! is an entry that is not present in all formats.

use cloister_iommu::{BLOCKED, amd, intel};
use cloister_mechanism::radix::{Freed, Leaf, MapError, PageTable, TableFrames};
use cloister_mechanism::work::Work;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU16, Ordering::Relaxed, Ordering::SeqCst, fence};

/// How the machine's IOMMU wants page tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// AMD-Vi.
    Amd,
    /// VT-d, three levels.
    Intel3,
    /// VT-d, four levels.
    Intel4,
}

/// The tables.
#[derive(Debug)]
enum Root {
    Amd(PageTable<amd::Paging>),
    Intel3(PageTable<intel::Paging<3>>),
    Intel4(PageTable<intel::Paging<4>>),
}

macro_rules! each {
    ($self:ident, $table:ident => $what:expr) => {
        match &$self.root {
            Root::Amd($table) => $what,
            Root::Intel3($table) => $what,
            Root::Intel4($table) => $what,
        }
    };
}

/// Page tables of a DMA space.
#[derive(Debug)]
pub(crate) struct Tables {
    root: Root,
    /// The domain that its devices are in, 0 while there are none. Set under the IOMMU's lock.
    pub(super) domain: AtomicU16,
}

impl Tables {
    /// Empty tables over a zeroed root frame.
    ///
    /// # Safety
    /// The frame belongs to the tables as long as they are used.
    pub(crate) const unsafe fn new(format: Format, root: NonNull<u8>) -> Self {
        let root = match format {
            // SAFETY: the caller vouches for the frame.
            Format::Amd => Root::Amd(unsafe { PageTable::new(root) }),
            // SAFETY: as above.
            Format::Intel3 => Root::Intel3(unsafe { PageTable::new(root) }),
            // SAFETY: as above.
            Format::Intel4 => Root::Intel4(unsafe { PageTable::new(root) }),
        };
        Self { root, domain: AtomicU16::new(BLOCKED) }
    }

    /// The root frame.
    pub(crate) fn root(&self) -> NonNull<u8> {
        each!(self, table => table.root())
    }

    /// What is mapped at a page address.
    pub(crate) fn lookup(&self, frames: &impl TableFrames, address: u64) -> Option<Leaf> {
        each!(self, table => table.lookup(frames, address))
    }

    /// Attribute bits of a page; `None` for one that could not be used.
    pub(crate) fn attributes(&self, read: bool, write: bool) -> Option<u64> {
        let bits = match self.root {
            Root::Amd(_) => amd::attributes(read, write),
            _ => intel::attributes(read, write),
        };
        (read || write).then_some(bits)
    }

    /// Maps a range: `page` gives physical address and attribute bits by offset.
    ///
    /// # Errors
    /// See [`MapError`]; nothing was changed.
    pub(crate) fn map(
        &self,
        frames: &impl TableFrames,
        address: u64,
        order: u32,
        page: impl Fn(u64) -> Option<(u64, u64)>,
    ) -> Result<(), MapError> {
        each!(self, table => table.map(frames, address, order, page))?;
        if super::limits().is_some_and(|limits| limits.flush_mapped) {
            self.flush(Some((address, order)));
        }
        Ok(())
    }

    /// Unmaps a range. Answers whether something was there; then it and what fell out must be flushed.
    ///
    /// # Errors
    /// See [`MapError`]; nothing was changed.
    pub(crate) fn unmap(
        &self,
        frames: &impl TableFrames,
        address: u64,
        order: u32,
        freed: &mut Freed,
    ) -> Result<bool, MapError> {
        each!(self, table => table.unmap(frames, address, order, freed))
    }

    /// Takes tables out with all that is in them, a piece of work of that; they must be flushed. Answers whether there may be more.
    pub(crate) fn strip(&self, frames: &impl TableFrames, work: &mut Work, freed: &mut Freed) -> bool {
        each!(self, table => table.strip(frames, work, freed))
    }

    /// Lets the units forget an aligned range of 2^order pages, or everything. No device reaches what was unmapped there when this returns.
    pub(crate) fn flush(&self, range: Option<(u64, u32)>) {
        // What was written to the tables is seen by whoever puts a device here after this looks.
        fence(SeqCst);
        let domain = || self.domain.load(Relaxed);
        // Units that do not look into caches are asked even so, since that writes back what this core has written: who puts a device here may
        // be another one.
        if domain() != BLOCKED || super::limits().is_some_and(|limits| !limits.snoops) {
            let mut iommu = super::IOMMU.lock();
            iommu.flush(domain(), range);
        }
    }
}
