// SPDX-License-Identifier: MIT OR Apache-2.0
//! Groups of guest state out of a control structure into the state page.

use crate::control::{COMMON, Control, EVENTS, Field, GPR, RAX, RSP, SEGMENTS, SegmentName, write};
use crate::load::table;
use crate::page::StatePage;
use cloister_abi::arch::x86_64::vcpu::{Groups, VcpuState};
use core::mem::offset_of;

macro_rules! store_gpr {
    ($page:expr, $control:expr, $($index:literal),+) => {
        $($page.write::<{ GPR + $index * 8 }>($control.registers().gpr[$index]);)+
    };
}
macro_rules! store_segment {
    ($page:expr, $control:expr, $($name:ident = $field:ident),+) => {
        $($page.write_segment::<{ offset_of!(VcpuState, $field) }>($control.segment(SegmentName::$name));)+
    };
}
macro_rules! store_field {
    ($page:expr, $control:expr, $($name:ident = $field:ident),+) => {
        $(write!($page, $field, $control.get(Field::$name));)+
    };
}

/// Writes groups to the page. `length` is the exited instruction's.
#[inline]
pub(crate) fn store(control: &impl Control, groups: Groups, page: StatePage, length: impl Fn() -> u64) {
    if groups.contains(Groups::RIP) {
        store_field!(page, control, Rip = rip);
        write!(page, instruction_length, length());
    }
    if groups.contains(Groups::GPR_ACDB) {
        page.write::<{ GPR + RAX * 8 }>(control.get(Field::Rax));
        store_gpr!(page, control, 1, 2, 3);
    }
    if groups.difference(Groups::RIP.union(Groups::GPR_ACDB)).is_empty() {
        return;
    }
    store_rest(control, groups, page);
}

#[inline(never)]
fn store_rest(control: &impl Control, groups: Groups, page: StatePage) {
    if groups.contains(Groups::GPR_BSD) {
        store_gpr!(page, control, 5, 6, 7);
    }
    if groups.contains(Groups::GPR_R8_R15) {
        store_gpr!(page, control, 8, 9, 10, 11, 12, 13, 14, 15);
    }
    if groups.contains(Groups::RSP) {
        page.write::<{ GPR + RSP * 8 }>(control.get(Field::Rsp));
    }
    if groups.contains(Groups::RFLAGS) {
        store_field!(page, control, Rflags = rflags);
    }
    if groups.intersects(EVENTS) {
        store_events(control, groups, page);
    }
    if groups.difference(COMMON.union(EVENTS)).is_empty() {
        return;
    }
    if groups.intersects(SEGMENTS) {
        store_segments(control, groups, page);
    }
    store_system(control, groups, page);
}

fn store_segments(control: &impl Control, groups: Groups, page: StatePage) {
    if groups.contains(Groups::CS_SS) {
        store_segment!(page, control, Cs = cs, Ss = ss);
    }
    if groups.contains(Groups::DS_ES) {
        store_segment!(page, control, Ds = ds, Es = es);
    }
    if groups.contains(Groups::FS_GS) {
        store_segment!(page, control, Fs = fs, Gs = gs);
    }
    if groups.contains(Groups::TR_LDTR) {
        store_segment!(page, control, Tr = tr, Ldtr = ldtr);
    }
    if groups.contains(Groups::TABLES) {
        page.write_segment::<{ offset_of!(VcpuState, gdtr) }>(table(control.segment(SegmentName::Gdtr)));
        page.write_segment::<{ offset_of!(VcpuState, idtr) }>(table(control.segment(SegmentName::Idtr)));
    }
}

fn store_system(control: &impl Control, groups: Groups, page: StatePage) {
    if groups.contains(Groups::CR) {
        store_field!(page, control, Cr0 = cr0, Cr2 = cr2, Cr3 = cr3, Cr4 = cr4);
        write!(page, xcr0, control.registers().xcr0);
    }
    if groups.contains(Groups::EFER) {
        store_field!(page, control, Efer = efer);
    }
    if groups.contains(Groups::SYSENTER) {
        store_field!(page, control, SysenterCs = sysenter_cs, SysenterEsp = sysenter_esp, SysenterEip = sysenter_eip);
    }
    if groups.contains(Groups::SYSCALL) {
        store_field!(page, control, Star = star, Lstar = lstar, Cstar = cstar, Sfmask = sfmask);
        store_field!(page, control, KernelGsBase = kernel_gs_base);
    }
    if groups.contains(Groups::PAT) {
        store_field!(page, control, Pat = pat);
    }
    if groups.contains(Groups::DR) {
        for (index, register) in control.registers().dr.iter().enumerate() {
            page.write_element::<{ offset_of!(VcpuState, dr0_3) }, 4>(index, *register);
        }
        store_field!(page, control, Dr6 = dr6, Dr7 = dr7);
    }
    if groups.contains(Groups::TSC) {
        store_field!(page, control, TscOffset = tsc_offset);
    }
}

fn store_events(control: &impl Control, groups: Groups, page: StatePage) {
    if groups.contains(Groups::TPR) {
        store_field!(page, control, Cr8 = cr8);
    }
    if groups.contains(Groups::SHADOW) {
        write!(page, shadow, control.shadow());
    }
    if groups.contains(Groups::EVENT) {
        write!(page, event, control.event());
    }
    if groups.contains(Groups::CONTROL) {
        write!(page, controls, control.registers().controls.bits());
    }
}
