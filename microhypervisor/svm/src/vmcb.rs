// SPDX-License-Identifier: MIT OR Apache-2.0
//! Layout of the virtual machine control block (VMCB): control area and state save area, one page.
//!
//! AMD APM vol. 2 (24593), appendix B, tables B-1 and B-2. Plain memory for everybody but the processor, which reads it
//! at VMRUN and VMLOAD and writes it at #VMEXIT and VMSAVE.

use bitflags::bitflags;
use core::mem::offset_of;

bitflags! {
    /// First word of instruction intercepts (offset 0x0c).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Misc1: u32 {
        /// Physical maskable interrupt.
        const INTR = 1 << 0;
        /// Physical NMI.
        const NMI = 1 << 1;
        /// Physical SMI.
        const SMI = 1 << 2;
        /// Physical INIT.
        const INIT = 1 << 3;
        /// Virtual interrupt about to be taken.
        const VINTR = 1 << 4;
        /// RDTSC
        const RDTSC = 1 << 14;
        /// RDPMC
        const RDPMC = 1 << 15;
        /// CPUID
        const CPUID = 1 << 18;
        /// IRET
        const IRET = 1 << 20;
        /// INVD
        const INVD = 1 << 22;
        /// PAUSE
        const PAUSE = 1 << 23;
        /// HLT
        const HLT = 1 << 24;
        /// INVLPGA
        const INVLPGA = 1 << 26;
        /// Ports, by the permission map.
        const IOIO = 1 << 27;
        /// MSRs, by the permission map.
        const MSR = 1 << 28;
        /// The processor would freeze at a legacy floating-point error.
        const FERR_FREEZE = 1 << 30;
        /// Triple fault.
        const SHUTDOWN = 1 << 31;
    }
}

bitflags! {
    /// Second word of instruction intercepts (offset 0x10).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Misc2: u32 {
        /// VMRUN: the processor refuses a block that does not intercept it.
        const VMRUN = 1 << 0;
        /// VMMCALL
        const VMMCALL = 1 << 1;
        /// VMLOAD
        const VMLOAD = 1 << 2;
        /// VMSAVE
        const VMSAVE = 1 << 3;
        /// STGI
        const STGI = 1 << 4;
        /// CLGI
        const CLGI = 1 << 5;
        /// SKINIT
        const SKINIT = 1 << 6;
        /// RDTSCP
        const RDTSCP = 1 << 7;
        /// WBINVD and WBNOINVD
        const WBINVD = 1 << 9;
        /// MONITOR
        const MONITOR = 1 << 10;
        /// MWAIT
        const MWAIT = 1 << 11;
        /// XSETBV
        const XSETBV = 1 << 13;
        /// RDPRU
        const RDPRU = 1 << 14;
    }
}

bitflags! {
    /// Third word of instruction intercepts (offset 0x14).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Misc3: u32 {
        /// INVLPGB
        const INVLPGB = 1 << 0;
        /// INVLPGB that the hypervisor did not allow.
        const INVLPGB_ILLEGAL = 1 << 1;
        /// MCOMMIT
        const MCOMMIT = 1 << 3;
        /// TLBSYNC
        const TLBSYNC = 1 << 4;
    }
}

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
    /// [`Misc1`]
    pub intercept_misc1: u32,
    /// [`Misc2`]
    pub intercept_misc2: u32,
    /// [`Misc3`]
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
    /// ES
    pub es: Segment,
    /// CS
    pub cs: Segment,
    /// SS
    pub ss: Segment,
    /// DS
    pub ds: Segment,
    /// FS (by VMLOAD and VMSAVE)
    pub fs: Segment,
    /// GS (by VMLOAD and VMSAVE)
    pub gs: Segment,
    /// GDTR
    pub gdtr: Segment,
    /// LDTR (by VMLOAD and VMSAVE)
    pub ldtr: Segment,
    /// IDTR
    pub idtr: Segment,
    /// TR (by VMLOAD and VMSAVE)
    pub tr: Segment,
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

const _: () = assert!(size_of::<Vmcb>() == 4096);
const _: () = assert!(offset_of!(Vmcb, save) == 0x400);
const _: () = assert!(offset_of!(Control, pause_threshold) == 0x3c);
const _: () = assert!(offset_of!(Control, io_map) == 0x40);
const _: () = assert!(offset_of!(Control, asid) == 0x58);
const _: () = assert!(offset_of!(Control, interrupt) == 0x60);
const _: () = assert!(offset_of!(Control, exit_code) == 0x70);
const _: () = assert!(offset_of!(Control, exit_event) == 0x88);
const _: () = assert!(offset_of!(Control, nested) == 0x90);
const _: () = assert!(offset_of!(Control, event) == 0xa8);
const _: () = assert!(offset_of!(Control, nested_cr3) == 0xb0);
const _: () = assert!(offset_of!(Control, clean) == 0xc0);
const _: () = assert!(offset_of!(Control, next_rip) == 0xc8);
const _: () = assert!(offset_of!(Control, bytes) == 0xd1);
const _: () = assert!(offset_of!(Save, fs) == 0x40);
const _: () = assert!(offset_of!(Save, ldtr) == 0x70);
const _: () = assert!(offset_of!(Save, tr) == 0x90);
const _: () = assert!(offset_of!(Save, cpl) == 0xcb);
const _: () = assert!(offset_of!(Save, efer) == 0xd0);
const _: () = assert!(offset_of!(Save, cr4) == 0x148);
const _: () = assert!(offset_of!(Save, rip) == 0x178);
const _: () = assert!(offset_of!(Save, rsp) == 0x1d8);
const _: () = assert!(offset_of!(Save, rax) == 0x1f8);
const _: () = assert!(offset_of!(Save, kernel_gs_base) == 0x220);
const _: () = assert!(offset_of!(Save, cr2) == 0x240);
const _: () = assert!(offset_of!(Save, pat) == 0x268);

impl Vmcb {
    /// A block of zeros. VMRUN refuses it.
    #[must_use]
    pub const fn zeroed() -> Self {
        // SAFETY: every field is an integer or an array of integers, for which all bits zero is a value.
        unsafe { core::mem::zeroed() }
    }
}
