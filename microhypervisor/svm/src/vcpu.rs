// SPDX-License-Identifier: MIT OR Apache-2.0
//! The virtual CPU as SVM has it: a control block, the registers that the block does not hold, and the way in and out.
//!
//! The kernel's `VcpuRun`, in this order:
//!
//! 1. [`Control::take`]: what the monitor changed. If the answer says so, the kernel takes the FPU image ([`cloister_vcpu::fpu`]).
//!    A refused event is reported as `InvalidState` at once.
//! 2. Make FPU and XCR0 ([`Control::xcr0`]) the guest's; tell [`crate::world::Host`] the thread's FS and GS base.
//! 3. [`Vcpu::enter`], with interrupts off.
//! 4. [`Control::classify`]. After `Interrupt` and `Resume` the kernel lets interrupts in, looks at deadline and kick, and goes on with
//!    2, or reports `Deadline` or `Kicked`.
//! 5. [`Control::report`] writes reason, details and the groups that the monitor asked for.
//!
//! An event whose delivery an exit interrupted stays queued and is delivered at the next entry by itself; a monitor that
//! loads [`Groups::EVENT`] replaces it.
//!
//! Each VCPU needs an ASID of its own among those of its core: the TLB tells guests, not page-table roots, apart.

use crate::exit::{self, GUARD_EXCEPTIONS};
use crate::machine::{EFER_SVME, Machine};
use crate::segment::{from_vmcb, privilege, to_vmcb, unpack, with_privilege};
use crate::vmcb::{
    Clean, INTERRUPT_SHADOW, Misc1, Misc2, Misc3, NESTED_PAGING, Segment, TLB_KEEP, V_IGN_TPR, V_INTR_MASKING,
    V_INTR_PRIO, V_IRQ, V_TPR, Vmcb,
};
use crate::world::{self, Host};
use cloister_abi::arch::x86_64::vcpu::{self as abi, Controls, Event, ExitReason, Groups, SHADOW_NMI, SHADOW_STI};
use cloister_vcpu::control::{DR7_ENABLES, SEGMENTS};
use cloister_vcpu::{Control, Exit, Field, Limits, Registers, SegmentName, debug};
use core::ptr::NonNull;

/// What a VCPU is made of.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// Physical address of the port map ([`crate::permission::fill_io_map`]).
    pub io_map: u64,
    /// Physical address of the MSR map ([`crate::permission::fill_msr_map`]).
    pub msr_map: u64,
    /// Physical address of the nested page table's root.
    pub nested_cr3: u64,
    /// Address-space tag, not 0.
    pub asid: u32,
    /// What the machine can do.
    pub machine: Machine,
}

/// A virtual CPU.
#[derive(Debug)]
pub struct Vcpu {
    registers: Registers,
    vmcb: NonNull<Vmcb>,
    vmcb_physical: u64,
    exits: u64,
    machine: Machine,
}

// SAFETY: the block belongs to this value alone, and the value is moved or used under the kernel's rule for its owner.
unsafe impl Send for Vcpu {}

const MISC1: Misc1 = Misc1::INTR
    .union(Misc1::NMI)
    .union(Misc1::SMI)
    .union(Misc1::INIT)
    .union(Misc1::VINTR)
    .union(Misc1::CPUID)
    .union(Misc1::INVD)
    .union(Misc1::HLT)
    .union(Misc1::INVLPGA)
    .union(Misc1::IOIO)
    .union(Misc1::MSR)
    .union(Misc1::FERR_FREEZE)
    .union(Misc1::SHUTDOWN);
/// All debug registers, reads and writes.
pub(crate) const ALL_DR: u32 = u32::MAX;
/// #BP.
const BREAKPOINT: u32 = 1 << 3;
const EVENT_TYPE: u64 = 7 << 8;
const MISC2: Misc2 = Misc2::all().difference(Misc2::RDTSCP);
const MISC3: Misc3 = Misc3::all();

impl Vcpu {
    /// A VCPU in the state after RESET (APM vol. 2, 14.1.3). Fills the block.
    ///
    /// # Safety
    /// `vmcb` must point to a page at physical address `vmcb_physical` that belongs to this VCPU alone until it is
    /// gone. The addresses in `setup` must be those of maps and of a page table that outlive it.
    #[must_use]
    pub unsafe fn new(vmcb: NonNull<Vmcb>, vmcb_physical: u64, setup: &Setup) -> Self {
        // SAFETY: the caller gives the page to this VCPU.
        unsafe { vmcb.write(reset(setup)) };
        Self { registers: Registers::new(), vmcb, vmcb_physical, exits: 0, machine: setup.machine }
    }

