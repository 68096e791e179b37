// SPDX-License-Identifier: MIT OR Apache-2.0
//! The entropy device (virtio 1.2 section 5.4): fills whatever buffers the driver makes available.
//!
//! Bytes come from an [`EntropySource`] of the VMM. One notification serves at most [`BURST`] bytes per buffer, so
//! that a driver that asks for gigabytes gets them piece by piece, each piece at the price of a notification.

use crate::device::{DeviceError, Queues, VirtioDevice};

/// At most so many bytes are given for one buffer; the driver asks again if it wants more.
pub const BURST: usize = 4096;

/// Where random bytes come from.
pub trait EntropySource: Send {
    /// Fills `bytes`. Gives how many were filled; 0 if there is nothing now.
    fn fill(&mut self, bytes: &mut [u8]) -> usize;
}

impl<F: FnMut(&mut [u8]) -> usize + Send> EntropySource for F {
    fn fill(&mut self, bytes: &mut [u8]) -> usize {
        self(bytes)
    }
}

/// The device.
#[derive(Debug)]
pub struct Rng<S> {
    source: S,
}

impl<S: EntropySource> Rng<S> {
    /// A device that gives what `source` gives.
    #[must_use]
    pub const fn new(source: S) -> Self {
        Self { source }
    }
}

const QUEUE: u16 = 0;

impl<S: EntropySource> VirtioDevice for Rng<S> {
    fn device_type(&self) -> u16 {
        4
    }

    fn class(&self) -> [u8; 3] {
        // Encryption and decryption controller, other.
        [0x10, 0x80, 0]
    }

    fn queue_sizes(&self) -> &[u16] {
        &[64]
    }

    fn notify(&mut self, index: u16, queues: &mut Queues<'_>) -> Result<(), DeviceError> {
        if index != QUEUE {
            return Ok(());
        }
        let mut bytes = [0u8; BURST];
        queues.drain(QUEUE, |chain, ram| {
            let room = usize::try_from(chain.writable_len()).unwrap_or(BURST).min(BURST);
            let part = bytes.get_mut(..room).unwrap_or_default();
            let filled = self.source.fill(part).min(room);
            let written = chain.write(ram, 0, part.get(..filled).unwrap_or_default())?;
            Ok(u32::try_from(written).unwrap_or(0))
        })
    }

    fn reset(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::{BURST, Rng};
    use crate::device::{DeviceError, Queues, VirtioDevice};
    use crate::queue::QueueError;
    use crate::testing::{D, Driver, NEXT, WRITE};

    fn rng() -> Rng<impl FnMut(&mut [u8]) -> usize + Send> {
        Rng::new(|bytes: &mut [u8]| {
            bytes.fill(0x5a);
            bytes.len()
        })
    }

    fn notify(d: &mut Driver) -> Result<u64, DeviceError> {
        let mut queues = Queues::new(&d.ram, std::slice::from_mut(&mut d.queue));
        rng().notify(0, &mut queues).map(|()| queues.interrupt)
    }

    #[test]
    fn v1_2_5_4_buffers_are_filled() {
        let mut d = Driver::new(8);
        d.chain(&[D(0x5000, 3, WRITE | NEXT, 1), D(0x6000, 2, WRITE, 0)]);
        assert_eq!(notify(&mut d), Ok(1));
        assert_eq!((d.get(0x5000, 4), d.get(0x6000, 2)), (vec![0x5a, 0x5a, 0x5a, 0], vec![0x5a; 2]));
        assert_eq!(d.used(0), (0, 5));
        assert_eq!(notify(&mut d), Ok(0), "nothing to do");
    }

    #[test]
    fn a_huge_or_empty_request_is_served_within_bounds() {
        let mut d = Driver::new(8);
        d.chain(&[D(0x8000, 0x4_0000, WRITE, 0)]);
        assert_eq!(notify(&mut d), Ok(1));
        assert_eq!(d.used(0), (0, u32::try_from(BURST).unwrap()));
        d.chain(&[D(0x5000, 8, 0, 0)]);
        assert_eq!(notify(&mut d), Ok(1));
        assert_eq!(d.used(1), (0, 0), "nothing writable");
    }

    #[test]
    fn a_bad_chain_is_told() {
        let mut d = Driver::new(8);
        d.chain(&[D(u64::MAX, 8, WRITE, 0)]);
        assert_eq!(notify(&mut d), Err(DeviceError::Queue(QueueError::BufferOutOfRange)));
    }
}
