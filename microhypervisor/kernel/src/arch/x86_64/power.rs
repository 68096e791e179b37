// SPDX-License-Identifier: MIT OR Apache-2.0
//! Off, reset, and waiting for an interrupt.
//!
//! Waiting is MWAIT in C1 (with its enhancement, if the processor lists it) on Intel's processors, and HLT on all others. Deeper states stop the local
//! timer on some processors and take longer to leave than a deadline may have, by tables that only a driver reads; on AMD's HLT
//! already lets the hardware go deeper by itself, and MWAIT would not.
//!
//! What the firmware's tables say is decoded by [`cloister_processor::shutdown`]. Registers in memory are mapped at boot.

use super::cpu::{self, cpuid, feature};
use super::{acpi, serial, smp};
use crate::memory;
use crate::width::low8;
use cloister_processor::shutdown::{Power, Register};
use core::arch::asm;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use x86::io::{inw, outb, outl, outw};

static DEBUG_EXIT: AtomicBool = AtomicBool::new(false);
/// Hint for MWAIT, or [`HALT`].
static WAIT: AtomicU32 = AtomicU32::new(HALT);
const HALT: u32 = u32::MAX;

/// PM1 control: firmware has handed over.
const SCI_EN: u16 = 1;
/// PM1 control: type of sleep, and go.
const SLP_TYP: (u16, u32) = (7 << 10, 10);
const SLP_EN: u16 = 1 << 13;

/// `debug-exit` on the command line: the machine has QEMU's `isa-debug-exit` at 0xf4, which ends it with a code.
pub(crate) fn init(cmdline: &str) {
    DEBUG_EXIT.store(cmdline.split_ascii_whitespace().any(|word| word == "debug-exit"), Relaxed);
    WAIT.store(wait_hint(), Relaxed);
}

/// How to wait, as said above.
fn wait_hint() -> u32 {
    if !cpu::has(feature::INTEL | feature::MONITOR) || cpu::has(feature::EMULATED) || cpuid(5, 0) == [0; 4] {
        return HALT;
    }
    // Sub-states of C1: the second is the enhanced one.
    u32::from(cpuid(5, 0)[3] >> 4 & 0xf > 1)
}

/// Pages of registers in memory, for the kernel's tables.
pub(crate) fn register_pages() -> impl Iterator<Item = u64> {
    let power = &acpi::tables().power;
    let registers = [power.control[0], power.control[1], power.sleep, power.reset.map(|(register, _)| register)];
    registers.into_iter().flatten().filter_map(|register| match register {
        Register::Memory(address) => Some(address & !0xfff),
        _ => None,
    })
}

/// Writes a register of one byte.
fn write8(register: Register, value: u8) {
    match register {
        // SAFETY: the page was mapped at boot; the tables say that the register is there.
        Register::Memory(address) => unsafe { memory::direct::<u8>(address).write_volatile(value) },
        // SAFETY: the port is the register's by the tables.
        Register::Port(port) => unsafe { outb(port, value) },
        Register::Configuration(device, function, offset) => {
            let address = 1 << 31 | u32::from(device) << 11 | u32::from(function) << 8 | u32::from(offset & 0xfc);
            // SAFETY: the machine ends here: nobody else uses the configuration ports any more.
            unsafe { outl(0xcf8, address) };
            // SAFETY: as above.
            unsafe { outb(0xcfc + u16::from(offset & 3), value) };
        }
    }
}

/// Reads a register of two bytes, as PM1 control is.
fn read16(register: Register) -> u16 {
    match register {
        // SAFETY: as `write8`.
        Register::Memory(address) => unsafe { memory::direct::<u16>(address).read_volatile() },
        // SAFETY: as `write8`.
        Register::Port(port) => unsafe { inw(port) },
        Register::Configuration(..) => 0,
    }
}

fn write16(register: Register, value: u16) {
    match register {
        // SAFETY: as `write8`.
        Register::Memory(address) => unsafe { memory::direct::<u16>(address).write_volatile(value) },
        // SAFETY: as `write8`.
        Register::Port(port) => unsafe { outw(port, value) },
        Register::Configuration(..) => {}
    }
}