    #[inline]
    fn parts(&mut self) -> (&mut Vmcb, &mut Registers) {
        // SAFETY: the block is this VCPU's alone (`new`), and the processor uses it in `enter` only.
        (unsafe { self.vmcb.as_mut() }, &mut self.registers)
    }

    #[inline]
    fn block_mut(&mut self) -> &mut Vmcb {
        self.parts().0
    }

    #[inline]
    fn block(&self) -> &Vmcb {
        // SAFETY: as in `parts`.
        unsafe { self.vmcb.as_ref() }
    }

    /// Runs the guest until something happens.
    ///
    /// # Safety
    /// Interrupts must be off. FPU state and XCR0 must be the guest's. `host` must be this core's, and its block as
    /// [`Host`] asks. The nested page table must map nothing that the guest must not have.
    #[inline]
    pub unsafe fn enter(&mut self, host: &Host) {
        if self.registers.debug {
            // SAFETY: the values are addresses of breakpoints that the host has switched off.
            unsafe { debug::load(&self.registers.dr) };
        }
        // SAFETY: the block and the registers are this VCPU's; the caller vouches for the host.
        unsafe { world::enter(&mut self.registers.gpr, self.vmcb_physical, host.physical()) };
        let (vmcb, registers) = self.parts();
        vmcb.control.clean = Clean::all().bits();
        vmcb.control.tlb = TLB_KEEP;
        if registers.debug {
            self.leave_debug();
        }
        self.exits += 1;
    }

    /// Saves the guest's debug registers. Those of a guest that has no breakpoint enabled need not go with the next switch.
    #[cold]
    fn leave_debug(&mut self) {
        // SAFETY: the host uses no debug registers.
        self.registers.dr = unsafe { debug::save() };
        let (vmcb, registers) = self.parts();
        if vmcb.save.dr7 & DR7_ENABLES == 0 {
            registers.debug = false;
            vmcb.control.intercept_dr = ALL_DR;
            vmcb.control.clean &= !Clean::INTERCEPTS.bits();
        }
    }

    /// Gives the guest another tag, whose stale translations the next entry forgets.
    pub fn set_asid(&mut self, asid: u32) {
        let vmcb = self.block_mut();
        vmcb.control.asid = asid;
        vmcb.control.clean &= !Clean::ASID.bits();
        self.flush_tlb();
    }

    /// Makes the next entry read the whole block: nothing that the processor may have kept of it holds (after the VCPU moved to another core).
    pub fn forget(&mut self) {
        self.block_mut().control.clean = 0;
    }
}

impl Control for Vcpu {
    #[inline]
    fn registers(&self) -> &Registers {
        &self.registers
    }

    #[inline]
    fn registers_mut(&mut self) -> &mut Registers {
        &mut self.registers
    }

    #[inline]
    fn limits(&self) -> &Limits {
        &self.machine.limits
    }

    #[inline]
    fn exits(&self) -> u64 {
        self.exits
    }

    #[inline(always)]
    fn get(&self, field: Field) -> u64 {
        let (control, save) = (&self.block().control, &self.block().save);
        match field {
            Field::Rax => save.rax,
            Field::Rsp => save.rsp,
            Field::Rip => save.rip,
            Field::Rflags => save.rflags,
            Field::Cr0 => save.cr0,
            Field::Cr2 => save.cr2,
            Field::Cr3 => save.cr3,
            Field::Cr4 => save.cr4,
            Field::Cr8 => control.interrupt & V_TPR,
            Field::Efer => save.efer & !EFER_SVME,
            Field::Pat => save.pat,
            Field::Dr6 => save.dr6,
            Field::Dr7 => save.dr7,
            Field::SysenterCs => save.sysenter_cs,
            Field::SysenterEsp => save.sysenter_esp,
            Field::SysenterEip => save.sysenter_eip,
            Field::Star => save.star,
            Field::Lstar => save.lstar,
            Field::Cstar => save.cstar,
            Field::Sfmask => save.sfmask,
            Field::KernelGsBase => save.kernel_gs_base,
            Field::TscOffset => control.tsc_offset,
        }
    }

