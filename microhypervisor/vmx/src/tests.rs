// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tests of the way between state page and VMCS, and of exits, without a machine: VMREAD and VMWRITE go to a map of the test's
//! thread.

use crate::machine::tests::haswell;
use crate::world::Host;
use crate::{Vcpu, vmcs};
use cloister_abi::arch::x86_64::vcpu::{Controls, Event, ExitReason, Groups, PortAccess, SHADOW_NMI, SHADOW_STI};
use cloister_vcpu::{Control, Exit, Exits, Field};
use proptest::prelude::*;
use x86::vmx::vmcs::{control, guest, host, ro};

type Fixture = cloister_vcpu::tests::Fixture<Vcpu, [u32; 1024]>;

fn fixture() -> Fixture {
    let machine = Box::leak(Box::new(haswell()));
    // SAFETY: the page lives as long as the fixture; nothing here enters the guest.
    let new = |region: core::ptr::NonNull<_>| unsafe { Vcpu::new(region.cast(), 0x6000, 0x8000, 7, machine) };
    let mut fixture = Fixture::new([0; 1024], new);
    fixture.vcpu.prepare(&Host::of_test());
    fixture
}

fn exit(reason: u64, qualification: u64) -> (Fixture, Exit) {
    let mut fixture = fixture();
    let exit = again(&mut fixture, reason, qualification);
    (fixture, exit)
}

fn again(fixture: &mut Fixture, reason: u64, qualification: u64) -> Exit {
    vmcs::write(ro::EXIT_REASON, reason);
    vmcs::write(ro::EXIT_QUALIFICATION, qualification);
    fixture.vcpu.classify()
}

#[test]
fn state_after_reset() {
    let mut fixture = fixture();
    fixture.vcpu.sync(fixture.page(), Groups::all());
    let state = fixture.state();
    assert_eq!((state.cs.selector, state.cs.base, state.cs.limit), (0xf000, 0xffff_0000, 0xffff));
    assert_eq!((state.rip, state.rflags, state.cr0, state.cr4), (0xfff0, 2, 0x6000_0010, 0));
    assert_eq!((state.efer, state.dr6, state.dr7, state.xcr0), (0, 0xffff_0ff0, 0x400, 1));
    assert_eq!((vmcs::read(control::EPTP_FULL), vmcs::read(control::VPID)), (0x801e, 7));
    // NE, VMXE and MCE are set for the processor, CD and NW are not.
    assert_eq!((vmcs::read(guest::CR0), vmcs::read(guest::CR4)), (0x30, 0x2040));
}

#[test]
fn host_owns_bits_that_the_guest_reads_from_the_shadow() {
    let mut fixture = fixture();
    fixture.state().cr0 = 0xc005_0011;
    fixture.state().cr4 = 0x2020 | 1 << 12 | 1 << 22;
    fixture.state().efer = 0xd01;
    assert!(!fixture.take(Groups::CR | Groups::EFER));
    assert_eq!((vmcs::read(guest::CR0), vmcs::read(guest::CR4)), (0x8005_0031, 0x2060));
    assert_eq!(vmcs::read(control::VMENTRY_CONTROLS) & 1 << 9, 1 << 9);
    fixture.vcpu.sync(fixture.page(), Groups::CR | Groups::EFER);
    let state = fixture.state();
    assert_eq!((state.cr0, state.cr4, state.efer), (0xc005_0011, 0x20, 0xd01));
    // Not write-through without cache disable exists on no processor.
    fixture.state().cr0 = 0x2000_0011;
    assert!(fixture.take(Groups::CR));
}

#[test]
fn write_of_a_bit_of_the_hosts_runs_again() {
    let mut fixture = fixture();
    fixture.vcpu.registers.words[3] = 0x8005_0033;
    assert_eq!(again(&mut fixture, 28, 3 << 8), Exit::Resume);
    assert_eq!(vmcs::read(control::CR0_READ_SHADOW) & 0x6000_0020, 0x20);
    assert_eq!((vmcs::read(guest::CR0), fixture.vcpu.event()), (0x30, 0));
    // NW without CD; VMXE.
    fixture.vcpu.registers.words[3] = 0x2000_0031;
    assert_eq!(again(&mut fixture, 28, 3 << 8), Exit::Resume);
    assert_eq!(fixture.vcpu.event(), Event::exception(13, Some(0)).0);
    for (value, refused) in [(0x2020, true), (0x60, false), (0x20, false), (1 << 32 | 0x60, false)] {
        *fixture.vcpu.registers.place(Field::EVENT) = 0;
        fixture.vcpu.registers.words[3] = value;
        assert_eq!(again(&mut fixture, 28, 3 << 8 | 4), Exit::Resume);
        assert_eq!(fixture.vcpu.event() != 0, refused, "{value:#x}");
        let shown = vmcs::read(control::CR4_READ_SHADOW) & 0x40;
        assert_eq!((vmcs::read(guest::CR4), shown), (0x2040, if refused { 0 } else { value & 0x40 }));
    }
}

