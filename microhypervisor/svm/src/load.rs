// SPDX-License-Identifier: MIT OR Apache-2.0
//! Groups of guest state out of the state page into the control block.
//!
//! Every value is read once and masked by [`Limits`] before it is stored; the clean bits of the block follow what was
//! written (AMD APM vol. 2, 15.15.3).

use crate::limits::Limits;
use crate::page::StatePage;
use crate::segment::{privilege, to_vmcb};
use crate::state::{ALL_DR, COMMON, DR7_ENABLES, EVENTS, GPR, RAX, RSP, Registers, SEGMENTS, read};
use crate::vmcb::{self, Clean, INTERRUPT_SHADOW, Misc1, Misc2, V_IGN_TPR, V_INTR_PRIO, V_IRQ, V_TPR, Vmcb};
use cloister_abi::arch::x86_64::vcpu::{Controls, Event, Groups, SHADOW_NMI, SHADOW_STI, Segment, VcpuState};
use core::mem::offset_of;

/// Bits of an event: vector, type, error code valid, valid, error code.
const EVENT_MASK: u64 = 0xffff_ffff_8000_0fff;
const EVENT_TYPE: u64 = 7 << 8;
const EVENT_SOFTWARE: u64 = 4 << 8;
/// #BP.
const BREAKPOINT: u32 = 1 << 3;
macro_rules! load_gpr {
    ($page:expr, $registers:expr, $($index:literal),+) => {
        $($registers.gpr[$index] = $page.read::<{ GPR + $index * 8 }>();)+
    };
}
macro_rules! load_segment {
    ($page:expr, $save:expr, $($name:ident),+) => {
        $($save.$name = to_vmcb($page.read_segment::<{ offset_of!(VcpuState, $name) }>());)+
    };
}
fn dirty(vmcb: &mut Vmcb, parts: Clean) {
    vmcb.control.clean &= !parts.bits();
}

/// Takes groups from the page.
#[inline]
pub(crate) fn load(groups: Groups, page: StatePage, vmcb: &mut Vmcb, registers: &mut Registers, limits: &Limits) {
    if groups.contains(Groups::RIP) {
        vmcb.save.rip = read!(page, rip);
    }
    if groups.contains(Groups::GPR_ACDB) {
        vmcb.save.rax = page.read::<{ GPR + RAX * 8 }>();
        load_gpr!(page, registers, 1, 2, 3);
    }
    if groups.difference(Groups::RIP.union(Groups::GPR_ACDB)).is_empty() {
        return;
    }
    load_rest(groups, page, vmcb, registers, limits);
}

#[inline(never)]
fn load_rest(groups: Groups, page: StatePage, vmcb: &mut Vmcb, registers: &mut Registers, limits: &Limits) {
    if groups.intersects(COMMON) {
        load_common(groups, page, vmcb, registers, limits);
    }
    if groups.intersects(EVENTS) {
        load_events(groups, page, vmcb, registers, limits);
    }
    if groups.difference(COMMON.union(EVENTS)).is_empty() {
        return;
    }
    if groups.intersects(SEGMENTS) {
        load_segments(groups, page, vmcb);
    }
    load_system(groups, page, vmcb, registers, limits);
    if groups.contains(Groups::TSC) {
        vmcb.control.tsc_offset = read!(page, tsc_offset);
        dirty(vmcb, Clean::INTERCEPTS);
    }
}

fn load_common(groups: Groups, page: StatePage, vmcb: &mut Vmcb, registers: &mut Registers, limits: &Limits) {
    if groups.contains(Groups::GPR_BSD) {
        load_gpr!(page, registers, 5, 6, 7);
    }
    if groups.contains(Groups::GPR_R8_R15) {
        load_gpr!(page, registers, 8, 9, 10, 11, 12, 13, 14, 15);
    }
    if groups.contains(Groups::RSP) {
        vmcb.save.rsp = page.read::<{ GPR + RSP * 8 }>();
    }
    if groups.contains(Groups::RFLAGS) {
        vmcb.save.rflags = limits.rflags(read!(page, rflags));
    }
}

fn load_segments(groups: Groups, page: StatePage, vmcb: &mut Vmcb) {
    let save = &mut vmcb.save;
    if groups.contains(Groups::CS_SS) {
        load_segment!(page, save, cs, ss);
        save.cpl = privilege(save.ss.attributes);
    }
    if groups.contains(Groups::DS_ES) {
        load_segment!(page, save, ds, es);
    }
    if groups.contains(Groups::FS_GS) {
        load_segment!(page, save, fs, gs);
    }
    if groups.contains(Groups::TR_LDTR) {
        load_segment!(page, save, tr, ldtr);
    }
    if groups.contains(Groups::TABLES) {
        save.gdtr = table(page.read_segment::<{ offset_of!(VcpuState, gdtr) }>());
        save.idtr = table(page.read_segment::<{ offset_of!(VcpuState, idtr) }>());
    }
    dirty(vmcb, Clean::SEGMENTS | Clean::TABLES);
}

/// A descriptor-table register: base and a limit of 16 bits.
const fn table(segment: Segment) -> vmcb::Segment {
    vmcb::Segment { selector: 0, attributes: 0, limit: segment.limit & 0xffff, base: segment.base }
}

