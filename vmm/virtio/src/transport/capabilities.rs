// SPDX-License-Identifier: MIT OR Apache-2.0
//! The capabilities of a virtio function (virtio 1.2 section 4.1.4) and its window in configuration space (4.1.4.9).

use super::layout;
use crate::pci::{ConfigSpace, MsiX};
use cloister_devices::bits::lo32;
use cloister_devices::bus::Width;

/// Vendor-specific capability (PCI 3.0 appendix H).
const VENDOR_SPECIFIC: u8 = 0x09;
const MSIX: u8 = 0x11;

const COMMON_CFG: u8 = 1;
const NOTIFY_CFG: u8 = 2;
const ISR_CFG: u8 = 3;
const DEVICE_CFG: u8 = 4;
const PCI_CFG: u8 = 5;

/// Where the capabilities are that do something.
#[derive(Debug, Clone, Copy)]
pub(super) struct Capabilities {
    msix: u16,
    window: u16,
}

/// A `struct virtio_pci_cap` without its first two bytes, and with what follows it.
fn body(kind: u8, offset: u64, length: u64, rest: &[u8]) -> Vec<u8> {
    let size = u8::try_from(rest.len().saturating_add(16)).unwrap_or(u8::MAX);
    // cap_len, cfg_type, bar, id, padding.
    let mut bytes = vec![size, kind, 0, 0, 0, 0];
    bytes.extend_from_slice(&lo32(offset).to_le_bytes());
    bytes.extend_from_slice(&lo32(length).to_le_bytes());
    bytes.extend_from_slice(rest);
    bytes
}

impl Capabilities {
    pub(super) fn add_to(config: &mut ConfigSpace, msix: &MsiX) -> Self {
        let msix_at =
            config.add_capability(MSIX, &msix.capability(0, lo32(layout::MSIX_TABLE), lo32(layout::MSIX_PBA)));
        config.allow(msix_at.wrapping_add(2), &MsiX::CONTROL_WRITABLE.to_le_bytes());
        let page = layout::PAGE;
        config.add_capability(VENDOR_SPECIFIC, &body(COMMON_CFG, layout::COMMON, page, &[]));
        config.add_capability(VENDOR_SPECIFIC, &body(ISR_CFG, layout::ISR, page, &[]));
        config.add_capability(VENDOR_SPECIFIC, &body(DEVICE_CFG, layout::DEVICE, page, &[]));
        let stride = lo32(layout::DOORBELL_STRIDE).to_le_bytes();
        config.add_capability(VENDOR_SPECIFIC, &body(NOTIFY_CFG, layout::NOTIFY, page, &stride));
        let window = config.add_capability(VENDOR_SPECIFIC, &body(PCI_CFG, 0, 0, &[0; 4]));
        // BAR, offset and length of the window are the driver's to set, and so is its data.
        config.allow(window.wrapping_add(4), &[0xff]);
        config.allow(window.wrapping_add(8), &[0xff; 12]);
        Self { msix: msix_at, window }
    }

    /// True if a write at `offset` touches MSI-X message control.
    pub(super) const fn is_msix_control(&self, offset: u16) -> bool {
        offset & !3 == self.msix
    }

    pub(super) fn msix_control(&self, config: &ConfigSpace) -> u16 {
        config.get16(self.msix.wrapping_add(2))
    }

    /// If an access at `offset` is to the window's data, and the window is set to a good place: offset in BAR 0 and
    /// width of the access that it stands for.
    pub(super) fn window(&self, config: &ConfigSpace, offset: u16, width: Width) -> Option<(u64, Width)> {
        if offset != self.window.wrapping_add(16) || width > Width::Dword {
            return None;
        }
        let bar = config.get16(self.window.wrapping_add(4)) & 0xff;
        let at = u64::from(config.get32(self.window.wrapping_add(8)));
        let length = config.get32(self.window.wrapping_add(12));
        let width = Width::from_bytes(usize::try_from(length).ok()?).filter(|w| *w <= Width::Dword)?;
        let aligned = at & u64::from(length).wrapping_sub(1) == 0;
        // Sixteen-byte registers do not exist, so that an aligned access in the BAR stays in the BAR.
        (bar == 0 && aligned && at < layout::SIZE).then_some((at, width))
    }

    /// Puts what was read through the window where the driver reads it.
    pub(super) fn show(&self, config: &mut ConfigSpace, value: u64) {
        config.put(self.window.wrapping_add(16), &lo32(value).to_le_bytes());
    }

    pub(super) fn reset(&self, config: &mut ConfigSpace) {
        let control = self.msix_control(config) & !MsiX::CONTROL_WRITABLE;
        config.put(self.msix.wrapping_add(2), &control.to_le_bytes());
        config.put(self.window.wrapping_add(4), &[0]);
        config.put(self.window.wrapping_add(8), &[0; 12]);
    }
}
