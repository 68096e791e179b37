// SPDX-License-Identifier: MIT OR Apache-2.0
//! The VMM's end of the guest's console.
//!
//! Output is gathered and passed on at the end of a line, when there is much of it, and when the guest has nothing to do
//! ([`Console::flush`]), since a write of one character costs as much as one of a line. Input comes from a thread of its
//! own, which waits for the terminal and types at the serial port.

use core::sync::atomic::{AtomicBool, Ordering};
use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex, Weak};
use std::thread;
use std::time::Duration;

use cloister_devices::lock;
use cloister_devices::serial::{ConsoleOutput, SerialPort};
use cloister_virtio::VirtioPci;
use cloister_virtio::console::{Console as VirtioConsoleDevice, RECEIVE};

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

/// A console that looks for a text in what passes, for measuring how long it takes to appear.
#[derive(Debug)]
pub struct Watched<C> {
    inner: C,
    text: Vec<u8>,
    tail: Vec<u8>,
    seen: Arc<AtomicBool>,
}

impl<C> Watched<C> {
    /// Passes all on to `inner`; `seen` becomes true when `text` has appeared.
    pub fn new(inner: C, text: &str, seen: Arc<AtomicBool>) -> Self {
        Self { inner, text: text.as_bytes().to_vec(), tail: Vec::new(), seen }
    }
}

impl<C: ConsoleOutput> ConsoleOutput for Watched<C> {
    fn write(&mut self, bytes: &[u8]) {
        self.inner.write(bytes);
        if self.seen.load(Ordering::Relaxed) || self.text.is_empty() {
            return;
        }
        self.tail.extend_from_slice(bytes);
        if self.tail.windows(self.text.len()).any(|w| w == self.text) {
            self.seen.store(true, Ordering::Relaxed);
        }
        let keep = self.tail.len().saturating_sub(self.text.len());
        self.tail.drain(..keep);
    }
}

impl<C: Console + ?Sized> Console for Watched<Arc<Mutex<C>>> {
    fn flush(&mut self) {
        lock(&self.inner).flush();
    }
}

/// A device that one types at.
pub trait Keyboard: Send + Sync {
    /// Types `bytes`; returns how many it took.
    fn type_in(&self, bytes: &[u8]) -> usize;
}

impl Keyboard for Mutex<Port> {
    fn type_in(&self, bytes: &[u8]) -> usize {
        lock(self).input(bytes)
    }
}

/// The virtio console behind PCI.
pub type VirtioConsole = VirtioPci<VirtioConsoleDevice<SharedConsole>>;

impl Keyboard for Mutex<VirtioConsole> {
    fn type_in(&self, bytes: &[u8]) -> usize {
        let mut console = lock(self);
        let taken = console.device().type_in(bytes);
        console.poll(RECEIVE);
        taken
    }
}

/// The device that input goes to: that of the machine which runs now. A reset puts another one in.
#[derive(Clone, Default)]
pub struct InputTarget(Arc<Mutex<Option<Weak<dyn Keyboard>>>>);

impl std::fmt::Debug for InputTarget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InputTarget").finish_non_exhaustive()
    }
}

impl InputTarget {
    /// Directs input to `keyboard` from now on.
    pub fn set(&self, keyboard: &Arc<dyn Keyboard>) {
        *lock(&self.0) = Some(Arc::downgrade(keyboard));
    }

    /// Types `bytes`; waits while the port's queue is full.
    fn type_in(&self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let Some(keyboard) = lock(&self.0).as_ref().and_then(Weak::upgrade) else { return };
            let taken = keyboard.type_in(bytes);
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
    use super::{Console, InputTarget, Keyboard, Port, Stream, Watched, start_input};
    use cloister_devices::bus::ByteDevice;
    use cloister_devices::irq::IrqLine;
    use cloister_devices::lock;
    use cloister_devices::serial::ConsoleOutput;
    use core::sync::atomic::{AtomicBool, Ordering};
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
    fn a_text_is_seen_across_writes() {
        let seen = Arc::new(AtomicBool::new(false));
        let inner = Arc::new(Mutex::new(Stream::new(Vec::new())));
        let mut console = Watched::new(inner, "init", seen.clone());
        for piece in ["in", "i", "xin", "it"] {
            assert!(!seen.load(Ordering::Relaxed));
            console.write(piece.as_bytes());
        }
        assert!(seen.load(Ordering::Relaxed));
    }

    #[test]
    fn input_reaches_the_port_in_order_beyond_its_queue() {
        let text: Vec<u8> = (0..200).collect();
        let port = Port::new(IrqLine::unconnected(), Arc::new(Mutex::new(Stream::new(Vec::new()))));
        let port = Arc::new(Mutex::new(port));
        let target = InputTarget::default();
        let keyboard: Arc<dyn Keyboard> = port.clone();
        target.set(&keyboard);
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
