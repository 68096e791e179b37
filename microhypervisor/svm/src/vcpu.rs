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
use crate::segment::{pack, unpack};
use crate::vmcb::{
    CLEAN_ALL, CLEAN_INTERCEPTS, CLEAN_TPR, DR, EXCEPTIONS, FIRST, IRET, MISC1, MISC2, MISC3, NESTED_PAGING, PAUSE,
    PRIVILEGE, RDPMC, RDTSC, RDTSCP, SECOND, SEGMENTS, TLB_KEEP, V_IGN_TPR, V_INTR_MASKING, V_INTR_PRIO, V_IRQ, V_TPR,
    Vmcb, save,
};
use crate::world::{self, Host};
use cloister_abi::arch::x86_64::vcpu::{Controls, Event, Groups, SHADOW_NMI, SHADOW_STI};
use cloister_vcpu::control::{BREAKPOINT, GUARD_EXCEPTIONS};
use cloister_vcpu::{Control, Enter, Field, PLAIN, Registers, Segment, debug, event};
use core::ptr::NonNull;

/// A virtual CPU.
#[derive(Debug)]
pub struct Vcpu {
    registers: Registers,
    pub(crate) vmcb: &'static mut Vmcb,
    vmcb_physical: u64,
    pub(crate) machine: &'static Machine,
}

/// All debug registers, reads and writes.
const ALL_DR: u32 = u32::MAX;
/// Attributes of a segment: the privilege level.
const DPL: u32 = 5;
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
        control.intercepts = [0, ALL_DR, GUARD_EXCEPTIONS, MISC1, MISC2, MISC3];
        control.io_map = machine.io_map;
        control.msr_map = machine.msr_map;
        control.asid = asid;
        control.tlb = machine.flush;
        control.nested = NESTED_PAGING;
        control.nested_cr3 = root;
        vcpu.guard_interrupts();
        vcpu.reset();
        vcpu
    }

    /// The place of a register.
    #[inline(always)]
    fn place(&mut self, field: Field) -> &mut u64 {
        let control = &mut self.vmcb.control;
        match (field, save(field)) {
            (_, Some(word)) => &mut self.vmcb.save[word],
            (Field::CR8, _) => &mut control.interrupt,
            (Field::EVENT, _) => &mut control.event,
            (Field::SHADOW, _) => &mut control.interrupt_state,
            (Field::TSC_OFFSET, _) => &mut control.tsc_offset,
            _ => self.registers.place(field),
        }
    }

    /// Makes the guest exit at what the monitor asks for.
    fn set_controls(&mut self, controls: Controls) {
        let changed = controls.symmetric_difference(self.registers.controls());
        *self.registers.place(Field::CONTROLS) = controls.bits();
        if changed.contains(Controls::INTERRUPT_WINDOW) {
            self.guard_interrupts();
        }
        if changed.difference(Controls::INTERRUPT_WINDOW).is_empty() {
            return;
        }
        let control = &mut self.vmcb.control;
        for (wish, word, bits) in [
            (Controls::RDTSC, FIRST, RDTSC),
            (Controls::RDTSC, SECOND, RDTSCP),
            (Controls::RDPMC, FIRST, RDPMC),
            (Controls::PAUSE, FIRST, PAUSE),
            (Controls::DEBUG, EXCEPTIONS, BREAKPOINT),
        ] {
            set(&mut control.intercepts[word], bits, controls.contains(wish));
        }
        if controls.contains(Controls::DR) {
            control.intercepts[DR] = ALL_DR;
        }
        control.clean &= !CLEAN_INTERCEPTS;
    }

    /// Makes physical interrupts leave the guest whatever its own flags and CR8 are, and its window for interrupts as the monitor wants it.
    pub(crate) const fn guard_interrupts(&mut self) {
        let on = self.registers.controls().contains(Controls::INTERRUPT_WINDOW);
        let window = if on { V_IRQ | V_INTR_PRIO | V_IGN_TPR } else { 0 };
        let control = &mut self.vmcb.control;
        control.interrupt = control.interrupt & V_TPR | V_INTR_MASKING | window;
        control.clean &= !CLEAN_TPR;
    }

    /// Blocks NMIs or not; while blocked, the guest's IRET exits.
    pub(crate) const fn block_nmi(&mut self, blocked: bool) {
        let control = &mut self.vmcb.control;
        if (control.intercepts[FIRST] & IRET != 0) != blocked {
            set(&mut control.intercepts[FIRST], IRET, blocked);
            control.clean &= !CLEAN_INTERCEPTS;
        }
    }
}

