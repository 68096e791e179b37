// SPDX-License-Identifier: MIT OR Apache-2.0
//! The kernel's console: log messages, panics, and what the root task writes to it.

use crate::arch::serial;
use core::fmt::{self, Write};
use log::{LevelFilter, Log, Metadata, Record};
use spin::Mutex;

/// Writes one byte.
fn put(byte: u8) {
    if byte == b'\n' {
        serial::put(b'\r');
    }
    serial::put(byte);
}

/// The console as a sink of text.
#[derive(Debug)]
pub(crate) struct Console;

impl Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.bytes().for_each(put);
        Ok(())
    }
}

/// Whose line it is. A panic does not ask: it stops the other cores first.
static LINE: Mutex<()> = Mutex::new(());

/// Writes what a component has said, in one piece.
pub(crate) fn write(bytes: impl Iterator<Item = u8>) {
    let _line = LINE.lock();
    bytes.for_each(put);
}

impl Log for Console {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let level = match record.level() {
            log::Level::Error => "error: ",
            log::Level::Warn => "warning: ",
            _ => "",
        };
        let _line = LINE.lock();
        // The console takes everything.
        let _ = writeln!(Console, "[kernel] {level}{}", record.args());
    }

    fn flush(&self) {}
}

/// Makes log messages go to the console.
pub(crate) fn init(cmdline: &str) {
    serial::init(cmdline);
    // The only logger that is ever set.
    let _ = log::set_logger(&Console);
    log::set_max_level(LevelFilter::Info);
}
