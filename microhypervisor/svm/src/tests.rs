// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tests of the way between state page and control block, without a machine.

use crate::machine::tests::epyc;
use crate::vmcb::{CLEAN_ALL, CLEAN_TPR, PRIVILEGE, TLB_KEEP, V_IGN_TPR, V_INTR_MASKING, V_IRQ, Vmcb};
use crate::{Machine, Vcpu};
use cloister_abi::arch::x86_64::vcpu::{Controls, Event, ExitReason, Groups, SHADOW_NMI, SHADOW_STI, VcpuState};
use cloister_vcpu::{Control, Exit, Exits, Field};
use proptest::prelude::*;

pub(crate) type Fixture = cloister_vcpu::tests::Fixture<Vcpu, Vmcb>;

/// Where the save area has a register.
pub(crate) fn at(field: Field) -> usize {
    crate::vmcb::save(field).unwrap()
}

/// A VCPU of that machine.
pub(crate) fn of(machine: Machine) -> Fixture {
    let machine = Box::leak(Box::new(Machine { io_map: 0x1000, msr_map: 0x4000, ..machine }));
    // SAFETY: the page lives as long as the fixture; nothing here enters the guest.
    Fixture::new(Vmcb::zeroed(), |vmcb| unsafe { Vcpu::new(vmcb, 0x6000, 0x8000, 7, machine) })
}

pub(crate) fn fixture() -> Fixture {
    of(epyc())
}

#[test]
fn state_after_reset() {
    let mut fixture = fixture();
    fixture.vcpu.sync(fixture.page(), Groups::all());
    let state = fixture.state();
    assert_eq!((state.cs.selector, state.cs.base, state.cs.limit), (0xf000, 0xffff_0000, 0xffff));
    assert_eq!((state.rip, state.rflags, state.cr0), (0xfff0, 2, 0x6000_0010));
    assert_eq!((state.efer, state.dr6, state.dr7, state.xcr0), (0, 0xffff_0ff0, 0x400, 1));
    let control = &fixture.block().control;
    assert_eq!((control.asid, control.nested, control.nested_cr3), (7, 1, 0x8000));
    assert_eq!((control.io_map, control.msr_map), (0x1000, 0x4000));
    assert_eq!(control.clean, 0);
    assert_eq!(control.interrupt, V_INTR_MASKING);
    assert_eq!(control.intercepts[3] & 0x990c_000f, 0x9904_000f);
    assert_eq!(control.intercepts[4] & 1, 1);
}

#[test]
fn taking_clears_the_word_and_only_names_are_taken() {
    let mut fixture = fixture();
    fixture.state().rip = 0x1234;
    fixture.state().gpr[1] = 5;
    fixture.take(Groups::RIP);
    assert_eq!(fixture.state().load, 0);
    assert_eq!(fixture.block().save[at(Field::RIP)], 0x1234);
    assert_eq!(fixture.vcpu.get(Field::XCR0), 1);
    fixture.vcpu.sync(fixture.page(), Groups::GPR_ACDB);
    assert_eq!(fixture.state().gpr[1], 0);
}

#[test]
fn clean_bits_follow_what_was_taken() {
    let mut fixture = fixture();
    fixture.block().control.clean = CLEAN_ALL;
    fixture.take(Groups::GPR | Groups::RIP | Groups::RFLAGS | Groups::EVENT | Groups::SHADOW);
    assert_eq!(fixture.block().control.clean, CLEAN_ALL);
    fixture.take(Groups::TPR);
    assert_eq!(fixture.block().control.clean, CLEAN_ALL & !CLEAN_TPR);
    fixture.take(Groups::all());
    assert_eq!(fixture.block().control.clean, 0);
}

#[test]
fn other_control_registers_make_translations_stale() {
    let mut fixture = fixture();
    for (groups, flushed) in [(Groups::CR, true), (Groups::EFER, true), (Groups::CS_SS | Groups::PAT, false)] {
        fixture.block().control.tlb = TLB_KEEP;
        fixture.take(groups);
        assert_eq!(fixture.block().control.tlb != TLB_KEEP, flushed, "{groups:?}");
    }
}

