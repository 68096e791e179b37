// SPDX-License-Identifier: MIT OR Apache-2.0
//! The console device (virtio 1.2 section 5.3), with one port.
//!
//! What the guest writes goes to a [`ConsoleOutput`]; what is typed comes by [`Console::type_in`] and is held until the
//! driver has a buffer for it. Features: VIRTIO_CONSOLE_F_SIZE and VIRTIO_CONSOLE_F_EMERG_WRITE; several ports are not
//! offered.
//!
//! Rule: input that is held is bounded by [`INPUT_LIMIT`]; what does not fit stays with the one who types.

use crate::device::{DeviceError, Queues, VirtioDevice, read_bytes};
use cloister_devices::bits::lo8;
use cloister_devices::bus::Width;
use cloister_devices::serial::ConsoleOutput;
use std::collections::VecDeque;

/// Queue for what the guest receives.
pub const RECEIVE: u16 = 0;
/// Queue for what the guest sends.
pub const TRANSMIT: u16 = 1;
/// Most bytes of input that are held.
pub const INPUT_LIMIT: usize = 4096;

const F_SIZE: u64 = 1 << 0;
const F_EMERG_WRITE: u64 = 1 << 2;
/// Offset of emerg_wr in the configuration.
const EMERG_WRITE: u64 = 8;
/// Most bytes that a driver may send at once.
const LONGEST_WRITE: u64 = 1 << 20;
/// At most so many bytes are copied at a time.
const PIECE: usize = 1024;

/// The device.
#[derive(Debug)]
pub struct Console<C> {
    output: C,
    input: VecDeque<u8>,
    columns: u16,
    rows: u16,
    active: bool,
    size_changed: bool,
}

impl<C: ConsoleOutput> Console<C> {
    /// A console that writes to `output`, with a terminal of 80 columns and 25 rows.
    #[must_use]
    pub const fn new(output: C) -> Self {
        Self { output, input: VecDeque::new(), columns: 80, rows: 25, active: false, size_changed: false }
    }

    /// Types `bytes`. Gives how many were taken. The device must be polled afterwards ([`crate::VirtioPci::poll`]).
    pub fn type_in(&mut self, bytes: &[u8]) -> usize {
        let room = self.input_room().min(bytes.len());
        self.input.extend(bytes.iter().take(room));
        room
    }

    /// How many bytes [`Self::type_in`] would take.
    #[must_use]
    pub fn input_room(&self) -> usize {
        INPUT_LIMIT.saturating_sub(self.input.len())
    }

    /// The terminal has another size. The device must be polled afterwards.
    pub fn resize(&mut self, columns: u16, rows: u16) {
        self.size_changed = (columns, rows) != (self.columns, self.rows);
        (self.columns, self.rows) = (columns, rows);
    }

    /// The output behind it.
    pub const fn output(&mut self) -> &mut C {
        &mut self.output
    }

    fn receive(&mut self, queues: &mut Queues<'_>) -> Result<(), DeviceError> {
        let ram = queues.ram;
        let Some(queue) = queues.queue(RECEIVE) else { return Ok(()) };
        let mut served = false;
        while !self.input.is_empty() {
            if let Some(chain) = queue.next(ram)? {
                let head = chain.head();
                let written = chain.write(ram, 0, self.input.make_contiguous())?;
                self.input.drain(..written.min(self.input.len()));
                queue.complete(ram, head, u32::try_from(written).unwrap_or(0))?;
                served = true;
            } else if !queue.enable_notification(ram)? {
                // Only now is it of use to hear of new buffers.
                break;
            }
        }
        if served { queues.signal(RECEIVE) } else { Ok(()) }
    }

    fn transmit(&mut self, queues: &mut Queues<'_>) -> Result<(), DeviceError> {
        let output = &mut self.output;
        let mut piece = [0u8; PIECE];
        queues.drain(TRANSMIT, |chain, ram| {
            // Descriptors may name the same memory many times over, and so amount to much.
            if chain.readable_len() > LONGEST_WRITE {
                return Err(DeviceError::BadRequest);
            }
            let mut offset = 0u64;
            loop {
                let read = chain.read(ram, offset, &mut piece)?;
                if read == 0 {
                    return Ok(0);
                }
                output.write(piece.get(..read).unwrap_or_default());
                offset = offset.saturating_add(u64::try_from(read).unwrap_or(u64::MAX));
            }
        })
    }
}

impl<C: ConsoleOutput> VirtioDevice for Console<C> {
    fn device_type(&self) -> u16 {
        3
    }

    fn class(&self) -> [u8; 3] {
        // Simple communication controller, other.
        [0x07, 0x80, 0]
    }

