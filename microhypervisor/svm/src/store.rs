// SPDX-License-Identifier: MIT OR Apache-2.0
//! Groups of guest state out of the control block into the state page.
//!
//! What the guest does not have (EFER.SVME) is not shown.

use crate::limits::EFER_SVME;
use crate::page::StatePage;
use crate::segment::{from_vmcb, unpack, with_privilege};
use crate::state::{COMMON, EVENTS, GPR, RAX, RSP, Registers, SEGMENTS, write};
use crate::vmcb::{self, INTERRUPT_SHADOW, V_TPR, Vmcb};
use cloister_abi::arch::x86_64::vcpu::{Groups, SHADOW_NMI, SHADOW_STI, Segment, VcpuState};
use core::mem::offset_of;

macro_rules! store_gpr {
    ($page:expr, $registers:expr, $($index:literal),+) => {
        $($page.write::<{ GPR + $index * 8 }>($registers.gpr[$index]);)+
    };
}
macro_rules! store_segment {
    ($page:expr, $save:expr, $($name:ident),+) => {
        $($page.write_segment::<{ offset_of!(VcpuState, $name) }>(from_vmcb($save.$name));)+
    };
}

/// Writes groups to the page. `length` is the exited instruction's.
#[inline]
pub(crate) fn store(groups: Groups, page: StatePage, vmcb: &Vmcb, registers: &Registers, length: impl Fn() -> u64) {
    if groups.contains(Groups::RIP) {
        write!(page, rip, vmcb.save.rip);
        write!(page, instruction_length, length());
    }
    if groups.contains(Groups::GPR_ACDB) {
        page.write::<{ GPR + RAX * 8 }>(vmcb.save.rax);
        store_gpr!(page, registers, 1, 2, 3);
    }
    if groups.difference(Groups::RIP.union(Groups::GPR_ACDB)).is_empty() {
        return;
    }
    store_rest(groups, page, vmcb, registers);
}

#[inline(never)]
fn store_rest(groups: Groups, page: StatePage, vmcb: &Vmcb, registers: &Registers) {
    if groups.contains(Groups::GPR_BSD) {
        store_gpr!(page, registers, 5, 6, 7);
    }
    if groups.contains(Groups::GPR_R8_R15) {
        store_gpr!(page, registers, 8, 9, 10, 11, 12, 13, 14, 15);
    }
    if groups.contains(Groups::RSP) {
        page.write::<{ GPR + RSP * 8 }>(vmcb.save.rsp);
    }
    if groups.contains(Groups::RFLAGS) {
        write!(page, rflags, vmcb.save.rflags);
    }
    if groups.intersects(EVENTS) {
        store_events(groups, page, vmcb, registers);
    }
    if groups.difference(COMMON.union(EVENTS)).is_empty() {
        return;
    }
    if groups.intersects(SEGMENTS) {
        store_segments(groups, page, vmcb);
    }
    store_system(groups, page, vmcb, registers);
    if groups.contains(Groups::TSC) {
        write!(page, tsc_offset, vmcb.control.tsc_offset);
    }
}

fn store_segments(groups: Groups, page: StatePage, vmcb: &Vmcb) {
    let save = &vmcb.save;
    if groups.contains(Groups::CS_SS) {
        store_segment!(page, save, cs);
        let access = with_privilege(unpack(save.ss.attributes), save.cpl);
        page.write_segment::<{ offset_of!(VcpuState, ss) }>(Segment { access, ..from_vmcb(save.ss) });
    }
    if groups.contains(Groups::DS_ES) {
        store_segment!(page, save, ds, es);
    }
    if groups.contains(Groups::FS_GS) {
        store_segment!(page, save, fs, gs);
    }
    if groups.contains(Groups::TR_LDTR) {
        store_segment!(page, save, tr, ldtr);
    }
    if groups.contains(Groups::TABLES) {
        page.write_segment::<{ offset_of!(VcpuState, gdtr) }>(table(save.gdtr));
        page.write_segment::<{ offset_of!(VcpuState, idtr) }>(table(save.idtr));
    }
}

fn store_system(groups: Groups, page: StatePage, vmcb: &Vmcb, registers: &Registers) {
    let save = &vmcb.save;
    if groups.contains(Groups::CR) {
        write!(page, cr0, save.cr0);
        write!(page, cr2, save.cr2);
        write!(page, cr3, save.cr3);
        write!(page, cr4, save.cr4);
        write!(page, xcr0, registers.xcr0);
    }
    if groups.contains(Groups::EFER) {
        write!(page, efer, save.efer & !EFER_SVME);
    }
    if groups.contains(Groups::SYSENTER) {
        write!(page, sysenter_cs, save.sysenter_cs);
        write!(page, sysenter_esp, save.sysenter_esp);
        write!(page, sysenter_eip, save.sysenter_eip);
    }
    if groups.contains(Groups::SYSCALL) {
        write!(page, star, save.star);
        write!(page, lstar, save.lstar);
        write!(page, cstar, save.cstar);
        write!(page, sfmask, save.sfmask);
        write!(page, kernel_gs_base, save.kernel_gs_base);
    }
    if groups.contains(Groups::PAT) {
        write!(page, pat, save.pat);
    }
    if groups.contains(Groups::DR) {
        for (index, register) in registers.dr.iter().enumerate() {
            page.write_element::<{ offset_of!(VcpuState, dr0_3) }, 4>(index, *register);
        }
        write!(page, dr6, save.dr6);
        write!(page, dr7, save.dr7);
    }
}

fn store_events(groups: Groups, page: StatePage, vmcb: &Vmcb, registers: &Registers) {
    if groups.contains(Groups::TPR) {
        write!(page, cr8, vmcb.control.interrupt & V_TPR);
    }
    if groups.contains(Groups::SHADOW) {
        let sti = if vmcb.control.interrupt_state & INTERRUPT_SHADOW != 0 { SHADOW_STI } else { 0 };
        let nmi = if registers.nmi_blocked { SHADOW_NMI } else { 0 };
        write!(page, shadow, sti | nmi);
    }
    if groups.contains(Groups::EVENT) {
        write!(page, event, vmcb.control.event);
    }
    if groups.contains(Groups::CONTROL) {
        write!(page, controls, registers.controls.bits());
    }
}

/// A descriptor-table register: base and limit.
const fn table(register: vmcb::Segment) -> Segment {
    Segment { selector: 0, reserved: 0, access: 0, limit: register.limit & 0xffff, reserved2: 0, base: register.base }
}
