// SPDX-License-Identifier: MIT OR Apache-2.0
//! Non-maskable interrupts from outside: reported with what the chipset says, and nothing else. A watchdog, a button or a management controller
//! wants attention; the machine goes on. (The kernel's own, that stop a core, are recognized before.)
//!
//! It may come while a line of the log is being written, so the log's order is not waited for.
//!
//! Source: Intel 9-series chipset data sheet, 12.7.1 (NMI status and control, port 0x61).

use crate::console::Console;
use crate::flood::Flood;
use crate::percore::core;
use core::fmt::Write;
use x86::io::{inb, outb};

/// Status and control.
const PORT: u16 = 0x61;
/// A system error (SERR#), and its gate.
const SYSTEM_ERROR: (u8, u8) = (0x80, 0x04);
/// An error of a channel (IOCHK#), and its gate.
const CHANNEL: (u8, u8) = (0x40, 0x08);

static TOLD: Flood = Flood::new();

/// One came, while what is at that address ran.
pub(crate) fn raised(address: u64) {
    // SAFETY: the port says why; reading has no effect.
    let status = unsafe { inb(PORT) };
    let why = match status & (SYSTEM_ERROR.0 | CHANNEL.0) {
        0 => "of unknown reason",
        0x80 => "for a system error (SERR#)",
        0x40 => "for a channel error (IOCHK#)",
        _ => "for system and channel errors",
    };
    TOLD.tell(|count| {
        let _ = writeln!(
            Console,
            "[kernel] error: non-maskable interrupt {why} (port 0x61: {status:#x}), core {}, at {address:#x} ({count})",
            core().id
        );
    });
    for (bit, gate) in [SYSTEM_ERROR, CHANNEL] {
        if status & bit != 0 {
            // Closing the gate clears the error. The upper half is not to be written.
            for value in [status & 0xf | gate, status & 0xf & !gate] {
                // SAFETY: the port is the kernel's; speaker and timer gate stay as they are.
                unsafe { outb(PORT, value) };
            }
        }
    }
}
