// SPDX-License-Identifier: MIT OR Apache-2.0
//! Interrupt remapping: an interrupt that a device may raise is an entry in a table of the units', which the device's message names.
//!
//! With AMD-Vi each source has a table of its own; with VT-d there is one table, and the entry names its source. In both an entry is 0 if it is nobody's,
//! has bit 0 if it is enabled and bit 1 if it is to be refused without being told; so these are in the part that is written last.

use crate::driver::{Bus, Forget, Iommu};
use crate::{Kind, Requester, amd, intel};
use cloister_abi::status::Status;

/// Interrupts of a device, as log2, and most devices with interrupts (AMD-Vi).
const ORDER: u32 = 6;
pub(crate) const OF_DEVICE: u64 = 1 << ORDER;
pub(crate) const TABLES: u64 = 256;
/// Interrupts of all devices, as log2 (VT-d).
const ALL_ORDER: u32 = 10;
pub(crate) const OF_ALL: u64 = 1 << ALL_ORDER;

/// Where a write is an interrupt.
const WINDOW: u32 = 0xfee0_0000;
const ENABLED: u32 = 1 << 0;
const SILENT: u32 = 1 << 1;

/// An interrupt that was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Its index in its table.
    pub index: u16,
    /// Address and data of the message.
    pub message: (u64, u64),
    /// High and low word of an I/O APIC's redirection entry, beside trigger, polarity and mask.
    pub redirection: (u32, u32),
}

impl Taken {
    /// One that is not remapped: the message names APIC and vector by itself. `None` if it cannot: the highest of the identities of 8 bits means all
    /// of them (Intel SDM vol. 3, 11.11).
    #[must_use]
    pub fn plain(apic: u32, vector: u8) -> Option<Self> {
        let (apic, vector) = ((apic < 0xff).then_some(apic)?, u32::from(vector));
        let message = ((WINDOW | apic << 12).into(), vector.into());
        Some(Self { index: 0, message, redirection: (apic << 24, vector) })
    }
}

impl<B: Bus> Iommu<B> {
    /// What VT-d units are told of the table.
    pub(crate) fn interrupt_register(&self) -> u64 {
        let wide = if self.wide { intel::X2APIC } else { 0 };
        (self.tables + 257 * intel::TABLE) | wide | u64::from(ALL_ORDER - 1)
    }

    /// Address of the table of a device's interrupts. With AMD-Vi it gets one with its first interrupt, for ever.
    fn table(&mut self, device: Requester) -> Result<u64, Status> {
        if self.found.kind == Kind::Intel {
            return Ok(self.tables + 257 * intel::TABLE);
        }
        let word = self.entry(device) + amd::INTERRUPTS;
        let table = amd::interrupt_table(self.bus.read(word));
        if table != 0 {
            return Ok(table);
        }
        if self.used == TABLES {
            return Err(Status::OutOfMemory);
        }
        let table = self.tables + amd::DEVICE_TABLE + self.used * OF_DEVICE * self.size();
        self.used += 1;
        self.bus.write(word, amd::interrupts(Some((table, ORDER))));
        self.forget(&[Forget::Device(device, 0), Forget::Interrupt(device, 0)]);
        Ok(table)
    }

    /// Bytes of an entry.
    fn size(&self) -> u64 {
        if self.found.kind == Kind::Amd && !self.wide { 4 } else { 16 }
    }

    /// Takes an interrupt of a device that leads to a vector of a local APIC.
    ///
    /// # Errors
    /// `BadCore`: the APIC cannot be named. `OutOfMemory`: there is no entry left.
    pub fn take(&mut self, source: Requester, apic: u32, vector: u8, level: bool) -> Result<Taken, Status> {
        let (entry, count) = match self.found.kind {
            Kind::Amd => (amd::interrupt(apic, vector, self.wide), OF_DEVICE),
            Kind::Intel => (intel::interrupt(source, apic, vector, level, self.wide), OF_ALL),
        };
        let entry = entry.ok_or(Status::BadCore)?;
        let (table, size) = (self.table(source)?, self.size());
        let free = (0..count).find(|index| self.bus.read32(table + index * size) == 0);
        let index = free.and_then(|index| u16::try_from(index).ok()).ok_or(Status::OutOfMemory)?;
        let at = table + u64::from(index) * size;
        for (offset, value) in [0, 4, 8, 12].into_iter().zip(entry).rev().filter(|(offset, _)| *offset < size) {
            self.bus.write32(at + offset, value);
        }
        self.forget(&[Forget::Interrupt(source, index)]);
        Ok(match self.found.kind {
            // The table is found by the source, the entry by what is elsewhere vector and delivery mode.
            Kind::Amd => Taken { index, message: (WINDOW.into(), index.into()), redirection: (0, index.into()) },
            Kind::Intel => {
                Taken { index, message: (intel::message(index), 0), redirection: intel::redirection(index, vector) }
            }
        })
    }

    /// Blocks or opens an interrupt of a device; `None` gives it back.
    pub fn change(&mut self, source: Requester, index: u16, blocked: Option<bool>) {
        let Ok(table) = self.table(source) else { return };
        let at = table + u64::from(index) * self.size();
        let others = self.bus.read32(at) & !(ENABLED | SILENT);
        self.bus.write32(
            at,
            match blocked {
                None => 0,
                Some(true) => others | SILENT,
                Some(false) => others | ENABLED,
            },
        );
        self.forget(&[Forget::Interrupt(source, index)]);
    }
}
