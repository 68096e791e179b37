// SPDX-License-Identifier: MIT OR Apache-2.0
//! The modern PCI transport (virtio 1.2 section 4.1).
//!
//! [`VirtioPci`] is a PCI function around any [`VirtioDevice`]. BAR 0 holds, one page each: the common configuration,
//! the ISR byte, the device's configuration, the notification area, the MSI-X table and its pending bits; capabilities
//! in configuration space say so. A virtio status byte decides what is allowed when.
//!
//! - this file: the function, its BAR, calling the device, interrupts;
//! - `common`: the common configuration structure and the status machine;
//! - `capabilities`: what is in configuration space, and the window there into the BAR (section 4.1.4.9).
//!
//! Rules. Only MSI-X, or the line, never both. A doorbell rung before DRIVER_OK does nothing. After an error the
//! device is left alone until it is reset.

mod capabilities;
mod common;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod tests;

use crate::Ram;
use crate::device::{DeviceError, Queues, VirtioDevice};
use crate::pci::{Bar, BarKind, ConfigSpace, Identity, Mapping, MsiX, PciFunction, command};
use crate::queue::VirtQueue;
use capabilities::Capabilities;
use cloister_devices::bits::{lo8, lo16};
use cloister_devices::bus::Width;
use cloister_devices::irq::{IrqLine, MsiSink};
use common::Common;
use std::sync::Arc;

/// Offsets in BAR 0.
mod layout {
    pub(super) const COMMON: u64 = 0x0000;
    pub(super) const ISR: u64 = 0x1000;
    pub(super) const DEVICE: u64 = 0x2000;
    pub(super) const NOTIFY: u64 = 0x3000;
    pub(super) const MSIX_TABLE: u64 = 0x4000;
    pub(super) const MSIX_PBA: u64 = 0x5000;
    pub(super) const SIZE: u64 = 0x8000;
    /// Each structure has one page.
    pub(super) const PAGE: u64 = 0x1000;
    /// Bytes between the doorbells of two queues.
    pub(super) const DOORBELL_STRIDE: u64 = 4;
}

/// Status bits (section 2.1).
pub mod status {
    /// The driver has seen the device.
    pub const ACKNOWLEDGE: u8 = 1;
    /// The driver knows how to drive it.
    pub const DRIVER: u8 = 2;
    /// The driver is ready.
    pub const DRIVER_OK: u8 = 4;
    /// Features are agreed on.
    pub const FEATURES_OK: u8 = 8;
    /// The device cannot go on without a reset.
    pub const NEEDS_RESET: u8 = 64;
    /// The driver has given up.
    pub const FAILED: u8 = 128;
}

/// Feature bits of queues and transport (chapter 6).
pub mod feature {
    /// Indirect descriptors.
    pub const INDIRECT_DESC: u64 = 1 << 28;
    /// used_event and avail_event.
    pub const EVENT_IDX: u64 = 1 << 29;
    /// Not a legacy device.
    pub const VERSION_1: u64 = 1 << 32;
    /// Single queues can be reset.
    pub const RING_RESET: u64 = 1 << 40;
}

/// What the transport offers for each device.
const TRANSPORT_FEATURES: u64 = feature::INDIRECT_DESC | feature::EVENT_IDX | feature::VERSION_1 | feature::RING_RESET;

const ISR_QUEUE: u8 = 1;
const ISR_CONFIG: u8 = 2;
/// No MSI-X vector (section 4.1.5.1.2).
const NO_VECTOR: u16 = 0xffff;
const MAX_QUEUES: usize = 63;
const VENDOR: u16 = 0x1af4;

/// A virtio device as a PCI function.
pub struct VirtioPci<D> {
    device: D,
    ram: Arc<Ram>,
    queues: Vec<VirtQueue>,
    common: Common,
    config: ConfigSpace,
    capabilities: Capabilities,
    msix: MsiX,
    line: IrqLine,
    isr: u8,
    last_error: Option<DeviceError>,
}

