// SPDX-License-Identifier: MIT OR Apache-2.0
//! From the loader to [`crate::boot::start`]: two ways in (PVH, as QEMU's `-kernel` boots; Multiboot 2, as GRUB does), both in 32-bit
//! protected mode without paging. Further cores come in a third way, to [`super::smp::start`]: in real mode, in a copy of `smp_code` in
//! some page below 1 MiB. In EDI is from then on by which way.
//!
//! The boot page tables map the first 4 GiB three times with 2 MiB pages: as they are, at the direct map, and (the first
//! GiB) at the top where the kernel is linked; what lies higher is seen piece by piece through a [`window`]. They serve until
//! [`super::paging`] has built the kernel's own.
//!
//! Sources: Xen `docs/misc/pvh.pandoc` (PVH); Multiboot 2 specification, 3.1 to 3.3 (header, machine state); AMD APM vol. 2, 14.6
//! (long mode), 16.5 (start-up IPI).

use crate::memory::DIRECT_MAP;
use crate::width::index;
use core::arch::global_asm;
use core::arch::x86_64::__cpuid;

global_asm!(
    r#"
    .section .boot.header, "a"
    .balign 8
mb2_header:
    .long 0xe85250d6                /* magic */
    .long 0                         /* architecture: i386 protected mode */
    .long mb2_end - mb2_header
    .long -(0xe85250d6 + 0 + (mb2_end - mb2_header))
    .word 3, 0                      /* entry address */
    .long 12
    .long boot_multiboot
    .balign 8
    .word 6, 0                      /* modules page-aligned */
    .long 8
    .balign 8
    .word 5, 1                      /* framebuffer, optional */
    .long 20
    .long 0, 0, 32
    .balign 8
    .word 0, 0                      /* end */
    .long 8
mb2_end:
    .section .note.pvh, "a", @note
    .balign 4
    .long 4, 8, 18                  /* XEN_ELFNOTE_PHYS32_ENTRY */
    .asciz "Xen"
    .quad boot_pvh
    .section .boot.data, "aw"
    .balign 4096                    /* entries: present, writable */
boot_pml4:
    .quad boot_pdpt + 3
    .skip 255 * 8
    .quad boot_pdpt + 3             /* direct map */
    .skip 254 * 8
    .quad boot_pdpt2 + 3
boot_pdpt:                          /* first 4 GiB, and the window */
    .quad boot_pd + 3, boot_pd + 0x1003, boot_pd + 0x2003, boot_pd + 0x3003, boot_pd + 0x4003
    .skip 507 * 8
boot_pdpt2:                         /* top 2 GiB */
    .skip 510 * 8
    .quad boot_pd + 3
    .skip 8
    .global boot_pd
boot_pd:
    .set page, 0x83                 /* 2 MiB */
    .rept 4 * 512
    .quad page
    .set page, page + 0x200000
    .endr
    .skip 4096                      /* the window */
boot_gdt:
    .quad 0
    .quad 0x00af9b000000ffff        /* 64-bit code */
    .quad 0x00cf93000000ffff        /* data */
    .quad 0x00cf9b000000ffff        /* 32-bit code, for further cores */
boot_gdt_end:
boot_gdtr:
    .word boot_gdt_end - boot_gdt - 1
    .long boot_gdt
    .section .boot.text, "ax"
    .code16
    .global smp_code, smp_code_end
smp_code:                           /* CS is the page that it was copied to */
    cli
    cld
    .byte 0x2e, 0x66, 0x0f, 0x01, 0x16  /* lgdt cs:[...], 32-bit base */
    .word smp_gdtr - smp_code
    mov eax, cr0
    or al, 1
    mov cr0, eax
    .byte 0x66, 0xea                /* far jump to 32-bit code */
    .long smp_protected
    .word 24
    .balign 8
smp_gdtr:
    .word boot_gdt_end - boot_gdt - 1
    .long boot_gdt
smp_code_end:
    .code32
smp_protected:
    mov edi, 3
    jmp boot_paging
    .global boot_multiboot
boot_multiboot:
    mov edi, 2
    cmp eax, 0x36d76289
    je 1f
    xor edi, edi
    jmp 1f
    .global boot_pvh
boot_pvh:
    mov edi, 1
1:  cli
    cld
    mov esi, ebx
    lgdt [boot_gdtr]
boot_paging:
    mov eax, 0x20                   /* CR4.PAE */
    mov cr4, eax
    mov eax, offset boot_pml4
    mov cr3, eax
    mov ecx, 0xc0000080             /* EFER: LME, NXE, SCE */
    rdmsr
    or eax, 0x901
    wrmsr
    mov eax, 0x80010033             /* CR0: PG, WP, NE, ET, MP, PE */
    mov cr0, eax
    /* far jump to 64-bit code */
    .byte 0xea
    .long boot_long
    .word 8
    .code64
boot_long:
    mov eax, 0x10
    mov ds, eax
    mov es, eax
    mov ss, eax
    xor eax, eax
    mov fs, eax
    mov gs, eax
    movabs rax, offset boot_high
    jmp rax
    .section .text.entry, "ax"
boot_high:
    xor ebp, ebp
    cmp edi, 3
    je 1f
    lea rsp, [rip + {stack} + {stack_size}]
    call {start}
    ud2
1:  mov rax, [rip + {smp_root}]
    mov cr3, rax
    mov rdi, [rip + {smp_core}]
    mov rsp, [rdi + {smp_stack}]
    call {smp_start}
    ud2
"#,
    stack = sym super::percore::STACKS,
    stack_size = const super::percore::STACK_END,
    start = sym crate::boot::start,
    smp_root = sym super::smp::ROOT,
    smp_core = sym super::smp::CORE,
    smp_stack = const core::mem::offset_of!(super::percore::Head, stack),
    smp_start = sym super::smp::start,
);

unsafe extern "C" {
    static boot_pd: u8;
}

/// What the boot direct map covers.
pub(super) const REACH: u64 = 1 << 32;
const LARGE: u64 = 2 << 20;

/// Makes the 2 MiB around a physical address visible behind the boot direct map, in place of what was seen there before. Answers where
/// the address is then; `None` if the processor has no such addresses.
pub(super) fn window(address: u64) -> Option<u64> {
    let first = (&raw const boot_pd).addr() as u64 + 4 * 4096;
    let entry: *mut u64 = core::ptr::with_exposed_provenance_mut(index(DIRECT_MAP + first));
    let (here, bits) = (DIRECT_MAP + REACH, __cpuid(0x8000_0008).eax & 0xff);
    if address >> bits != 0 {
        return None;
    }
    // SAFETY: the first entry of the last boot table, by which nothing else is seen. Present, writable, 2 MiB, as all of them.
    unsafe { entry.write_volatile(address & !(LARGE - 1) | 0x83) };
    // SAFETY: as above.
    unsafe { x86::tlb::flush(index(here)) };
    Some(here + address % LARGE)
}
