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
use core::arch::{asm, global_asm};
use core::ptr::NonNull;

const FEATURE_CONTROL: u32 = 0x3a;
const EFER: u32 = 0xc000_0080;
const PAT: u32 = 0x277;
const GS_BASE: u32 = 0xc000_0101;
/// STAR, LSTAR, CSTAR, SFMASK, KERNEL_GS_BASE.
const SYSCALL_MSRS: [u32; 5] = [0xc000_0081, 0xc000_0082, 0xc000_0083, 0xc000_0084, 0xc000_0102];
/// Number of MSRs that the switch swaps.
pub(crate) const MSRS: usize = SYSCALL_MSRS.len();
/// No VMCS has this address.
const NONE: u64 = u64::MAX;
/// Offset of the TPR in the page of virtual APIC registers.
const TPR: usize = 0x80;
/// CR0.TS: floating-point instructions trap while a guest's state is in the registers.
const TASK_SWITCHED: u64 = 1 << 3;

/// A pseudo-descriptor as SGDT stores it.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, packed)]
struct Table {
    limit: u16,
    base: u64,
}

/// A core, as far as guests are concerned.
#[derive(Debug)]
pub struct Host {
    current: u64,
    tpr: NonNull<u8>,
    pub(crate) tpr_physical: u64,
    gdtr: Table,
    pub(crate) idt_base: u64,
    pub(crate) task_base: u64,
    pub(crate) gs_base: u64,
    pub(crate) cr0: u64,
    pub(crate) cr4: u64,
    pub(crate) efer: u64,
    pub(crate) pat: u64,
    pub(crate) fs_base: u64,
    msrs: [u64; MSRS],
    task_cut: bool,
}

macro_rules! read_register {
    ($register:literal) => {{
        let value: u64;
        // SAFETY: reads a control register, in the kernel.
        unsafe { asm!(concat!("mov {}, ", $register), out(reg) value, options(nomem, nostack, preserves_flags)) };
        value
    }};
}

/// Reads an MSR.
///
/// # Safety
/// The register exists.
unsafe fn rdmsr(msr: u32) -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: the caller says that the register exists.
    unsafe { asm!("rdmsr", in("ecx") msr, out("eax") low, out("edx") high, options(nomem, nostack, preserves_flags)) };
    u64::from(low) | u64::from(high) << 32
}

/// Writes an MSR.
///
/// # Safety
/// The register exists and takes the value, with which the kernel goes on.
unsafe fn wrmsr(msr: u32, value: u64) {
    let [a, b, c, d, e, f, g, h] = value.to_le_bytes();
    let (low, high) = (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]));
    // SAFETY: the caller says that the register exists and takes the value.
    unsafe { asm!("wrmsr", in("ecx") msr, in("eax") low, in("edx") high, options(nostack, preserves_flags)) };
}

/// Lets VMX be switched on, where the firmware left that open (SDM vol. 3C, 24.7).
///
/// # Errors
/// The firmware has disabled it.
fn allow() -> Result<(), &'static str> {
    const LOCKED: u64 = 1 << 0;
    const OUTSIDE_SMX: u64 = 1 << 2;
    // SAFETY: the register exists where VMX does.
    let control = unsafe { rdmsr(FEATURE_CONTROL) };
    if control & LOCKED == 0 {
        // SAFETY: as above, and it is not locked.
        unsafe { wrmsr(FEATURE_CONTROL, control | OUTSIDE_SMX | LOCKED) };
    } else if control & OUTSIDE_SMX == 0 {
        return Err("VMX is disabled by the firmware");
    }
    Ok(())
}

