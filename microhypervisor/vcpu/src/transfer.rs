// SPDX-License-Identifier: MIT OR Apache-2.0
//! Groups of guest state between the state page and a control structure: one table, walked in both directions.
//!
//! `LOAD` says in which. What comes from the page is read once, and masked by [`crate::Limits`] before the back end gets it.
//! Every name is a constant where it is used, so that nothing of the choice is left in the machine code. The groups that nearly
//! every exit touches are tested inline; all others wait behind one test in a function of their own, so that the shortest
//! way (only `rip`) stays short.

use crate::control::{Control, DR7_ENABLES};
use crate::field::Field;
use crate::page::StatePage;
use cloister_abi::arch::x86_64::vcpu::Groups;
use core::sync::atomic::Ordering::Relaxed;

/// Groups of most exits.
const SHORT: Groups = Groups::RIP.union(Groups::GPR_ACDB);
/// General-purpose registers and the instruction pointer, which nothing follows from.
const GENERAL: Groups = Groups::RIP.union(Groups::GPR);
/// Interrupts and what belongs to them.
const EVENTS: Groups = Groups::EVENT.union(Groups::SHADOW).union(Groups::CONTROL);
/// All that is no system register.
pub const PLAIN: Groups = GENERAL.union(Groups::RFLAGS).union(Groups::TPR).union(Groups::FPU).union(EVENTS);

/// `GROUP { NAME … } …`: those of the groups that are wanted, each name by `$go`.
macro_rules! groups {
    ($go:ident::<$load:ident>($control:ident, $page:ident), $groups:ident: $($group:ident { $($name:ident)+ })+) => {
        $(if $groups.contains(Groups::$group) {
            $($go::<$load>($control, $page, Field::$name);)+
        })+
    };
}

/// A register.
#[inline(always)]
fn word<const LOAD: bool>(control: &mut impl Control, page: StatePage, field: Field) {
    let place = &page[field.word()];
    if !LOAD {
        place.store(control.get(field), Relaxed);
    } else if let Some(value) = control.registers().limits.fit(field, place.load(Relaxed)) {
        control.set(field, value);
    } else {
        // Attributes of pages that do not exist are not taken; an event that does not, the monitor hears of.
        control.registers().refused |= field == Field::EVENT;
    }
}

/// A segment or table register.
#[inline(always)]
fn segment<const LOAD: bool>(control: &mut impl Control, page: StatePage, name: Field) {
    let places = [0, 1, 2].map(|word| &page[name.word() + word]);
    let given = if LOAD { places.map(|place| place.load(Relaxed)) } else { control.segment(name) };
    let segment = control.registers().limits.segment(name, given);
    if LOAD {
        control.set_segment(name, segment);
    } else {
        places.iter().zip(segment).for_each(|(place, value)| place.store(value, Relaxed));
    }
}

/// Takes groups from the page, or writes them there.
#[inline(always)]
pub(crate) fn transfer<const LOAD: bool>(control: &mut impl Control, groups: Groups, page: StatePage) {
    groups!(word::<LOAD>(control, page), groups: RIP { RIP } GPR_ACDB { RAX RCX RDX RBX });
    if !groups.difference(SHORT).is_empty() {
        rest::<LOAD, _>(control, groups, page);
    }
}

#[inline(never)]
fn rest<const LOAD: bool, C: Control>(control: &mut C, groups: Groups, page: StatePage) {
    groups!(word::<LOAD>(control, page), groups:
        GPR_BSD { RBP RSI RDI }
        GPR_R8_R15 { R8 R9 R10 R11 R12 R13 R14 R15 }
        RSP { RSP }
    );
    if groups.difference(GENERAL).is_empty() {
        return;
    }
    groups!(word::<LOAD>(control, page), groups: RFLAGS { RFLAGS } TPR { CR8 });
    if groups.intersects(EVENTS) {
        groups!(word::<LOAD>(control, page), groups: SHADOW { SHADOW } EVENT { EVENT } CONTROL { CONTROLS });
    }
    if !groups.difference(PLAIN).is_empty() {
        system::<LOAD>(control, groups, page);
    }
    if LOAD {
        control.loaded(groups);
    }
}

#[inline(always)]
fn system<const LOAD: bool>(control: &mut impl Control, groups: Groups, page: StatePage) {
    groups!(segment::<LOAD>(control, page), groups:
        CS_SS { CS SS }
        DS_ES { DS ES }
        FS_GS { FS GS }
        TR_LDTR { TR LDTR }
        TABLES { GDTR IDTR }
    );
    groups!(word::<LOAD>(control, page), groups:
        CR { CR0 CR2 CR3 CR4 XCR0 }
        EFER { EFER }
        SYSENTER { SYSENTER_CS SYSENTER_ESP SYSENTER_EIP }
        SYSCALL { STAR LSTAR CSTAR SFMASK KERNEL_GS_BASE }
        PAT { PAT }
        DR { DR0 DR1 DR2 DR3 DR6 DR7 }
        TSC { TSC_OFFSET }
    );
    // Whether long mode is active follows from paging; whether debug registers go with the switch, from what they watch.
    if LOAD && groups.intersects(Groups::CR | Groups::EFER) {
        let (efer, cr0) = (control.get(Field::EFER), control.get(Field::CR0));
        let efer = control.registers().limits.efer(efer, cr0);
        control.set(Field::EFER, efer);
    }
    if LOAD && groups.contains(Groups::DR) {
        control.registers().debug |= control.get(Field::DR7) & DR7_ENABLES != 0;
    }
}
