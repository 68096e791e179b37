// SPDX-License-Identifier: MIT OR Apache-2.0
//! The kernel's console: log messages, panics, and what the root task writes to it.
//!
//! A message is one line, whole, also with several cores. What those above can provoke as often as they like goes through
//! [`crate::flood`]: the console is slow, and whoever writes waits for it.

use crate::arch::{cpu, serial, timer};
use crate::boot::option;
use crate::percore;
use core::fmt::{self, Write};
use core::sync::atomic::{AtomicUsize, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};
use log::{LevelFilter, Log, Metadata, Record};

/// Writes one byte.
fn put(byte: u8) {
    if byte == b'\n' {
        serial::put(b'\r');
    }
    serial::put(byte);
}

/// The console as a sink of text. What is written to it directly is not kept apart from what other cores write.
#[derive(Debug)]
pub(crate) struct Console;

impl Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.bytes().for_each(put);
        Ok(())
    }
}

/// Core whose line it is, from 1; 0 for nobody. A panic does not ask: it stops the other cores first.
static LINE: AtomicUsize = AtomicUsize::new(0);
/// How long others may hold it, seconds: a core of an emulator may stand still in the middle of its line, or wait for the port.
const PATIENCE: u64 = 5;

/// Holds for a line. Whoever does not get it writes all the same: a non-maskable interrupt came in a line of its own core, or
/// another core was stopped in one.
fn line() -> Option<Line> {
    // The boot core writes before it is one.
    let own = if percore::count() == 0 { 1 } else { usize::from(percore::core().id) + 1 };
    let start = cpu::ticks();
    loop {
        match LINE.compare_exchange_weak(0, own, Acquire, Relaxed) {
            Ok(_) => return Some(Line),
            Err(holder) if holder == own => return None,
            Err(_) if cpu::ticks().saturating_sub(start) > PATIENCE * timer::tsc_hz() => return None,
            Err(_) => core::hint::spin_loop(),
        }
    }
}

/// The line is this core's.
struct Line;

impl Drop for Line {
    fn drop(&mut self) {
        LINE.store(0, Release);
    }
}

/// Writes what a component has said, in one piece.
pub(crate) fn write(bytes: impl Iterator<Item = u8>) {
    let _line = line();
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
        let _line = line();
        // The console takes everything.
        let _ = writeln!(Console, "[kernel] {level}{}", record.args());
    }

    fn flush(&self) {}
}

/// Makes log messages go to the console. `log-level=` `off`, `error`, `warn`, `info`, `debug` or `trace` on the command line says
/// which; without it all up to `info`.
pub(crate) fn init(cmdline: &str) {
    serial::init(cmdline);
    // The only logger that is ever set.
    let _ = log::set_logger(&Console);
    let level = option(cmdline, "log-level=").and_then(|level| level.parse().ok());
    log::set_max_level(level.unwrap_or(LevelFilter::Info));
}