#[test]
fn reasons_with_one_meaning() {
    for (code, reason, bytes) in [
        (2, ExitReason::Shutdown, 0),
        (7, ExitReason::InterruptWindow, 0),
        (9, ExitReason::TaskSwitch, 0),
        (10, ExitReason::Cpuid, 5),
        (12, ExitReason::Hlt, 5),
        (13, ExitReason::CacheControl, 5),
        (15, ExitReason::Rdpmc, 5),
        (16, ExitReason::Rdtsc, 5),
        (18, ExitReason::Hypercall, 5),
        (30, ExitReason::Port, 5),
        (31, ExitReason::RdMsr, 5),
        (32, ExitReason::WrMsr, 5),
        (36, ExitReason::Mwait, 5),
        (40, ExitReason::Pause, 5),
        (48, ExitReason::Memory, 0),
        (51, ExitReason::Rdtsc, 5),
        (54, ExitReason::CacheControl, 5),
        (55, ExitReason::Xsetbv, 5),
        (49, ExitReason::Other, 0),
        (0x8000_0021, ExitReason::InvalidState, 0),
        (0x8000_0022, ExitReason::InvalidState, 0),
    ] {
        let (mut fixture, exit) = exit(code, 0);
        vmcs::write(ro::VMEXIT_INSTRUCTION_LEN, 5);
        assert_eq!((exit, fixture.vcpu.length()), (Exit::Monitor(reason), bytes), "{code}");
    }
    for (code, expected) in
        [(1, Exit::Interrupt), (3, Exit::Interrupt), (52, Exit::Interrupt), (0x8000_0029, Exit::MachineCheck)]
    {
        assert_eq!(exit(code, 0).1, expected, "{code:#x}");
    }
}

#[test]
fn only_an_entry_that_came_through_launches() {
    let mut fixture = fixture();
    assert_eq!(again(&mut fixture, 0x8000_0021, 0), Exit::Monitor(ExitReason::InvalidState));
    assert!(!fixture.vcpu.launched);
    again(&mut fixture, 10, 0);
    assert!(fixture.vcpu.launched);
    again(&mut fixture, 0x8000_0021, 0);
    assert!(fixture.vcpu.launched);
    // An instruction that was refused left an old reason behind.
    fixture.vcpu.failed = true;
    assert_eq!(again(&mut fixture, 41, 0), Exit::Monitor(ExitReason::InvalidState));
}

#[test]
fn instructions_of_vmx_are_undefined() {
    for code in (19..=27).chain([50, 53]) {
        let (fixture, exit) = exit(code, 0);
        assert_eq!(exit, Exit::Monitor(ExitReason::Virtualization), "{code}");
        assert_eq!(fixture.vcpu.event(), Event::exception(6, None).0);
    }
}

#[test]
fn ept_violation_shows_page_fault_bits() {
    // Read of nothing, write to what can be read, fetch from what can be read and written.
    for (qualification, bits) in [(0x181, 4), (0x18a, 7), (0x19c, 0x15)] {
        let (mut fixture, exit) = exit(48, qualification);
        vmcs::write(ro::GUEST_PHYSICAL_ADDR_FULL, 0xfee0_0020);
        assert_eq!(exit, Exit::Monitor(ExitReason::Memory));
        assert_eq!(fixture.vcpu.qualification(ExitReason::Memory), [bits, 0xfee0_0020, 0]);
    }
}

