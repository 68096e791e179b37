// SPDX-License-Identifier: MIT OR Apache-2.0
//! Layout of the virtual machine control block (VMCB): control area and state save area, one page.
//!
//! AMD APM vol. 2 (24593), appendix B, tables B-1 and B-2. Plain memory for everybody but the processor, which reads it
//! at VMRUN and VMLOAD and writes it at #VMEXIT and VMSAVE.

use bitflags::bitflags;
use core::mem::offset_of;

/// First word of instruction intercepts (offset 0x0c), those that a monitor or the guest's state switches: RDTSC.
pub const RDTSC: u32 = 1 << 14;
/// As above: RDPMC.
pub const RDPMC: u32 = 1 << 15;
/// As above: IRET.
pub const IRET: u32 = 1 << 20;
/// As above: PAUSE.
pub const PAUSE: u32 = 1 << 23;
/// Those that are always set: physical interrupts, NMI, SMI and INIT; a virtual interrupt that is about to be taken; CPUID, INVD,
/// HLT, INVLPGA, ports and MSRs by their maps, the freeze at a legacy floating-point error, shutdown.
pub const MISC1: u32 = 0xf | 1 << 4 | 1 << 18 | 1 << 22 | 1 << 24 | 1 << 26 | 1 << 27 | 1 << 28 | 1 << 30 | 1 << 31;
/// Second word of instruction intercepts (offset 0x10): RDTSCP.
pub const RDTSCP: u32 = 1 << 7;
/// Those that are always set: VMRUN (the processor refuses a block without), VMMCALL, VMLOAD, VMSAVE, STGI, CLGI, SKINIT; WBINVD and
/// WBNOINVD, MONITOR, MWAIT, XSETBV, RDPRU.
pub const MISC2: u32 = 0x7f | 1 << 9 | 1 << 10 | 1 << 11 | 1 << 13 | 1 << 14;
/// Third word of instruction intercepts (offset 0x14), always set: INVLPGB, INVLPGB that the hypervisor did not allow, MCOMMIT,
/// TLBSYNC.
pub const MISC3: u32 = 1 << 0 | 1 << 1 | 1 << 3 | 1 << 4;

bitflags! {
    /// Parts of the block that are as the processor last saved them (offset 0xc0; APM vol. 2, 15.15.3).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Clean: u32 {
        /// Intercepts, TSC offset, pause filter.
        const INTERCEPTS = 1 << 0;
        /// Addresses of the permission maps.
        const MAPS = 1 << 1;
        /// ASID.
        const ASID = 1 << 2;
        /// Virtual interrupt and TPR.
        const TPR = 1 << 3;
        /// Nested paging: nested CR3, guest PAT.
        const NESTED = 1 << 4;
        /// CR0, CR3, CR4, EFER.
        const CR = 1 << 5;
        /// DR6, DR7.
        const DR = 1 << 6;
        /// GDTR, IDTR.
        const TABLES = 1 << 7;
        /// CS, DS, ES, SS and the privilege level.
        const SEGMENTS = 1 << 8;
        /// CR2.
        const CR2 = 1 << 9;
        /// Last-branch records.
        const LBR = 1 << 10;
    }
}

/// Virtual TPR in [`Control::interrupt`].
pub const V_TPR: u64 = 0xf;
/// A virtual interrupt is pending, in [`Control::interrupt`].
pub const V_IRQ: u64 = 1 << 8;
/// Priority of the virtual interrupt, all bits, in [`Control::interrupt`].
pub const V_INTR_PRIO: u64 = 0xf << 16;
/// The virtual interrupt does not look at the TPR, in [`Control::interrupt`].
pub const V_IGN_TPR: u64 = 1 << 20;
/// Guest's IF and CR8 do not touch physical interrupts, in [`Control::interrupt`].
pub const V_INTR_MASKING: u64 = 1 << 24;

/// Interrupt shadow in [`Control::interrupt_state`].
pub const INTERRUPT_SHADOW: u64 = 1 << 0;

/// Value of [`Control::tlb`]: keep everything.
pub const TLB_KEEP: u32 = 0;
/// Value of [`Control::tlb`]: flush everything, of all address spaces.
pub const TLB_FLUSH_ALL: u32 = 1;
/// Value of [`Control::tlb`]: flush what belongs to this guest's ASID (needs the FlushByAsid feature).
pub const TLB_FLUSH_GUEST: u32 = 3;

/// Value of [`Control::nested`]: nested paging is on.
pub const NESTED_PAGING: u64 = 1;

