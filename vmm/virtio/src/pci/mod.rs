// SPDX-License-Identifier: MIT OR Apache-2.0
//! A PCI Express root bus (PCI Local Bus 3.0, PCI Express Base 5.0 chapter 7 for the memory-mapped configuration).
//!
//! [`PciRoot`] holds the functions of bus 0 and knows which BAR answers at which address. A function implements
//! [`PciFunction`], with its registers in a [`ConfigSpace`] and its interrupts in an [`MsiX`] or on a line.
//! [`HostBridge`] is function 0.

mod config;
mod host_bridge;
mod msix;
mod root;

pub use config::{Bar, BarKind, ConfigSpace, Identity, Mapping, command};
pub use host_bridge::HostBridge;
pub use msix::MsiX;
pub use root::{ConfigPorts, Ecam, Function, PciError, PciIo, PciMemory, PciRoot, intx_gsi};

use cloister_devices::bus::Width;

/// One function of a PCI device.
pub trait PciFunction: Send {
    /// Reads its configuration space; `offset` below 4096, the access does not cross a multiple of 4.
    fn config_read(&mut self, offset: u16, width: Width) -> u32;
    /// Writes its configuration space.
    fn config_write(&mut self, offset: u16, width: Width, value: u32);
    /// Which BARs are decoded where, now.
    fn mappings(&self) -> Vec<Mapping>;
    /// Its BARs, for who assigns addresses to them.
    fn bars(&self) -> Vec<(u8, Bar)>;
    /// Reads at `offset` in BAR `bar`; within its size.
    fn bar_read(&mut self, bar: u8, offset: u64, width: Width) -> u64;
    /// Writes at `offset` in BAR `bar`; within its size.
    fn bar_write(&mut self, bar: u8, offset: u64, width: Width, value: u64);
    /// The machine was reset.
    fn reset(&mut self);
}
