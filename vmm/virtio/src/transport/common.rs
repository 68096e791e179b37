// SPDX-License-Identifier: MIT OR Apache-2.0
//! The common configuration structure (virtio 1.2 section 4.1.4.3) and the device status (section 3.1.1).
//!
//! Rule: registers are accessed by their own width (section 4.1.3.1); the 64-bit addresses also by halves. Reads of
//! other widths cut what they ask for out of the structure, such writes are ignored.

use super::{NO_VECTOR, byte_of, feature, status};
use crate::Ram;
use crate::device::DeviceError;
use crate::queue::{QueueError, VirtQueue};
use cloister_devices::bits::{lo16, lo32, merge};
use cloister_devices::bus::Width;

const DEVICE_FEATURE_SELECT: u64 = 0x00;
const DRIVER_FEATURE_SELECT: u64 = 0x08;
const DRIVER_FEATURE: u64 = 0x0c;
const CONFIG_VECTOR: u64 = 0x10;
const DEVICE_STATUS: u64 = 0x14;
const QUEUE_SELECT: u64 = 0x16;
const QUEUE_SIZE: u64 = 0x18;
const QUEUE_VECTOR: u64 = 0x1a;
const QUEUE_ENABLE: u64 = 0x1c;
const QUEUE_ADDRESSES: u64 = 0x20;
const QUEUE_ADDRESSES_END: u64 = 0x38;
const QUEUE_RESET: u64 = 0x3a;
/// Length of the structure.
const LEN: usize = 0x3c;

/// What a write asks the transport to do.
#[derive(Debug)]
pub(super) enum Action {
    Nothing,
    Reset,
    Activate,
    Fail(DeviceError),
}

/// The state behind the structure.
#[derive(Debug)]
pub(super) struct Common {
    offered: u64,
    accepted: u64,
    device_select: u32,
    driver_select: u32,
    config_vector: u16,
    status: u8,
    generation: u8,
    queue_select: u16,
    queue_vectors: Vec<u16>,
}

impl Common {
    pub(super) fn new(offered: u64, queues: u16) -> Self {
        Self {
            offered,
            accepted: 0,
            device_select: 0,
            driver_select: 0,
            config_vector: NO_VECTOR,
            status: 0,
            generation: 0,
            queue_select: 0,
            queue_vectors: vec![NO_VECTOR; usize::from(queues)],
        }
    }

    pub(super) fn reset(&mut self) {
        self.accepted = 0;
        self.device_select = 0;
        self.driver_select = 0;
        self.config_vector = NO_VECTOR;
        self.status = 0;
        self.queue_select = 0;
        self.queue_vectors.fill(NO_VECTOR);
    }

    pub(super) const fn is_active(&self) -> bool {
        self.status & (status::DRIVER_OK | status::NEEDS_RESET) == status::DRIVER_OK
    }

    /// Features that both sides have.
    pub(super) const fn negotiated(&self) -> u64 {
        self.accepted
    }

    pub(super) const fn config_vector(&self) -> u16 {
        self.config_vector
    }

    pub(super) fn queue_vector(&self, queue: u16) -> u16 {
        self.queue_vectors.get(usize::from(queue)).copied().unwrap_or(NO_VECTOR)
    }

    pub(super) const fn bump_generation(&mut self) {
        self.generation = self.generation.wrapping_add(1);
    }

    /// Shows that a reset is needed. True if the driver, being ready, must be told.
    pub(super) const fn set_needs_reset(&mut self) -> bool {
        let tell = self.is_active();
        self.status |= status::NEEDS_RESET;
        tell
    }

    /// Number of MSI-X vectors: one for each queue and one for the configuration.
    fn valid_vector(&self, vector: u64) -> u16 {
        let vector = lo16(vector);
        if usize::from(vector) <= self.queue_vectors.len() { vector } else { NO_VECTOR }
    }

    const fn half(features: u64, select: u32) -> u32 {
        match select {
            0 => lo32(features),
            1 => lo32(features >> 32),
            _ => 0,
        }
    }

    /// The whole structure, as the driver sees it.
    fn image(&self, queues: &[VirtQueue]) -> [u8; LEN] {
        let queue = queues.get(usize::from(self.queue_select));
        let low = |select: u32, half: u32| u64::from(select) | (u64::from(half) << 32);
        let first = low(self.device_select, Self::half(self.offered, self.device_select));
        let second = low(self.driver_select, Self::half(self.accepted, self.driver_select));
        let count = lo16(u64::try_from(queues.len()).unwrap_or(0));
        let third = u64::from(self.config_vector)
            | (u64::from(count) << 16)
            | (u64::from(self.status) << 32)
            | (u64::from(self.generation) << 40)
            | (u64::from(self.queue_select) << 48);
        // An absent queue has size 0 (section 4.1.4.3.1).
        let fourth = u64::from(queue.map_or(0, VirtQueue::size))
            | (u64::from(self.queue_vector(self.queue_select)) << 16)
            | (u64::from(queue.is_some_and(VirtQueue::ready)) << 32)
            | (u64::from(self.queue_select) << 48);
        let address = |which| queue.map_or(0, |q| q.address(which));
        let words = [first, second, third, fourth, address(0), address(1), address(2)];
        let mut image = [0; LEN];
        let bytes = words.iter().flat_map(|w| w.to_le_bytes());
        image.iter_mut().zip(bytes).for_each(|(slot, b)| *slot = b);
        image
    }