impl Host {
    /// A core that no test enters a guest on.
    #[cfg(test)]
    pub(crate) const fn of_test() -> Self {
        Self {
            current: NONE,
            tpr: NonNull::dangling(),
            tpr_physical: 0x7000,
            gdtr: Table { limit: 0, base: 0 },
            idt_base: 0,
            task_base: 0,
            gs_base: 0,
            cr0: 0x8005_003b,
            cr4: 0x2020,
            efer: 0xd01,
            pat: 0,
            fs_base: 0,
            msrs: [0; MSRS],
            task_cut: false,
        }
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
        tpr: NonNull<u8>,
        tpr_physical: u64,
        task_base: u64,
        machine: &Machine,
    ) -> Result<Self, &'static str> {
        allow()?;
        // SAFETY: the caller gives the page.
        unsafe { region.write(machine.revision) };
        let cr4 = read_register!("cr4") | machine.cr4_ones;
        // SAFETY: sets VMXE, which VMX needs.
        unsafe { asm!("mov cr4, {}", in(reg) cr4, options(nostack, preserves_flags)) };
        let failed: u8;
        // SAFETY: VMX is allowed and not on yet, the region has the revision.
        unsafe { asm!("vmxon [{}]", "setbe {}", in(reg) &raw const physical, out(reg_byte) failed, options(nostack)) };
        if failed != 0 {
            return Err("the processor refuses VMXON");
        }
        let (mut gdtr, mut idtr) = (Table::default(), Table::default());
        // SAFETY: stores ten bytes each.
        unsafe { asm!("sgdt [{}]", "sidt [{}]", in(reg) &raw mut gdtr, in(reg) &raw mut idtr, options(nostack)) };
        // SAFETY: registers of long mode.
        let [gs_base, efer, pat] = [GS_BASE, EFER, PAT].map(|msr| unsafe { rdmsr(msr) });
        // SAFETY: as above.
        let msrs = SYSCALL_MSRS.map(|msr| unsafe { rdmsr(msr) });
        let cr0 = read_register!("cr0") | TASK_SWITCHED;
        let idt_base = idtr.base;
        let (fs_base, task_cut) = (0, false);
        Ok(Self {
            current: NONE,
            tpr,
            tpr_physical,
            gdtr,
            idt_base,
            task_base,
            gs_base,
            cr0,
            cr4,
            efer,
            pat,
            fs_base,
            msrs,
            task_cut,
        })
    }

    /// Sets what an exit restores for the thread that runs the guest: its FS base, and the value of KERNEL_GS_BASE (the
    /// thread's GS base, while the kernel has its own).
    #[inline]
    pub const fn set_thread(&mut self, fs_base: u64, kernel_gs_base: u64) {
        self.fs_base = fs_base;
        let [.., last] = &mut self.msrs;
        *last = kernel_gs_base;
    }

    /// Whether an exit has cut the task segment's limit since the last call: then the port bitmap is out of reach until the
    /// task register is loaded again.
    pub const fn is_task_cut(&mut self) -> bool {
        core::mem::replace(&mut self.task_cut, false)
    }

    pub(crate) const fn gdt_base(&self) -> u64 {
        self.gdtr.base
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
        unsafe { asm!("vmptrld [{}]", in(reg) &raw const physical, options(nostack)) };
        self.current = physical;
        true
    }

    /// Forgets a VMCS whose memory goes.
    pub(crate) fn forget(&mut self, physical: u64) {
        if self.current == physical {
            clear(physical);
            self.current = NONE;
        }
    }

    /// Lets the guest have its CR8.
    #[inline]
    pub(crate) fn set_tpr(&self, cr8: u64) {
        let place = self.tpr.as_ptr().wrapping_add(TPR);
        // SAFETY: the page is this value's; between the processor's accesses it is plain memory.
        unsafe { place.write_volatile(cr8.to_le_bytes()[0] << 4) };
    }

    /// The guest's CR8.
    #[inline]
    pub(crate) fn tpr(&self) -> u64 {
        let place = self.tpr.as_ptr().wrapping_add(TPR);
        // SAFETY: as `set_tpr`.
        u64::from(unsafe { place.read_volatile() } >> 4)
    }

    /// Gives the guest its MSRs.
    ///
    /// # Safety
    /// The values are such that the registers take them. [`Self::take_msrs`] follows before anything else does.
    #[inline]
    pub(crate) unsafe fn give_msrs(&self, guest: &[u64; MSRS]) {
        for ((msr, guest), host) in SYSCALL_MSRS.iter().zip(guest).zip(&self.msrs) {
            if guest != host {
                // SAFETY: the caller vouches for the value.
                unsafe { wrmsr(*msr, *guest) };
            }
        }
    }

    /// Takes what the guest left, and restores the host's.
    #[inline]
    pub(crate) fn take_msrs(&self, guest: &mut [u64; MSRS]) {
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
        unsafe { asm!("lgdt [{}]", in(reg) &raw const self.gdtr, options(nostack, readonly, preserves_flags)) };
    }
}

/// Writes a VMCS back to its region. One that was not in the processor is as good.
fn clear(physical: u64) {
    // SAFETY: the address is that of a region; VMX is on. A failure changes nothing.
    unsafe { asm!("vmclear [{}]", in(reg) &raw const physical, options(nostack)) };
}