impl<D: VirtioDevice> std::fmt::Debug for VirtioPci<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VirtioPci")
            .field("type", &self.device.device_type())
            .field("common", &self.common)
            .field("isr", &self.isr)
            .finish_non_exhaustive()
    }
}

impl<D: VirtioDevice> VirtioPci<D> {
    /// Puts `device` on PCI. It interrupts by messages to `messages`, or, as long as its driver has not enabled them,
    /// by `line`, which must be the one that [`crate::pci::intx_gsi`] names for its place and pin 1.
    #[must_use]
    pub fn new(device: D, ram: Arc<Ram>, messages: Arc<dyn MsiSink>, line: IrqLine) -> Self {
        let queues: Vec<_> = device.queue_sizes().iter().take(MAX_QUEUES).map(|size| VirtQueue::new(*size)).collect();
        let count = lo16(u64::try_from(queues.len()).unwrap_or(0));
        let msix = MsiX::new(count.wrapping_add(1), messages);
        let device_id = 0x1040u16.wrapping_add(device.device_type());
        let mut config = ConfigSpace::new(&Identity {
            vendor: VENDOR,
            device: device_id,
            class: device.class(),
            revision: 1,
            subsystem_vendor: VENDOR,
            subsystem: 0x1100,
            interrupt_pin: 1,
        });
        config.add_bar(0, BarKind::Memory32, layout::SIZE);
        let capabilities = Capabilities::add_to(&mut config, &msix);
        let common = Common::new(device.features() | TRANSPORT_FEATURES, count);
        Self { device, ram, queues, common, config, capabilities, msix, line, isr: 0, last_error: None }
    }

    /// The device behind the transport, for its backend. After it got news, call [`Self::poll`].
    pub const fn device(&mut self) -> &mut D {
        &mut self.device
    }

    /// Calls the device as if its driver had notified `queue`: for the thread of a backend that has news.
    pub fn poll(&mut self, queue: u16) {
        self.ring(queue);
    }

    /// What made the device need a reset, if it does.
    #[must_use]
    pub const fn last_error(&self) -> Option<DeviceError> {
        self.last_error
    }

    /// True while the driver is ready and the device works.
    #[must_use]
    pub const fn is_active(&self) -> bool {
        self.common.is_active()
    }

    /// Offset in BAR 0 of the doorbell of `queue`: for a hypervisor that can turn a write there into an event.
    #[must_use]
    pub fn doorbell(queue: u16) -> u64 {
        layout::NOTIFY.wrapping_add(u64::from(queue).wrapping_mul(layout::DOORBELL_STRIDE))
    }

    fn ring(&mut self, queue: u16) {
        if self.common.is_active() {
            self.call(|device, queues| device.notify(queue, queues));
        }
    }

