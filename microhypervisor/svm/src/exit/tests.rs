// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tests of exit codes, by the tables of AMD APM vol. 2, appendix C.

use crate::machine::Machine;
use crate::machine::tests::epyc;
use crate::tests::{Fixture, at, fixture, of};
use cloister_abi::arch::x86_64::vcpu::{Controls, Event, ExitReason, Groups, PortAccess};
use cloister_vcpu::{Control, Exit, Exits, Field};
use proptest::prelude::*;

fn exit(code: u64, info1: u64, info2: u64) -> (Fixture, Exit) {
    let mut fixture = fixture();
    let control = &mut fixture.block().control;
    (control.exit_code, control.exit_info1, control.exit_info2) = (code, info1, info2);
    let exit = fixture.vcpu.classify();
    (fixture, exit)
}

#[test]
fn codes_with_one_reason() {
    let cases = [
        (0x64, ExitReason::InterruptWindow, 0),
        (0x6e, ExitReason::Rdtsc, 2),
        (0x6f, ExitReason::Rdpmc, 2),
        (0x72, ExitReason::Cpuid, 2),
        (0x76, ExitReason::CacheControl, 2),
        (0x77, ExitReason::Pause, 2),
        (0x78, ExitReason::Hlt, 1),
        (0x7d, ExitReason::TaskSwitch, 0),
        (0x7f, ExitReason::Shutdown, 0),
        (0x81, ExitReason::Hypercall, 3),
        (0x87, ExitReason::Rdtsc, 3),
        (0x89, ExitReason::CacheControl, 2),
        (0x8b, ExitReason::Mwait, 3),
        (0x8d, ExitReason::Xsetbv, 3),
        (0x400, ExitReason::Memory, 0),
        (u64::MAX, ExitReason::InvalidState, 0),
        (0xffff_ffff, ExitReason::InvalidState, 0),
        (u64::MAX - 1, ExitReason::Other, 0),
        (0x71, ExitReason::Other, 0),
        (0x7c, ExitReason::RdMsr, 2),
    ];
    for (code, reason, bytes) in cases {
        let (mut fixture, exit) = exit(code, 0, 0);
        assert_eq!(exit, Exit::Monitor(reason), "{code:#x}");
        assert_eq!(fixture.vcpu.length(), bytes, "{code:#x}");
    }
    assert_eq!(exit(0x7c, 1, 0).1, Exit::Monitor(ExitReason::WrMsr));
}

#[test]
fn refused_state_is_read_whole_the_next_time() {
    let mut fixture = fixture();
    fixture.block().control.clean = u32::MAX;
    fixture.block().control.exit_code = u64::MAX;
    assert_eq!(fixture.vcpu.classify(), Exit::Monitor(ExitReason::InvalidState));
    assert_eq!(fixture.block().control.clean, 0);
}

#[test]
fn refused_state_leaves_physical_interrupts_the_hosts() {
    let mut fixture = fixture();
    for (controls, window) in [(Controls::INTERRUPT_WINDOW, 0x1f_0100), (Controls::empty(), 0)] {
        fixture.state().controls = controls.bits();
        fixture.take(Groups::CONTROL);
        for code in [u64::MAX, 0xffff_ffff] {
            // QEMU leaves nothing of it.
            fixture.block().control.interrupt = 0;
            fixture.block().control.exit_code = code;
            assert_eq!(fixture.vcpu.classify(), Exit::Monitor(ExitReason::InvalidState));
            assert_eq!(fixture.block().control.interrupt, 1 << 24 | window, "{code:#x}");
        }
    }
}

#[test]
fn codes_of_the_kernel() {
    for code in 0x60..=0x63 {
        assert_eq!(exit(code, 0, 0).1, Exit::Interrupt, "{code:#x}");
    }
    assert_eq!(exit(0x52, 0, 0).1, Exit::MachineCheck);
    let (mut fixture, debug) = exit(0x41, 0, 0);
    assert_eq!((debug, fixture.block().control.event), (Exit::Resume, 0x8000_0301));
    let (mut fixture, alignment) = exit(0x51, 0, 0);
    assert_eq!((alignment, fixture.block().control.event), (Exit::Resume, 0x8000_0b11));
    let (mut fixture, rdpru) = exit(0x8e, 0, 0);
    assert_eq!((rdpru, fixture.block().control.event), (Exit::Resume, 0x8000_0306));
}

#[test]
fn instructions_of_svm_are_undefined() {
    for code in [0x7a, 0x80, 0x82, 0x83, 0x84, 0x85, 0x86] {
        let (mut fixture, exit) = exit(code, 0, 0);
        assert_eq!(exit, Exit::Monitor(ExitReason::Virtualization), "{code:#x}");
        assert_eq!(fixture.block().control.event, Event::exception(6, None).0);
    }
}

#[test]
fn monitor_sees_exceptions_it_asked_for() {
    let mut fixture = fixture();
    fixture.state().controls = (Controls::DEBUG | Controls::DR).bits();
    fixture.state().load = Groups::CONTROL.bits();
    let page = fixture.page();
    fixture.vcpu.take(page);
    for (code, vector) in [(0x41, 1), (0x43, 3)] {
        fixture.block().control.exit_code = code;
        assert_eq!(fixture.vcpu.classify(), Exit::Monitor(ExitReason::Exception));
        assert_eq!(fixture.vcpu.qualification(ExitReason::Exception)[0], vector);
    }
    fixture.block().control.exit_code = 0x37;
    assert_eq!(fixture.vcpu.classify(), Exit::Monitor(ExitReason::Dr));
    assert_eq!(fixture.vcpu.qualification(ExitReason::Dr)[0], 0x17);
}

