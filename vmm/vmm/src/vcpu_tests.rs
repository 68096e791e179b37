// SPDX-License-Identifier: MIT OR Apache-2.0
//! The loop with a VCPU that follows a script.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::{End, Runner};
use crate::board::{Board, Parts};
use crate::bus::VcpuBus;
use crate::clock::TscClock;
use crate::config::Profile;
use crate::console::Stream;
use crate::wake::{Bell, Bells};
use cloister_devices::irq::MsiSink;
use cloister_hypervisor::arch::Tsc;
use cloister_hypervisor::{Access, Bus, Error, Event, Exit, Kick, Vcpu};
use kvm_bindings::{kvm_cpuid_entry2, kvm_msr_entry, kvm_regs, kvm_sregs};
use vm_memory::{GuestAddress, GuestMemoryMmap};

/// What the VCPU does in one run: with the bus, and whether it can take interrupts from then on.
type Step = Box<dyn FnMut(&mut dyn FnMut(Do) -> u64) -> (Exit, bool) + Send>;

/// An access of a step.
enum Do {
    Msr(u32, u64),
    Out(u16, u32),
    In(u16),
}

#[derive(Clone, Debug, Default)]
struct NoKicker;

impl Kick for NoKicker {
    fn kick(&self) {}
}

#[derive(Debug, Default, PartialEq)]
struct Seen {
    injected: Vec<Event>,
    windows: Vec<bool>,
    deadlines: Vec<Option<Tsc>>,
}

struct Scripted {
    steps: VecDeque<Step>,
    open: bool,
    seen: Arc<Mutex<Seen>>,
}

impl Vcpu for Scripted {
    type Kicker = NoKicker;

    fn run<B: Bus>(&mut self, bus: &mut B, deadline: Option<Tsc>) -> Result<Exit, Error> {
        self.seen.lock().unwrap().deadlines.push(deadline);
        let mut step = self.steps.pop_front().expect("the script ends with a power-off");
        let mut act = |what| match what {
            Do::Msr(msr, value) => bus.wrmsr(msr, value).map_or(1, |()| 0),
            Do::Out(port, value) => {
                bus.io_out(port, 1, value);
                0
            }
            Do::In(port) => u64::from(bus.io_in(port, 1)),
        };
        let (exit, open) = step(&mut act);
        self.open = open;
        Ok(exit)
    }

    fn can_take_interrupt(&self) -> bool {
        self.open
    }

    fn inject(&mut self, event: Event) -> Result<(), Error> {
        self.open = false;
        self.seen.lock().unwrap().injected.push(event);
        Ok(())
    }

    fn request_interrupt_window(&mut self, wanted: bool) {
        self.seen.lock().unwrap().windows.push(wanted);
    }

    fn kicker(&self) -> NoKicker {
        NoKicker
    }

    fn set_cpuid(&mut self, _: &[kvm_cpuid_entry2]) -> Result<(), Error> {
        Ok(())
    }

    fn regs(&self) -> Result<kvm_regs, Error> {
        Ok(kvm_regs::default())
    }

    fn set_regs(&mut self, _: &kvm_regs) -> Result<(), Error> {
        Ok(())
    }

    fn sregs(&self) -> Result<kvm_sregs, Error> {
        Ok(kvm_sregs::default())
    }

    fn set_sregs(&mut self, _: &kvm_sregs) -> Result<(), Error> {
        Ok(())
    }

    fn msrs(&self, _: &mut [kvm_msr_entry]) -> Result<(), Error> {
        Ok(())
    }

    fn set_msrs(&mut self, _: &[kvm_msr_entry]) -> Result<(), Error> {
        Ok(())
    }
}

const KHZ: u32 = 1_000_000;
const X2APIC_SPURIOUS: u32 = 0x80f;
const X2APIC_TIMER: u32 = 0x832;
const X2APIC_EOI: u32 = 0x80b;
const TSC_DEADLINE: u32 = 0x6e0;

fn step(f: impl FnMut(&mut dyn FnMut(Do) -> u64) -> (Exit, bool) + Send + 'static) -> Step {
    Box::new(f)
}

/// Switches the local APIC on, in x2APIC mode.
fn apic_on() -> Step {
    step(|act| {
        assert_eq!(act(Do::Msr(0x1b, 0xfee0_0d00)), 0);
        assert_eq!(act(Do::Msr(X2APIC_SPURIOUS, 0x1ff)), 0);
        (Exit::Access(Access::MsrWrite(0)), true)
    })
}

fn power_off() -> Step {
    step(|act| {
        act(Do::Out(0x640, 0x34));
        (Exit::Access(Access::PortWrite(0x640)), true)
    })
}

fn run(steps: impl FnOnce(&Arc<Board>, &Bell) -> Vec<Step>) -> (End, Seen) {
    let bell = Bell::default();
    let parts = Parts {
        vcpus: vec![0],
        tsc_khz: KHZ,
        clock: TscClock::start(KHZ),
        memory: GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x10000)]).unwrap(),
        console: Arc::new(Mutex::new(Stream::new(Vec::new()))),
        profile: Profile::Reduced,
        config_pages: None,
    };
    let board = Board::new(parts, Box::new(Bells(vec![bell.clone()]))).unwrap();
    let seen = Arc::new(Mutex::new(Seen::default()));
    let steps = steps(&board, &bell).into();
    let vcpu = Scripted { steps, open: false, seen: seen.clone() };
    let end = {
        let mut runner = Runner::new(vcpu, VcpuBus::new(board, 0), bell, None);
        runner.run().unwrap()
    };
    (end, Arc::into_inner(seen).unwrap().into_inner().unwrap())
}