    #[inline(always)]
    fn set(&mut self, field: Field, value: u64) {
        let vmcb = self.block_mut();
        let save = &mut vmcb.save;
        let place = match field {
            Field::Rax => &mut save.rax,
            Field::Rsp => &mut save.rsp,
            Field::Rip => &mut save.rip,
            Field::Rflags => &mut save.rflags,
            Field::Cr0 => &mut save.cr0,
            Field::Cr2 => &mut save.cr2,
            Field::Cr3 => &mut save.cr3,
            Field::Cr4 => &mut save.cr4,
            Field::Cr8 => {
                vmcb.control.interrupt = vmcb.control.interrupt & !V_TPR | value & V_TPR;
                return;
            }
            Field::Efer => {
                save.efer = value | EFER_SVME;
                return;
            }
            Field::Pat => &mut save.pat,
            Field::Dr6 => &mut save.dr6,
            Field::Dr7 => &mut save.dr7,
            Field::SysenterCs => &mut save.sysenter_cs,
            Field::SysenterEsp => &mut save.sysenter_esp,
            Field::SysenterEip => &mut save.sysenter_eip,
            Field::Star => &mut save.star,
            Field::Lstar => &mut save.lstar,
            Field::Cstar => &mut save.cstar,
            Field::Sfmask => &mut save.sfmask,
            Field::KernelGsBase => &mut save.kernel_gs_base,
            Field::TscOffset => &mut vmcb.control.tsc_offset,
        };
        *place = value;
    }

    #[inline(always)]
    fn segment(&self, name: SegmentName) -> abi::Segment {
        let save = &self.block().save;
        from_vmcb(*match name {
            SegmentName::Es => &save.es,
            SegmentName::Cs => &save.cs,
            SegmentName::Ss => {
                let access = with_privilege(unpack(save.ss.attributes), save.cpl);
                return abi::Segment { access, ..from_vmcb(save.ss) };
            }
            SegmentName::Ds => &save.ds,
            SegmentName::Fs => &save.fs,
            SegmentName::Gs => &save.gs,
            SegmentName::Ldtr => &save.ldtr,
            SegmentName::Tr => &save.tr,
            SegmentName::Gdtr => &save.gdtr,
            SegmentName::Idtr => &save.idtr,
        })
    }

    #[inline(always)]
    fn set_segment(&mut self, name: SegmentName, segment: abi::Segment) {
        let save = &mut self.block_mut().save;
        let segment = to_vmcb(segment);
        let place = match name {
            SegmentName::Es => &mut save.es,
            SegmentName::Cs => &mut save.cs,
            SegmentName::Ss => {
                save.cpl = privilege(segment.attributes);
                &mut save.ss
            }
            SegmentName::Ds => &mut save.ds,
            SegmentName::Fs => &mut save.fs,
            SegmentName::Gs => &mut save.gs,
            SegmentName::Ldtr => &mut save.ldtr,
            SegmentName::Tr => &mut save.tr,
            SegmentName::Gdtr => &mut save.gdtr,
            SegmentName::Idtr => &mut save.idtr,
        };
        *place = segment;
    }

    fn shadow(&self) -> u64 {
        let control = &self.block().control;
        let sti = if control.interrupt_state & INTERRUPT_SHADOW != 0 { SHADOW_STI } else { 0 };
        let nmi = if control.intercept_misc1 & Misc1::IRET.bits() != 0 { SHADOW_NMI } else { 0 };
        sti | nmi
    }

    fn set_shadow(&mut self, shadow: u64) {
        let vmcb = self.block_mut();
        vmcb.control.interrupt_state = if shadow & SHADOW_STI != 0 { INTERRUPT_SHADOW } else { 0 };
        block_nmi(vmcb, shadow & SHADOW_NMI != 0);
    }

    #[inline]
    fn event(&self) -> u64 {
        self.block().control.event
    }

    #[inline]
    fn set_event(&mut self, event: u64) {
        let vmcb = self.block_mut();
        vmcb.control.event = event;
        if event & (Event::VALID | EVENT_TYPE) == Event::VALID | Event::NMI {
            block_nmi(vmcb, true);
        }
    }

    fn set_controls(&mut self, controls: Controls) {
        let (vmcb, registers) = self.parts();
        let changed = controls.symmetric_difference(registers.controls);
        if changed.contains(Controls::INTERRUPT_WINDOW) {
            let window = V_IRQ | V_INTR_PRIO | V_IGN_TPR;
            let other = vmcb.control.interrupt & !window;
            let on = controls.contains(Controls::INTERRUPT_WINDOW);
            vmcb.control.interrupt = if on { other | window } else { other };
            dirty(vmcb, Clean::TPR);
        }
        if changed.difference(Controls::INTERRUPT_WINDOW).is_empty() {
            return;
        }
        let control = &mut vmcb.control;
        set(&mut control.intercept_misc1, Misc1::RDTSC.bits(), controls.contains(Controls::RDTSC));
        set(&mut control.intercept_misc2, Misc2::RDTSCP.bits(), controls.contains(Controls::RDTSC));
        set(&mut control.intercept_misc1, Misc1::RDPMC.bits(), controls.contains(Controls::RDPMC));
        set(&mut control.intercept_misc1, Misc1::PAUSE.bits(), controls.contains(Controls::PAUSE));
        set(&mut control.intercept_exceptions, BREAKPOINT, controls.contains(Controls::DEBUG));
        if controls.contains(Controls::DR) {
            control.intercept_dr = ALL_DR;
        }
        dirty(vmcb, Clean::INTERCEPTS);
    }

