// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a core has for its guests, the world switch, and the instructions of VMX: the only code of this crate that touches the
//! machine, but for VMREAD and VMWRITE.
//!
//! VM entry and exit exchange what the VMCS has. The rest is done here: general registers and CR2; the system-call registers
//! and KERNEL_GS_BASE, of which each is written only where guest and host differ (WRMSR costs more than RDMSR); CR8,
//! whose shadow lies in one page per core; and what an exit spoils of the host: the limit of the GDT (64 KiB after an exit,
//! which would let a component load what lies behind the table as a descriptor), at once, and that of the TSS, when somebody
//! needs the port bitmap behind it ([`Host::is_task_cut`]).

use crate::machine::Machine;
use crate::vmcs::Code;
use cloister_vcpu::general_registers;
use core::arch::{asm, naked_asm};
use core::ptr::NonNull;
use core::sync::atomic::AtomicU8;
use x86::bits64::vmx::{vmclear, vmptrld, vmxon};
use x86::dtables::{DescriptorTablePointer, lgdt, sgdt, sidt};
use x86::msr::{
    IA32_CSTAR, IA32_EFER, IA32_FEATURE_CONTROL, IA32_FMASK, IA32_GS_BASE, IA32_KERNEL_GSBASE, IA32_LSTAR, IA32_PAT,
    IA32_STAR, rdmsr, wrmsr,
};
use x86::vmx::vmcs::{control, host};

/// The MSRs that the switch swaps.
const SYSCALL_MSRS: [u32; MSRS] = [IA32_STAR, IA32_LSTAR, IA32_CSTAR, IA32_FMASK, IA32_KERNEL_GSBASE];
/// Number of them.
const MSRS: usize = 5;
/// No VMCS has this address.
const NONE: u64 = u64::MAX;
/// Offset of the TPR in the page of virtual APIC registers.
const TPR: usize = 0x80;
/// CR0.TS: floating-point instructions trap while a guest's state is in the registers.
const TASK_SWITCHED: u64 = 1 << 3;
const KERNEL_CS: u64 = 0x08;
const KERNEL_SS: u64 = 0x10;
const KERNEL_TR: u64 = 0x28;

/// A core, as far as guests are concerned.
#[derive(Debug)]
pub struct Host {
    current: u64,
    /// The TPR in this core's page of virtual APIC registers: the guest's CR8, in the upper half.
    pub(crate) tpr: &'static AtomicU8,
    gdtr: DescriptorTablePointer<u64>,
    /// What a VMCS must have of this core.
    pub(crate) state: [(Code, u64); 14],
    msrs: [u64; MSRS],
    task_cut: bool,
}

/// A control or debug register.
macro_rules! read_register {
    ($register:literal) => {{
        let value: u64;
        // SAFETY: reads a control or debug register, in the kernel.
        unsafe { core::arch::asm!(concat!("mov {}, ", $register), out(reg) value, options(nomem, nostack, preserves_flags)) };
        value
    }};
}

pub(crate) use read_register;

impl Host {
    /// A core that no test enters a guest on.
    #[cfg(test)]
    pub(crate) fn of_test() -> Self {
        static TPR: AtomicU8 = AtomicU8::new(0);
        let gdtr = DescriptorTablePointer::default();
        let state = [(host::CR4, 0x2020); 14];
        Self { current: NONE, tpr: &TPR, gdtr, state, msrs: [0; MSRS], task_cut: false }
    }

