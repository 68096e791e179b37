// SPDX-License-Identifier: MIT OR Apache-2.0
//! The serial port: `vm-superio`'s 16550A with our interrupt line and console behind it.
//!
//! [`SerialPort`] is the device on the port bus; a [`ConsoleOutput`] is where its bytes go. Input comes from another
//! thread through [`SerialPort::input`]; what the FIFO of 64 bytes does not take stays with the caller.
//!
//! Why `vm-superio` unmodified, in spite of its being a model by edges: a character that Linux' console or tty driver
//! sends costs one exit for the data register, and per sixteen characters one each for IIR, LSR and MSR, because the
//! driver uses the transmit FIFO of a 16550A that never is full. A model by levels would save one interrupt per burst
//! (`vm-superio` raises THRE while the handler still writes, which the handler sees as a second, empty one); it would
//! not save a data write. What costs is the number of characters, and the cure for that is virtio-console.
//!
//! Rule: output that the console does not take is lost, as on a line with nobody at its end; the guest never waits.

use crate::bits::lo8;
use crate::bus::{ByteDevice, PortDevice, Width};
use crate::irq::IrqLine;
use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use vm_superio::Trigger;
use vm_superio::serial::{NoEvents, Serial};

/// First port of COM1.
pub const COM1_PORT: u16 = 0x3f8;
/// ISA interrupt of COM1.
pub const COM1_IRQ: u32 = 4;
/// First port of COM2.
pub const COM2_PORT: u16 = 0x2f8;
/// ISA interrupt of COM2.
pub const COM2_IRQ: u32 = 3;
/// Number of ports.
pub const SERIAL_PORTS: u64 = 8;

/// Where the bytes of a serial port go.
pub trait ConsoleOutput: Send {
    /// Takes bytes; never blocks.
    fn write(&mut self, bytes: &[u8]);
}

impl ConsoleOutput for Vec<u8> {
    fn write(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

impl<C: ConsoleOutput + ?Sized> ConsoleOutput for Arc<Mutex<C>> {
    fn write(&mut self, bytes: &[u8]) {
        crate::lock(self).write(bytes);
    }
}

/// An interrupt line as `vm-superio` drives it: by edges.
struct Edge(Mutex<IrqLine>);

impl Trigger for Edge {
    type E = std::convert::Infallible;

    fn trigger(&self) -> Result<(), Self::E> {
        crate::lock(&self.0).pulse();
        Ok(())
    }
}

struct Out<C>(C);

impl<C: ConsoleOutput> Write for Out<C> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A 16550A serial port.
pub struct SerialPort<C: ConsoleOutput> {
    uart: Serial<Edge, NoEvents, Out<C>>,
}

impl<C: ConsoleOutput> std::fmt::Debug for SerialPort<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SerialPort").field("state", &self.uart.state()).finish_non_exhaustive()
    }
}

impl<C: ConsoleOutput> SerialPort<C> {
    /// A port, as reset, that interrupts through `line` and writes to `console`.
    #[must_use]
    pub fn new(line: IrqLine, console: C) -> Self {
        Self { uart: Serial::new(Edge(Mutex::new(line)), Out(console)) }
    }

    /// Types `bytes` at the port. Returns how many were taken; the rest must come again when [`Self::input_room`]
    /// says so.
    pub fn input(&mut self, bytes: &[u8]) -> usize {
        let room = self.input_room();
        let (now, _later) = bytes.split_at_checked(room).unwrap_or((bytes, &[]));
        self.uart.enqueue_raw_bytes(now).unwrap_or(0)
    }

    /// How many bytes [`Self::input`] would take.
    #[must_use]
    pub fn input_room(&self) -> usize {
        self.uart.fifo_capacity()
    }

    /// The console behind it.
    pub fn console(&mut self) -> &mut C {
        &mut self.uart.writer_mut().0
    }
}

impl<C: ConsoleOutput> ByteDevice for SerialPort<C> {
    fn read_byte(&mut self, offset: u16) -> u8 {
        self.uart.read(lo8(u64::from(offset)))
    }

    fn write_byte(&mut self, offset: u16, value: u8) {
        // It fails only if the line or the console does, and ours cannot.
        let _infallible = self.uart.write(lo8(u64::from(offset)), value);
    }
}

impl<C: ConsoleOutput> PortDevice for SerialPort<C> {
    fn read(&mut self, offset: u16, width: Width) -> u32 {
        if width == Width::Byte {
            return u32::from(self.read_byte(offset));
        }
        (0..width.bytes().min(4)).rev().fold(0, |value, i| {
            (value << 8) | u32::from(self.read_byte(offset.wrapping_add(crate::bits::lo16(u64::from(i)))))
        })
    }

    fn write(&mut self, offset: u16, width: Width, value: u32) {
        if width == Width::Byte {
            return self.write_byte(offset, lo8(u64::from(value)));
        }
        for i in 0..width.bytes().min(4) {
            let at = offset.wrapping_add(crate::bits::lo16(u64::from(i)));
            self.write_byte(at, crate::bits::byte(u64::from(value), i));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{ConsoleOutput, SerialPort};
    use crate::bus::ByteDevice;
    use crate::irq::{IrqLine, Recorder};
    use std::sync::Arc;

    fn port() -> (SerialPort<Vec<u8>>, Arc<Recorder>) {
        let recorder = Arc::new(Recorder::default());
        (SerialPort::new(IrqLine::new(recorder.clone(), 4), Vec::new()), recorder)
    }

    #[test]
    fn pc16550d_identifies_itself_as_linux_probes_it() {
        let (mut p, _) = port();
        p.write_byte(1, 0);
        assert_eq!(p.read_byte(1), 0);
        p.write_byte(1, 0xf);
        assert_eq!(p.read_byte(1), 0xf);
        p.write_byte(1, 0);
        p.write_byte(4, 0x1a);
        assert_eq!(p.read_byte(6) & 0xf0, 0x90, "loopback of modem control");
        p.write_byte(4, 0);
        p.write_byte(2, 1);
        assert_eq!(p.read_byte(2) >> 6, 3, "FIFO");
        assert_eq!(p.read_byte(5), 0x60, "transmitter empty");
    }

    #[test]
    fn output_reaches_the_console_and_interrupts() {
        let (mut p, r) = port();
        p.write_byte(1, 2);
        assert_eq!(r.rises(), 1);
        p.read_byte(2);
        for b in b"hi" {
            p.write_byte(0, *b);
        }
        assert_eq!(r.rises(), 1, "one per burst");
        assert_eq!(p.console().as_slice(), b"hi");
    }

    #[test]
    fn input_fills_the_fifo_and_no_more() {
        let (mut p, r) = port();
        p.write_byte(1, 1);
        r.take();
        assert_eq!(p.input(&[b'x'; 100]), 64);
        assert_eq!((r.rises(), p.input_room(), p.input(b"y")), (1, 0, 0));
        assert_eq!((p.read_byte(5) & 1, p.read_byte(0)), (1, b'x'));
        assert_eq!(p.input(b"y"), 1);
    }

    #[test]
    fn console_output_can_be_shared() {
        let shared = Arc::new(std::sync::Mutex::new(Vec::new()));
        shared.clone().write(b"a");
        assert_eq!(*crate::lock(&shared), b"a");
    }
}