    /// The clean bits follow what was written (APM vol. 2, 15.15.3).
    #[inline]
    fn loaded(&mut self, groups: Groups) {
        const CONTROL_REGISTERS: Groups = Groups::CR.union(Groups::EFER).union(Groups::PAT).union(Groups::DR);
        if groups.contains(Groups::TPR) {
            dirty(self.block_mut(), Clean::TPR);
        }
        if !groups.intersects(CONTROL_REGISTERS.union(SEGMENTS).union(Groups::TSC)) {
            return;
        }
        if groups.intersects(SEGMENTS) {
            dirty(self.block_mut(), Clean::SEGMENTS | Clean::TABLES);
        }
        if groups.contains(Groups::TSC) {
            dirty(self.block_mut(), Clean::INTERCEPTS);
        }
        if groups.intersects(CONTROL_REGISTERS) {
            let machine = self.machine;
            let vmcb = self.block_mut();
            vmcb.save.cr4 = machine.cr4_of_long_mode(vmcb.save.cr4, vmcb.save.efer, vmcb.save.cr0);
            dirty(vmcb, Clean::CR | Clean::CR2 | Clean::NESTED | Clean::DR);
        }
    }

    #[inline]
    fn qualification(&self, reason: ExitReason) -> [u64; 3] {
        exit::qualification(self.block(), reason, &self.machine)
    }

    fn length(&self) -> u64 {
        exit::length(self.block(), &self.machine)
    }

    #[inline]
    fn classify(&mut self) -> Exit {
        let (vmcb, registers) = self.parts();
        exit::classify(vmcb, registers)
    }

    fn flush_tlb(&mut self) {
        let flush = self.machine.flush;
        self.block_mut().control.tlb = flush;
    }
}

const fn dirty(vmcb: &mut Vmcb, parts: Clean) {
    vmcb.control.clean &= !parts.bits();
}

const fn set(word: &mut u32, bits: u32, on: bool) {
    *word = if on { *word | bits } else { *word & !bits };
}

/// Blocks NMIs or not; while blocked, the guest's IRET exits.
pub(crate) const fn block_nmi(vmcb: &mut Vmcb, blocked: bool) {
    let iret = Misc1::IRET.bits();
    if (vmcb.control.intercept_misc1 & iret != 0) != blocked {
        set(&mut vmcb.control.intercept_misc1, iret, blocked);
        dirty(vmcb, Clean::INTERCEPTS);
    }
}

const fn segment(selector: u16, attributes: u16, base: u64) -> Segment {
    Segment { selector, attributes, limit: 0xffff, base }
}

/// A block with all intercepts and the state after RESET.
fn reset(setup: &Setup) -> Vmcb {
    let mut vmcb = Vmcb::zeroed();
    let control = &mut vmcb.control;
    control.intercept_dr = ALL_DR;
    control.intercept_exceptions = GUARD_EXCEPTIONS;
    control.intercept_misc1 = MISC1.bits();
    control.intercept_misc2 = MISC2.bits();
    control.intercept_misc3 = MISC3.bits();
    control.io_map = setup.io_map;
    control.msr_map = setup.msr_map;
    control.asid = setup.asid;
    control.tlb = setup.machine.flush;
    control.interrupt = V_INTR_MASKING;
    control.nested = NESTED_PAGING;
    control.nested_cr3 = setup.nested_cr3;
    let save = &mut vmcb.save;
    save.cs = segment(0xf000, 0x9b, 0xffff_0000);
    for register in [&mut save.ds, &mut save.es, &mut save.ss, &mut save.fs, &mut save.gs] {
        *register = segment(0, 0x93, 0);
    }
    save.ldtr = segment(0, 0x82, 0);
    save.tr = segment(0, 0x8b, 0);
    save.gdtr = segment(0, 0, 0);
    save.idtr = segment(0, 0, 0);
    save.efer = EFER_SVME;
    save.cr0 = 0x6000_0010;
    save.dr6 = setup.machine.limits.dr6(0);
    save.dr7 = setup.machine.limits.dr7(0);
    save.rflags = 2;
    save.rip = 0xfff0;
    save.pat = 0x0007_0406_0007_0406;
    vmcb
}