    /// Switches VMX on, on this core.
    ///
    /// # Errors
    /// The firmware has disabled it, or the processor refuses.
    ///
    /// # Safety
    /// The processor has VMX as `machine` says. `region` is a zeroed page at `physical` for the processor alone, `tpr` one at
    /// `tpr_physical` for this value; the task segment begins at `task_base`. GS base is the kernel's; CR0, CR4, tables, EFER, PAT and the system-call
    /// registers are as they shall always be in the kernel on this core.
    pub unsafe fn new(
        region: NonNull<u32>,
        physical: u64,
        tpr: NonNull<[AtomicU8; 4096]>,
        tpr_physical: u64,
        task_base: u64,
        machine: &Machine,
    ) -> Result<Self, &'static str> {
        const LOCKED: u64 = 1 << 0;
        const OUTSIDE_SMX: u64 = 1 << 2;
        // SAFETY: the register exists where VMX does.
        let features = unsafe { rdmsr(IA32_FEATURE_CONTROL) };
        // The firmware may have left it open (SDM vol. 3C, 24.7).
        if features & LOCKED == 0 {
            // SAFETY: as above, and it is not locked.
            unsafe { wrmsr(IA32_FEATURE_CONTROL, features | OUTSIDE_SMX | LOCKED) };
        } else if features & OUTSIDE_SMX == 0 {
            return Err("VMX is disabled by the firmware");
        }
        // SAFETY: the caller gives the page.
        unsafe { region.write(machine.revision) };
        let cr4 = read_register!("cr4") | machine.cr4_ones;
        // SAFETY: sets VMXE, which VMX needs.
        unsafe { asm!("mov cr4, {}", in(reg) cr4, options(nostack, preserves_flags)) };
        // SAFETY: VMX is allowed and not on yet, the region has the revision.
        unsafe { vmxon(physical) }.map_err(|_| "the processor refuses VMXON")?;
        // SAFETY: the caller gives the page; between the processor's accesses it is plain memory.
        let page = unsafe { tpr.as_ref() };
        Ok(Self::of_core(&page[TPR], tpr_physical, task_base))
    }

    /// What the core's registers say.
    fn of_core(tpr: &'static AtomicU8, tpr_physical: u64, task_base: u64) -> Self {
        // SAFETY: registers of long mode.
        let read = |msr| unsafe { rdmsr(msr) };
        let [mut gdtr, mut idtr] = [DescriptorTablePointer::<u64>::default(), DescriptorTablePointer::default()];
        // SAFETY: stores ten bytes.
        unsafe { sgdt(&mut gdtr) };
        // SAFETY: as above.
        unsafe { sidt(&mut idtr) };
        let state = [
            (control::VIRT_APIC_ADDR_FULL, tpr_physical),
            (host::CS_SELECTOR, KERNEL_CS),
            (host::SS_SELECTOR, KERNEL_SS),
            (host::TR_SELECTOR, KERNEL_TR),
            (host::CR0, read_register!("cr0") | TASK_SWITCHED),
            (host::CR4, read_register!("cr4")),
            (host::IA32_PAT_FULL, read(IA32_PAT)),
            (host::IA32_EFER_FULL, read(IA32_EFER)),
            (host::FS_BASE, 0),
            (host::GS_BASE, read(IA32_GS_BASE)),
            (host::TR_BASE, task_base),
            (host::GDTR_BASE, gdtr.base.addr() as u64),
            (host::IDTR_BASE, idtr.base.addr() as u64),
            (host::RIP, (&raw const cloister_vmx_exit).addr() as u64),
        ];
        Self { current: NONE, tpr, gdtr, state, msrs: SYSCALL_MSRS.map(read), task_cut: false }
    }

    /// Whether an exit has cut the task segment's limit since the last call: then the port bitmap is out of reach until the
    /// task register is loaded again.
    pub const fn is_task_cut(&mut self) -> bool {
        core::mem::replace(&mut self.task_cut, false)
    }

    /// Makes a VMCS the core's current one. Answers whether it was not.
    ///
    /// The one before is cleared, so that a core has at most one in its caches: a VCPU that goes has to be asked for on its
    /// core only if it is the current one.
    ///
    /// # Safety
    /// `physical` is that of a region with the revision, of this core's alone.
    #[inline]
    pub(crate) unsafe fn make_current(&mut self, physical: u64) -> bool {
        if self.current == physical {
            return false;
        }
        if self.current != NONE {
            clear(self.current);
        }
        // A region that was never cleared is nothing that VMPTRLD may see.
        clear(physical);
        // SAFETY: the caller vouches for the region; VMX is on.
        let loaded = unsafe { vmptrld(physical) };
        self.current = if loaded.is_ok() { physical } else { NONE };
        true
    }

    /// Forgets a VCPU whose memory goes.
    pub(crate) fn forget(&mut self, physical: u64) {
        if self.current == physical {
            clear(self.current);
            self.current = NONE;
        }
    }

    /// Gives the guest its MSRs, whose values the limits made such that the registers take them. [`Self::take_msrs`] follows before
    /// anything else does, with that KERNEL_GS_BASE.
    #[inline]
    pub(crate) fn give_msrs(&mut self, kernel_gs_base: u64, guest: &[u64]) {
        let [.., last] = &mut self.msrs;
        *last = kernel_gs_base;
        for ((msr, guest), host) in SYSCALL_MSRS.iter().zip(guest).zip(&self.msrs) {
            if guest != host {
                // SAFETY: the kernel uses none of them before they are taken back, and a value that is refused ends in a panic.
                unsafe { wrmsr(*msr, *guest) };
            }
        }
    }

    /// Takes what the guest left, and restores the host's.
    #[inline]
    pub(crate) fn take_msrs(&self, guest: &mut [u64]) {
        for ((msr, guest), host) in SYSCALL_MSRS.iter().zip(guest).zip(&self.msrs) {
            // SAFETY: the register exists.
            *guest = unsafe { rdmsr(*msr) };
            if *guest != *host {
                // SAFETY: it is the value that the register had.
                unsafe { wrmsr(*msr, *host) };
            }
        }
    }

    /// Restores what every exit spoils.
    #[inline]
    pub(crate) fn repair(&mut self) {
        self.task_cut = true;
        // SAFETY: the table that was loaded before.
        unsafe { lgdt(&self.gdtr) };
    }
}