    pub(super) fn read(&self, offset: u64, width: Width, queues: &[VirtQueue]) -> u64 {
        // The status alone is read in loops.
        if offset == DEVICE_STATUS && width == Width::Byte {
            return u64::from(self.status);
        }
        crate::device::read_bytes(&self.image(queues), offset, width)
    }

    pub(super) fn write(
        &mut self,
        offset: u64,
        width: Width,
        value: u64,
        queues: &mut [VirtQueue],
        ram: &Ram,
    ) -> Action {
        match (offset, width) {
            (DEVICE_FEATURE_SELECT, Width::Dword) => self.device_select = lo32(value),
            (DRIVER_FEATURE_SELECT, Width::Dword) => self.driver_select = lo32(value),
            (DRIVER_FEATURE, Width::Dword) => self.accept(value),
            (CONFIG_VECTOR, Width::Word) => self.config_vector = self.valid_vector(value),
            (DEVICE_STATUS, Width::Byte) => return self.set_status(byte_of(value)),
            (QUEUE_SELECT, Width::Word) => self.queue_select = lo16(value),
            (QUEUE_VECTOR, Width::Word) => {
                let vector = self.valid_vector(value);
                if let Some(slot) = self.queue_vectors.get_mut(usize::from(self.queue_select)) {
                    *slot = vector;
                }
            }
            _ => return self.write_queue(offset, width, value, queues, ram),
        }
        Action::Nothing
    }

    /// Features may be written until they are agreed on.
    fn accept(&mut self, half: u64) {
        if self.status & status::FEATURES_OK == 0 && self.driver_select < 2 {
            self.accepted = merge(self.accepted, half, 0xffff_ffff, self.driver_select.wrapping_mul(4));
        }
    }

    fn write_queue(&mut self, offset: u64, width: Width, value: u64, queues: &mut [VirtQueue], ram: &Ram) -> Action {
        let Some(queue) = queues.get_mut(usize::from(self.queue_select)) else { return Action::Nothing };
        match (offset, width) {
            (QUEUE_SIZE, Width::Word) => queue.set_size(lo16(value)),
            (QUEUE_ENABLE, Width::Word) if value == 1 => {
                // Section 3.1.1: queues are set up when features are agreed on.
                if self.status & status::FEATURES_OK == 0 {
                    return Action::Fail(DeviceError::Queue(QueueError::NotReady));
                }
                if let Err(error) = queue.enable(ram, self.accepted & feature::EVENT_IDX != 0) {
                    return Action::Fail(DeviceError::Queue(error));
                }
            }
            (QUEUE_RESET, Width::Word) if value == 1 && self.accepted & feature::RING_RESET != 0 => queue.reset(),
            (QUEUE_ADDRESSES..QUEUE_ADDRESSES_END, Width::Dword | Width::Qword) => {
                let (which, within) = (offset.wrapping_sub(QUEUE_ADDRESSES) >> 3, lo32(offset & 7));
                let which = usize::from(lo16(which));
                if within & 3 == 0 && !(width == Width::Qword && within != 0) {
                    queue.set_address(which, merge(queue.address(which), value, width.mask(), within));
                }
            }
            _ => {}
        }
        Action::Nothing
    }

    fn set_status(&mut self, new: u8) -> Action {
        if new == 0 {
            return Action::Reset;
        }
        let rises = new & !self.status;
        if rises & status::FEATURES_OK != 0 {
            let known = self.accepted & !self.offered == 0;
            if !known || self.accepted & feature::VERSION_1 == 0 {
                // Section 2.2.2: refused by not showing the bit.
                self.status |= new & !(status::FEATURES_OK | status::DRIVER_OK);
                return Action::Nothing;
            }
        }
        // Bits can't be taken back but by a reset; NEEDS_RESET is the device's.
        let agreed = (self.status | new) & status::FEATURES_OK != 0;
        let too_early = rises & status::DRIVER_OK != 0 && !agreed;
        self.status |= new & !status::NEEDS_RESET;
        match (too_early, rises & status::DRIVER_OK != 0) {
            (true, _) => {
                self.status &= !status::DRIVER_OK;
                Action::Fail(DeviceError::BadRequest)
            }
            (false, true) => Action::Activate,
            (false, false) => Action::Nothing,
        }
    }
}