impl Enter for Vcpu {
    type Host = Host;

    #[inline]
    unsafe fn enter(&mut self, host: &mut Host, thread: [u64; 2], _: u64) {
        host.set_thread(thread);
        if self.registers.debug {
            debug::load(&self.registers.words[Field::BREAKPOINTS]);
        }
        // SAFETY: the block and the registers are this VCPU's; the caller vouches for the host.
        unsafe { world::enter(&mut self.registers.words, self.vmcb_physical, host.physical) };
        let control = &mut self.vmcb.control;
        control.clean = CLEAN_ALL;
        control.tlb = TLB_KEEP;
        if self.registers.debug {
            self.leave_debug();
        }
        self.registers.exits += 1;
    }
}

impl Control for Vcpu {
    #[inline]
    fn registers(&mut self) -> &mut Registers {
        &mut self.registers
    }

    #[inline(always)]
    fn get(&mut self, field: Field) -> u64 {
        let value = *self.place(field);
        match field {
            Field::CR8 => value & V_TPR,
            Field::EFER => value & !EFER_SVME,
            Field::SHADOW if self.vmcb.control.intercepts[FIRST] & IRET != 0 => value | SHADOW_NMI,
            _ => value,
        }
    }

    #[inline(always)]
    fn set(&mut self, field: Field, value: u64) {
        let place = self.place(field);
        *place = match field {
            Field::CR8 => *place & !V_TPR | value & V_TPR,
            Field::EFER => value | EFER_SVME,
            Field::SHADOW => value & SHADOW_STI,
            Field::CONTROLS => return self.set_controls(Controls::from_bits_truncate(value)),
            _ => value,
        };
        match field {
            Field::SHADOW => self.block_nmi(value & SHADOW_NMI != 0),
            Field::EVENT if value & (Event::VALID | event::TYPE) == Event::VALID | Event::NMI => self.block_nmi(true),
            _ => {}
        }
    }

    #[inline(always)]
    fn segment(&mut self, name: Field) -> Segment {
        let place = SEGMENTS[name.segment()] * 2;
        let [first, base] = [0, 1].map(|word| self.vmcb.save[place + word]);
        let mut access = unpack(first >> 16 & 0xffff);
        if name == Field::SS {
            access = access & !(3 << DPL) | (self.vmcb.save[PRIVILEGE] >> 24 & 3) << DPL;
        }
        [first & 0xffff | access << 32, first >> 32, base]
    }

    #[inline(always)]
    fn set_segment(&mut self, name: Field, [first, limit, base]: Segment) {
        let place = SEGMENTS[name.segment()] * 2;
        self.vmcb.save[place] = first & 0xffff | pack(first >> 32) << 16 | limit << 32;
        self.vmcb.save[place + 1] = base;
        if name == Field::SS {
            self.vmcb.save[PRIVILEGE] = (first >> 32 >> DPL & 3) << 24;
        }
    }

    fn watch_debug(&mut self, on: bool) {
        let control = &mut self.vmcb.control;
        set(&mut control.intercepts[DR], ALL_DR, on);
        control.clean &= !CLEAN_INTERCEPTS;
    }

    /// The clean bits follow what was written (APM vol. 2, 15.15.3): what is written often has bits of its own, the rest makes the
    /// processor read all. The TLB may hold what was true of other control registers only (15.16.1).
    #[inline]
    fn loaded(&mut self, groups: Groups) {
        let control = &mut self.vmcb.control;
        if groups.contains(Groups::TPR) {
            control.clean &= !CLEAN_TPR;
        }
        if groups.difference(PLAIN).is_empty() {
            return;
        }
        control.clean = 0;
        if groups.intersects(Groups::CR | Groups::EFER) {
            control.tlb = self.machine.flush;
            let [cr4, efer, cr0] = [Field::CR4, Field::EFER, Field::CR0].map(|field| *self.place(field));
            self.set(Field::CR4, self.machine.cr4_of_long_mode(cr4, efer, cr0));
        }
    }

    fn flush_tlb(&mut self) {
        self.vmcb.control.tlb = self.machine.flush;
    }
}

const fn set(word: &mut u32, bits: u32, on: bool) {
    *word = if on { *word | bits } else { *word & !bits };
}