/// Forgets translations of the guest with that EPT pointer (type 1), or of all (type 2).
///
/// All that is combined of the guest's tables and EPT goes with it, whatever its VPID, so that INVVPID is not needed.
pub(crate) fn forget_translations(kind: u64, pointer: u64) {
    let descriptor = [pointer, 0];
    // SAFETY: the type exists; a failure changes nothing.
    unsafe { asm!("invept {}, [{}]", in(reg) kind, in(reg) &raw const descriptor, options(nostack, readonly)) };
}

/// The host's page-table root.
#[inline]
pub(crate) fn host_cr3() -> u64 {
    read_register!("cr3")
}

/// Loads CR2, if it is not so already.
#[inline]
pub(crate) fn set_cr2(value: u64) {
    if cr2() != value {
        // SAFETY: the host reads CR2 only after a page fault.
        unsafe { asm!("mov cr2, {}", in(reg) value, options(nomem, nostack, preserves_flags)) };
    }
}

/// CR2.
#[inline]
pub(crate) fn cr2() -> u64 {
    read_register!("cr2")
}

/// Loads DR6.
pub(crate) fn set_dr6(value: u64) {
    // SAFETY: the limits keep the upper half clear; the host uses no debug registers.
    unsafe { asm!("mov dr6, {}", in(reg) value, options(nomem, nostack, preserves_flags)) };
}

/// DR6.
pub(crate) fn dr6() -> u64 {
    read_register!("dr6")
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
    fn cloister_vmx_enter(registers: *mut u64, launched: u64, stack: *mut u64) -> u64;
    fn cloister_vmx_exit();
}

/// Where exits go.
pub(crate) fn exit_address() -> u64 {
    cloister_vmx_exit as *const () as u64
}

/// Enters the guest of the current VMCS, and returns at its exit: 0, or 1 if the processor refused the instruction. `stack` remembers
/// what the VMCS has as the host's stack pointer.
///
/// # Safety
/// Interrupts must be off, the VMCS current and complete. The guest must be confined.
#[inline]
pub(crate) unsafe fn enter(registers: &mut [u64; 16], launched: bool, stack: &mut u64) -> u64 {
    // SAFETY: all registers that the guest changes are saved there; the caller vouches for the rest.
    unsafe { cloister_vmx_enter(registers.as_mut_ptr(), u64::from(launched), stack) }
}

global_asm!(
    ".global cloister_vmx_enter, cloister_vmx_exit",
    "cloister_vmx_enter:",
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
    "test esi, esi",
    "mov rax, [rdi + 0 * 8]",
    "mov rcx, [rdi + 1 * 8]",
    "mov rdx, [rdi + 2 * 8]",
    "mov rbx, [rdi + 3 * 8]",
    "mov rbp, [rdi + 5 * 8]",
    "mov rsi, [rdi + 6 * 8]",
    "mov r8, [rdi + 8 * 8]",
    "mov r9, [rdi + 9 * 8]",
    "mov r10, [rdi + 10 * 8]",
    "mov r11, [rdi + 11 * 8]",
    "mov r12, [rdi + 12 * 8]",
    "mov r13, [rdi + 13 * 8]",
    "mov r14, [rdi + 14 * 8]",
    "mov r15, [rdi + 15 * 8]",
    "mov rdi, [rdi + 7 * 8]",
    "jne 3f",
    "vmlaunch",
    "jmp 4f",
    "3:",
    "vmresume",
    "4:",
    "pop rdi",
    "mov eax, 1",
    "jmp 5f",
    "cloister_vmx_exit:",
    "push rdi",
    "mov rdi, [rsp + 8]",
    "mov [rdi + 0 * 8], rax",
    "mov [rdi + 1 * 8], rcx",
    "mov [rdi + 2 * 8], rdx",
    "mov [rdi + 3 * 8], rbx",
    "mov [rdi + 5 * 8], rbp",
    "mov [rdi + 6 * 8], rsi",
    "pop qword ptr [rdi + 7 * 8]",
    "mov [rdi + 8 * 8], r8",
    "mov [rdi + 9 * 8], r9",
    "mov [rdi + 10 * 8], r10",
    "mov [rdi + 11 * 8], r11",
    "mov [rdi + 12 * 8], r12",
    "mov [rdi + 13 * 8], r13",
    "mov [rdi + 14 * 8], r14",
    "mov [rdi + 15 * 8], r15",
    "pop rdi",
    "xor eax, eax",
    "5:",
    "pop r15",
    "pop r14",
    "pop r13",
    "pop r12",
    "pop rbp",
    "pop rbx",
    "ret",
    host_rsp = const crate::vmcs::HOST_RSP,
);
