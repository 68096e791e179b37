// SPDX-License-Identifier: MIT OR Apache-2.0
//! The host bridge: Intel's 82G33 memory controller hub (device 00:00.0 of a q35 board), as far as systems look.
//!
//! It has the identity, and storage for the registers that PC firmware programs (PCIEXBAR, PAM, SMRAM: 82G33 datasheet
//! section 5.1): what is written there reads back and does nothing, since this board's map is fixed and told by ACPI.

use super::PciFunction;
use super::config::{Bar, ConfigSpace, Identity, Mapping};
use cloister_devices::bus::Width;

/// The host bridge.
#[derive(Clone, Debug)]
pub struct HostBridge {
    config: ConfigSpace,
}

impl Default for HostBridge {
    fn default() -> Self {
        Self::new()
    }
}

impl HostBridge {
    /// A bridge as after reset.
    #[must_use]
    pub fn new() -> Self {
        let mut config = ConfigSpace::new(&Identity {
            vendor: 0x8086,
            device: 0x29c0,
            class: [0x06, 0x00, 0x00],
            revision: 2,
            subsystem_vendor: 0,
            subsystem: 0,
            interrupt_pin: 0,
        });
        // PCIEXBAR, eight bytes; PAM0 to PAM6 and the two after; SMRAM.
        config.allow(0x60, &[0x07, 0, 0, 0xfc, 0x0f, 0, 0, 0]);
        config.allow(0x90, &[0x33; 7]);
        config.allow(0x9d, &[0x78, 0xff]);
        Self { config }
    }
}

impl PciFunction for HostBridge {
    fn config_read(&mut self, offset: u16, width: Width) -> u32 {
        self.config.read(offset, width)
    }

    fn config_write(&mut self, offset: u16, width: Width, value: u32) {
        self.config.write(offset, width, value);
    }

    fn mappings(&self) -> Vec<Mapping> {
        Vec::new()
    }

    fn bars(&self) -> Vec<(u8, Bar)> {
        Vec::new()
    }

    fn bar_read(&mut self, _bar: u8, _offset: u64, width: Width) -> u64 {
        width.mask()
    }

    fn bar_write(&mut self, _bar: u8, _offset: u64, _width: Width, _value: u64) {}

    fn reset(&mut self) {
        *self = Self::new();
    }
}
