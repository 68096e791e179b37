// SPDX-License-Identifier: MIT OR Apache-2.0
//! Ports, registers, device memory, and surviving what they answer.

use core::arch::asm;
use core::cell::UnsafeCell;
use core::fmt;

/// A word that the exception entry reads.
#[repr(transparent)]
pub(crate) struct Word(UnsafeCell<u64>);
// SAFETY: one processor.
unsafe impl Sync for Word {}

/// Where to go on after an exception, 0 for nowhere.
pub(crate) static RESUME: Word = Word(UnsafeCell::new(0));
/// Stack pointer to go on with.
pub(crate) static RESUME_STACK: Word = Word(UnsafeCell::new(0));

/// PM1a control register of the VMM's full board, and the sleep control register of its reduced one (ACPI 6.5, 4.8.3.2 and 4.8.3.7).
const PM1_CONTROL: u16 = 0x604;
const SLEEP_CONTROL: u16 = 0x640;

const COM1: u16 = 0x3f8;

#[repr(C, align(16))]
struct Idt(UnsafeCell<[[u64; 2]; 32]>);
// SAFETY: one processor.
unsafe impl Sync for Idt {}
static IDT: Idt = Idt(UnsafeCell::new([[0; 2]; 32]));

#[repr(C, packed)]
struct Table {
    limit: u16,
    base: u64,
}

unsafe extern "C" {
    fn exception_entry();
}

/// Lets exceptions come to the entry above.
pub(crate) fn init() {
    let code: u16;
    // SAFETY: reads a segment register.
    unsafe { asm!("mov {:x}, cs", out(reg) code) };
    let entry = exception_entry as *const () as u64;
    let low = entry & 0xffff | u64::from(code) << 16 | 0x8e << 40 | (entry >> 16 & 0xffff) << 48;
    // SAFETY: nothing else uses the table yet.
    unsafe { *IDT.0.get() = [[low, entry >> 32]; 32] };
    let table = Table { limit: 511, base: IDT.0.get().addr() as u64 };
    // SAFETY: the table is complete.
    unsafe { asm!("lidt [{}]", in(reg) &raw const table) };
}

/// Executes one instruction, and survives its exception: `$code` with these operands, between noting where to go on and forgetting it.
#[macro_export]
macro_rules! survive {
    ($code:literal, $($operand:tt)*) => {
        // SAFETY: the guest may do to itself what it likes; an exception goes on behind the instruction.
        unsafe {
            core::arch::asm!(
                "push rbx",
                "push rbp",
                "lea {scratch}, [rip + 77f]",
                "mov [rip + {resume}], {scratch}",
                "mov [rip + {stack}], rsp",
                $code,
                "77:",
                "mov qword ptr [rip + {resume}], 0",
                "pop rbp",
                "pop rbx",
                scratch = out(reg) _,
                resume = sym $crate::machine::RESUME,
                stack = sym $crate::machine::RESUME_STACK,
                $($operand)*
            )
        }
    };
}

/// Reads memory.
///
/// # Safety
/// The address is mapped.
pub(crate) unsafe fn read<T: Copy>(address: u64) -> T {
    let pointer: *const T = core::ptr::with_exposed_provenance(usize::try_from(address).unwrap_or(0));
    // SAFETY: the caller vouches for the address.
    unsafe { pointer.read_unaligned() }
}

/// Writes a byte to a port.
pub(crate) fn out8(port: u16, value: u8) {
    // SAFETY: a guest's own ports.
    unsafe { asm!("out dx, al", in("dx") port, in("al") value, options(nomem, nostack)) };
}

/// Writes two bytes to a port.
pub(crate) fn out16(port: u16, value: u16) {
    // SAFETY: a guest's own ports.
    unsafe { asm!("out dx, ax", in("dx") port, in("ax") value, options(nomem, nostack)) };
}

/// Reads a byte from a port.
#[inline]
pub(crate) fn in8(port: u16) -> u8 {
    let value: u8;
    // SAFETY: a guest's own ports.
    unsafe { asm!("in al, dx", in("dx") port, out("al") value, options(nomem, nostack)) };
    value
}

/// The serial port, polled.
pub(crate) struct Serial;

impl fmt::Write for Serial {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            let mut patience = 0u32;
            while in8(COM1 + 5) & 0x20 == 0 && patience < 10_000 {
                patience += 1;
            }
            out8(COM1, byte);
        }
        Ok(())
    }
}

/// Powers off by ACPI: S5 is sleep type 5 on the VMM's boards.
pub(crate) fn power_off() -> ! {
    out8(SLEEP_CONTROL, 5 << 2 | 1 << 5);
    out16(PM1_CONTROL, 5 << 10 | 1 << 13);
    halt()
}

/// Resets by the chipset's register.
pub(crate) fn reset() -> ! {
    out8(0xcf9, 6);
    halt()
}

fn halt() -> ! {
    loop {
        // SAFETY: waits for ever.
        unsafe { asm!("cli", "hlt") };
    }
}
