// SPDX-License-Identifier: MIT OR Apache-2.0
//! From the loader to [`crate::boot::start`]: two ways in (PVH, as QEMU's `-kernel` boots; Multiboot 2, as GRUB does), both in 32-bit
//! protected mode without paging.
//!
//! The boot page tables map the first 4 GiB three times with 2 MiB pages: as they are, at the direct map, and (the first
//! GiB) at the top where the kernel is linked. They serve until [`super::paging`] has built the kernel's own.
//!
//! Sources: Xen `docs/misc/pvh.pandoc` (PVH); Multiboot 2 specification, 3.1 to 3.3 (header, machine state).

use core::arch::global_asm;

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

    .section .boot.bss, "aw", @nobits
    .balign 4096
boot_pml4:  .skip 4096
boot_pdpt:  .skip 4096              /* first 4 GiB */
boot_pdpt2: .skip 4096              /* top 2 GiB */
boot_pd:    .skip 4 * 4096

    .section .boot.data, "aw"
    .balign 8
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
    .code32
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

    mov eax, offset boot_pdpt
    or eax, 3
    mov dword ptr [boot_pml4], eax
    mov dword ptr [boot_pml4 + 256 * 8], eax
    mov eax, offset boot_pdpt2
    or eax, 3
    mov dword ptr [boot_pml4 + 511 * 8], eax
    mov eax, offset boot_pd
    or eax, 3
    mov dword ptr [boot_pdpt2 + 510 * 8], eax
    xor ecx, ecx
2:  mov dword ptr [boot_pdpt + ecx * 8], eax
    add eax, 4096
    inc ecx
    cmp ecx, 4
    jne 2b

    mov eax, 0x83                   /* present, writable, 2 MiB */
    xor ecx, ecx
3:  mov dword ptr [boot_pd + ecx * 8], eax
    add eax, 0x200000
    inc ecx
    cmp ecx, 4 * 512
    jne 3b

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
    lgdt [boot_gdtr]
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
    lea rsp, [rip + {stack} + {stack_size}]
    xor ebp, ebp
    call {start}
    ud2
"#,
    stack = sym super::percore::BOOT_STACK,
    stack_size = const super::percore::STACK_END,
    start = sym crate::boot::start,
);
