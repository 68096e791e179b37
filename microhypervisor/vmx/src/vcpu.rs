// SPDX-License-Identifier: MIT OR Apache-2.0
//! The virtual CPU as VMX has it: a VMCS, the registers that it does not hold, and the way in and out.
//!
//! The order of the kernel's calls is that of the SVM crate, with [`Vcpu::make_current`] before the first of them, and again
//! whenever another VCPU may have been active on the core since.
//!
//! CR0 and CR4 have bits that the host owns: those that VMX needs set (NE, VMXE), those that would reach beyond the guest
//! (CD, NW), and those that no guest may have. The guest reads them from the shadows. It writes the first kinds with one exit,
//! at which the shadow takes the new value and the instruction runs again ([`crate::exit`]), so that no transition of modes
//! has to be emulated.

use crate::exit::{self, GUARD_EXCEPTIONS};
use crate::machine::{self, ENTRY_LONG_MODE, Machine};
use crate::vmcs;
use crate::world::{self, Host, MSRS};
use cloister_abi::arch::x86_64::vcpu::{Controls, Event, ExitReason, Groups, SHADOW_NMI, SHADOW_STI, Segment};
use cloister_vcpu::control::DR7_ENABLES;
use cloister_vcpu::limits::EFER_LMA;
use cloister_vcpu::{Control, Exit, Field, Limits, Registers, SegmentName, debug};
use core::ptr::NonNull;

/// What a VCPU is made of.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// Physical address of the MSR map ([`crate::permission::fill_msr_map`]).
    pub msr_map: u64,
    /// Physical address of the EPT's root.
    pub root: u64,
    /// Tag of the guest's translations (VPID), not 0.
    pub tag: u32,
    /// What the machine can do.
    pub machine: Machine,
}

/// A virtual CPU.
#[derive(Debug)]
pub struct Vcpu {
    pub(crate) registers: Registers,
    setup: Setup,
    physical: u64,
    exits: u64,
    /// STAR, LSTAR, CSTAR, SFMASK, KERNEL_GS_BASE.
    msrs: [u64; MSRS],
    cr2: u64,
    cr8: u64,
    pub(crate) dr6: u64,
    pub(crate) event: u64,
    /// What the VMCS has of the host, as far as that changes.
    host_rsp: u64,
    host_cr3: u64,
    host_fs: u64,
    primary: u32,
    /// The VMCS has been filled.
    prepared: bool,
    /// The next entry resumes.
    pub(crate) launched: bool,
    flush: bool,
    /// The last entry was refused.
    pub(crate) failed: bool,
}

pub(crate) const CR0_NW: u64 = 1 << 29;
pub(crate) const CR0_CD: u64 = 1 << 30;
/// Interruptibility: blocking by STI, by MOV SS, by NMI.
pub(crate) const BLOCKED_STI: u64 = 1 << 0;
const BLOCKED_SS: u64 = 1 << 1;
pub(crate) const BLOCKED_NMI: u64 = 1 << 3;
/// A single step is pending, in the field of pending debug exceptions.
const STEP_PENDING: u64 = 1 << 14;
const FLAG_TF: u64 = 1 << 8;
const FLAG_IF: u64 = 1 << 9;
/// Access rights: accessed, code or data, present, granularity, unusable.
const ACCESSED: u32 = 1 << 0;
const CODE_OR_DATA: u32 = 1 << 4;
const PRESENT: u32 = 1 << 7;
const GRANULARITY: u32 = 1 << 15;
const UNUSABLE: u32 = 1 << 16;
const ACCESS_MASK: u32 = 0x1_f0ff;
/// EPT pointer: write-back, four levels.
const EPT_ATTRIBUTES: u64 = 6 | 3 << 3;
const KERNEL_CS: u64 = 0x08;
const KERNEL_SS: u64 = 0x10;
const KERNEL_TR: u64 = 0x28;

