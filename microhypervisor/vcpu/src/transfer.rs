// SPDX-License-Identifier: MIT OR Apache-2.0
//! Groups of guest state between the state page and a control structure: one table, walked in both directions.
//!
//! `LOAD` says in which. What comes from the page is read once, and masked by [`crate::Limits`] before the back end gets it.
//! Every name is a constant where it is used, so that nothing of the choice is left in the machine code. The groups that nearly
//! every exit touches are tested inline; all others wait behind one test in a function of their own, so that the shortest
//! way (only `rip`) stays short.

use crate::control::{Control, DR7_ENABLES, Field, SEGMENTS, SegmentName, read, write};
use crate::event;
use crate::page::StatePage;
use cloister_abi::arch::x86_64::vcpu::{Controls, Groups, VcpuState};
use core::mem::offset_of;
use core::sync::atomic::Ordering::Relaxed;

/// Groups of most exits.
const SHORT: Groups = Groups::RIP.union(Groups::GPR_ACDB);
/// General-purpose registers and the instruction pointer, which nothing follows from.
const GENERAL: Groups = Groups::RIP.union(Groups::GPR);
/// Interrupts and what belongs to them.
const EVENTS: Groups = Groups::EVENT.union(Groups::SHADOW).union(Groups::CONTROL);
/// All that is no system register.
const PLAIN: Groups = GENERAL.union(Groups::RFLAGS).union(Groups::TPR).union(EVENTS);

/// `GROUP { Name = field, … }`, …: those of the groups that are wanted, each name by `$go`.
macro_rules! groups {
    ($load:ident, $control:expr, $page:expr, $groups:expr, $go:ident($names:ident):
     $($group:ident { $($name:ident = $field:ident),+ })+) => {
        $(if $groups.contains(Groups::$group) {
            $($go::<$load, { offset_of!(VcpuState, $field) }>($control, $page, $names::$name);)+
        })+
    };
}
/// General-purpose registers by their numbers.
macro_rules! registers {
    ($load:ident, $control:expr, $page:expr, $($index:literal)+) => {
        $(word::<$load, { offset_of!(VcpuState, gpr) + $index * 8 }>($control, $page, Field::Gpr($index));)+
    };
}

/// A register.
#[inline(always)]
fn word<const LOAD: bool, const OFFSET: usize>(control: &mut impl Control, page: StatePage, field: Field) {
    if !LOAD {
        page.write::<OFFSET>(control.get(field));
    } else if let Some(value) = control.registers().limits.fit(field, page.read::<OFFSET>()) {
        control.set(field, value);
    }
}

/// A segment or table register.
#[inline(always)]
fn segment<const LOAD: bool, const OFFSET: usize>(control: &mut impl Control, page: StatePage, name: SegmentName) {
    if LOAD {
        let segment = control.registers().limits.segment(name, page.read_segment::<OFFSET>());
        control.set_segment(name, segment);
    } else {
        let segment = control.segment(name);
        page.write_segment::<OFFSET>(control.registers().limits.segment(name, segment));
    }
}

/// Takes groups from the page, or writes them there.
#[inline(always)]
pub(crate) fn transfer<const LOAD: bool>(control: &mut impl Control, groups: Groups, page: StatePage) {
    groups!(LOAD, control, page, groups, word(Field): RIP { Rip = rip });
    if groups.contains(Groups::GPR_ACDB) {
        registers!(LOAD, control, page, 0 1 2 3);
    }
    if !groups.difference(SHORT).is_empty() {
        rest::<LOAD, _>(control, groups, page);
    }
}

#[inline(never)]
fn rest<const LOAD: bool, C: Control>(control: &mut C, groups: Groups, page: StatePage) {
    if groups.contains(Groups::GPR_BSD) {
        registers!(LOAD, control, page, 5 6 7);
    }
    if groups.contains(Groups::GPR_R8_R15) {
        registers!(LOAD, control, page, 8 9 10 11 12 13 14 15);
    }
    if groups.contains(Groups::RSP) {
        registers!(LOAD, control, page, 4);
    }
    if groups.difference(GENERAL).is_empty() {
        return;
    }
    groups!(LOAD, control, page, groups, word(Field): RFLAGS { Rflags = rflags } TPR { Cr8 = cr8 });
    if groups.intersects(EVENTS) {
        events::<LOAD>(control, groups, page);
    }
    if !groups.difference(PLAIN).is_empty() {
        if groups.intersects(SEGMENTS) {
            segments::<LOAD>(control, groups, page);
        }
        system::<LOAD>(control, groups, page);
    }
    if LOAD {
        control.loaded(groups);
    }
}

#[inline(always)]
fn segments<const LOAD: bool>(control: &mut impl Control, groups: Groups, page: StatePage) {
    groups!(LOAD, control, page, groups, segment(SegmentName):
        CS_SS { Cs = cs, Ss = ss }
        DS_ES { Ds = ds, Es = es }
        FS_GS { Fs = fs, Gs = gs }
        TR_LDTR { Tr = tr, Ldtr = ldtr }
        TABLES { Gdtr = gdtr, Idtr = idtr }
    );
}

#[inline(always)]
fn system<const LOAD: bool>(control: &mut impl Control, groups: Groups, page: StatePage) {
    groups!(LOAD, control, page, groups, word(Field):
        CR { Cr0 = cr0, Cr2 = cr2, Cr3 = cr3, Cr4 = cr4, Xcr0 = xcr0 }
        SYSENTER { SysenterCs = sysenter_cs, SysenterEsp = sysenter_esp, SysenterEip = sysenter_eip }
        SYSCALL { Star = star, Lstar = lstar, Cstar = cstar, Sfmask = sfmask, KernelGsBase = kernel_gs_base }
        PAT { Pat = pat }
        DR { Dr6 = dr6, Dr7 = dr7 }
        TSC { TscOffset = tsc_offset }
    );
    if groups.contains(Groups::DR) {
        const DR: usize = offset_of!(VcpuState, dr0_3);
        for (register, word) in control.registers().dr.iter_mut().zip(page.array::<DR, 4>()) {
            if LOAD {
                *register = word.load(Relaxed);
            } else {
                word.store(*register, Relaxed);
            }
        }
        if LOAD {
            control.registers().debug |= control.get(Field::Dr7) & DR7_ENABLES != 0;
        }
    }
    // Whether long mode is active follows from paging.
    if LOAD && groups.intersects(Groups::CR | Groups::EFER) {
        let efer = if groups.contains(Groups::EFER) { read!(page, efer) } else { control.get(Field::Efer) };
        let cr0 = control.get(Field::Cr0);
        let efer = control.registers().limits.efer(efer, cr0);
        control.set(Field::Efer, efer);
    } else {
        groups!(LOAD, control, page, groups, word(Field): EFER { Efer = efer });
    }
}

#[inline(always)]
fn events<const LOAD: bool>(control: &mut impl Control, groups: Groups, page: StatePage) {
    if groups.contains(Groups::SHADOW) {
        if LOAD {
            control.set_shadow(read!(page, shadow));
        } else {
            write!(page, shadow, control.shadow());
        }
    }
    if groups.contains(Groups::EVENT) {
        if !LOAD {
            write!(page, event, control.event());
        } else if let Some(event) = event::checked(read!(page, event)) {
            control.set_event(event);
        } else {
            control.registers().refused = true;
        }
    }
    if groups.contains(Groups::CONTROL) {
        if LOAD {
            let controls = Controls::from_bits_truncate(read!(page, controls));
            control.set_controls(controls);
            control.registers().controls = controls;
        } else {
            write!(page, controls, control.registers().controls.bits());
        }
    }
}
