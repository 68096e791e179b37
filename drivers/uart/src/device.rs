// SPDX-License-Identifier: MIT OR Apache-2.0
//! The 16550 itself (PC16550D data sheet, section 8): registers, and nothing of what the bytes mean.

use crate::arch;

/// Registers, from the first port on.
const DATA: u16 = 0;
const INTERRUPT_ENABLE: u16 = 1;
const FIFO_CONTROL: u16 = 2;
const LINE_CONTROL: u16 = 3;
const MODEM_CONTROL: u16 = 4;
const LINE_STATUS: u16 = 5;

/// Interrupt enable: received data, room to send.
const RECEIVED: u8 = 1 << 0;
const SENT: u8 = 1 << 1;
/// Line control: eight data bits, one stop bit, no parity; access to the divisor.
const EIGHT_BITS: u8 = 0x03;
const DIVISOR_ACCESS: u8 = 0x80;
/// FIFO control: on, both emptied, interrupt at 8 bytes.
const FIFOS: u8 = 0x87;
/// Modem control: data terminal ready, request to send, interrupt line connected.
const READY: u8 = 0x0b;
/// Line status.
const HAS_DATA: u8 = 1 << 0;
const HAS_ROOM: u8 = 1 << 5;
/// Bytes that fit when there is room at all.
const FIFO: usize = 16;

/// A serial port.
#[derive(Debug)]
pub(crate) struct Uart {
    base: u16,
    sending: bool,
}

impl Uart {
    /// Sets the port up: 115200 baud, 8N1, FIFOs, an interrupt when something is received.
    ///
    /// The eight ports from `base` on must be this component's: an IO_PORT session has let it use them.
    pub(crate) fn new(base: u16) -> Self {
        let uart = Self { base, sending: false };
        uart.write(INTERRUPT_ENABLE, 0);
        uart.write(LINE_CONTROL, DIVISOR_ACCESS);
        uart.write(DATA, 1);
        uart.write(INTERRUPT_ENABLE, 0);
        uart.write(LINE_CONTROL, EIGHT_BITS);
        uart.write(FIFO_CONTROL, FIFOS);
        uart.write(MODEM_CONTROL, READY);
        uart.write(INTERRUPT_ENABLE, RECEIVED);
        uart
    }

    /// The next byte that was received.
    pub(crate) fn receive(&self) -> Option<u8> {
        (self.read(LINE_STATUS) & HAS_DATA != 0).then(|| self.read(DATA))
    }

    /// How many bytes can be sent now.
    pub(crate) fn room(&self) -> usize {
        if self.read(LINE_STATUS) & HAS_ROOM != 0 { FIFO } else { 0 }
    }

    /// Sends a byte for which there is room.
    pub(crate) fn send(&self, byte: u8) {
        self.write(DATA, byte);
    }

    /// Whether an interrupt shall say when there is room again.
    pub(crate) fn want_room(&mut self, wanted: bool) {
        if self.sending != wanted {
            self.sending = wanted;
            self.write(INTERRUPT_ENABLE, if wanted { RECEIVED | SENT } else { RECEIVED });
        }
    }

    fn read(&self, register: u16) -> u8 {
        // SAFETY: the port is this component's (see `new`); a register of the device does not touch memory.
        unsafe { arch::read(self.base + register) }
    }

    fn write(&self, register: u16, value: u8) {
        // SAFETY: as in `read`.
        unsafe { arch::write(self.base + register, value) };
    }
}
