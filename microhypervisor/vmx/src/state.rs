// SPDX-License-Identifier: MIT OR Apache-2.0
//! The guest's registers as the monitor sees them: in the VMCS, some in two fields, or beside it.

use crate::machine::{self, ENTRY_LONG_MODE};
use crate::vcpu::{BLOCKED_NMI, BLOCKED_SS, BLOCKED_STI, CR0_CD, CR0_NW, Vcpu};
use crate::vmcs::{self, Code};
use cloister_abi::arch::x86_64::vcpu::{Controls, Groups, SHADOW_NMI, SHADOW_STI, Segment};
use cloister_vcpu::control::{BREAKPOINT, GUARD_EXCEPTIONS};
use cloister_vcpu::limits::EFER_LMA;
use cloister_vcpu::{Control, Field, Registers, SegmentName};
use x86::vmx::vmcs::{control, guest};

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

/// Where a register is.
enum Place<'a> {
    Vmcs(Code),
    Beside(&'a mut u64),
}

impl Vcpu {
    #[inline(always)]
    fn place(&mut self, field: Field) -> Place<'_> {
        let [star, lstar, cstar, sfmask, kernel_gs_base] = &mut self.own.msrs;
        let code = match field {
            Field::Gpr(4) => guest::RSP,
            Field::Rip => guest::RIP,
            Field::Rflags => guest::RFLAGS,
            Field::Cr0 => guest::CR0,
            Field::Cr3 => guest::CR3,
            Field::Cr4 => guest::CR4,
            Field::Pat => guest::IA32_PAT_FULL,
            Field::Dr7 => guest::DR7,
            Field::Efer => guest::IA32_EFER_FULL,
            Field::SysenterCs => guest::IA32_SYSENTER_CS,
            Field::SysenterEsp => guest::IA32_SYSENTER_ESP,
            Field::SysenterEip => guest::IA32_SYSENTER_EIP,
            Field::TscOffset => control::TSC_OFFSET_FULL,
            Field::Cr2 => return Place::Beside(&mut self.own.cr2),
            Field::Cr8 => return Place::Beside(&mut self.own.cr8),
            Field::Dr6 => return Place::Beside(&mut self.own.dr6),
            Field::Star => return Place::Beside(star),
            Field::Lstar => return Place::Beside(lstar),
            Field::Cstar => return Place::Beside(cstar),
            Field::Sfmask => return Place::Beside(sfmask),
            Field::KernelGsBase => return Place::Beside(kernel_gs_base),
            Field::Gpr(_) | Field::Xcr0 => return Place::Beside(self.registers.place(field)),
        };
        Place::Vmcs(code)
    }
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