#[test]
fn power_off_and_reset_end_the_loop() {
    assert!(matches!(run(|_, _| vec![power_off()]).0, End::Off));
    let reset = step(|act| {
        act(Do::Out(0xcf9, 6));
        (Exit::Access(Access::PortWrite(0xcf9)), true)
    });
    assert!(matches!(run(|_, _| vec![reset]).0, End::Reset));
    assert!(matches!(run(|_, _| vec![step(|_| (Exit::Shutdown, false))]).0, End::Reset));
}

#[test]
fn an_interrupt_is_injected_at_once_or_through_a_window() {
    let script = |board: &Arc<Board>, _: &Bell| {
        let (now, later) = (board.clone(), board.clone());
        vec![
            apic_on(),
            step(move |_| {
                now.fabric.msi(0xfee0_0000, 0x41);
                (Exit::Again, true)
            }),
            step(|act| {
                assert_eq!(act(Do::Msr(X2APIC_EOI, 0)), 0);
                (Exit::Access(Access::MsrWrite(X2APIC_EOI)), false)
            }),
            step(move |_| {
                later.fabric.msi(0xfee0_0000, 0x42);
                (Exit::Again, false)
            }),
            step(|_| (Exit::InterruptWindow, true)),
            power_off(),
        ]
    };
    let (_, seen) = run(script);
    assert_eq!(seen.injected, [Event::Interrupt(0x41), Event::Interrupt(0x42)]);
    assert_eq!(seen.windows, [true, false]);
}

#[test]
fn a_second_interrupt_waits_for_the_end_of_the_first() {
    let script = |board: &Arc<Board>, _: &Bell| {
        let both = board.clone();
        vec![
            apic_on(),
            step(move |_| {
                both.fabric.msi(0xfee0_0000, 0x51);
                both.fabric.msi(0xfee0_0000, 0x31);
                (Exit::Again, true)
            }),
            step(|_| (Exit::Again, true)),
            step(|act| {
                act(Do::Msr(X2APIC_EOI, 0));
                (Exit::Access(Access::MsrWrite(X2APIC_EOI)), true)
            }),
            power_off(),
        ]
    };
    assert_eq!(run(script).1.injected, [Event::Interrupt(0x51), Event::Interrupt(0x31)]);
}

#[test]
fn the_timer_s_deadline_reaches_the_back_end_and_fires() {
    let script = |_: &Arc<Board>, _: &Bell| {
        vec![
            apic_on(),
            step(|act| {
                act(Do::Msr(X2APIC_TIMER, 0x4_00ec));
                act(Do::Msr(TSC_DEADLINE, 12_345));
                (Exit::Access(Access::MsrWrite(TSC_DEADLINE)), true)
            }),
            step(|_| (Exit::Deadline, true)),
            power_off(),
        ]
    };
    let (_, seen) = run(script);
    assert_eq!(seen.deadlines.get(2), Some(&Some(Tsc(12_345))));
    assert_eq!(seen.injected, [Event::Interrupt(0xec)]);
    assert_eq!(seen.deadlines.last(), Some(&None), "a deadline in the past fires once");
}

#[test]
fn a_halted_guest_is_woken_by_another_thread() {
    let script = |board: &Arc<Board>, _: &Bell| {
        let other = board.clone();
        let sleep = step(move |_| {
            let other = other.clone();
            std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(20));
                other.fabric.msi(0xfee0_0000, 0x61);
            });
            (Exit::Halt, true)
        });
        vec![apic_on(), sleep, power_off()]
    };
    assert_eq!(run(script).1.injected, [Event::Interrupt(0x61)]);
}

#[test]
fn a_halted_guest_is_woken_by_its_timer() {
    let script = |_: &Arc<Board>, _: &Bell| {
        let arm = step(|act| {
            act(Do::Msr(X2APIC_TIMER, 0x4_00ec));
            act(Do::Msr(TSC_DEADLINE, Tsc::now().0 + 2_000_000));
            (Exit::Halt, true)
        });
        vec![apic_on(), arm, power_off()]
    };
    assert_eq!(run(script).1.injected, [Event::Interrupt(0xec)]);
}

#[test]
fn ports_and_msrs_that_are_not_there() {
    let script = |_: &Arc<Board>, _: &Bell| {
        let probe = step(|act| {
            assert_eq!(act(Do::In(0x2fd)), 0xff);
            act(Do::Out(0xffff, 1));
            assert_eq!(act(Do::Msr(0x1234_5678, 1)), 1, "a general-protection exception");
            (Exit::Access(Access::PortRead(0x2fd)), true)
        });
        vec![probe, power_off()]
    };
    assert!(run(script).1.injected.is_empty());
}