#[test]
fn svme_is_the_hosts() {
    let mut fixture = fixture();
    fixture.state().efer = 0;
    fixture.take(Groups::EFER);
    assert_eq!(fixture.block().save[at(Field::EFER)], 0x1000);
    fixture.state().efer = 0xd01;
    fixture.state().cr0 = 0x8000_0011;
    fixture.take(Groups::EFER | Groups::CR);
    assert_eq!(fixture.block().save[at(Field::EFER)], 0x1d01);
    fixture.vcpu.sync(fixture.page(), Groups::EFER);
    assert_eq!(fixture.state().efer, 0xd01);
    fixture.state().cr0 = 0x11;
    fixture.take(Groups::CR);
    assert_eq!(fixture.block().save[at(Field::EFER)], 0x1901, "LMA goes with paging");
}

#[test]
fn privilege_level_is_that_of_the_stack_segment() {
    let mut fixture = fixture();
    fixture.state().ss.access = 0xc0f3;
    fixture.take(Groups::CS_SS);
    assert_eq!(fixture.block().save[PRIVILEGE] >> 24, 3);
    fixture.block().save[PRIVILEGE] = 0;
    fixture.vcpu.sync(fixture.page(), Groups::CS_SS);
    assert_eq!(fixture.state().ss.access, 0xc093);
}

#[test]
fn events_that_exist_are_taken() {
    let mut fixture = fixture();
    let cases = [
        (Event::NONE.0, 0),
        (Event::interrupt(0x31).0, 0x8000_0031),
        (Event::nmi().0, 0x8000_0202),
        (Event::VALID | Event::NMI | 0x55, 0x8000_0202),
        (Event::exception(14, Some(2)).0, 0x2_8000_0b0e),
        (Event::exception(6, None).0, 0x8000_0306),
        (Event::interrupt(0x31).0 | 0x7fff_f800 | 9 << 32, 0x8000_0031),
        (0x1234, 0),
    ];
    for (given, expected) in cases {
        fixture.state().event = Event(given);
        assert!(!fixture.take(Groups::EVENT), "{given:#x}");
        assert_eq!(fixture.block().control.event, expected, "{given:#x}");
    }
}

#[test]
fn events_that_do_not_exist_are_refused() {
    let mut fixture = fixture();
    for given in [1 << 8, 5 << 8, 6 << 8, 7 << 8, Event::EXCEPTION | 2, Event::EXCEPTION | 32, Event::EXCEPTION | 255] {
        fixture.state().event = Event(given | Event::VALID);
        assert!(fixture.take(Groups::EVENT), "{given:#x}");
        assert!(!fixture.take(Groups::RIP));
        assert_eq!(fixture.block().control.event, 0);
    }
}

#[test]
fn nmi_blocks_until_iret() {
    let mut fixture = fixture();
    fixture.state().event = Event::nmi();
    fixture.take(Groups::EVENT);
    assert_ne!(fixture.block().control.intercepts[3] & 1 << 20, 0);
    fixture.vcpu.sync(fixture.page(), Groups::SHADOW);
    assert_eq!(fixture.state().shadow, SHADOW_NMI);
    fixture.block().control.exit_code = 0x74;
    assert_eq!(fixture.vcpu.classify(), Exit::Resume);
    assert_eq!(fixture.block().control.intercepts[3] & 1 << 20, 0);
    fixture.vcpu.sync(fixture.page(), Groups::SHADOW);
    assert_eq!(fixture.state().shadow, SHADOW_STI);
}

#[test]
fn interrupt_window_opens_and_closes() {
    let mut fixture = fixture();
    fixture.state().cr8 = 0xf;
    fixture.state().controls = Controls::INTERRUPT_WINDOW.bits();
    fixture.take(Groups::CONTROL | Groups::TPR);
    assert_eq!(fixture.block().control.interrupt, V_INTR_MASKING | V_IRQ | V_IGN_TPR | 0xf_000f);
    fixture.state().controls = 0;
    fixture.take(Groups::CONTROL);
    assert_eq!(fixture.block().control.interrupt, V_INTR_MASKING | 0xf);
}

#[test]
fn controls_set_and_clear_intercepts() {
    let mut fixture = fixture();
    let before = (fixture.block().control.intercepts[3], fixture.block().control.intercepts[4]);
    fixture.state().controls = u64::MAX;
    fixture.take(Groups::CONTROL);
    let control = &fixture.block().control;
    assert_eq!(control.intercepts[3] & 0x0080_c000, 0x0080_c000);
    assert_eq!(control.intercepts[4] & 0x80, 0x80);
    assert_eq!(control.intercepts[2] & 8, 8);
    fixture.state().controls = 0;
    fixture.take(Groups::CONTROL);
    assert_eq!((fixture.block().control.intercepts[3], fixture.block().control.intercepts[4]), before);
    assert_eq!(fixture.block().control.intercepts[2] & 8, 0);
}

