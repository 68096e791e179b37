// SPDX-License-Identifier: MIT OR Apache-2.0
//! Off, reset, and waiting for an interrupt.

use super::{acpi, serial};
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};
use x86::io::{inw, outb, outw};

static DEBUG_EXIT: AtomicBool = AtomicBool::new(false);

/// `debug-exit` on the command line: the machine has QEMU's `isa-debug-exit` at 0xf4, which ends it with a code.
pub(crate) fn init(cmdline: &str) {
    DEBUG_EXIT.store(cmdline.split_ascii_whitespace().any(|word| word == "debug-exit"), Relaxed);
}

/// Powers off: by the debug exit device if there is one, else by ACPI's S5 (ACPI 6.5, 4.8.3.2).
pub(crate) fn off(code: u64) -> ! {
    serial::drain();
    if DEBUG_EXIT.load(Relaxed) {
        // SAFETY: the command line says that the device is there.
        unsafe { outb(0xf4, crate::width::low8(code)) };
    }
    if let Some((port, kind)) = acpi::tables().sleep {
        // SAFETY: the port is PM1a control by the FADT.
        let control = unsafe { inw(port) } & !0x3c00;
        // SAFETY: as above; SLP_TYP and SLP_EN.
        unsafe { outw(port, control | u16::from(kind) << 10 | 1 << 13) };
    }
    log::error!("the machine does not switch off");
    stop()
}

/// Resets: ACPI's register, the chipset's, the keyboard controller's.
pub(crate) fn reset() -> ! {
    serial::drain();
    if let Some((port, value)) = acpi::tables().reset {
        // SAFETY: the port is the reset register by the FADT.
        unsafe { outb(port, value) };
    }
    for (port, value) in [(0xcf9, 2), (0xcf9, 6), (0x64, 0xfe)] {
        // SAFETY: the usual reset ports of a PC.
        unsafe { outb(port, value) };
    }
    stop()
}

/// Stops this core for good.
pub(crate) fn stop() -> ! {
    loop {
        // SAFETY: with interrupts off the core waits until reset.
        unsafe { core::arch::asm!("cli", "hlt") };
    }
}

/// Waits for an interrupt, and takes it.
pub(crate) fn wait() {
    // SAFETY: the interrupt comes in on the kernel stack; interrupts are off again after it. STI takes effect after HLT began.
    unsafe { core::arch::asm!("sti", "hlt", "cli", options(nostack)) };
}

/// Takes the interrupts that are pending.
pub(crate) fn take_interrupts() {
    // SAFETY: as `wait`.
    unsafe { core::arch::asm!("sti", "nop", "cli", options(nostack)) };
}
