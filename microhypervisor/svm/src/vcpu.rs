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

use crate::machine::{EFER_SVME, Machine};
use crate::segment::{from_vmcb, to_vmcb};
use crate::vmcb::{
    Clean, INTERRUPT_SHADOW, IRET, MISC1, MISC2, MISC3, NESTED_PAGING, PAUSE, RDPMC, RDTSC, RDTSCP, TLB_KEEP,
    V_IGN_TPR, V_INTR_MASKING, V_INTR_PRIO, V_IRQ, V_TPR, Vmcb,
};
use crate::world::{self, Host};
use cloister_abi::arch::x86_64::vcpu::{Controls, Event, Groups, SHADOW_NMI, SHADOW_STI, Segment};
use cloister_vcpu::control::{BREAKPOINT, GUARD_EXCEPTIONS, SEGMENTS};
use cloister_vcpu::{Control, Field, Registers, SegmentName, debug, event};
use core::ptr::NonNull;

/// A virtual CPU.
#[derive(Debug)]
pub struct Vcpu {
    registers: Registers,
    vmcb: &'static mut Vmcb,
    vmcb_physical: u64,
    machine: &'static Machine,
}

/// All debug registers, reads and writes.
const ALL_DR: u32 = u32::MAX;
/// Attributes of the stack segment: the privilege level.
const PRIVILEGE: u32 = 5;

impl Vcpu {
    /// A VCPU in the state after RESET. Fills the block.
    ///
    /// # Safety
    /// `vmcb` must point to a page at physical address `vmcb_physical` that belongs to this VCPU alone until it is
    /// gone. `root` must be the physical address of a nested page table, and `machine` have those of maps, that outlive it. `asid` is not 0.
    #[must_use]
    pub unsafe fn new(
        vmcb: NonNull<Vmcb>,
        vmcb_physical: u64,
        root: u64,
        asid: u32,
        machine: &'static Machine,
    ) -> Self {
        // SAFETY: the caller gives the page to this VCPU.
        let vmcb = unsafe { &mut *vmcb.as_ptr() };
        *vmcb = Vmcb::zeroed();
        let mut vcpu = Self { registers: Registers::new(machine.limits), vmcb, vmcb_physical, machine };
        let control = &mut vcpu.vmcb.control;
        control.intercept_dr = ALL_DR;
        control.intercept_exceptions = GUARD_EXCEPTIONS;
        control.intercept_misc1 = MISC1;
        control.intercept_misc2 = MISC2;
        control.intercept_misc3 = MISC3;
        control.io_map = machine.io_map;
        control.msr_map = machine.msr_map;
        control.asid = asid;
        control.tlb = machine.flush;
        control.interrupt = V_INTR_MASKING;
        control.nested = NESTED_PAGING;
        control.nested_cr3 = root;
        vcpu.reset();
        vcpu
    }

    #[inline]
    pub(crate) const fn block(&mut self) -> &mut Vmcb {
        self.vmcb
    }

    #[inline]
    pub(crate) const fn machine(&self) -> &'static Machine {
        self.machine
    }

    /// Runs the guest until something happens.
    ///
    /// # Safety
    /// Interrupts must be off. FPU state and XCR0 must be the guest's. `host` must be this core's, and its block as
    /// [`Host`] asks. The nested page table must map nothing that the guest must not have.
    #[inline]
    pub unsafe fn enter(&mut self, host: &Host) {
        if self.registers.debug {
            debug::load(&self.registers.dr);
        }
        // SAFETY: the block and the registers are this VCPU's; the caller vouches for the host.
        unsafe { world::enter(&mut self.registers.gpr, self.vmcb_physical, host.physical()) };
        let control = &mut self.block().control;
        control.clean = Clean::all().bits();
        control.tlb = TLB_KEEP;
        if self.registers.debug {
            self.leave_debug();
        }
        self.registers.exits += 1;
    }

    /// The place of a register.
    #[inline(always)]
    fn place(&mut self, field: Field) -> &mut u64 {
        let Vmcb { control, save } = &mut *self.vmcb;
        match field {
            Field::Gpr(0) => &mut save.rax,
            Field::Gpr(4) => &mut save.rsp,
            Field::Rip => &mut save.rip,
            Field::Rflags => &mut save.rflags,
            Field::Cr0 => &mut save.cr0,
            Field::Cr2 => &mut save.cr2,
            Field::Cr3 => &mut save.cr3,
            Field::Cr4 => &mut save.cr4,
            Field::Cr8 => &mut control.interrupt,
            Field::Efer => &mut save.efer,
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
            Field::TscOffset => &mut control.tsc_offset,
            Field::Gpr(_) | Field::Xcr0 => self.registers.place(field),
        }
    }
}

/// Places of segments in the block, by their names.
const PLACES: [usize; 10] = [0, 1, 2, 3, 4, 5, 7, 9, 6, 8];

impl Control for Vcpu {
    #[inline]
    fn registers(&mut self) -> &mut Registers {
        &mut self.registers
    }

    #[inline(always)]
    fn get(&mut self, field: Field) -> u64 {
        let value = *self.place(field);
        match field {
            Field::Cr8 => value & V_TPR,
            Field::Efer => value & !EFER_SVME,
            _ => value,
        }
    }

