// SPDX-License-Identifier: MIT OR Apache-2.0
//! Interrupt remapping: an interrupt that a device may raise is an entry in a table of the IOMMU's, which the device's message names. A device has no
//! entries but those taken for it, and everything else that it sends into the interrupt window is dropped.

use super::{STATE, State, Units};
use crate::arch::x86_64::acpi;
use cloister_abi::status::Status;
use cloister_iommu::{Requester, intel};

/// Who raises an interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// A PCI function: segment in bits 16–31, bus in 8–15, device in 3–7, function in 0–2.
    Device(u32),
    /// An I/O APIC: its index among those of the firmware's tables.
    IoApic(usize),
}

/// Address and data of a message.
pub(crate) type Message = (u64, u64);

/// An interrupt that a source may raise; given back when dropped.
#[derive(Debug)]
pub(crate) struct Entry {
    source: Requester,
    index: u16,
}

impl Entry {
    /// Lets a source raise a vector of a local APIC. Answers with it address and data of the message. `None` if this machine remaps no
    /// interrupts, and APIC and vector are named by the message itself.
    ///
    /// # Errors
    /// `OutOfMemory`: there is no entry left. `BadCore`: the APIC cannot be named. `BadDevice`: there is no such source.
    pub(crate) fn take(source: Source, apic: u32, vector: u8, level: bool) -> Result<Option<(Self, Message)>, Status> {
        let mut state = STATE.lock();
        if !state.remaps() {
            return Ok(None);
        }
        let source = state.requester(source).ok_or(Status::BadDevice)?;
        let (index, message) = match &mut state.units {
            Units::None => return Ok(None),
            Units::Amd(amd) => amd.take(source, apic, vector)?,
            Units::Intel(intel) => intel.take(source, apic, vector, level)?,
        };
        Ok(Some((Self { source, index }, message)))
    }

    /// The words of a redirection entry, high and low one, beside trigger, polarity and mask.
    pub(crate) fn redirection(&self, vector: u8) -> (u32, u32) {
        match &STATE.lock().units {
            Units::Intel(_) => {
                let (low, high) = intel::interrupt::redirection(self.index, vector);
                (high, low)
            }
            // The table is found by the source, the entry by what is elsewhere vector and delivery mode.
            _ => (0, u32::from(self.index)),
        }
    }

    /// Blocks the interrupt, so that it is dropped without a fault, or opens it again.
    pub(crate) fn block(&self, blocked: bool) {
        self.change(Some(blocked));
    }

    fn change(&self, blocked: Option<bool>) {
        match &mut STATE.lock().units {
            Units::None => {}
            Units::Amd(amd) => amd.change(self.source, self.index, blocked),
            Units::Intel(intel) => intel.change(self.index, blocked),
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.change(None);
    }
}

impl State {
    pub(super) fn remaps(&self) -> bool {
        match &self.units {
            Units::None => false,
            Units::Amd(amd) => amd.remaps(),
            Units::Intel(intel) => intel.remaps(),
        }
    }

    fn requester(&self, source: Source) -> Option<Requester> {
        match source {
            Source::Device(id) => u16::try_from(id).ok().map(Requester),
            Source::IoApic(index) => {
                let id = acpi::tables().io_apics.get(index)?.id;
                self.found.io_apics.iter().flatten().find(|it| it.id == id).map(|it| it.device)
            }
        }
    }
}