/// Control area (APM vol. 2, table B-1).
#[derive(Debug)]
#[repr(C)]
pub struct Control {
    /// CR accesses: reads 0..16, writes 16..32.
    pub intercept_cr: u32,
    /// DR accesses: reads 0..16, writes 16..32.
    pub intercept_dr: u32,
    /// Exceptions by vector.
    pub intercept_exceptions: u32,
    /// [`MISC1`] and others.
    pub intercept_misc1: u32,
    /// [`MISC2`] and [`RDTSCP`].
    pub intercept_misc2: u32,
    /// [`MISC3`]
    pub intercept_misc3: u32,
    reserved_18: [u8; 0x24],
    /// PAUSE filter: cycles between two of one loop.
    pub pause_threshold: u16,
    /// PAUSE filter: number before an exit.
    pub pause_count: u16,
    /// Physical address of the port map.
    pub io_map: u64,
    /// Physical address of the MSR map.
    pub msr_map: u64,
    /// Added to the time-stamp counter.
    pub tsc_offset: u64,
    /// Tag of the guest's TLB entries; 0 is the host's.
    pub asid: u32,
    /// What VMRUN does to the TLB: `TLB_*`.
    pub tlb: u32,
    /// Virtual interrupt: `V_*`, vector in bits 32..40.
    pub interrupt: u64,
    /// Interruptibility: [`INTERRUPT_SHADOW`].
    pub interrupt_state: u64,
    /// Why the guest exited (appendix C).
    pub exit_code: u64,
    /// First detail.
    pub exit_info1: u64,
    /// Second detail.
    pub exit_info2: u64,
    /// Event whose delivery the exit interrupted, as in `event`.
    pub exit_event: u64,
    /// Nested paging and encryption: [`NESTED_PAGING`].
    pub nested: u64,
    reserved_98: [u8; 0x10],
    /// Event to inject (15.20).
    pub event: u64,
    /// Physical address of the root of the nested page table.
    pub nested_cr3: u64,
    /// Last-branch records and virtual VMLOAD/VMSAVE; 0 for off.
    pub lbr: u64,
    /// [`Clean`]
    pub clean: u32,
    reserved_c4: u32,
    /// Address of the next instruction, where the processor tells.
    pub next_rip: u64,
    /// Number of instruction bytes that follow, where the processor tells.
    pub fetched: u8,
    /// Instruction bytes.
    pub bytes: [u8; 15],
    reserved_e0: [u8; 0x400 - 0xe0],
}

/// A segment register as the processor saves it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Segment {
    /// Selector.
    pub selector: u16,
    /// Attributes: bits 40..48 and 52..56 of the descriptor, packed into 12 bits.
    pub attributes: u16,
    /// Limit in bytes.
    pub limit: u32,
    /// Base.
    pub base: u64,
}

/// State save area (APM vol. 2, table B-2).
#[derive(Debug)]
#[repr(C)]
pub struct Save {
    /// ES, CS, SS, DS, FS, GS, GDTR, LDTR, IDTR, TR (FS to TR but the tables: by VMLOAD and VMSAVE).
    pub segments: [Segment; 10],
    reserved_a0: [u8; 0x2b],
    /// Privilege level.
    pub cpl: u8,
    reserved_cc: u32,
    /// EFER; SVME must be set.
    pub efer: u64,
    reserved_d8: [u8; 0x70],
    /// CR4
    pub cr4: u64,
    /// CR3
    pub cr3: u64,
    /// CR0
    pub cr0: u64,
    /// DR7
    pub dr7: u64,
    /// DR6
    pub dr6: u64,
    /// RFLAGS
    pub rflags: u64,
    /// RIP
    pub rip: u64,
    reserved_180: [u8; 0x58],
    /// RSP
    pub rsp: u64,
    reserved_1e0: [u8; 0x18],
    /// RAX
    pub rax: u64,
    /// STAR (from here to `sysenter_eip`: by VMLOAD and VMSAVE)
    pub star: u64,
    /// LSTAR
    pub lstar: u64,
    /// CSTAR
    pub cstar: u64,
    /// SFMASK
    pub sfmask: u64,
    /// KERNEL_GS_BASE
    pub kernel_gs_base: u64,
    /// SYSENTER_CS
    pub sysenter_cs: u64,
    /// SYSENTER_ESP
    pub sysenter_esp: u64,
    /// SYSENTER_EIP
    pub sysenter_eip: u64,
    /// CR2
    pub cr2: u64,
    reserved_248: [u8; 0x20],
    /// PAT of the guest under nested paging.
    pub pat: u64,
    /// DBGCTL
    pub debug_control: u64,
    reserved_278: [u8; 0xc00 - 0x278],
}

/// The block.
#[derive(Debug)]
#[repr(C, align(4096))]
pub struct Vmcb {
    /// Control area.
    pub control: Control,
    /// State save area.
    pub save: Save,
}

/// Where each part that follows a gap begins, by the manual.
const _: () = {
    assert!(size_of::<Vmcb>() == 4096 && offset_of!(Vmcb, save) == 0x400);
    assert!(offset_of!(Control, pause_threshold) == 0x3c && offset_of!(Control, asid) == 0x58);
    assert!(offset_of!(Control, exit_code) == 0x70 && offset_of!(Control, nested) == 0x90);
    assert!(offset_of!(Control, event) == 0xa8 && offset_of!(Control, clean) == 0xc0);
    assert!(offset_of!(Control, next_rip) == 0xc8 && offset_of!(Control, bytes) == 0xd1);
    assert!(offset_of!(Save, cpl) == 0xcb && offset_of!(Save, efer) == 0xd0);
    assert!(offset_of!(Save, cr4) == 0x148 && offset_of!(Save, rip) == 0x178);
    assert!(offset_of!(Save, rsp) == 0x1d8 && offset_of!(Save, rax) == 0x1f8);
    assert!(offset_of!(Save, cr2) == 0x240 && offset_of!(Save, pat) == 0x268);
};

impl Control {
    /// Makes the processor read these parts again.
    #[inline]
    pub const fn dirty(&mut self, parts: Clean) {
        self.clean &= !parts.bits();
    }
}

impl Vmcb {
    /// A block of zeros. VMRUN refuses it.
    #[must_use]
    pub const fn zeroed() -> Self {
        // SAFETY: every field is an integer or an array of integers, for which all bits zero is a value.
        unsafe { core::mem::zeroed() }
    }
}
