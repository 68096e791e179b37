// SPDX-License-Identifier: MIT OR Apache-2.0
//! The set-up header, and the way from the 64-bit entry to [`crate::run`]: a stack, an interrupt table, the command line.

use crate::machine;
use core::arch::global_asm;

global_asm!(
    r#"
    .section .setup, "a"
setup:
    .org 0x1f1
    .byte 1                         /* setup_sects: one sector behind the first */
    .word 0
    .long SYSSIZE
    .org 0x1fe
    .word 0xaa55
    .org 0x200
    .byte 0xeb, 0x66                /* jump over the header */
    .ascii "HdrS"
    .word 0x020f                    /* protocol 2.15 */
    .org 0x211
    .byte 1                         /* loadflags: loaded high */
    .org 0x214
    .long 0x100000                  /* code32_start */
    .org 0x22c
    .long 0x7fffffff                /* initrd_addr_max */
    .long 0x1000                    /* kernel_alignment */
    .byte 0, 12                     /* not relocatable */
    .word 1                         /* xloadflags: 64-bit entry */
    .long 2048                      /* cmdline_size */
    .org 0x258
    .quad 0x100000                  /* pref_address */
    .long 0x100000                  /* init_size */
    .org 0x3ff
    .byte 0

    .section .entry, "ax"
    .org 0x200
entry64:
    lea rsp, [rip + {stack} + {stack_size}]
    mov rdi, rsi
    xor ebp, ebp
    call {start}
    ud2

    /* Exceptions: the address to go on at is in a variable; without one the guest ends. */
    .global exception_entry
exception_entry:
    lea rsp, [rip + {stack} + {stack_size} - 32768]
    mov rax, [rip + {resume}]
    test rax, rax
    jz 1f
    mov rsp, [rip + {resume_stack}]
    jmp rax
1:  call {died}
    ud2
"#,
    stack = sym STACK,
    stack_size = const STACK_SIZE,
    start = sym start,
    resume = sym machine::RESUME,
    resume_stack = sym machine::RESUME_STACK,
    died = sym died,
);

const STACK_SIZE: usize = 65536;

#[repr(C, align(16))]
struct Stack(core::cell::UnsafeCell<[u8; STACK_SIZE]>);
// SAFETY: one processor, which uses it as its stack.
unsafe impl Sync for Stack {}
static STACK: Stack = Stack(core::cell::UnsafeCell::new([0; STACK_SIZE]));

/// Offset of the command line's address in the zero page.
const CMD_LINE_PTR: u64 = 0x228;

extern "C" fn start(zero_page: u64) -> ! {
    machine::init();
    let mut text = [0u8; 128];
    // SAFETY: the loader gives a zero page, and in it the address of a NUL-terminated command line below 4 GiB.
    let line = unsafe { machine::read::<u32>(zero_page + CMD_LINE_PTR) };
    let mut length = 0;
    for place in &mut text {
        // SAFETY: as above; the text ends with a NUL.
        let byte = unsafe { machine::read::<u8>(u64::from(line) + length) };
        if byte == 0 {
            break;
        }
        *place = byte;
        length += 1;
    }
    let used = usize::try_from(length).unwrap_or(0);
    crate::run(core::str::from_utf8(text.get(..used).unwrap_or(&[])).unwrap_or(""))
}

extern "C" fn died() -> ! {
    use core::fmt::Write;
    let _ = writeln!(machine::Serial, "small guest: died of an exception");
    machine::power_off()
}