    #[inline(always)]
    fn set(&mut self, field: Field, value: u64) {
        let place = self.place(field);
        *place = match field {
            Field::Cr8 => *place & !V_TPR | value & V_TPR,
            Field::Efer => value | EFER_SVME,
            _ => value,
        };
    }

    #[inline(always)]
    fn segment(&mut self, name: SegmentName) -> Segment {
        let save = &self.block().save;
        let mut segment = from_vmcb(save.segments[PLACES[name as usize]]);
        if name == SegmentName::Ss {
            segment.access = segment.access & !(3 << PRIVILEGE) | u32::from(save.cpl & 3) << PRIVILEGE;
        }
        segment
    }

    #[inline(always)]
    fn set_segment(&mut self, name: SegmentName, segment: Segment) {
        let save = &mut self.block().save;
        save.segments[PLACES[name as usize]] = to_vmcb(segment);
        if name == SegmentName::Ss {
            save.cpl = (segment.access >> PRIVILEGE & 3).to_le_bytes()[0];
        }
    }

    fn shadow(&mut self) -> u64 {
        let control = &self.block().control;
        let sti = if control.interrupt_state & INTERRUPT_SHADOW != 0 { SHADOW_STI } else { 0 };
        let nmi = if control.intercept_misc1 & IRET != 0 { SHADOW_NMI } else { 0 };
        sti | nmi
    }

    fn set_shadow(&mut self, shadow: u64) {
        let vmcb = self.block();
        vmcb.control.interrupt_state = if shadow & SHADOW_STI != 0 { INTERRUPT_SHADOW } else { 0 };
        block_nmi(vmcb, shadow & SHADOW_NMI != 0);
    }

    #[inline]
    fn event(&mut self) -> u64 {
        self.block().control.event
    }

    #[inline]
    fn set_event(&mut self, event: u64) {
        let vmcb = self.block();
        vmcb.control.event = event;
        if event & (Event::VALID | event::TYPE) == Event::VALID | Event::NMI {
            block_nmi(vmcb, true);
        }
    }

    fn set_controls(&mut self, controls: Controls) {
        let changed = controls.symmetric_difference(self.registers.controls);
        let control = &mut self.block().control;
        if changed.contains(Controls::INTERRUPT_WINDOW) {
            let window = V_IRQ | V_INTR_PRIO | V_IGN_TPR;
            let other = control.interrupt & !window;
            let on = controls.contains(Controls::INTERRUPT_WINDOW);
            control.interrupt = if on { other | window } else { other };
            control.dirty(Clean::TPR);
        }
        if changed.difference(Controls::INTERRUPT_WINDOW).is_empty() {
            return;
        }
        set(&mut control.intercept_misc1, RDTSC, controls.contains(Controls::RDTSC));
        set(&mut control.intercept_misc2, RDTSCP, controls.contains(Controls::RDTSC));
        set(&mut control.intercept_misc1, RDPMC, controls.contains(Controls::RDPMC));
        set(&mut control.intercept_misc1, PAUSE, controls.contains(Controls::PAUSE));
        set(&mut control.intercept_exceptions, BREAKPOINT, controls.contains(Controls::DEBUG));
        if controls.contains(Controls::DR) {
            control.intercept_dr = ALL_DR;
        }
        control.dirty(Clean::INTERCEPTS);
    }

    fn watch_debug(&mut self, on: bool) {
        let control = &mut self.block().control;
        set(&mut control.intercept_dr, ALL_DR, on);
        control.dirty(Clean::INTERCEPTS);
    }

    /// The clean bits follow what was written (APM vol. 2, 15.15.3). The TLB may hold what was true of other control registers only
    /// (15.16.1).
    #[inline]
    fn loaded(&mut self, groups: Groups) {
        const CONTROL_REGISTERS: Groups = Groups::CR.union(Groups::EFER).union(Groups::PAT).union(Groups::DR);
        let machine = self.machine;
        let Vmcb { control, save } = self.block();
        if groups.contains(Groups::TPR) {
            control.dirty(Clean::TPR);
        }
        if !groups.intersects(CONTROL_REGISTERS.union(SEGMENTS).union(Groups::TSC)) {
            return;
        }
        if groups.intersects(SEGMENTS) {
            control.dirty(Clean::SEGMENTS | Clean::TABLES);
        }
        if groups.contains(Groups::TSC) {
            control.dirty(Clean::INTERCEPTS);
        }
        if groups.intersects(CONTROL_REGISTERS) {
            save.cr4 = machine.cr4_of_long_mode(save.cr4, save.efer, save.cr0);
            control.dirty(Clean::CR | Clean::CR2 | Clean::NESTED | Clean::DR);
        }
        if groups.intersects(Groups::CR | Groups::EFER) {
            control.tlb = machine.flush;
        }
    }

    fn flush_tlb(&mut self) {
        self.block().control.tlb = self.machine.flush;
    }
}

const fn set(word: &mut u32, bits: u32, on: bool) {
    *word = if on { *word | bits } else { *word & !bits };
}

/// Blocks NMIs or not; while blocked, the guest's IRET exits.
pub(crate) const fn block_nmi(vmcb: &mut Vmcb, blocked: bool) {
    let control = &mut vmcb.control;
    if (control.intercept_misc1 & IRET != 0) != blocked {
        set(&mut control.intercept_misc1, IRET, blocked);
        control.dirty(Clean::INTERCEPTS);
    }
}