#[test]
fn port_access() {
    // out dx, al at port 0x3f8.
    let (mut fixture, _) = exit(30, 0x03f8_0000);
    vmcs::write(ro::VMEXIT_INSTRUCTION_LEN, 1);
    let [access, next, _] = fixture.vcpu.qualification(ExitReason::Port);
    let access = PortAccess(access);
    assert_eq!(
        (access.port(), access.size(), access.is_in(), access.is_string(), next),
        (0x3f8, 1, false, false, 0xfff1)
    );
    // rep insd with 32-bit addresses; outsw from FS with 16-bit ones.
    let (mut fixture, _) = exit(30, 0x01f0_003b);
    vmcs::write(ro::VMEXIT_INSTRUCTION_INFO, 1 << 7 | 3 << 15);
    let access = PortAccess(fixture.vcpu.qualification(ExitReason::Port)[0]);
    assert!(access.is_in() && access.is_string() && access.is_rep());
    assert_eq!((access.size(), access.address_size(), access.segment()), (4, 4, 0));
    let (mut fixture, _) = exit(30, 0x01f0_0011);
    vmcs::write(ro::VMEXIT_INSTRUCTION_INFO, 4 << 15);
    let access = PortAccess(fixture.vcpu.qualification(ExitReason::Port)[0]);
    assert_eq!((access.size(), access.address_size(), access.segment(), access.is_in()), (2, 2, 4, false));
}

#[test]
fn interrupted_delivery_is_repeated() {
    let fault = Event::exception(14, Some(6)).0;
    for (vectoring, code, queued) in [
        (Event::interrupt(0x40).0, 0, Event::interrupt(0x40).0),
        (Event::nmi().0, 0, Event::nmi().0),
        (fault & 0xffff_ffff, 6, fault),
        (Event::VALID | 4 << 8 | 0x80, 0, 0),
        (Event::VALID | 6 << 8 | 3, 0, 0),
    ] {
        let mut fixture = fixture();
        vmcs::write(guest::INTERRUPTIBILITY_STATE, 8);
        vmcs::write(ro::IDT_VECTORING_INFO, vectoring);
        vmcs::write(ro::IDT_VECTORING_ERR_CODE, code);
        assert_eq!(again(&mut fixture, 48, 0), Exit::Monitor(ExitReason::Memory));
        assert_eq!(fixture.vcpu.event(), queued, "{vectoring:#x}");
        assert_eq!(vmcs::read(guest::INTERRUPTIBILITY_STATE) == 0, vectoring == Event::nmi().0);
        vmcs::write(ro::IDT_VECTORING_INFO, 0);
    }
}

#[test]
fn exceptions_of_the_kernel() {
    let with = |event: u64, qualification| {
        let mut fixture = fixture();
        vmcs::write(ro::VMEXIT_INTERRUPTION_INFO, event);
        let exit = again(&mut fixture, 0, qualification);
        (fixture, exit)
    };
    assert_eq!(with(Event::nmi().0, 0).1, Exit::Interrupt);
    assert_eq!(with(Event::exception(18, None).0, 0).1, Exit::MachineCheck);
    let (fixture, alignment) = with(Event::exception(17, Some(0)).0, 0);
    assert_eq!((alignment, fixture.vcpu.event()), (Exit::Resume, 0x8000_0b11));
    // A single step: DR6 says so, since the exit came before the processor could.
    let (fixture, step) = with(Event::exception(1, None).0, 0x4000);
    assert_eq!(
        (step, fixture.vcpu.event(), fixture.vcpu.registers.words[Field::DR6.index()]),
        (Exit::Resume, 0x8000_0301, 0xffff_4ff0)
    );
}

#[test]
fn injection_ends_what_is_in_its_way() {
    for (event, kept) in [(Event::interrupt(0x31), 8), (Event::nmi(), 0), (Event::exception(6, None), 10)] {
        let mut fixture = fixture();
        vmcs::write(guest::INTERRUPTIBILITY_STATE, 10);
        fixture.vcpu.set(Field::EVENT, event.0);
        fixture.vcpu.inject();
        assert_eq!(vmcs::read(guest::INTERRUPTIBILITY_STATE), kept, "{event:?}");
        assert_eq!(vmcs::read(control::VMENTRY_INTERRUPTION_INFO_FIELD), event.0);
    }
}

#[test]
fn debug_registers_become_the_guests_at_first_touch() {
    let (mut fixture, exit) = exit(29, 0x10);
    assert_eq!(exit, Exit::Resume);
    assert_eq!(vmcs::read(control::PRIMARY_PROCBASED_EXEC_CONTROLS) & 1 << 23, 0);
    fixture.state().controls = Controls::DR.bits();
    fixture.take(Groups::CONTROL);
    assert_eq!(vmcs::read(control::PRIMARY_PROCBASED_EXEC_CONTROLS) & 1 << 23, 1 << 23);
    assert_eq!(again(&mut fixture, 29, 0x307), Exit::Monitor(ExitReason::Dr));
    assert_eq!(fixture.vcpu.qualification(ExitReason::Dr), [0x17, 3, 0]);
}