/// A field of 32 bits.
fn read32(code: Code) -> u32 {
    let [a, b, c, d, ..] = vmcs::read(code).to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

impl Control for Vcpu {
    #[inline]
    fn registers(&mut self) -> &mut Registers {
        &mut self.registers
    }

    #[inline(always)]
    fn get(&mut self, field: Field) -> u64 {
        let value = match self.place(field) {
            Place::Vmcs(code) => vmcs::read(code),
            Place::Beside(value) => *value,
        };
        // Of what the host owns the guest sees the shadow.
        let (mask, shadow) = match field {
            Field::Cr0 => (self.cr0_mask(), control::CR0_READ_SHADOW),
            Field::Cr4 => (self.cr4_mask(), control::CR4_READ_SHADOW),
            _ => return value,
        };
        value & !mask | vmcs::read(shadow) & mask
    }

    #[inline(always)]
    fn set(&mut self, field: Field, value: u64) {
        let machine = self.machine();
        let (ones0, ones4, entry) = (machine.cr0_ones, machine.cr4_ones, u64::from(machine.entry));
        let real = match field {
            Field::Cr0 => {
                // The real bit is the host's, so no entry would be refused for it.
                self.registers.refused |= value & (CR0_NW | CR0_CD) == CR0_NW;
                vmcs::write(control::CR0_READ_SHADOW, value);
                value & !(CR0_CD | CR0_NW) | ones0
            }
            Field::Cr4 => {
                vmcs::write(control::CR4_READ_SHADOW, value);
                value | ones4
            }
            Field::Efer => {
                let mode = if value & EFER_LMA != 0 { ENTRY_LONG_MODE } else { 0 };
                vmcs::write(control::VMENTRY_CONTROLS, entry & !ENTRY_LONG_MODE | mode);
                value
            }
            Field::Star => value & !0xffff_ffff,
            _ => value,
        };
        match self.place(field) {
            Place::Vmcs(code) => vmcs::write(code, real),
            Place::Beside(place) => *place = real,
        }
    }

    fn segment(&mut self, name: SegmentName) -> Segment {
        let step = name as Code * 2;
        let (limit, base) = (read32(guest::ES_LIMIT + step), vmcs::read(guest::ES_BASE + step));
        if matches!(name, SegmentName::Gdtr | SegmentName::Idtr) {
            return Segment { limit, base, ..Segment::default() };
        }
        let [low, high, ..] = vmcs::read(guest::ES_SELECTOR + step).to_le_bytes();
        let (selector, access) = (u16::from_le_bytes([low, high]), read32(guest::ES_ACCESS_RIGHTS + step));
        Segment { selector, access, limit, base, ..Segment::default() }
    }

    fn set_segment(&mut self, name: SegmentName, segment: Segment) {
        let step = name as Code * 2;
        vmcs::write(guest::ES_LIMIT + step, u64::from(segment.limit));
        vmcs::write(guest::ES_BASE + step, segment.base);
        if !matches!(name, SegmentName::Gdtr | SegmentName::Idtr) {
            vmcs::write(guest::ES_SELECTOR + step, u64::from(segment.selector));
            vmcs::write(guest::ES_ACCESS_RIGHTS + step, u64::from(access(segment)));
        }
    }

    fn shadow(&mut self) -> u64 {
        let blocked = vmcs::read(guest::INTERRUPTIBILITY_STATE);
        let instruction = if blocked & (BLOCKED_STI | BLOCKED_SS) != 0 { SHADOW_STI } else { 0 };
        instruction | if blocked & BLOCKED_NMI != 0 { SHADOW_NMI } else { 0 }
    }

    fn set_shadow(&mut self, shadow: u64) {
        let before = vmcs::read(guest::INTERRUPTIBILITY_STATE) & (BLOCKED_STI | BLOCKED_SS);
        let instruction = match (shadow & SHADOW_STI, before) {
            (0, _) => 0,
            (_, 0) => BLOCKED_STI,
            (_, before) => before,
        };
        let nmi = if shadow & SHADOW_NMI != 0 { BLOCKED_NMI } else { 0 };
        vmcs::write(guest::INTERRUPTIBILITY_STATE, instruction | nmi);
    }

    #[inline]
    fn event(&mut self) -> u64 {
        self.own.event
    }

    #[inline]
    fn set_event(&mut self, event: u64) {
        self.own.event = event;
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
        let breakpoint = if controls.contains(Controls::DEBUG) { BREAKPOINT } else { 0 };
        vmcs::write(control::EXCEPTION_BITMAP, u64::from(GUARD_EXCEPTIONS | breakpoint));
    }

    fn watch_debug(&mut self, on: bool) {
        self.set_primary(machine::MOV_DR, on);
    }

    /// What VM entry checks of several registers together (SDM vol. 3C, 27.3.1.5): no shadow of STI with interrupts off, and
    /// a pending single step exactly where a shadow keeps one off.
    fn loaded(&mut self, groups: Groups) {
        if groups.intersects(Groups::RFLAGS | Groups::SHADOW) {
            let flags = vmcs::read(guest::RFLAGS);
            let blocked = vmcs::read(guest::INTERRUPTIBILITY_STATE);
            if blocked & BLOCKED_STI != 0 && flags & FLAG_IF == 0 {
                vmcs::write(guest::INTERRUPTIBILITY_STATE, blocked & !BLOCKED_STI | BLOCKED_SS);
            }
            let waits = blocked & (BLOCKED_STI | BLOCKED_SS) != 0 && flags & FLAG_TF != 0;
            let pending = vmcs::read(guest::PENDING_DBG_EXCEPTIONS) & !STEP_PENDING;
            vmcs::write(guest::PENDING_DBG_EXCEPTIONS, if waits { pending | STEP_PENDING } else { pending });
        }
        self.own.flush |= groups.intersects(Groups::CR | Groups::EFER);
    }

    fn flush_tlb(&mut self) {
        self.own.flush = true;
    }
}
