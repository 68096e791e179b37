// SPDX-License-Identifier: MIT OR Apache-2.0
//! Groups of guest state out of the state page into a control structure.
//!
//! Every value is read once and masked by [`crate::Limits`] before the back end gets it.

use crate::control::{COMMON, Control, DR7_ENABLES, EVENTS, Field, GPR, RAX, RSP, SEGMENTS, SegmentName, read};
use crate::page::StatePage;
use cloister_abi::arch::x86_64::vcpu::{Controls, Event, Groups, Segment, VcpuState};
use core::mem::offset_of;

/// Bits of an event: vector, type, error code valid, valid, error code.
const EVENT_MASK: u64 = 0xffff_ffff_8000_0fff;
const EVENT_TYPE: u64 = 7 << 8;
const EVENT_SOFTWARE: u64 = 4 << 8;
macro_rules! load_gpr {
    ($page:expr, $control:expr, $($index:literal),+) => {
        $($control.registers_mut().gpr[$index] = $page.read::<{ GPR + $index * 8 }>();)+
    };
}
macro_rules! load_segment {
    ($page:expr, $control:expr, $($name:ident = $field:ident),+) => {
        $($control.set_segment(SegmentName::$name, $page.read_segment::<{ offset_of!(VcpuState, $field) }>());)+
    };
}
macro_rules! load_field {
    ($page:expr, $control:expr, $($name:ident = $field:ident),+) => {
        $($control.set(Field::$name, read!($page, $field));)+
    };
}

/// Takes groups from the page.
#[inline]
pub(crate) fn load(control: &mut impl Control, groups: Groups, page: StatePage) {
    if groups.contains(Groups::RIP) {
        control.set(Field::Rip, read!(page, rip));
    }
    if groups.contains(Groups::GPR_ACDB) {
        control.set(Field::Rax, page.read::<{ GPR + RAX * 8 }>());
        load_gpr!(page, control, 1, 2, 3);
    }
    if groups.difference(Groups::RIP.union(Groups::GPR_ACDB)).is_empty() {
        return;
    }
    load_rest(control, groups, page);
}

#[inline(never)]
fn load_rest(control: &mut impl Control, groups: Groups, page: StatePage) {
    if groups.intersects(COMMON) {
        load_common(control, groups, page);
    }
    if groups.intersects(EVENTS) {
        load_events(control, groups, page);
    }
    if !groups.difference(COMMON.union(EVENTS)).is_empty() {
        if groups.intersects(SEGMENTS) {
            load_segments(control, groups, page);
        }
        load_system(control, groups, page);
    }
    control.loaded(groups);
}

fn load_common(control: &mut impl Control, groups: Groups, page: StatePage) {
    if groups.contains(Groups::GPR_BSD) {
        load_gpr!(page, control, 5, 6, 7);
    }
    if groups.contains(Groups::GPR_R8_R15) {
        load_gpr!(page, control, 8, 9, 10, 11, 12, 13, 14, 15);
    }
    if groups.contains(Groups::RSP) {
        control.set(Field::Rsp, page.read::<{ GPR + RSP * 8 }>());
    }
    if groups.contains(Groups::RFLAGS) {
        control.set(Field::Rflags, control.limits().rflags(read!(page, rflags)));
    }
}

fn load_segments(control: &mut impl Control, groups: Groups, page: StatePage) {
    if groups.contains(Groups::CS_SS) {
        load_segment!(page, control, Cs = cs, Ss = ss);
    }
    if groups.contains(Groups::DS_ES) {
        load_segment!(page, control, Ds = ds, Es = es);
    }
    if groups.contains(Groups::FS_GS) {
        load_segment!(page, control, Fs = fs, Gs = gs);
    }
    if groups.contains(Groups::TR_LDTR) {
        load_segment!(page, control, Tr = tr, Ldtr = ldtr);
    }
    if groups.contains(Groups::TABLES) {
        control.set_segment(SegmentName::Gdtr, table(page.read_segment::<{ offset_of!(VcpuState, gdtr) }>()));
        control.set_segment(SegmentName::Idtr, table(page.read_segment::<{ offset_of!(VcpuState, idtr) }>()));
    }
}

/// A descriptor-table register: base and a limit of 16 bits.
pub(crate) const fn table(segment: Segment) -> Segment {
    Segment { selector: 0, reserved: 0, access: 0, limit: segment.limit & 0xffff, reserved2: 0, base: segment.base }
}

fn load_system(control: &mut impl Control, groups: Groups, page: StatePage) {
    if groups.contains(Groups::CR) {
        let limits = *control.limits();
        control.set(Field::Cr0, limits.cr0(read!(page, cr0)));
        control.set(Field::Cr2, read!(page, cr2));
        control.set(Field::Cr3, limits.cr3(read!(page, cr3)));
        control.set(Field::Cr4, limits.cr4(read!(page, cr4)));
        control.registers_mut().xcr0 = limits.xcr0(read!(page, xcr0));
    }
    if groups.intersects(Groups::CR | Groups::EFER) {
        let efer = if groups.contains(Groups::EFER) { read!(page, efer) } else { control.get(Field::Efer) };
        control.set(Field::Efer, control.limits().efer(efer, control.get(Field::Cr0)));
    }
    if groups.contains(Groups::SYSENTER) {
        load_field!(page, control, SysenterCs = sysenter_cs, SysenterEsp = sysenter_esp, SysenterEip = sysenter_eip);
    }
    if groups.contains(Groups::SYSCALL) {
        load_field!(page, control, Star = star, Lstar = lstar, Cstar = cstar, Sfmask = sfmask);
        load_field!(page, control, KernelGsBase = kernel_gs_base);
    }
    if groups.contains(Groups::PAT)
        && let Some(pat) = pat(read!(page, pat))
    {
        control.set(Field::Pat, pat);
    }
    if groups.contains(Groups::DR) {
        for index in 0..4 {
            control.registers_mut().dr[index] = page.read_element::<{ offset_of!(VcpuState, dr0_3) }, 4>(index);
        }
        let dr7 = control.limits().dr7(read!(page, dr7));
        control.set(Field::Dr6, control.limits().dr6(read!(page, dr6)));
        control.set(Field::Dr7, dr7);
        control.registers_mut().debug |= dr7 & DR7_ENABLES != 0;
    }
    if groups.contains(Groups::TSC) {
        load_field!(page, control, TscOffset = tsc_offset);
    }
}

/// A page-attribute table of memory types that exist (APM vol. 2, 7.8.1), `None` for others: WRMSR would refuse it.
fn pat(value: u64) -> Option<u64> {
    value.to_le_bytes().iter().all(|kind| matches!(kind, 0 | 1 | 4..=7)).then_some(value)
}

fn load_events(control: &mut impl Control, groups: Groups, page: StatePage) {
    if groups.contains(Groups::TPR) {
        control.set(Field::Cr8, read!(page, cr8) & 0xf);
    }
    if groups.contains(Groups::SHADOW) {
        control.set_shadow(read!(page, shadow));
    }
    if groups.contains(Groups::EVENT) {
        match event(read!(page, event)) {
            Some(event) => control.set_event(event),
            None => control.registers_mut().refused = true,
        }
    }
    if groups.contains(Groups::CONTROL) {
        let controls = Controls::from_bits_truncate(read!(page, controls));
        control.set_controls(controls);
        control.registers_mut().controls = controls;
    }
}

/// An event that processors take (APM vol. 2, 15.20), 0 for none; `None` if it is of no type that exists.
const fn event(value: u64) -> Option<u64> {
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