#[test]
fn shadows_fit_the_flags() {
    let mut fixture = fixture();
    fixture.state().shadow = SHADOW_STI | SHADOW_NMI;
    fixture.state().rflags = 0x102;
    fixture.take(Groups::SHADOW | Groups::RFLAGS);
    // Interrupts are off: the shadow must be that of MOV SS; a single step waits for its end.
    assert_eq!((vmcs::read(guest::INTERRUPTIBILITY_STATE), vmcs::read(guest::PENDING_DBG_EXCEPTIONS)), (10, 0x4000));
    assert_eq!(fixture.vcpu.get(Field::SHADOW), SHADOW_STI | SHADOW_NMI);
    fixture.state().shadow = 0;
    fixture.state().rflags = 0x202;
    fixture.take(Groups::SHADOW | Groups::RFLAGS);
    assert_eq!((vmcs::read(guest::INTERRUPTIBILITY_STATE), vmcs::read(guest::PENDING_DBG_EXCEPTIONS)), (0, 0));
}

#[test]
fn segments_are_made_fit() {
    let mut fixture = fixture();
    for (access, limit, expected) in [
        (0xa09b, 0xffff_ffff, 0xa09b),
        (0x0093, 0xffff_ffff, 0x8093),
        (0x8093, 0xffff, 0x8093),
        (0x8093, 0xfff0, 0x0093),
        (0x0092, 0xffff, 0x0093),
        (0x0013, 0xffff, 0x1_0013),
        (0xffff_009b, 0xffff, 0x1_009b),
    ] {
        fixture.state().cs.access = access;
        fixture.state().cs.limit = limit;
        fixture.take(Groups::CS_SS);
        assert_eq!(vmcs::read(guest::ES_ACCESS_RIGHTS + 2), expected, "{access:#x}");
    }
}

proptest! {
    /// What was taken from a page comes back the same, and a second trip changes nothing more: masks are idempotent.
    #[test]
    fn second_round_trip_is_identity(groups: u64, noise in proptest::collection::vec(any::<u64>(), 512)) {
        prop_assert!(fixture().is_stable(groups, &noise));
    }

    /// Whatever a page holds, the VMCS keeps what protects the host.
    #[test]
    fn host_stays_protected(noise in proptest::collection::vec(any::<u64>(), 512)) {
        let mut fixture = fixture();
        let primary = vmcs::read(control::PRIMARY_PROCBASED_EXEC_CONTROLS);
        let kept = [
            control::PINBASED_EXEC_CONTROLS, control::SECONDARY_PROCBASED_EXEC_CONTROLS, control::VMEXIT_CONTROLS, control::EPTP_FULL, control::VPID, control::MSR_BITMAPS_ADDR_FULL,
            control::CR0_GUEST_HOST_MASK, control::CR4_GUEST_HOST_MASK, host::CR0, host::CR4, host::RIP, host::GS_BASE,
        ];
        let before = kept.map(vmcs::read);
        fixture.round_trip(Groups::all(), &noise);
        prop_assert_eq!(before, kept.map(vmcs::read));
        prop_assert_eq!(vmcs::read(control::PRIMARY_PROCBASED_EXEC_CONTROLS) & primary, primary);
        prop_assert_eq!(vmcs::read(control::EXCEPTION_BITMAP) & 0x6_0002, 0x6_0002);
        prop_assert_eq!(vmcs::read(guest::CR0) & 0x6000_0020, 0x20);
        prop_assert_eq!(vmcs::read(guest::CR4) & vmcs::read(control::CR4_GUEST_HOST_MASK), 0x2040);
        prop_assert_eq!(vmcs::read(control::VMENTRY_CONTROLS) & !(1 << 9), haswell().words[4]);
    }

    /// Whatever the processor says, it is classified and reported.
    #[test]
    fn any_exit_is_reported(reason: u64, qualification: u64, vectoring: u64, event: u64, small: bool) {
        let mut fixture = fixture();
        fixture.state().store = [u64::MAX; 32];
        vmcs::write(ro::IDT_VECTORING_INFO, vectoring);
        vmcs::write(ro::VMEXIT_INTERRUPTION_INFO, event);
        let exit = again(&mut fixture, if small { reason & 0x3f } else { reason }, qualification);
        if let Exit::Monitor(reason) = exit {
            let page = fixture.page();
            fixture.vcpu.report(page, reason);
            prop_assert_eq!(fixture.state().reason, reason as u64);
            prop_assert!(fixture.state().instruction_length <= 15);
        }
    }
}