    fn features(&self) -> u64 {
        F_SIZE | F_EMERG_WRITE
    }

    fn queue_sizes(&self) -> &[u16] {
        &[64, 64]
    }

    fn config_read(&mut self, offset: u64, width: Width) -> u64 {
        let [c0, c1] = self.columns.to_le_bytes();
        let [r0, r1] = self.rows.to_le_bytes();
        // cols, rows, max_nr_ports, emerg_wr.
        read_bytes(&[c0, c1, r0, r1, 1, 0, 0, 0, 0, 0, 0, 0], offset, width)
    }

    fn config_write(&mut self, offset: u64, _width: Width, value: u64) {
        // Section 5.3.5: usable before the driver is ready, even before features are negotiated.
        if offset == EMERG_WRITE {
            self.output.write(&[lo8(value)]);
        }
    }

    fn activate(&mut self, _features: u64, queues: &mut Queues<'_>) -> Result<(), DeviceError> {
        self.active = true;
        self.receive(queues)
    }

    fn notify(&mut self, index: u16, queues: &mut Queues<'_>) -> Result<(), DeviceError> {
        if self.active && std::mem::take(&mut self.size_changed) {
            queues.signal_config();
        }
        match index {
            RECEIVE => self.receive(queues),
            TRANSMIT => self.transmit(queues),
            _ => Ok(()),
        }
    }

    fn reset(&mut self) {
        self.active = false;
    }
}

#[cfg(test)]
mod tests {
    use super::{Console, INPUT_LIMIT, RECEIVE, TRANSMIT};
    use crate::device::{Queues, VirtioDevice};
    use crate::queue::VirtQueue;
    use crate::testing::{D, Driver, NEXT, WRITE};
    use cloister_devices::bus::Width;

    fn call(c: &mut Console<Vec<u8>>, d: &mut Driver, index: u16) -> u64 {
        let queue = std::mem::replace(&mut d.queue, VirtQueue::new(1));
        let mut queues = if index == RECEIVE { vec![queue, VirtQueue::new(1)] } else { vec![VirtQueue::new(1), queue] };
        let mut with = Queues::new(&d.ram, &mut queues);
        c.notify(index, &mut with).unwrap();
        let interrupt = with.interrupt;
        d.queue = queues.swap_remove(usize::from(index));
        interrupt
    }

    #[test]
    fn v1_2_5_3_6_transmit() {
        let (mut c, mut d) = (Console::new(Vec::new()), Driver::new(8));
        d.put(0x5000, &[b'x'; 3000]);
        d.put(0x6000, b"end");
        d.chain(&[D(0x5000, 3000, NEXT, 1), D(0x6000, 3, 0, 0)]);
        assert_eq!(call(&mut c, &mut d, TRANSMIT), 2);
        assert_eq!((c.output().len(), d.used(0)), (3003, (0, 0)));
        assert!(c.output().ends_with(b"xend"));
    }

    #[test]
    fn v1_2_5_3_6_receive_waits_for_buffers() {
        let (mut c, mut d) = (Console::new(Vec::new()), Driver::new(8));
        assert_eq!(c.type_in(b"hello"), 5);
        assert_eq!(call(&mut c, &mut d, RECEIVE), 0);
        d.chain(&[D(0x5000, 3, WRITE, 0)]);
        assert_eq!(call(&mut c, &mut d, RECEIVE), 1);
        assert_eq!((d.get(0x5000, 4), d.used(0)), (b"hel\0".to_vec(), (0, 3)));
        d.chain(&[D(0x5000, 30, WRITE, 0)]);
        call(&mut c, &mut d, RECEIVE);
        assert_eq!((d.get(0x5000, 2), d.used(1)), (b"lo".to_vec(), (0, 2)));
        assert_eq!(c.type_in(&[0; 2 * INPUT_LIMIT]), INPUT_LIMIT);
        assert_eq!(c.type_in(b"x"), 0);
    }

    #[test]
    fn v1_2_5_3_4_size_and_emergency_write() {
        let mut c = Console::new(Vec::new());
        c.resize(132, 50);
        assert_eq!(c.config_read(0, Width::Dword), 132 | (50 << 16));
        assert_eq!((c.config_read(4, Width::Dword), c.config_read(2, Width::Byte)), (1, 50));
        assert_eq!((c.config_read(10, Width::Dword), c.config_read(u64::MAX, Width::Qword)), (0, 0));
        c.config_write(8, Width::Dword, u64::from(b'!'));
        c.config_write(4, Width::Dword, 1);
        assert_eq!(c.output().as_slice(), b"!");
    }
}