    /// Calls the device and does what it asked for.
    fn call(&mut self, act: impl FnOnce(&mut D, &mut Queues<'_>) -> Result<(), DeviceError>) {
        // Section 4.1.3 asks nothing of bus mastering, PCI does: a function that may not be a master moves no data.
        if self.config.command() & command::BUS_MASTER == 0 {
            return;
        }
        let mut queues = Queues::new(&self.ram, &mut self.queues);
        let result = act(&mut self.device, &mut queues);
        let (mut interrupt, config_changed) = (queues.interrupt, queues.config_changed);
        while interrupt != 0 {
            let queue = lo16(u64::from(interrupt.trailing_zeros()));
            interrupt &= interrupt.wrapping_sub(1);
            self.interrupt(self.common.queue_vector(queue), ISR_QUEUE);
        }
        if config_changed {
            self.common.bump_generation();
            self.interrupt(self.common.config_vector(), ISR_CONFIG);
        }
        if let Err(error) = result {
            self.fail(error);
        }
    }

    /// The driver broke the rules (section 2.1.2).
    fn fail(&mut self, error: DeviceError) {
        self.last_error = Some(error);
        if self.common.set_needs_reset() {
            self.interrupt(self.common.config_vector(), ISR_CONFIG);
        }
    }

    fn interrupt(&mut self, vector: u16, cause: u8) {
        if self.msix.enabled() {
            if vector != NO_VECTOR {
                self.msix.signal(vector);
            }
            return;
        }
        self.isr |= cause;
        self.update_line();
    }

    fn update_line(&mut self) {
        let waits = self.isr != 0 && !self.msix.enabled();
        self.config.set_interrupt_status(waits);
        self.line.set(waits && self.config.command() & command::INTX_DISABLE == 0);
    }

    fn reset_device(&mut self) {
        self.device.reset();
        self.queues.iter_mut().for_each(VirtQueue::reset);
        self.common.reset();
        self.isr = 0;
        self.last_error = None;
        self.update_line();
    }

    fn read_layout(&mut self, offset: u64, width: Width) -> u64 {
        let within = offset & layout::PAGE.wrapping_sub(1);
        match offset & !layout::PAGE.wrapping_sub(1) {
            layout::COMMON => self.common.read(within, width, &self.queues),
            layout::ISR if within == 0 => {
                // Reading acknowledges (section 4.1.4.5).
                let isr = std::mem::take(&mut self.isr);
                self.update_line();
                u64::from(isr)
            }
            layout::DEVICE => self.device.config_read(within, width),
            layout::MSIX_TABLE => self.msix.table_read(within, width),
            layout::MSIX_PBA => self.msix.pba_read(within, width),
            _ => 0,
        }
    }

    fn write_layout(&mut self, offset: u64, width: Width, value: u64) {
        let within = offset & layout::PAGE.wrapping_sub(1);
        match offset & !layout::PAGE.wrapping_sub(1) {
            // First, since it is the commonest.
            layout::NOTIFY => self.ring(lo16(within.wrapping_div(layout::DOORBELL_STRIDE))),
            layout::COMMON => self.write_common(within, width, value),
            layout::DEVICE => self.device.config_write(within, width, value),
            layout::MSIX_TABLE => self.msix.table_write(within, width, value),
            _ => {}
        }
    }

    fn write_common(&mut self, offset: u64, width: Width, value: u64) {
        match self.common.write(offset, width, value, &mut self.queues, &self.ram) {
            common::Action::Nothing => {}
            common::Action::Reset => self.reset_device(),
            common::Action::Activate => {
                let features = self.common.negotiated();
                self.call(|device, queues| device.activate(features, queues));
            }
            common::Action::Fail(error) => self.fail(error),
        }
    }
}

impl<D: VirtioDevice> PciFunction for VirtioPci<D> {
    fn config_read(&mut self, offset: u16, width: Width) -> u32 {
        if let Some((at, width)) = self.capabilities.window(&self.config, offset, width) {
            let value = self.read_layout(at, width);
            self.capabilities.show(&mut self.config, value);
        }
        self.config.read(offset, width)
    }

    fn config_write(&mut self, offset: u16, width: Width, value: u32) {
        self.config.write(offset, width, value);
        if self.capabilities.is_msix_control(offset) {
            self.msix.set_control(self.capabilities.msix_control(&self.config));
        } else if let Some((at, width)) = self.capabilities.window(&self.config, offset, width) {
            self.write_layout(at, width, u64::from(value) & width.mask());
        }
        self.update_line();
    }

    fn mappings(&self) -> Vec<Mapping> {
        self.config.mappings()
    }

    fn bars(&self) -> Vec<(u8, Bar)> {
        self.config.bars().collect()
    }

    fn bar_read(&mut self, bar: u8, offset: u64, width: Width) -> u64 {
        if bar == 0 { self.read_layout(offset, width) } else { width.mask() }
    }

    fn bar_write(&mut self, bar: u8, offset: u64, width: Width, value: u64) {
        if bar == 0 {
            self.write_layout(offset, width, value);
        }
    }

    fn reset(&mut self) {
        self.reset_device();
        self.msix.reset();
        self.config.reset();
        self.capabilities.reset(&mut self.config);
        self.update_line();
    }
}

/// Truncates a register value to a byte: for the structures below.
const fn byte_of(value: u64) -> u8 {
    lo8(value)
}