fn load_system(groups: Groups, page: StatePage, vmcb: &mut Vmcb, registers: &mut Registers, limits: &Limits) {
    let save = &mut vmcb.save;
    if groups.contains(Groups::CR) {
        save.cr0 = limits.cr0(read!(page, cr0));
        save.cr2 = read!(page, cr2);
        save.cr3 = limits.cr3(read!(page, cr3));
        save.cr4 = limits.cr4(read!(page, cr4));
        registers.xcr0 = limits.xcr0(read!(page, xcr0));
    }
    if groups.contains(Groups::EFER) {
        save.efer = limits.efer(read!(page, efer), save.cr0);
    } else if groups.contains(Groups::CR) {
        save.efer = limits.efer(save.efer, save.cr0);
    }
    save.cr4 = limits.cr4_of_long_mode(save.cr4, save.efer, save.cr0);
    if groups.contains(Groups::SYSENTER) {
        save.sysenter_cs = read!(page, sysenter_cs);
        save.sysenter_esp = read!(page, sysenter_esp);
        save.sysenter_eip = read!(page, sysenter_eip);
    }
    if groups.contains(Groups::SYSCALL) {
        save.star = read!(page, star);
        save.lstar = read!(page, lstar);
        save.cstar = read!(page, cstar);
        save.sfmask = read!(page, sfmask);
        save.kernel_gs_base = read!(page, kernel_gs_base);
    }
    if groups.contains(Groups::PAT) {
        save.pat = pat(read!(page, pat)).unwrap_or(save.pat);
    }
    if groups.contains(Groups::DR) {
        for (index, register) in registers.dr.iter_mut().enumerate() {
            *register = page.read_element::<{ offset_of!(VcpuState, dr0_3) }, 4>(index);
        }
        save.dr6 = limits.dr6(read!(page, dr6));
        save.dr7 = limits.dr7(read!(page, dr7));
        registers.debug |= save.dr7 & DR7_ENABLES != 0;
    }
    dirty(vmcb, Clean::CR | Clean::CR2 | Clean::NESTED | Clean::DR);
}

/// A page-attribute table of memory types that exist (APM vol. 2, 7.8.1), `None` for others: WRMSR would refuse it.
fn pat(value: u64) -> Option<u64> {
    value.to_le_bytes().iter().all(|kind| matches!(kind, 0 | 1 | 4..=7)).then_some(value)
}

fn load_events(groups: Groups, page: StatePage, vmcb: &mut Vmcb, registers: &mut Registers, limits: &Limits) {
    if groups.contains(Groups::TPR) {
        let other = vmcb.control.interrupt & !V_TPR;
        vmcb.control.interrupt = other | read!(page, cr8) & V_TPR;
        dirty(vmcb, Clean::TPR);
    }
    if groups.contains(Groups::SHADOW) {
        let shadow = read!(page, shadow);
        vmcb.control.interrupt_state = if shadow & SHADOW_STI != 0 { INTERRUPT_SHADOW } else { 0 };
        block_nmi(vmcb, registers, shadow & SHADOW_NMI != 0);
    }
    if groups.contains(Groups::EVENT) {
        match event(read!(page, event), limits) {
            Some(event) => vmcb.control.event = event,
            None => registers.refused = true,
        }
        if vmcb.control.event & (Event::VALID | EVENT_TYPE) == Event::VALID | Event::NMI {
            block_nmi(vmcb, registers, true);
        }
    }
    if groups.contains(Groups::CONTROL) {
        control(Controls::from_bits_truncate(read!(page, controls)), vmcb, registers);
    }
}

/// An event that the processor takes (APM vol. 2, 15.20), 0 for none; `None` if it is of no type that exists.
pub(crate) const fn event(value: u64, _: &Limits) -> Option<u64> {
    if value & Event::VALID == 0 {
        return Some(0);
    }
    let value = value & EVENT_MASK;
    let vector = value & 0xff;
    let plain = value & 0xffff_ffff & !Event::ERROR_VALID;
    match value & EVENT_TYPE {
        Event::INTERRUPT | EVENT_SOFTWARE => Some(plain),
        Event::NMI => Some(plain & !0xff | 2),
        Event::EXCEPTION if vector < 32 && vector != 2 => {
            Some(if value & Event::ERROR_VALID != 0 { value } else { plain })
        }
        _ => None,
    }
}

/// Blocks NMIs or not; while blocked, the guest's IRET exits.
pub(crate) fn block_nmi(vmcb: &mut Vmcb, registers: &mut Registers, blocked: bool) {
    if registers.nmi_blocked != blocked {
        registers.nmi_blocked = blocked;
        set(&mut vmcb.control.intercept_misc1, Misc1::IRET.bits(), blocked);
        dirty(vmcb, Clean::INTERCEPTS);
    }
}

const fn set(word: &mut u32, bits: u32, on: bool) {
    *word = if on { *word | bits } else { *word & !bits };
}

fn control(controls: Controls, vmcb: &mut Vmcb, registers: &mut Registers) {
    let changed = controls.symmetric_difference(registers.controls);
    registers.controls = controls;
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