/// Fields that are zero for ever, or at first: event to inject, its error code; page-fault mask and match; counts of MSR
/// areas and CR3 targets; TPR threshold; guest's debug control, activity, pending debug exceptions; the host's other
/// selectors, and its SYSENTER registers.
const ZERO: [vmcs::Code; 22] = [
    vmcs::ENTRY_EVENT,
    vmcs::ENTRY_ERROR,
    0x4006,
    0x4008,
    0x400a,
    0x400e,
    0x4010,
    0x4014,
    0x401c,
    0x2802,
    0x4826,
    vmcs::PENDING_DEBUG,
    vmcs::INTERRUPTIBILITY,
    vmcs::TSC_OFFSET,
    0x0c00,
    0x0c06,
    0x0c08,
    0x0c0a,
    0x4c00,
    0x6c10,
    0x6c12,
    vmcs::CR4_SHADOW,
];

/// An address as the processor would have it: bits beyond 47 are copies of it.
const fn canonical(address: u64) -> u64 {
    ((address << 16).cast_signed() >> 16).cast_unsigned()
}

impl Vcpu {
    /// A VCPU in the state after RESET (SDM vol. 3A, table 10-1), not active yet.
    ///
    /// # Safety
    /// `region` must point to a zeroed page at physical address `physical` that belongs to this VCPU alone until it was
    /// forgotten. The addresses in `setup` must be those of a map and of an EPT that outlive it.
    #[must_use]
    pub unsafe fn new(region: NonNull<u32>, physical: u64, setup: &Setup) -> Self {
        // SAFETY: the caller gives the page to this VCPU.
        unsafe { region.write(setup.machine.revision) };
        Self {
            registers: Registers::new(),
            setup: *setup,
            physical,
            exits: 0,
            msrs: [0; MSRS],
            cr2: 0,
            cr8: 0,
            dr6: setup.machine.limits.dr6(0),
            event: 0,
            host_rsp: 0,
            host_cr3: 0,
            host_fs: 0,
            primary: setup.machine.primary,
            prepared: false,
            launched: false,
            flush: false,
            failed: false,
        }
    }

    /// Makes this VCPU the one that the core works on.
    ///
    /// # Safety
    /// `host` is this core's, and no other core's since the VCPU was made.
    #[inline]
    pub unsafe fn make_current(&mut self, host: &mut Host) {
        // SAFETY: the region is this VCPU's, and this core's by the caller's word.
        if unsafe { host.make_current(self.physical) } {
            self.launched = false;
            if !self.prepared {
                self.prepare(host);
                self.prepared = true;
            }
        }
    }

    /// The VCPU goes: makes the core forget it.
    pub fn forget(&self, host: &mut Host) {
        host.forget(self.physical);
    }

    /// Fills the VMCS: controls, the host's state, the guest's after RESET.
    pub(crate) fn prepare(&mut self, host: &Host) {
        let machine = self.setup.machine;
        for code in ZERO {
            vmcs::write(code, 0);
        }
        for (code, value) in [
            (vmcs::PIN, machine.pin),
            (vmcs::PRIMARY, machine.primary),
            (vmcs::SECONDARY, machine.secondary),
            (vmcs::EXIT_CONTROLS, machine.exit),
            (vmcs::ENTRY_CONTROLS, machine.entry),
            (vmcs::EXCEPTIONS, GUARD_EXCEPTIONS),
            (vmcs::VPID, if machine.is_tagged() { self.setup.tag } else { 0 }),
        ] {
            vmcs::write(code, u64::from(value));
        }
        // The host's state is that of the kernel on this core; an exit goes to the world switch.
        for (code, value) in [
            (vmcs::EPT_POINTER, self.ept_pointer()),
            (vmcs::MSR_BITMAP, self.setup.msr_map),
            (vmcs::VIRTUAL_APIC, host.tpr_physical),
            (vmcs::LINK_POINTER, u64::MAX),
            (vmcs::CR0_MASK, self.cr0_mask()),
            (vmcs::CR4_MASK, self.cr4_mask()),
            (vmcs::HOST_CS, KERNEL_CS),
            (vmcs::HOST_SS, KERNEL_SS),
            (vmcs::HOST_TR, KERNEL_TR),
            (vmcs::HOST_CR0, host.cr0),
            (vmcs::HOST_CR4, host.cr4),
            (vmcs::HOST_PAT, host.pat),
            (vmcs::HOST_EFER, host.efer),
            (vmcs::HOST_GS_BASE, host.gs_base),
            (vmcs::HOST_FS_BASE, self.host_fs),
            (vmcs::HOST_TR_BASE, host.task_base),
            (vmcs::HOST_GDTR_BASE, host.gdt_base()),
            (vmcs::HOST_IDTR_BASE, host.idt_base),
            (vmcs::HOST_RIP, world::exit_address()),
        ] {
            vmcs::write(code, value);
        }
        self.reset();
    }