/// Powers off: by the debug exit device if there is one, else by ACPI's S5. The other cores are stopped first.
pub(crate) fn off(code: u64) -> ! {
    smp::stop_others();
    serial::drain();
    if DEBUG_EXIT.load(Relaxed) {
        // SAFETY: the command line says that the device is there.
        unsafe { outb(0xf4, low8(code)) };
    }
    let power = &acpi::tables().power;
    if let Some(types) = power.types {
        sleep(power, types);
    }
    log::error!("the machine does not switch off");
    stop()
}

/// Enters S5 (ACPI 6.5, 4.8.3.2 and 4.8.3.7).
fn sleep(power: &Power, types: [u8; 2]) {
    if let Some(register) = power.sleep.filter(|_| power.reduced || power.control[0].is_none()) {
        write8(register, types[0] << 2 | 1 << 5);
        return;
    }
    if let (Some(register), Some((port, value))) = (power.control[0], power.enable)
        && read16(register) & SCI_EN == 0
    {
        // SAFETY: the command port by the tables, with the value that asks firmware to hand over.
        unsafe { outb(port, value) };
        for _ in 0..1_000_000 {
            if read16(register) & SCI_EN != 0 {
                break;
            }
            core::hint::spin_loop();
        }
    }
    // The type is written to both before either goes.
    for go in [0, SLP_EN] {
        for (register, kind) in
            power.control.into_iter().zip(types).filter_map(|(register, kind)| Some((register?, kind)))
        {
            write16(register, read16(register) & !SLP_TYP.0 | u16::from(kind) << SLP_TYP.1 | go);
        }
    }
}

/// Resets: by ACPI's register, the chipset's, the keyboard controller's, and at last by an exception that cannot be delivered.
pub(crate) fn reset() -> ! {
    smp::stop_others();
    serial::drain();
    if let Some((register, value)) = acpi::tables().power.reset {
        write8(register, value);
        pause();
    }
    for (port, value) in [(0xcf9, 2), (0xcf9, 6), (0x64, 0xfe)] {
        // SAFETY: the usual reset ports of a PC.
        unsafe { outb(port, value) };
        pause();
    }
    let nothing = [0u16; 5];
    // SAFETY: the machine is to reset, which a table without entries makes it do at the next exception.
    unsafe { asm!("lidt [{}]", "int3", in(reg) &raw const nothing) };
    stop()
}

/// Gives hardware some time: each access to this port takes a microsecond.
fn pause() {
    for _ in 0..100 {
        // SAFETY: the port for diagnostic codes, which nothing listens to.
        unsafe { outb(0x80, 0) };
    }
}

/// Stops this core for good.
pub(crate) fn stop() -> ! {
    loop {
        // SAFETY: with interrupts off the core waits until reset.
        unsafe { asm!("cli", "hlt") };
    }
}

/// Waits for an interrupt, and takes it.
pub(crate) fn wait() {
    let hint = WAIT.load(Relaxed);
    if hint == HALT {
        // SAFETY: the interrupt comes in on the kernel stack; interrupts are off again after it. STI takes effect after HLT began.
        unsafe { asm!("sti", "hlt", "cli", options(nostack)) };
        return;
    }
    // SAFETY: watches a word that nobody writes; the registers say so without hints.
    unsafe { asm!("monitor", in("rax") &raw const WAIT, in("ecx") 0, in("edx") 0, options(nostack, preserves_flags)) };
    // SAFETY: as for HLT: the interrupt that ends the wait comes after MWAIT began.
    unsafe { asm!("sti", "mwait", "cli", in("eax") hint, in("ecx") 0, options(nostack)) };
}

/// Takes the interrupts that are pending.
pub(crate) fn take_interrupts() {
    // SAFETY: as `wait`.
    unsafe { asm!("sti", "nop", "cli", options(nostack)) };
}
