// SPDX-License-Identifier: MIT OR Apache-2.0
//! The kernel's console: a 16550 at COM2 (the first port belongs to a driver), polled. `log=com1`, `log=com2` or `log=none` on the
//! command line chooses. National PC16550D data sheet, section 8.

use super::{cpu, timer};
use crate::boot::option;
use core::sync::atomic::{AtomicBool, AtomicU16, Ordering::Relaxed};
use x86::io::{inb, outb};

static PORT: AtomicU16 = AtomicU16::new(0x2f8);
/// The last byte found no room, so nobody takes what is written, and the next is not worth a wait.
static STUCK: AtomicBool = AtomicBool::new(false);

/// Seconds to wait for room: who reads an emulator's line may be busy elsewhere.
const PATIENCE: u64 = 2;

/// Where the console's registers are: first port, and how many; 0 ports if there is no console.
pub(crate) fn ports() -> (u16, u16) {
    let port = PORT.load(Relaxed);
    (port, if port == 0 { 0 } else { 8 })
}

/// Chooses the port and sets it up: 115200 baud, 8N1, FIFOs on, no interrupts.
pub(crate) fn init(cmdline: &str) {
    let port = match option(cmdline, "log=") {
        Some("com1") => 0x3f8,
        Some("none") => return PORT.store(0, Relaxed),
        _ => 0x2f8,
    };
    PORT.store(port, Relaxed);
    for (register, value) in [(1, 0), (3, 0x80), (0, 1), (1, 0), (3, 3), (2, 0xc7), (4, 3)] {
        // SAFETY: the port is the kernel's own.
        unsafe { outb(port + register, value) };
    }
    // SAFETY: as above.
    if unsafe { inb(port + 5) } == 0xff {
        PORT.store(0, Relaxed);
    }
}

/// Writes one byte, waiting for room a bounded time.
pub(crate) fn put(byte: u8) {
    let port = PORT.load(Relaxed);
    if port == 0 {
        return;
    }
    // SAFETY: the port is the kernel's own.
    let has_room = || unsafe { inb(port + 5) } & 0x20 != 0;
    if !has_room() && !STUCK.load(Relaxed) {
        let end = cpu::ticks() + PATIENCE * timer::tsc_hz();
        while !has_room() && cpu::ticks() < end {}
    }
    STUCK.store(!has_room(), Relaxed);
    // SAFETY: as above.
    unsafe { outb(port, byte) };
}

/// Waits, a bounded time, until the last byte is on the line: who switches the machine off wants no word lost.
pub(crate) fn drain() {
    let port = PORT.load(Relaxed);
    for _ in 0..200_000 {
        // SAFETY: the port is the kernel's own.
        if port == 0 || unsafe { inb(port + 5) } & 0x40 != 0 {
            break;
        }
    }
}