    fn reset(&mut self) {
        let segment = |selector, access, base| Segment { selector, access, limit: 0xffff, base, ..Segment::default() };
        self.set_segment(SegmentName::Cs, segment(0xf000, 0x9b, 0xffff_0000));
        for name in [SegmentName::Ds, SegmentName::Es, SegmentName::Ss, SegmentName::Fs, SegmentName::Gs] {
            self.set_segment(name, segment(0, 0x93, 0));
        }
        self.set_segment(SegmentName::Ldtr, segment(0, 0x82, 0));
        self.set_segment(SegmentName::Tr, segment(0, 0x8b, 0));
        self.set_segment(SegmentName::Gdtr, segment(0, 0, 0));
        self.set_segment(SegmentName::Idtr, segment(0, 0, 0));
        for (field, value) in [
            (Field::Cr0, 0x6000_0010),
            (Field::Cr3, 0),
            (Field::Cr4, 0),
            (Field::Efer, 0),
            (Field::Dr7, self.setup.machine.limits.dr7(0)),
            (Field::Rsp, 0),
            (Field::Rip, 0xfff0),
            (Field::Rflags, 2),
            (Field::Pat, 0x0007_0406_0007_0406),
            (Field::SysenterCs, 0),
            (Field::SysenterEsp, 0),
            (Field::SysenterEip, 0),
        ] {
            self.set(field, value);
        }
    }

    const fn ept_pointer(&self) -> u64 {
        self.setup.root | EPT_ATTRIBUTES
    }

    /// Bits of CR0 that the host owns.
    pub(crate) const fn cr0_mask(&self) -> u64 {
        self.setup.machine.cr0_ones | CR0_CD | CR0_NW
    }

    /// Bits of CR4 that the host owns: all that no guest may have.
    pub(crate) const fn cr4_mask(&self) -> u64 {
        !self.setup.machine.limits.cr4(u64::MAX)
    }

    /// Whether [`Self::enter`] can end the guest at a time.
    #[must_use]
    pub const fn has_timer(&self) -> bool {
        self.setup.machine.has_timer()
    }

    /// Runs the guest until something happens, or so many ticks of the time-stamp counter passed, where there is a timer.
    ///
    /// # Safety
    /// Interrupts must be off. FPU state and XCR0 must be the guest's. The VCPU must be active on this core, whose `host` is. The
    /// EPT must map nothing that the guest must not have.
    #[inline]
    pub unsafe fn enter(&mut self, host: &mut Host, ticks: u64) {
        if self.has_timer() {
            // One more than rounded down, so that it is never early.
            let count = (ticks >> self.setup.machine.timer_shift).saturating_add(1);
            vmcs::write(vmcs::TIMER, count.min(u64::from(u32::MAX)));
        }
        if self.event & Event::VALID != 0 {
            self.inject();
        }
        if core::mem::take(&mut self.flush) {
            world::forget_translations(self.setup.machine.flush, self.ept_pointer());
        }
        let root = world::host_cr3();
        if self.host_cr3 != root {
            self.host_cr3 = root;
            vmcs::write(vmcs::HOST_CR3, root);
        }
        if self.host_fs != host.fs_base {
            self.host_fs = host.fs_base;
            vmcs::write(vmcs::HOST_FS_BASE, host.fs_base);
        }
        host.set_tpr(self.cr8);
        world::set_cr2(self.cr2);
        if self.registers.debug {
            // SAFETY: the values are addresses of breakpoints that the host has switched off.
            unsafe { debug::load(&self.registers.dr) };
            world::set_dr6(self.dr6);
        }
        // SAFETY: `set` makes the values such; they are taken back below.
        unsafe { host.give_msrs(&self.msrs) };
        // SAFETY: the VMCS is complete and current; the caller vouches for the rest.
        let failed = unsafe { world::enter(&mut self.registers.gpr, self.launched, &mut self.host_rsp) };
        host.repair();
        host.take_msrs(&mut self.msrs);
        self.failed = failed != 0;
        self.cr2 = world::cr2();
        self.cr8 = host.tpr();
        if self.registers.debug {
            self.leave_debug();
        }
        self.exits += 1;
    }