#[test]
fn pat_of_types_that_do_not_exist_is_not_taken() {
    let mut fixture = fixture();
    fixture.state().pat = 0x0007_0406_0007_0402;
    fixture.take(Groups::PAT);
    assert_eq!(fixture.block().save[at(Field::PAT)], 0x0007_0406_0007_0406);
    fixture.state().pat = 0x0007_0405_0601_0004;
    fixture.take(Groups::PAT);
    assert_eq!(fixture.block().save[at(Field::PAT)], 0x0007_0405_0601_0004);
}

#[test]
fn report_writes_what_the_reason_asks_for() {
    let mut fixture = fixture();
    fixture.state().store[ExitReason::Cpuid as usize] = Groups::RIP.bits();
    fixture.state().qualification = [9; 3];
    fixture.block().control.exit_code = 0x72;
    fixture.block().save[at(Field::RIP)] = 0x77;
    fixture.block().save[at(Field::RFLAGS)] = 0x246;
    assert!(!fixture.vcpu.report(fixture.page(), ExitReason::Cpuid));
    let state = fixture.state();
    assert_eq!((state.reason, state.rip, state.instruction_length), (6, 0x77, 2));
    assert_eq!((state.qualification, state.rflags), ([0; 3], 0));
    fixture.state().store[ExitReason::Hlt as usize] = u64::MAX;
    assert!(fixture.vcpu.report(fixture.page(), ExitReason::Hlt));
    assert_eq!(fixture.state().rflags, 0x246);
}

#[test]
fn fpu_image_is_safe_for_xrstor() {
    let mut fixture = fixture();
    fixture.state().fpu = [0xff; 2048];
    let mut image = [0; cloister_vcpu::page::FPU_WORDS];
    cloister_vcpu::fpu::take(fixture.page(), &mut image, 7, 0xffff);
    assert_eq!(image[3], 0xffff);
    assert_eq!(image[64..72], [7, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(image[72], u64::MAX);
    fixture.state().fpu = [0; 2048];
    cloister_vcpu::fpu::give(fixture.page(), &image);
    assert_eq!(fixture.state().fpu[512], 7);
}

proptest! {
    /// What was taken from a page comes back the same, and a second trip changes nothing more: masks are idempotent.
    #[test]
    fn second_round_trip_is_identity(groups: u64, noise in proptest::collection::vec(any::<u64>(), 512)) {
        prop_assert!(fixture().is_stable(groups, &noise));
    }

    /// Whatever a page holds, the block keeps what protects the host.
    #[test]
    fn host_stays_protected(noise in proptest::collection::vec(any::<u64>(), 512)) {
        let mut fixture = fixture();
        let before = fixture.block().control.intercepts[3];
        fixture.round_trip(Groups::all(), &noise);
        let vmcb = fixture.block();
        prop_assert_eq!(vmcb.control.intercepts[3] & before, before);
        prop_assert_eq!(vmcb.control.intercepts[4] & 0x7f, 0x7f);
        prop_assert_eq!(vmcb.control.intercepts[2] & 0x6_0002, 0x6_0002);
        prop_assert_eq!(vmcb.control.interrupt & V_INTR_MASKING, V_INTR_MASKING);
        prop_assert_eq!((vmcb.control.asid, vmcb.control.nested, vmcb.control.nested_cr3), (7, 1, 0x8000));
        prop_assert_eq!((vmcb.control.io_map, vmcb.control.msr_map), (0x1000, 0x4000));
        prop_assert_eq!(vmcb.save[at(Field::EFER)] & 0x1000, 0x1000);
        prop_assert_eq!(vmcb.control.event & 0x7fff_f000, 0);
        prop_assert_eq!(vmcb.save[at(Field::DR6)] >> 32 | vmcb.save[at(Field::DR7)] >> 32 | vmcb.save[at(Field::CR0)] >> 32, 0);
    }

    /// General registers and plain values come back as they went.
    #[test]
    fn registers_survive(noise in proptest::collection::vec(any::<u64>(), 512)) {
        let groups = Groups::GPR | Groups::RIP | Groups::TSC;
        let mut fixture = fixture();
        let (before, after) = fixture.round_trip(groups, &noise);
        let length = core::mem::offset_of!(VcpuState, instruction_length) / 8;
        for (index, (old, new)) in before.iter().zip(&after).enumerate() {
            prop_assert!(old == new || index == length, "word {}", index);
        }
    }
}
