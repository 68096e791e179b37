// SPDX-License-Identifier: MIT OR Apache-2.0
//! The guest's registers as the monitor sees them: in the VMCS, some in two fields, or beside it.

use crate::machine::{self, ENTRY_LONG_MODE};
use crate::vcpu::{BLOCKED_NMI, BLOCKED_SS, BLOCKED_STI, CR0_CD, CR0_NW, Vcpu};
use crate::vmcs::{self, Code};
use cloister_abi::arch::x86_64::vcpu::{Controls, Groups, SHADOW_NMI, SHADOW_STI};
use cloister_vcpu::control::{BREAKPOINT, GUARD_EXCEPTIONS};
use cloister_vcpu::limits::EFER_LMA;
use cloister_vcpu::{Control, Field, Registers, Segment};
use x86::vmx::vmcs::{control, guest};

/// A single step is pending, in the field of pending debug exceptions.
const STEP_PENDING: u64 = 1 << 14;
const FLAG_TF: u64 = 1 << 8;
const FLAG_IF: u64 = 1 << 9;
/// Access rights: accessed, code or data, present, granularity, unusable.
const ACCESSED: u64 = 1 << 0;
const CODE_OR_DATA: u64 = 1 << 4;
const PRESENT: u64 = 1 << 7;
const GRANULARITY: u64 = 1 << 15;
const UNUSABLE: u64 = 1 << 16;
const ACCESS_MASK: u64 = 0x1_f0ff;
/// What encodings of segment registers are above those of ES, in the order of [`Field::segment`].
const SEGMENTS: [Code; 10] = [2, 4, 6, 0, 8, 10, 14, 12, 16, 18];

/// Encoding of a register's field, if the VMCS has it.
#[inline(always)]
const fn code(field: Field) -> Option<Code> {
    Some(match field {
        Field::RSP => guest::RSP,
        Field::RIP => guest::RIP,
        Field::RFLAGS => guest::RFLAGS,
        Field::CR0 => guest::CR0,
        Field::CR3 => guest::CR3,
        Field::CR4 => guest::CR4,
        Field::PAT => guest::IA32_PAT_FULL,
        Field::DR7 => guest::DR7,
        Field::EFER => guest::IA32_EFER_FULL,
        Field::SYSENTER_CS => guest::IA32_SYSENTER_CS,
        Field::SYSENTER_ESP => guest::IA32_SYSENTER_ESP,
        Field::SYSENTER_EIP => guest::IA32_SYSENTER_EIP,
        Field::TSC_OFFSET => control::TSC_OFFSET_FULL,
        _ => return None,
    })
}

/// Access rights as VM entry wants them (SDM vol. 3C, 27.3.1.2), where SVM takes more: no reserved bits, what is not present is
/// unusable, a granularity that fits the limit, code and data accessed.
const fn access(given: u64, limit: u64) -> u64 {
    let accessed = if given & CODE_OR_DATA != 0 { ACCESSED } else { 0 };
    let unusable = if given & PRESENT == 0 { UNUSABLE } else { 0 };
    let granularity = match (limit >> 20, limit & 0xfff) {
        (0, 0xfff) => given & GRANULARITY,
        (0, _) => 0,
        _ => GRANULARITY,
    };
    given & ACCESS_MASK & !GRANULARITY | accessed | unusable | granularity
}

impl Control for Vcpu {
    #[inline]
    fn registers(&mut self) -> &mut Registers {
        &mut self.registers
    }

    #[inline(always)]
    fn get(&mut self, field: Field) -> u64 {
        let value = match code(field) {
            Some(code) => vmcs::read(code),
            None => *self.registers.place(field),
        };
        // Of what the host owns the guest sees the shadow.
        let (mask, shadow) = match field {
            Field::CR0 => (self.cr0_mask(), control::CR0_READ_SHADOW),
            Field::CR4 => (self.cr4_mask(), control::CR4_READ_SHADOW),
            Field::SHADOW => return shadow(),
            _ => return value,
        };
        value & !mask | vmcs::read(shadow) & mask
    }