    /// Saves the guest's debug registers. Those of a guest that has no breakpoint enabled need not go with the next switch.
    #[cold]
    fn leave_debug(&mut self) {
        self.dr6 = world::dr6();
        // SAFETY: the host uses no debug registers.
        self.registers.dr = unsafe { debug::save() };
        if vmcs::read(vmcs::GUEST_DR7) & DR7_ENABLES == 0 {
            self.registers.debug = false;
            self.set_primary(machine::MOV_DR, true);
        }
    }

    /// Has the next entry deliver the event (SDM vol. 3C, 26.8.3 and 27.2.1.3: what is refused there is made fit here, where
    /// SVM would take it).
    #[cold]
    fn inject(&mut self) {
        let vector = self.event & 0xff;
        let plain = self.event & 0x8000_07ff;
        let has_code = matches!(vector, 8 | 10..=14 | 17) && vmcs::read(vmcs::GUEST_CR0) & 1 != 0;
        let event = match self.event & 0x700 {
            Event::NMI => {
                vmcs::write(vmcs::INTERRUPTIBILITY, vmcs::read(vmcs::INTERRUPTIBILITY) & !BLOCKED_NMI);
                plain
            }
            Event::EXCEPTION if has_code => {
                vmcs::write(vmcs::ENTRY_ERROR, self.event >> 32 & 0xffff);
                plain | Event::ERROR_VALID
            }
            Event::INTERRUPT | Event::EXCEPTION => plain,
            _ => {
                // The processor pushes the address after a software interrupt, of which it wants to know a length.
                let rip = vmcs::read(vmcs::GUEST_RIP);
                vmcs::write(vmcs::GUEST_RIP, rip.wrapping_sub(1));
                vmcs::write(vmcs::ENTRY_LENGTH, 1);
                plain
            }
        };
        vmcs::write(vmcs::ENTRY_EVENT, event);
    }

    /// Switches primary controls.
    pub(crate) fn set_primary(&mut self, bits: u32, on: bool) {
        self.primary = if on { self.primary | bits } else { self.primary & !bits };
        vmcs::write(vmcs::PRIMARY, u64::from(self.primary));
    }

    /// Whether the processor tells more of INS and OUTS.
    pub(crate) const fn has_string_details(&self) -> bool {
        self.setup.machine.string_details
    }

    /// A general-purpose register by its encoding.
    pub(crate) fn gpr(&self, index: u64) -> u64 {
        match index & 15 {
            4 => vmcs::read(vmcs::GUEST_RSP),
            other => self.registers.gpr.get(usize::from(other.to_le_bytes()[0])).copied().unwrap_or(0),
        }
    }
}

/// Codes of the fields that hold a register by themselves.
const fn code(field: Field) -> Option<vmcs::Code> {
    Some(match field {
        Field::Rsp => vmcs::GUEST_RSP,
        Field::Rip => vmcs::GUEST_RIP,
        Field::Rflags => vmcs::GUEST_RFLAGS,
        Field::Cr3 => vmcs::GUEST_CR3,
        Field::Pat => vmcs::GUEST_PAT,
        Field::Dr7 => vmcs::GUEST_DR7,
        Field::Efer => vmcs::GUEST_EFER,
        Field::SysenterCs => vmcs::GUEST_SYSENTER_CS,
        Field::SysenterEsp => vmcs::GUEST_SYSENTER_ESP,
        Field::SysenterEip => vmcs::GUEST_SYSENTER_EIP,
        Field::TscOffset => vmcs::TSC_OFFSET,
        _ => return None,
    })
}

/// Step of a segment's fields.
const fn step(name: SegmentName) -> vmcs::Code {
    name as vmcs::Code * 2
}

/// Whether the register has selector and access rights.
const fn is_segment(name: SegmentName) -> bool {
    !matches!(name, SegmentName::Gdtr | SegmentName::Idtr)
}

