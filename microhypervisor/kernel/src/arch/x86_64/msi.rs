// SPDX-License-Identifier: MIT OR Apache-2.0
//! The way of an interrupt message from a device, or from a pin of an I/O APIC, to a vector of a core: what must be written into the
//! device. PCI Local Bus 3.0, 6.8; Intel SDM vol. 3, 11.11 (message address and data).
//!
//! With an IOMMU that remaps interrupts, the way leads through an entry that belongs to the device, which can be blocked; without one the
//! message names APIC and vector itself, every device can send every message, and nothing can block it but the device.

use super::iommu::{Entry, Source};
use cloister_abi::status::Status;

/// Address of messages: the APICs' window; the APIC is in bits 12..20.
const WINDOW: u64 = 0xfee0_0000;

/// A local APIC as a message names it that is not remapped. The highest of its identities means all of them.
fn plain(apic: u32) -> Result<u8, Status> {
    u8::try_from(apic).ok().filter(|apic| *apic != 0xff).ok_or(Status::BadCore)
}

/// A way that is taken; given back when dropped.
#[derive(Debug)]
pub(crate) struct Route(Option<Entry>);

impl Route {
    /// A way from a device to a vector of a local APIC. Answers with it address and data of the message: fixed delivery, edge.
    ///
    /// # Errors
    /// `BadCore`: the APIC cannot be reached by messages. With an IOMMU, `BadDevice`: not on the first PCI segment, `OutOfMemory`: its tables
    /// are full.
    pub(crate) fn take(device: u32, apic: u32, vector: u8) -> Result<(Self, (u64, u64)), Status> {
        if let Some((entry, taken)) = Entry::take(Source::Device(device), apic, vector, false)? {
            return Ok((Self(Some(entry)), taken.message));
        }
        let apic = plain(apic)?;
        Ok((Self(None), (WINDOW | u64::from(apic) << 12, u64::from(vector))))
    }

    /// A way from a pin of an I/O APIC. Answers with it the words of its redirection entry, high one first, without trigger and polarity.
    ///
    /// # Errors
    /// As [`Route::take`].
    pub(crate) fn of_pin(io_apic: usize, apic: u32, vector: u8, level: bool) -> Result<(Self, (u32, u32)), Status> {
        if let Some((entry, taken)) = Entry::take(Source::IoApic(io_apic), apic, vector, level)? {
            return Ok((Self(Some(entry)), taken.redirection));
        }
        let apic = plain(apic)?;
        Ok((Self(None), (u32::from(apic) << 24, u32::from(vector))))
    }

    /// Blocks the way, or opens it again; false if it cannot be blocked.
    pub(crate) fn block(&mut self, blocked: bool) -> bool {
        if let Some(entry) = &self.0 {
            entry.block(blocked);
        }
        self.0.is_some()
    }
}