    #[inline(always)]
    fn set(&mut self, field: Field, value: u64) {
        let machine = self.machine;
        let real = match field {
            Field::CR0 => {
                // The real bit is the host's, so no entry would be refused for it.
                self.registers.refused |= value & (CR0_NW | CR0_CD) == CR0_NW;
                vmcs::write(control::CR0_READ_SHADOW, value);
                value & !(CR0_CD | CR0_NW) | machine.cr0_ones
            }
            Field::CR4 => {
                vmcs::write(control::CR4_READ_SHADOW, value);
                value | machine.cr4_ones
            }
            Field::EFER => {
                let mode = if value & EFER_LMA != 0 { ENTRY_LONG_MODE } else { 0 };
                vmcs::write(control::VMENTRY_CONTROLS, machine.words[4] & !ENTRY_LONG_MODE | mode);
                value
            }
            Field::STAR => value & !0xffff_ffff,
            Field::SHADOW => return set_shadow(value),
            Field::CONTROLS => {
                self.set_controls(Controls::from_bits_truncate(value));
                value
            }
            _ => value,
        };
        match code(field) {
            Some(code) => vmcs::write(code, real),
            None => *self.registers.place(field) = real,
        }
    }

    fn segment(&mut self, name: Field) -> Segment {
        let step = SEGMENTS[name.segment()];
        // Tables have nothing else.
        let first = if name.is_table() {
            0
        } else {
            vmcs::read(guest::ES_SELECTOR + step) | vmcs::read(guest::ES_ACCESS_RIGHTS + step) << 32
        };
        [first, vmcs::read(guest::ES_LIMIT + step), vmcs::read(guest::ES_BASE + step)]
    }

    fn set_segment(&mut self, name: Field, [first, limit, base]: Segment) {
        let step = SEGMENTS[name.segment()];
        vmcs::write(guest::ES_LIMIT + step, limit);
        vmcs::write(guest::ES_BASE + step, base);
        if !name.is_table() {
            vmcs::write(guest::ES_SELECTOR + step, first & 0xffff);
            vmcs::write(guest::ES_ACCESS_RIGHTS + step, access(first >> 32, limit));
        }
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
        self.flush |= groups.intersects(Groups::CR | Groups::EFER);
    }

    fn flush_tlb(&mut self) {
        self.flush = true;
    }
}

impl Vcpu {
    /// Makes the guest exit at what the monitor asks for.
    fn set_controls(&mut self, controls: Controls) {
        for (control, bits) in [
            (Controls::INTERRUPT_WINDOW, machine::INTERRUPT_WINDOW),
            (Controls::RDTSC, machine::RDTSC),
            (Controls::RDPMC, machine::RDPMC),
            (Controls::PAUSE, machine::PAUSE),
            (Controls::DR, machine::MOV_DR),
        ] {
            // Whether accesses to debug registers exit is not the monitor's alone to say.
            self.set_primary(bits, controls.contains(control) || bits & self.primary & machine::MOV_DR != 0);
        }
        let breakpoint = if controls.contains(Controls::DEBUG) { BREAKPOINT } else { 0 };
        vmcs::write(control::EXCEPTION_BITMAP, u64::from(GUARD_EXCEPTIONS | breakpoint));
    }

    /// Switches a primary control.
    fn set_primary(&mut self, bits: u64, on: bool) {
        self.primary = if on { self.primary | bits } else { self.primary & !bits };
        vmcs::write(control::PRIMARY_PROCBASED_EXEC_CONTROLS, self.primary);
    }
}

/// Interruptibility as the contract has it.
fn shadow() -> u64 {
    let blocked = vmcs::read(guest::INTERRUPTIBILITY_STATE);
    let instruction = if blocked & (BLOCKED_STI | BLOCKED_SS) != 0 { SHADOW_STI } else { 0 };
    instruction | if blocked & BLOCKED_NMI != 0 { SHADOW_NMI } else { 0 }
}

fn set_shadow(shadow: u64) {
    let before = vmcs::read(guest::INTERRUPTIBILITY_STATE) & (BLOCKED_STI | BLOCKED_SS);
    let instruction = match (shadow & SHADOW_STI, before) {
        (0, _) => 0,
        (_, 0) => BLOCKED_STI,
        (_, before) => before,
    };
    let nmi = if shadow & SHADOW_NMI != 0 { BLOCKED_NMI } else { 0 };
    vmcs::write(guest::INTERRUPTIBILITY_STATE, instruction | nmi);
}