/// Access rights as VM entry wants them (SDM vol. 3C, 27.3.1.2), where SVM takes more: no reserved bits, what is not present is
/// unusable, a granularity that fits the limit, code and data accessed.
const fn access(segment: Segment) -> u32 {
    let mut access = segment.access & ACCESS_MASK;
    if access & PRESENT == 0 {
        access |= UNUSABLE;
    }
    if access & CODE_OR_DATA != 0 {
        access |= ACCESSED;
    }
    if segment.limit & 0xfff != 0xfff {
        access &= !GRANULARITY;
    }
    if segment.limit >> 20 != 0 {
        access |= GRANULARITY;
    }
    access
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
        &self.setup.machine.limits
    }

    #[inline]
    fn exits(&self) -> u64 {
        self.exits
    }

    #[inline]
    fn get(&self, field: Field) -> u64 {
        let shadowed =
            |real: vmcs::Code, mask: u64, shadow: vmcs::Code| vmcs::read(real) & !mask | vmcs::read(shadow) & mask;
        let [star, lstar, cstar, sfmask, kernel_gs_base] = self.msrs;
        match field {
            Field::Rax => self.registers.gpr[0],
            Field::Cr0 => shadowed(vmcs::GUEST_CR0, self.cr0_mask(), vmcs::CR0_SHADOW),
            Field::Cr4 => shadowed(vmcs::GUEST_CR4, self.cr4_mask(), vmcs::CR4_SHADOW),
            Field::Cr2 => self.cr2,
            Field::Cr8 => self.cr8,
            Field::Dr6 => self.dr6,
            Field::Star => star,
            Field::Lstar => lstar,
            Field::Cstar => cstar,
            Field::Sfmask => sfmask,
            Field::KernelGsBase => kernel_gs_base,
            other => code(other).map_or(0, vmcs::read),
        }
    }

    #[inline]
    fn set(&mut self, field: Field, value: u64) {
        let machine = &self.setup.machine;
        let [star, lstar, cstar, sfmask, kernel_gs_base] = &mut self.msrs;
        match field {
            Field::Rax => self.registers.gpr[0] = value,
            Field::Cr0 => {
                // The real bit is the host's, so no entry would be refused for it.
                self.registers.refused |= value & (CR0_NW | CR0_CD) == CR0_NW;
                vmcs::write(vmcs::GUEST_CR0, value & !(CR0_CD | CR0_NW) | machine.cr0_ones);
                vmcs::write(vmcs::CR0_SHADOW, value);
            }
            Field::Cr4 => vmcs::write(vmcs::GUEST_CR4, value | machine.cr4_ones),
            Field::Cr2 => self.cr2 = value,
            Field::Cr8 => self.cr8 = value & 0xf,
            Field::Dr6 => self.dr6 = value,
            Field::Star => *star = value & !0xffff_ffff,
            Field::Lstar => *lstar = canonical(value),
            Field::Cstar => *cstar = canonical(value),
            Field::Sfmask => *sfmask = value & 0xffff_ffff,
            Field::KernelGsBase => *kernel_gs_base = canonical(value),
            Field::SysenterEsp => vmcs::write(vmcs::GUEST_SYSENTER_ESP, canonical(value)),
            Field::SysenterEip => vmcs::write(vmcs::GUEST_SYSENTER_EIP, canonical(value)),
            Field::Efer => {
                vmcs::write(vmcs::GUEST_EFER, value);
                let other = u64::from(machine.entry) & !ENTRY_LONG_MODE;
                vmcs::write(vmcs::ENTRY_CONTROLS, if value & EFER_LMA != 0 { other | ENTRY_LONG_MODE } else { other });
            }
            other => {
                if let Some(code) = code(other) {
                    vmcs::write(code, value);
                }
            }
        }
    }

    fn segment(&self, name: SegmentName) -> Segment {
        let step = step(name);
        let word = |code: vmcs::Code| {
            let [a, b, c, d, ..] = vmcs::read(code).to_le_bytes();
            u32::from_le_bytes([a, b, c, d])
        };
        let (limit, base) = (word(vmcs::GUEST_LIMIT + step), vmcs::read(vmcs::GUEST_BASE + step));
        if !is_segment(name) {
            return Segment { limit, base, ..Segment::default() };
        }
        let [low, high, ..] = vmcs::read(vmcs::GUEST_SELECTOR + step).to_le_bytes();
        let (selector, access) = (u16::from_le_bytes([low, high]), word(vmcs::GUEST_ACCESS + step));
        Segment { selector, reserved: 0, access, limit, reserved2: 0, base }
    }

    fn set_segment(&mut self, name: SegmentName, segment: Segment) {
        let step = step(name);
        vmcs::write(vmcs::GUEST_LIMIT + step, u64::from(segment.limit));
        vmcs::write(vmcs::GUEST_BASE + step, canonical(segment.base));
        if is_segment(name) {
            vmcs::write(vmcs::GUEST_SELECTOR + step, u64::from(segment.selector));
            vmcs::write(vmcs::GUEST_ACCESS + step, u64::from(access(segment)));
        }
    }

    fn shadow(&self) -> u64 {
        let blocked = vmcs::read(vmcs::INTERRUPTIBILITY);
        let instruction = if blocked & (BLOCKED_STI | BLOCKED_SS) != 0 { SHADOW_STI } else { 0 };
        instruction | if blocked & BLOCKED_NMI != 0 { SHADOW_NMI } else { 0 }
    }

    fn set_shadow(&mut self, shadow: u64) {
        let before = vmcs::read(vmcs::INTERRUPTIBILITY) & (BLOCKED_STI | BLOCKED_SS);
        let instruction = match (shadow & SHADOW_STI, before) {
            (0, _) => 0,
            (_, 0) => BLOCKED_STI,
            (_, before) => before,
        };
        let nmi = if shadow & SHADOW_NMI != 0 { BLOCKED_NMI } else { 0 };
        vmcs::write(vmcs::INTERRUPTIBILITY, instruction | nmi);
    }

    #[inline]
    fn event(&self) -> u64 {
        self.event
    }

    #[inline]
    fn set_event(&mut self, event: u64) {
        self.event = event;
    }

    fn set_controls(&mut self, controls: Controls) {
        for (control, bits) in [
            (Controls::INTERRUPT_WINDOW, machine::INTERRUPT_WINDOW),
            (Controls::RDTSC, machine::RDTSC),
            (Controls::RDPMC, machine::RDPMC),
            (Controls::PAUSE, machine::PAUSE),
        ] {
            let on = controls.contains(control);
            self.primary = if on { self.primary | bits } else { self.primary & !bits };
        }
        self.set_primary(machine::MOV_DR, controls.contains(Controls::DR) || self.primary & machine::MOV_DR != 0);
        let breakpoint = if controls.contains(Controls::DEBUG) { exit::BREAKPOINT } else { 0 };
        vmcs::write(vmcs::EXCEPTIONS, u64::from(GUARD_EXCEPTIONS | breakpoint));
    }

    /// What VM entry checks of several registers together (SDM vol. 3C, 27.3.1.5): no shadow of STI with interrupts off, and
    /// a pending single step exactly where a shadow keeps one off.
    fn loaded(&mut self, groups: Groups) {
        if groups.intersects(Groups::RFLAGS | Groups::SHADOW) {
            let flags = vmcs::read(vmcs::GUEST_RFLAGS);
            let blocked = vmcs::read(vmcs::INTERRUPTIBILITY);
            if blocked & BLOCKED_STI != 0 && flags & FLAG_IF == 0 {
                vmcs::write(vmcs::INTERRUPTIBILITY, blocked & !BLOCKED_STI | BLOCKED_SS);
            }
            let waits = blocked & (BLOCKED_STI | BLOCKED_SS) != 0 && flags & FLAG_TF != 0;
            let pending = vmcs::read(vmcs::PENDING_DEBUG) & !STEP_PENDING;
            vmcs::write(vmcs::PENDING_DEBUG, if waits { pending | STEP_PENDING } else { pending });
        }
        if groups.intersects(Groups::CR | Groups::EFER) {
            self.flush = true;
        }
    }

    #[inline]
    fn qualification(&self, reason: ExitReason) -> [u64; 3] {
        exit::qualification(self, reason)
    }

    fn length(&self) -> u64 {
        exit::length()
    }

    #[inline]
    fn classify(&mut self) -> Exit {
        exit::classify(self)
    }

    fn flush_tlb(&mut self) {
        self.flush = true;
    }
}
