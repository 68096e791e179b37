// SPDX-License-Identifier: MIT OR Apache-2.0
//! The VMM's end of the guest's console.
//!
//! Output is gathered and passed on at the end of a line, when there is much of it, and when the guest has nothing to do
//! ([`Console::flush`]), since a write of one character costs as much as one of a line. Input comes from a thread of its
//! own, which waits for the terminal and types at the serial port.

use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex, Weak};
use std::thread;
use std::time::Duration;

use cloister_devices::lock;
use cloister_devices::serial::{ConsoleOutput, SerialPort};

/// Output that can be made to appear.
pub trait Console: ConsoleOutput {
    /// Passes on what is held back.
    fn flush(&mut self);
}

/// A console that several own.
pub type SharedConsole = Arc<Mutex<dyn Console>>;
/// The serial port behind the console.
pub type Port = SerialPort<SharedConsole>;

/// Held back at most, in bytes.
const GATHER: usize = 512;

/// A console on a byte stream.
#[derive(Debug)]
pub struct Stream<W: Write> {
    out: W,
    held: Vec<u8>,
}

impl<W: Write> Stream<W> {
    /// A console that writes to `out`. Errors of `out` lose output and nothing else.
    pub fn new(out: W) -> Self {
        Self { out, held: Vec::with_capacity(GATHER) }
    }
}

impl<W: Write + Send> ConsoleOutput for Stream<W> {
    fn write(&mut self, bytes: &[u8]) {
        self.held.extend_from_slice(bytes);
        if self.held.len() >= GATHER || bytes.contains(&b'\n') {
            self.flush();
        }
    }
}

impl<W: Write + Send> Console for Stream<W> {
    fn flush(&mut self) {
        if !self.held.is_empty() {
            let _lost = self.out.write_all(&self.held).and_then(|()| self.out.flush());
            self.held.clear();
        }
    }
}

/// The serial port that input goes to: that of the machine which runs now. A reset puts another one in.
#[derive(Clone, Debug, Default)]
pub struct InputTarget(Arc<Mutex<Weak<Mutex<Port>>>>);

impl InputTarget {
    /// Directs input to `port` from now on.
    pub fn set(&self, port: &Arc<Mutex<Port>>) {
        *lock(&self.0) = Arc::downgrade(port);
    }

    /// Types `bytes`; waits while the port's queue is full.
    fn type_in(&self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let Some(port) = lock(&self.0).upgrade() else { return };
            let taken = lock(&port).input(bytes);
            bytes = bytes.get(taken..).unwrap_or(&[]);
            if taken == 0 {
                thread::sleep(Duration::from_millis(5));
            }
        }
    }
}

/// Starts the thread that reads `input` until it ends and types it at `target`.
///
/// # Errors
/// There can be no thread.
pub fn start_input(mut input: impl Read + Send + 'static, target: InputTarget) -> io::Result<()> {
    let run = move || {
        let mut buffer = [0; 64];
        loop {
            match input.read(&mut buffer) {
                Ok(0) => return,
                Ok(n) => target.type_in(buffer.get(..n).unwrap_or(&[])),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    };
    thread::Builder::new().name("console".into()).stack_size(64 << 10).spawn(run).map(drop)
}

#[cfg(test)]
mod tests {
    use super::{Console, InputTarget, Port, Stream, start_input};
    use cloister_devices::bus::ByteDevice;
    use cloister_devices::irq::IrqLine;
    use cloister_devices::lock;
    use cloister_devices::serial::ConsoleOutput;
    use std::io::Cursor;
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    #[test]
    fn lines_appear_whole_and_prompts_when_flushed() {
        let mut console = Stream::new(Vec::new());
        console.write(b"hel");
        console.write(b"lo");
        assert!(console.out.is_empty());
        console.write(b"\n/ # ");
        assert_eq!(console.out, b"hello\n/ # ");
        console.write(b"x");
        console.flush();
        assert_eq!(console.out, b"hello\n/ # x");
    }

    #[test]
    fn input_reaches_the_port_in_order_beyond_its_queue() {
        let text: Vec<u8> = (0..200).collect();
        let port = Port::new(IrqLine::unconnected(), Arc::new(Mutex::new(Stream::new(Vec::new()))));
        let port = Arc::new(Mutex::new(port));
        let target = InputTarget::default();
        target.set(&port);
        start_input(Cursor::new(text.clone()), target).unwrap();
        let mut got = Vec::new();
        while got.len() < text.len() {
            let mut port = lock(&port);
            if port.read_byte(5) & 1 != 0 {
                got.push(port.read_byte(0));
            } else {
                drop(port);
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        assert_eq!(got, text);
    }
}
