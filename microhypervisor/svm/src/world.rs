// SPDX-License-Identifier: MIT OR Apache-2.0
//! The world switch: the only code of this crate that touches the machine.
//!
//! VMRUN and #VMEXIT exchange what the processor cannot be without (control registers, CS to DS, tables, RIP, RSP, RAX);
//! VMLOAD and VMSAVE exchange FS, GS, TR, LDTR and the system-call registers. The host's half of the latter is constant
//! but for the thread's FS and GS base, so it lies in a block of its own ([`Host`]), is saved once per core, and VMSAVE
//! of the host is not on the path. (AMD APM vol. 2, 15.5 and 15.14.)
//!
//! Interrupts: CLGI keeps everything, NMIs too, off while neither world is whole. IF is set within, because it says
//! (with V_INTR_MASKING) whether physical interrupts end the guest; it is clear again before STGI, so that what is
//! pending waits for the kernel to let it in.

use crate::vmcb::Vmcb;
use cloister_vcpu::general_registers;
use core::arch::asm;
use core::ptr::NonNull;

/// Base of FS in the save area.
const FS_BASE: usize = 0x48 / 8;
/// KERNEL_GS_BASE there.
const KERNEL_GS_BASE: usize = 0x220 / 8;

/// The host's registers that #VMEXIT does not restore, one block per core.
#[derive(Debug)]
pub struct Host {
    block: &'static mut Vmcb,
    pub(crate) physical: u64,
}

impl Host {
    /// Saves this core's registers in the block.
    ///
    /// # Safety
    /// SVM must be enabled; `block` must point to a page at `physical` that is used for nothing else. GS base must be the
    /// kernel's, and FS, GS, TR, LDTR and the system-call registers as they shall always be in the kernel on this
    /// core.
    #[must_use]
    pub unsafe fn new(block: NonNull<Vmcb>, physical: u64) -> Self {
        // SAFETY: the caller gives the page.
        unsafe { asm!("vmsave rax", in("rax") physical, options(nostack, preserves_flags)) };
        // SAFETY: as above; the processor reads the block in `enter` only.
        Self { block: unsafe { &mut *block.as_ptr() }, physical }
    }

    /// Sets what #VMEXIT restores of the thread that runs the guest: FS base and KERNEL_GS_BASE.
    #[inline]
    pub(crate) const fn set_thread(&mut self, [fs_base, kernel_gs_base]: [u64; 2]) {
        self.block.save[FS_BASE] = fs_base;
        self.block.save[KERNEL_GS_BASE] = kernel_gs_base;
    }
}

/// Enters the guest of the block at physical address `guest`, and returns at its exit.
///
/// # Safety
/// `registers` begins with the general-purpose ones. Interrupts must be off, SVM enabled, the host save area set. `guest` must be a block that [`crate::vcpu::Vcpu::new`] made,
/// `host` one that [`Host::new`] saved on this core. The guest must be confined.
#[inline]
pub(crate) unsafe fn enter(registers: &mut [u64], guest: u64, host: u64) {
    // SAFETY: all registers that the guest changes are saved or given up here; the caller vouches for the rest.
    unsafe {
        asm!(
            "push rbx",
            "push rbp",
            "push rsi",
            "push rdi",
            "clgi",
            "sti",
            "vmload rax",
            general_registers!(load_moves, "rdi"),
            "mov rdi, [rdi + 7 * 8]",
            "vmrun rax",
            "vmsave rax",
            "pop rax",
            general_registers!(store_moves, "rax"),
            "mov [rax + 7 * 8], rdi",
            "pop rax",
            "vmload rax",
            "cli",
            "stgi",
            "pop rbp",
            "pop rbx",
            inout("rax") guest => _,
            inout("rdi") registers.as_mut_ptr() => _,
            inout("rsi") host => _,
            out("rcx") _, out("rdx") _,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
            out("r12") _, out("r13") _, out("r14") _, out("r15") _,
        );
    }
}
