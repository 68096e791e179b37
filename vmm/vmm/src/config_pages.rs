// SPDX-License-Identifier: MIT OR Apache-2.0
//! PCI configuration pages that the guest reads without an exit.
//!
//! A system that boots reads a function's configuration registers a hundred times and writes them a dozen times. So the
//! page of each function that exists is mapped read-only into the guest, at its place in the memory-mapped configuration
//! space: a read is a read of memory, a write is an exit as ever, after which the page is made anew from the function.
//!
//! Deviations, which is why only the hardware-reduced profile, whose guests bring drivers for MSI-X, has such pages: the
//! interrupt status bit is as old as the last write, and a read of virtio's configuration access capability reads the
//! register, not what it points to. Who configures by ports can't have them either, since those writes pass by.

use std::sync::Arc;

use cloister_boot::layout;
use cloister_devices::bus::{MmioDevice, Width};
use cloister_virtio::pci::{Ecam, PciRoot};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

/// Bytes of configuration space per device, its eight functions together.
const PER_DEVICE: u64 = 8 << 12;
const PAGE: u64 = 0x1000;
/// Conventional configuration space; the rest of a page is zeros.
const CONVENTIONAL: u16 = 256;

/// The pieces of guest-physical memory (start, size in bytes) that hold the pages of `devices`.
#[must_use]
pub fn pieces(devices: &[u8]) -> Vec<(u64, u64)> {
    devices.iter().map(|device| (page(*device), PAGE)).collect()
}

/// Where function 0 of `device` has its page.
const fn page(device: u8) -> u64 {
    layout::ECAM.saturating_add((device as u64).saturating_mul(PER_DEVICE))
}

/// The memory-mapped configuration space, with pages to be kept up to date.
#[derive(Debug)]
pub(crate) struct ConfigPages {
    ecam: Ecam,
    pages: GuestMemoryMmap,
}

impl ConfigPages {
    /// The configuration space of `root`, with `pages` (of [`pieces`] of these devices) in the guest.
    pub(crate) fn new(root: Arc<PciRoot>, pages: GuestMemoryMmap, devices: &[u8]) -> Self {
        let space = Self { ecam: Ecam(root), pages };
        devices.iter().for_each(|device| space.renew(*device));
        space
    }

    fn renew(&self, device: u8) {
        let function = u16::from(device) << 3;
        let dwords = (0..CONVENTIONAL).step_by(4);
        let bytes: Vec<u8> =
            dwords.flat_map(|at| self.ecam.0.config_read(function, at, Width::Dword).to_le_bytes()).collect();
        let _no_page = self.pages.write_slice(&bytes, GuestAddress(page(device)));
    }
}

impl MmioDevice for ConfigPages {
    fn read(&mut self, offset: u64, width: Width) -> u64 {
        self.ecam.read(offset, width)
    }

    fn write(&mut self, offset: u64, width: Width, value: u64) {
        self.ecam.write(offset, width, value);
        self.renew(u8::try_from(offset / PER_DEVICE).unwrap_or(u8::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::{ConfigPages, page, pieces};
    use crate::memory::{HostRam, RamSource};
    use cloister_devices::bus::{MmioDevice, Width};
    use cloister_virtio::pci::{HostBridge, PciRoot};
    use std::sync::{Arc, Mutex};
    use vm_memory::{Bytes, GuestAddress};

    #[test]
    fn pages_show_what_the_functions_have() {
        let mut root = PciRoot::new();
        root.plug(3, Arc::new(Mutex::new(HostBridge::new()))).unwrap();
        let pages = HostRam.allocate_pieces(&pieces(&[3])).unwrap();
        // SAFETY: `pages` lives to the end of this function.
        let memory = unsafe { pages.memory() };
        let mut space = ConfigPages::new(Arc::new(root), memory.clone(), &[3]);
        let at = |register: u64| memory.read_obj::<u32>(GuestAddress(page(3) + register)).unwrap();
        assert_eq!(at(0), 0x29c0_8086);
        let offset = 3 << 15;
        let before = at(0x90);
        space.write(offset + 0x90, Width::Byte, 0x33);
        assert_ne!(at(0x90), before);
        assert_eq!(u64::from(at(0x90)), space.read(offset + 0x90, Width::Dword));
        // Absent functions have no page, and a write to one does no harm.
        space.write(0, Width::Dword, 7);
        assert_eq!(space.read(0, Width::Dword), 0xffff_ffff);
    }
}
