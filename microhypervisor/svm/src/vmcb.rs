// SPDX-License-Identifier: MIT OR Apache-2.0
//! Layout of the virtual machine control block (VMCB): control area and state save area, one page.
//!
//! AMD APM vol. 2 (24593), appendix B, tables B-1 and B-2. Plain memory for everybody but the processor, which reads it
//! at VMRUN and VMLOAD and writes it at #VMEXIT and VMSAVE.

use cloister_vcpu::Field;
use core::mem::offset_of;

/// Words of the intercepts: accesses to debug registers.
pub const DR: usize = 1;
/// As above: exceptions.
pub const EXCEPTIONS: usize = 2;
/// As above: instructions, first and second word.
pub const FIRST: usize = 3;
/// As above.
pub const SECOND: usize = 4;
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

/// Parts of the block that are as the processor last saved them (offset 0xc0; APM vol. 2, 15.15.3): all, where nothing was written.
pub const CLEAN_ALL: u32 = 0x7ff;
/// Intercepts, TSC offset, pause filter.
pub const CLEAN_INTERCEPTS: u32 = 1 << 0;
/// Virtual interrupt and TPR.
pub const CLEAN_TPR: u32 = 1 << 3;

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
    /// What exits: accesses to CR and DR (reads 0..16, writes 16..32), exceptions by vector, and instructions: [`MISC1`] and others,
    /// [`MISC2`] and [`RDTSCP`], [`MISC3`].
    pub intercepts: [u32; 6],
    reserved_18: [u8; 0x28],
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
    reserved_b8: u64,
    /// Parts that the processor need not read: `CLEAN_*`.
    pub clean: u32,
    reserved_c4: u32,
    /// Address of the next instruction, where the processor tells.
    pub next_rip: u64,
    reserved_d0: [u8; 0x400 - 0xd0],
}

/// The block.
#[derive(Debug)]
#[repr(C, align(4096))]
pub struct Vmcb {
    /// Control area.
    pub control: Control,
    /// State save area (APM vol. 2, table B-2), whose places [`save`] names.
    pub save: [u64; 0xc00 / 8],
}

/// Where each part that follows a gap begins, by the manual.
const _: () = {
    assert!(size_of::<Vmcb>() == 4096 && offset_of!(Vmcb, save) == 0x400);
    assert!(offset_of!(Control, io_map) == 0x40 && offset_of!(Control, asid) == 0x58);
    assert!(offset_of!(Control, exit_code) == 0x70 && offset_of!(Control, nested) == 0x90);
    assert!(offset_of!(Control, event) == 0xa8 && offset_of!(Control, clean) == 0xc0);
    assert!(offset_of!(Control, next_rip) == 0xc8);
};

/// Word of the save area with the privilege level, in bits 24 and 25.
pub const PRIVILEGE: usize = 0xc8 / 8;
/// Segment registers of the save area, two words each (selector, attributes, limit; base), in the order of [`Field::segment`]. In the
/// block it is ES, CS, SS, DS, FS, GS, GDTR, LDTR, IDTR, TR.
pub const SEGMENTS: [usize; 10] = [1, 2, 3, 0, 4, 5, 9, 7, 6, 8];

/// Word of the save area that a register has.
#[inline(always)]
#[must_use]
pub const fn save(field: Field) -> Option<usize> {
    let byte = match field {
        Field::EFER => 0xd0,
        Field::CR4 => 0x148,
        Field::CR3 => 0x150,
        Field::CR0 => 0x158,
        Field::DR7 => 0x160,
        Field::DR6 => 0x168,
        Field::RFLAGS => 0x170,
        Field::RIP => 0x178,
        Field::RSP => 0x1d8,
        Field::RAX => 0x1f8,
        Field::STAR => 0x200,
        Field::LSTAR => 0x208,
        Field::CSTAR => 0x210,
        Field::SFMASK => 0x218,
        Field::KERNEL_GS_BASE => 0x220,
        Field::SYSENTER_CS => 0x228,
        Field::SYSENTER_ESP => 0x230,
        Field::SYSENTER_EIP => 0x238,
        Field::CR2 => 0x240,
        Field::PAT => 0x268,
        _ => return None,
    };
    Some(byte / 8)
}

impl Vmcb {
    /// A block of zeros. VMRUN refuses it.
    #[must_use]
    pub const fn zeroed() -> Self {
        // SAFETY: every field is an integer or an array of integers, for which all bits zero is a value.
        unsafe { core::mem::zeroed() }
    }
}