/// Writes a VMCS back to its region. One that was not in the processor is as good.
fn clear(physical: u64) {
    // SAFETY: the address is that of a region; VMX is on. A failure changes nothing.
    let _ = unsafe { vmclear(physical) };
}

/// Forgets translations of the guest with that EPT pointer (type 1), or of all (type 2).
///
/// All that is combined of the guest's tables and EPT goes with it, whatever its VPID, so that INVVPID is not needed.
pub(crate) fn forget_translations(kind: u64, pointer: u64) {
    let descriptor = [pointer, 0];
    // SAFETY: the type exists; a failure changes nothing.
    unsafe { asm!("invept {}, [{}]", in(reg) kind, in(reg) &raw const descriptor, options(nostack, readonly)) };
}

/// Loads CR2, if it is not so already.
#[inline]
pub(crate) fn set_cr2(value: u64) {
    if read_register!("cr2") != value {
        // SAFETY: the host reads CR2 only after a page fault.
        unsafe { asm!("mov cr2, {}", in(reg) value, options(nomem, nostack, preserves_flags)) };
    }
}

/// Loads DR6.
pub(crate) fn set_dr6(value: u64) {
    // SAFETY: the limits keep the upper half clear; the host uses no debug registers.
    unsafe { asm!("mov dr6, {}", in(reg) value, options(nomem, nostack, preserves_flags)) };
}

/// An NMI has ended the guest and waits no more: the host's handler runs, and its IRET lets NMIs in again.
#[cfg(not(test))]
pub(crate) fn take_nmi() {
    // SAFETY: the kernel's table has a handler at vector 2, on a stack of its own.
    unsafe { asm!("int 2") };
}

#[cfg(test)]
pub(crate) fn take_nmi() {}

unsafe extern "C" {
    /// Where [`enter`] goes on after an exit.
    static cloister_vmx_exit: u8;
}

/// Enters the guest of the current VMCS, and returns at its exit: false if the processor refused the instruction. `stack` remembers
/// what the VMCS has as the host's stack pointer.
///
/// # Safety
/// `registers` are the general-purpose ones. Interrupts must be off, the VMCS current and complete but for where the host goes on. The
/// guest must be confined.
#[unsafe(naked)]
pub(crate) unsafe extern "C" fn enter(registers: *mut u64, launched: bool, stack: &mut u64) -> bool {
    naked_asm!(
        "push rbx",
        "push rbp",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "push rdi",
        "cmp rsp, [rdx]",
        "je 2f",
        "mov [rdx], rsp",
        "mov eax, {host_rsp}",
        "vmwrite rax, rsp",
        "2:",
        "test sil, sil",
        "mov rax, [rdi + 0 * 8]",
        general_registers!(load_moves, "rdi"),
        "mov rdi, [rdi + 7 * 8]",
        "jne 3f",
        "vmlaunch",
        "jmp 4f",
        "3:",
        "vmresume",
        "4:",
        "pop rdi",
        "xor eax, eax",
        "jmp 5f",
        ".global cloister_vmx_exit",
        "cloister_vmx_exit:",
        "push rdi",
        "mov rdi, [rsp + 8]",
        "mov [rdi + 0 * 8], rax",
        general_registers!(store_moves, "rdi"),
        "pop qword ptr [rdi + 7 * 8]",
        "pop rdi",
        "mov eax, 1",
        "5:",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop rbp",
        "pop rbx",
        "ret",
        host_rsp = const host::RSP,
    )
}
