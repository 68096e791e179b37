// SPDX-License-Identifier: MIT OR Apache-2.0
//! Interrupts that sources may raise, through entries of the IOMMU's. A source has no entries but those taken for it, and everything else that it sends
//! into the interrupt window is dropped.

use super::IOMMU;
use crate::arch::x86_64::acpi;
use cloister_abi::status::Status;
use cloister_iommu::{Requester, Taken};

/// Who raises an interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// A PCI function: segment in bits 16–31, bus in 8–15, device in 3–7, function in 0–2.
    Device(u32),
    /// An I/O APIC: its index among those of the firmware's tables.
    IoApic(usize),
}

/// An interrupt that a source may raise; given back when dropped.
#[derive(Debug)]
pub(crate) struct Entry {
    source: Requester,
    index: u16,
}

impl Entry {
    /// Lets a source raise a vector of a local APIC. There is no entry if this machine remaps no interrupts.
    ///
    /// # Errors
    /// `OutOfMemory`: there is no entry left. `BadCore`: the APIC cannot be named. `BadDevice`: there is no such source.
    pub(crate) fn take(source: Source, apic: u32, vector: u8, level: bool) -> Result<(Option<Self>, Taken), Status> {
        let mut iommu = IOMMU.lock();
        if !iommu.remaps {
            return Ok((None, Taken::plain(apic, vector).ok_or(Status::BadCore)?));
        }
        let source = match source {
            Source::Device(id) => u16::try_from(id).ok().map(Requester),
            Source::IoApic(index) => acpi::tables().io_apics.get(index).and_then(|found| iommu.io_apic(found.id)),
        };
        let source = source.ok_or(Status::BadDevice)?;
        let taken = iommu.take(source, apic, vector, level)?;
        Ok((Some(Self { source, index: taken.index }), taken))
    }

    /// Blocks the interrupt, so that it is dropped without a fault, or opens it again.
    pub(crate) fn block(&self, blocked: bool) {
        IOMMU.lock().change(self.source, self.index, Some(blocked));
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        IOMMU.lock().change(self.source, self.index, None);
    }
}
