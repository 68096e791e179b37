// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a virtio device is, apart from its transport.
//!
//! A [`VirtioDevice`] has a type, features, queues and a configuration space; the transport negotiates for it, checks
//! what the driver sets up, and calls it when the driver notifies a queue, with [`Queues`]: guest memory, its queues,
//! and the means to interrupt. A device that is moved by its backend as well (input, completions of I/O) is called
//! through [`crate::VirtioPci::poll`] by the thread that has the news.
//!
//! Rule: an error from a device means that its driver broke the rules; the transport then shows DEVICE_NEEDS_RESET and
//! calls the device no more until it is reset. Failures of a backend are none of that: a device reports them to the
//! driver in its own way.

use crate::Ram;
use crate::queue::{Chain, QueueError, VirtQueue};
use cloister_devices::bus::Width;

/// Why a device cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceError {
    /// A queue is broken.
    Queue(QueueError),
    /// A request makes no sense.
    BadRequest,
}

impl From<QueueError> for DeviceError {
    fn from(error: QueueError) -> Self {
        Self::Queue(error)
    }
}

impl std::fmt::Display for DeviceError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Queue(error) => write!(f, "{error}"),
            Self::BadRequest => write!(f, "a request of the driver makes no sense"),
        }
    }
}

impl std::error::Error for DeviceError {}

/// What a device works with when it is called.
#[derive(Debug)]
pub struct Queues<'a> {
    /// Guest memory.
    pub ram: &'a Ram,
    pub(crate) queues: &'a mut [VirtQueue],
    /// Queues whose driver is to be interrupted.
    pub(crate) interrupt: u64,
    /// The driver is to be told of a change of configuration.
    pub(crate) config_changed: bool,
}

impl<'a> Queues<'a> {
    pub(crate) fn new(ram: &'a Ram, queues: &'a mut [VirtQueue]) -> Self {
        Self { ram, queues, interrupt: 0, config_changed: false }
    }

    /// Queue `index`, if the device has it and its driver enabled it.
    pub fn queue(&mut self, index: u16) -> Option<&mut VirtQueue> {
        self.queues.get_mut(usize::from(index)).filter(|q| q.ready())
    }

    /// Interrupts the driver for what was returned to queue `index`, if it wants to be.
    ///
    /// # Errors
    /// [`DeviceError::Queue`] if the ring is broken.
    pub fn signal(&mut self, index: u16) -> Result<(), DeviceError> {
        let ram = self.ram;
        if let Some(queue) = self.queue(index)
            && queue.wants_interrupt(ram)?
        {
            self.interrupt |= 1u64.checked_shl(u32::from(index)).unwrap_or(0);
        }
        Ok(())
    }

    /// Serves all chains of queue `index`: `serve` gives the number of bytes that it wrote into each. Then asks to be
    /// notified of more, and interrupts the driver if it wants to be.
    ///
    /// A driver that adds chains from another VCPU as fast as they are served stays in this loop; it holds up none but
    /// its own device.
    ///
    /// # Errors
    /// What `serve` gives, and [`DeviceError::Queue`] if the queue is broken.
    pub fn drain(
        &mut self,
        index: u16,
        mut serve: impl FnMut(&Chain, &Ram) -> Result<u32, DeviceError>,
    ) -> Result<(), DeviceError> {
        let ram = self.ram;
        let Some(queue) = self.queue(index) else { return Ok(()) };
        let mut served = false;
        loop {
            while let Some(chain) = queue.next(ram)? {
                let head = chain.head();
                let written = serve(chain, ram)?;
                queue.complete(ram, head, written)?;
                served = true;
            }
            if !queue.enable_notification(ram)? {
                break;
            }
        }
        if served { self.signal(index) } else { Ok(()) }
    }

    /// Tells the driver that the configuration changed.
    pub const fn signal_config(&mut self) {
        self.config_changed = true;
    }
}

/// A virtio device.
pub trait VirtioDevice: Send {
    /// Device type (virtio 1.2 chapter 5).
    fn device_type(&self) -> u16;

    /// PCI class code: base class, sub-class, interface.
    fn class(&self) -> [u8; 3] {
        [0xff, 0, 0]
    }

    /// Features of the device itself: bits 0 to 23 and 50 to 127, as a mask of the first 64. Those of queues and of the
    /// transport are added by the transport.
    fn features(&self) -> u64 {
        0
    }

    /// Largest size of each queue, in descriptors. At most 63 queues.
    fn queue_sizes(&self) -> &[u16];

    /// Reads the device-specific configuration at `offset`.
    fn config_read(&mut self, offset: u64, width: Width) -> u64 {
        let _ = offset;
        let _ = width;
        0
    }

    /// Writes the device-specific configuration at `offset`.
    fn config_write(&mut self, offset: u64, width: Width, value: u64) {
        let _ = (offset, width, value);
    }

    /// The driver is ready (DRIVER_OK), with these features.
    ///
    /// # Errors
    /// [`DeviceError`]: what the driver set up cannot work.
    fn activate(&mut self, features: u64, queues: &mut Queues<'_>) -> Result<(), DeviceError> {
        let _ = (features, queues);
        Ok(())
    }

    /// The driver notified queue `queue`, or [`crate::VirtioPci::poll`] was called.
    ///
    /// # Errors
    /// [`DeviceError`]: the driver broke the rules.
    fn notify(&mut self, queue: u16, queues: &mut Queues<'_>) -> Result<(), DeviceError>;

    /// The driver, or the machine, reset the device.
    fn reset(&mut self);
}

/// Reads a part of a configuration structure, given as its bytes; beyond its end are zeros.
#[must_use]
pub fn read_bytes(bytes: &[u8], offset: u64, width: Width) -> u64 {
    let skip = usize::try_from(offset).unwrap_or(usize::MAX);
    let take = usize::try_from(width.bytes()).unwrap_or(0);
    let part = bytes.iter().skip(skip).take(take);
    (0u32..).zip(part).fold(0, |value, (i, b)| value | (u64::from(*b) << (i.wrapping_mul(8) & 63)))
}