#[test]
fn debug_registers_become_the_guests_at_first_touch() {
    let (mut fixture, exit) = exit(0x27, 0, 0);
    assert_eq!(exit, Exit::Resume);
    assert_eq!(fixture.block().control.intercepts[1], 0);
}

#[test]
fn port_access_without_decode_assists() {
    // out dx, al at port 0x3f8; next instruction at 0x7c01.
    let (mut fixture, exit) = exit(0x7b, 0x03f8_0010, 0x7c01);
    fixture.block().save[at(Field::RIP)] = 0x7c00;
    assert_eq!(exit, Exit::Monitor(ExitReason::Port));
    let [access, next, _] = fixture.vcpu.qualification(ExitReason::Port);
    let access = PortAccess(access);
    assert_eq!((access.port(), access.size(), access.is_in(), access.is_string()), (0x3f8, 1, false, false));
    assert_eq!((access.address_size(), access.segment(), next), (2, 3, 0x7c01));
    assert_eq!(fixture.vcpu.length(), 1);
    // rep insd with 32-bit addresses.
    fixture.block().control.exit_info1 = 0x01f0_014d;
    let access = PortAccess(fixture.vcpu.qualification(ExitReason::Port)[0]);
    assert!(access.is_in() && access.is_string() && access.is_rep());
    assert_eq!((access.port(), access.size(), access.address_size(), access.segment()), (0x1f0, 4, 4, 0));
}

#[test]
fn address_size_follows_the_code_segment() {
    let (mut fixture, _) = exit(0x7b, 0x0001_0014, 0);
    fixture.block().save[2] = 0x1_0000 * 0xa9b;
    fixture.block().save[at(Field::EFER)] = 0x1d00;
    assert_eq!(PortAccess(fixture.vcpu.qualification(ExitReason::Port)[0]).address_size(), 8);
    fixture.block().save[2] = 0x1_0000 * 0xc9b;
    assert_eq!(PortAccess(fixture.vcpu.qualification(ExitReason::Port)[0]).address_size(), 4);
}

#[test]
fn decode_assists_and_next_rip_are_used() {
    let mut fixture = of(Machine { next_rip: true, decode_assists: true, ..epyc() });
    let control = &mut fixture.block().control;
    (control.exit_code, control.exit_info1, control.exit_info2) = (0x7b, 0x0001_1014, 0x1003);
    fixture.block().save[at(Field::RIP)] = 0x1000;
    fixture.block().control.next_rip = 0x1004;
    assert_eq!(PortAccess(fixture.vcpu.qualification(ExitReason::Port)[0]).segment(), 4);
    assert_eq!(fixture.vcpu.length(), 4);
    fixture.block().control.next_rip = 0xfff;
    assert_eq!(fixture.vcpu.length(), 0);
}

#[test]
fn nested_fault_shows_page_fault_bits() {
    let (mut fixture, _) = exit(0x400, 1 << 32 | 0x16, 0xfee0_0020);
    assert_eq!(fixture.vcpu.qualification(ExitReason::Memory), [0x16, 0xfee0_0020, 0]);
}

#[test]
fn interrupted_delivery_is_repeated() {
    let cases = [
        (Event::interrupt(0x40).0, Event::interrupt(0x40).0),
        (Event::nmi().0, Event::nmi().0),
        (Event::exception(14, Some(6)).0, Event::exception(14, Some(6)).0),
        (Event::VALID | 4 << 8 | 0x80, 0),
        (Event::exception(3, None).0, 0),
    ];
    for (interrupted, queued) in cases {
        let mut fixture = fixture();
        fixture.block().control.exit_code = 0x400;
        fixture.block().control.exit_event = interrupted;
        assert_eq!(fixture.vcpu.classify(), Exit::Monitor(ExitReason::Memory));
        assert_eq!(fixture.block().control.event, queued, "{interrupted:#x}");
        fixture.vcpu.sync(fixture.page(), Groups::EVENT);
        assert_eq!(fixture.state().event.0, queued);
    }
}

proptest! {
    /// Whatever the processor says, it is classified and reported.
    #[test]
    fn any_exit_is_reported(code: u64, info1: u64, info2: u64, event: u64, rip: u64, next: u64, small: bool) {
        let mut fixture = fixture();
        let control = &mut fixture.block().control;
        control.exit_code = if small { code & 0x4ff } else { code };
        (control.exit_info1, control.exit_info2, control.exit_event) = (info1, info2, event);
        control.next_rip = next;
        fixture.block().save[at(Field::RIP)] = rip;
        fixture.state().store = [u64::MAX; 32];
        if let Exit::Monitor(reason) = fixture.vcpu.classify() {
            let page = fixture.page();
            fixture.vcpu.report(page, reason);
            prop_assert_eq!(fixture.state().reason, reason as u64);
            prop_assert!(fixture.state().instruction_length <= 15);
        }
    }
}
