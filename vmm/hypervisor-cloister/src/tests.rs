// SPDX-License-Identifier: MIT OR Apache-2.0
//! A VCPU over a kernel that plays a script: what it is asked for, what it finds in the page.

use core::ptr::NonNull;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use cloister_abi::arch::current::vcpu::{
    Event as Pending, ExitReason, Groups, PortAccess, SHADOW_STI, Segment, VcpuState,
};
use cloister_abi::status::Status;
use cloister_hypervisor::arch::Tsc;
use cloister_hypervisor::{Access, Bus, Event, Exit, Fault, Kick, MemoryRegion, MsrResult, Protection, Vcpu};
use kvm_bindings::kvm_cpuid_entry2;

use crate::CloisterVcpu;
use crate::calls::Calls;
use crate::memory::Memory;
use crate::page::StatePage;

/// What an exit leaves in the page.
type Scene = Box<dyn Fn(StatePage) + Send>;

/// What the kernel was asked for.
#[derive(Default)]
struct Log {
    script: VecDeque<(ExitReason, Scene)>,
    /// Groups loaded at each run.
    loads: Vec<Groups>,
    syncs: Vec<Groups>,
}

struct Fake {
    page: StatePage,
    log: Arc<Mutex<Log>>,
}

impl core::fmt::Debug for Fake {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Fake")
    }
}

#[derive(Clone, Debug)]
struct NoKick;

impl Kick for NoKick {
    fn kick(&self) {}
}

impl Calls for Fake {
    type Kicker = NoKick;

    fn run(&mut self) -> Result<u64, Status> {
        let mut log = self.log.lock().unwrap();
        log.loads.push(Groups::from_bits(self.page.load()).unwrap());
        self.page.set_load(0);
        self.page.set_event(Pending::NONE);
        let (reason, scene) = log.script.pop_front().ok_or(Status::Aborted)?;
        scene(self.page);
        Ok(reason as u64)
    }

    fn sync(&self, groups: Groups) -> Result<(), Status> {
        self.log.lock().unwrap().syncs.push(groups);
        Ok(())
    }

    fn kicker(&self) -> NoKick {
        NoKick
    }
}

/// A VCPU, its page, and the kernel's log.
struct Bench {
    vcpu: CloisterVcpu<Fake>,
    page: StatePage,
    log: Arc<Mutex<Log>>,
    memory: Memory,
}

impl Bench {
    fn new() -> Self {
        // SAFETY: all zeros is a valid page.
        let state: Box<VcpuState> = Box::new(unsafe { core::mem::zeroed() });
        // SAFETY: the page is leaked, and this VCPU's alone.
        let page = unsafe { StatePage::new(NonNull::from(Box::leak(state))) };
        let log = Arc::new(Mutex::new(Log::default()));
        let memory = Memory::default();
        let vcpu = CloisterVcpu::new(Fake { page, log: log.clone() }, page, memory.clone(), None);
        Self { vcpu, page, log, memory }
    }

    fn next(&mut self, reason: ExitReason, scene: impl Fn(StatePage) + Send + 'static) {
        self.log.lock().unwrap().script.push_back((reason, Box::new(scene)));
    }

    fn run(&mut self, bus: &mut Devices) -> Exit {
        self.vcpu.run(bus, None).unwrap()
    }

    /// Groups loaded by one more run.
    fn loaded(&mut self) -> Groups {
        self.next(ExitReason::Kicked, |_| ());
        self.run(&mut Devices::default());
        *self.log.lock().unwrap().loads.last().unwrap()
    }

    fn syncs(&self) -> Vec<Groups> {
        self.log.lock().unwrap().syncs.clone()
    }

    /// A page of guest memory at guest-physical 0x1000 with this content.
    fn ram(&self, content: &[u8]) -> *mut u8 {
        let layout = std::alloc::Layout::from_size_align(4096, 4096).unwrap();
        // SAFETY: the layout has a size.
        let at = unsafe { std::alloc::alloc_zeroed(layout) };
        for (index, byte) in content.iter().enumerate() {
            // SAFETY: within the page just made.
            unsafe { at.wrapping_add(index).write(*byte) };
        }
        let host = at.expose_provenance() as u64;
        let region = MemoryRegion { guest: 0x1000, size: 4096, host, protection: Protection::RAM };
        // SAFETY: the page is never freed, and used through volatile accesses from here on.
        unsafe { self.memory.add(region) }.unwrap();
        at
    }
}

/// Devices that answer with a pattern, and remember.
#[derive(Default)]
struct Devices {
    ports: Vec<(u16, u8, Option<u32>)>,
    msrs: Vec<(u32, Option<u64>)>,
    memory: Vec<(u64, Option<Vec<u8>>)>,
}

impl Bus for Devices {
    fn io_in(&mut self, port: u16, size: u8) -> u32 {
        self.ports.push((port, size, None));
        0x8877_6655
    }

    fn io_out(&mut self, port: u16, size: u8, value: u32) {
        self.ports.push((port, size, Some(value)));
    }

    fn mmio_read(&mut self, address: u64, data: &mut [u8]) {
        self.memory.push((address, None));
        data.fill(0x5a);
    }

    fn mmio_write(&mut self, address: u64, data: &[u8]) {
        self.memory.push((address, Some(data.to_vec())));
    }

    fn rdmsr(&mut self, msr: u32) -> MsrResult<u64> {
        self.msrs.push((msr, None));
        if msr == 0x666 { Err(Fault) } else { Ok(0x1111_2222_3333_4444) }
    }

    fn wrmsr(&mut self, msr: u32, value: u64) -> MsrResult<()> {
        self.msrs.push((msr, Some(value)));
        if msr == 0x666 { Err(Fault) } else { Ok(()) }
    }
}

fn port(page: StatePage, access: PortAccess, next: u64) {
    page.set_qualification([access.0, next, 0]);
}

#[test]
fn a_port_read_moves_two_groups_and_fetches_none() {
    for (size, rax) in [(1, 0xffff_ffff_ffff_ff55), (2, 0xffff_ffff_ffff_6655), (4, 0x8877_6655)] {
        let mut bench = Bench::new();
        bench.next(ExitReason::Port, move |page| {
            page.set_register(0, u64::MAX);
            port(page, PortAccess::new(0x3fd, PortAccess::IN, size, 8, 0), 0x1002);
        });
        let mut bus = Devices::default();
        assert!(matches!(bench.run(&mut bus), Exit::Access(Access::PortRead(0x3fd))));
        assert_eq!((bench.page.rax(), bench.page.rip()), (rax, 0x1002));
        assert_eq!(bus.ports, [(0x3fd, u8::try_from(size).unwrap(), None)]);
        assert_eq!(bench.loaded(), Groups::RIP | Groups::GPR_ACDB);
        assert!(bench.syncs().is_empty());
    }
}

#[test]
fn a_port_write_gives_only_its_bytes_and_moves_only_rip() {
    let mut bench = Bench::new();
    bench.next(ExitReason::Port, |page| {
        page.set_register(0, 0x1234_5678_9abc_def0);
        port(page, PortAccess::new(0x80, 0, 2, 8, 0), 7);
    });
    let mut bus = Devices::default();
    bench.run(&mut bus);
    assert_eq!(bus.ports, [(0x80, 2, Some(0xdef0))]);
    assert_eq!(bench.loaded(), Groups::RIP);
}

#[test]
fn a_refused_msr_is_a_general_protection_fault_at_the_instruction() {
    let mut bench = Bench::new();
    bench.next(ExitReason::WrMsr, |page| {
        page.set_register(1, 0x666);
        page.set_rip(0x100);
        page.set_instruction_length(2);
    });
    bench.run(&mut Devices::default());
    assert_eq!(bench.page.event(), Pending::exception(13, Some(0)));
    assert_eq!(bench.page.rip(), 0x100);
    assert!(!bench.vcpu.can_take_interrupt());
    assert_eq!(bench.loaded(), Groups::EVENT);
}

#[test]
fn msr_values_are_put_together_and_taken_apart() {
    let mut bench = Bench::new();
    bench.next(ExitReason::WrMsr, |page| {
        page.set_gpr([0xffff_ffff_0000_0007, 0x80b, 0xffff_ffff_0000_0009, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        page.set_instruction_length(2);
    });
    bench.next(ExitReason::RdMsr, |page| {
        page.set_register(1, 0x802);
        page.set_instruction_length(2);
    });
    let mut bus = Devices::default();
    bench.run(&mut bus);
    assert_eq!(bus.msrs, [(0x80b, Some(0x9_0000_0007))]);
    bench.run(&mut bus);
    assert_eq!((bench.page.rax(), bench.page.register(2)), (0x3333_4444, 0x1111_2222));
    assert!(bench.syncs().is_empty());
}

#[test]
fn efer_is_the_back_ends_own() {
    let mut bench = Bench::new();
    bench.next(ExitReason::WrMsr, |page| {
        page.set_gpr([0xd01, 0xc000_0080, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        page.set_efer(0x500);
        page.set_cr0(1 << 31);
    });
    let mut bus = Devices::default();
    bench.run(&mut bus);
    assert!(bus.msrs.is_empty());
    assert_eq!(bench.page.efer(), 0xd01);
    assert_eq!(bench.syncs(), [Groups::EFER | Groups::CR]);
    assert_eq!(bench.loaded(), Groups::EFER | Groups::RIP);
}

#[test]
fn tsc_aux_goes_to_the_page_where_the_guest_has_rdtscp() {
    let mut bench = Bench::new();
    let write = |low: u64, high: u64| {
        move |page: StatePage| {
            page.set_gpr([low, 0xc000_0103, high, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
            page.set_instruction_length(2);
        }
    };
    let mut bus = Devices::default();
    bench.next(ExitReason::WrMsr, write(7, 0));
    bench.run(&mut bus);
    assert_eq!(bench.page.event(), Pending::exception(13, Some(0)), "nobody told it of RDTSCP");
    bench.page.set_event(Pending::NONE);
    let rdtscp = kvm_cpuid_entry2 { function: 0x8000_0001, edx: 1 << 27, ..Default::default() };
    bench.vcpu.set_cpuid(&[rdtscp]).unwrap();
    bench.next(ExitReason::WrMsr, write(0x8000_0007, 0));
    bench.run(&mut bus);
    assert_eq!((bench.page.tsc_aux(), bench.page.event()), (0x8000_0007, Pending::NONE));
    bench.next(ExitReason::RdMsr, write(1, 1));
    bench.run(&mut bus);
    assert_eq!((bench.page.rax(), bench.page.register(2)), (0x8000_0007, 0));
    bench.next(ExitReason::WrMsr, write(9, 1));
    bench.run(&mut bus);
    assert_eq!(bench.page.event(), Pending::exception(13, Some(0)), "the upper half is reserved");
    assert_eq!(bench.page.tsc_aux(), 0x8000_0007);
    assert!(bus.msrs.is_empty() && bench.syncs().is_empty());
}

#[test]
fn cpuid_mirrors_state_only_where_it_must() {
    let mut bench = Bench::new();
    let leaf = |function, ecx| kvm_cpuid_entry2 { function, ecx, ..Default::default() };
    bench.vcpu.set_cpuid(&[leaf(1, 0), leaf(2, 77)]).unwrap();
    for (leaf, ecx, syncs) in [(2, 77, 0), (1, 1 << 27, 1)] {
        bench.next(ExitReason::Cpuid, move |page| {
            page.set_register(0, leaf);
            page.set_cr4(1 << 18);
            page.set_instruction_length(2);
        });
        bench.run(&mut Devices::default());
        assert_eq!(bench.page.register(1), ecx);
        assert_eq!(bench.syncs().len(), syncs);
    }
}

#[test]
fn halt_ends_the_shadow_of_sti() {
    let mut bench = Bench::new();
    bench.next(ExitReason::Hlt, |page| {
        page.set_rip(0x10);
        page.set_instruction_length(1);
        page.set_rflags(0x202);
        page.set_shadow(SHADOW_STI);
    });
    assert!(matches!(bench.run(&mut Devices::default()), Exit::Halt));
    assert!(bench.vcpu.can_take_interrupt());
    assert_eq!(bench.page.rip(), 0x11);
    bench.vcpu.inject(Event::Interrupt(0x40)).unwrap();
    assert!(!bench.vcpu.can_take_interrupt());
    assert_eq!(bench.page.event(), Pending::interrupt(0x40));
    assert_eq!(bench.loaded(), Groups::RIP | Groups::SHADOW | Groups::EVENT);
    assert!(bench.syncs().is_empty());
}

#[test]
fn an_interrupted_delivery_keeps_interrupts_away_and_nmis_waiting() {
    let mut bench = Bench::new();
    let busy = |page: StatePage| {
        page.set_rflags(0x202);
        page.set_shadow(0);
        page.set_event(Pending::interrupt(0x30));
    };
    bench.next(ExitReason::Kicked, busy);
    bench.run(&mut Devices::default());
    assert!(!bench.vcpu.can_take_interrupt());
    bench.vcpu.inject(Event::Nmi).unwrap();
    bench.next(ExitReason::Kicked, |page| page.set_event(Pending::NONE));
    bench.run(&mut Devices::default());
    assert!(!bench.log.lock().unwrap().loads[1].contains(Groups::EVENT), "the queued interrupt was replaced");
    assert!(bench.loaded().contains(Groups::EVENT), "the NMI was lost");
}

#[test]
fn the_window_is_asked_for_once_and_answers_by_itself() {
    let mut bench = Bench::new();
    bench.vcpu.request_interrupt_window(true);
    bench.vcpu.request_interrupt_window(true);
    assert_eq!(bench.loaded(), Groups::CONTROL);
    bench.next(ExitReason::InterruptWindow, |_| ());
    assert!(matches!(bench.run(&mut Devices::default()), Exit::InterruptWindow));
    assert!(bench.vcpu.can_take_interrupt());
    assert!(bench.syncs().is_empty());
    assert_eq!(bench.loaded(), Groups::empty());
}

#[test]
fn a_deadline_is_handed_on() {
    let mut bench = Bench::new();
    bench.next(ExitReason::Deadline, |_| ());
    let exit = bench.vcpu.run(&mut Devices::default(), Some(Tsc(99))).unwrap();
    assert!(matches!(exit, Exit::Deadline));
    assert_eq!(bench.page.deadline(), 99);
    bench.loaded();
    assert_eq!(bench.page.deadline(), 0);
}

/// Real mode: no translation, segments with bases.
fn real_mode(page: StatePage) {
    let flat = Segment { limit: 0xffff, access: 0x93, ..Segment::default() };
    page.set_cs(Segment { access: 0x9b, ..flat });
    for set in [StatePage::set_ss, StatePage::set_ds, StatePage::set_es, StatePage::set_fs, StatePage::set_gs] {
        set(page, flat);
    }
    page.set_cr0(0x10);
    page.set_rflags(2);
}

#[test]
fn string_output_reads_guest_memory_by_its_segment() {
    let mut bench = Bench::new();
    // fs rep outsb, then data.
    bench.ram(&[0x64, 0xf3, 0x6e, 0, b'a', b'b', b'c']);
    bench.next(ExitReason::Port, |page| {
        real_mode(page);
        page.set_fs(Segment { base: 0x1000, limit: 0xffff, access: 0x93, ..Segment::default() });
        page.set_rip(0x1000);
        page.set_gpr([0, 3, 0x3f8, 0, 0, 0, 0xaaaa_0004, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        let flags = PortAccess::STRING | PortAccess::REP;
        port(page, PortAccess::new(0x3f8, flags, 1, 2, 3), 0x1003);
    });
    let mut bus = Devices::default();
    bench.run(&mut bus);
    let written: Vec<_> = bus.ports.iter().filter_map(|(_, _, value)| *value).collect();
    assert_eq!(written, [u32::from(b'a'), u32::from(b'b'), u32::from(b'c')]);
    assert_eq!((bench.page.register(6), bench.page.register(1)), (0xaaaa_0007, 0));
    assert_eq!(bench.page.rip(), 0x1003);
}

#[test]
fn string_input_goes_backwards_into_guest_memory() {
    let mut bench = Bench::new();
    let at = bench.ram(&[0x6d]);
    bench.next(ExitReason::Port, |page| {
        real_mode(page);
        page.set_rflags(0x402);
        page.set_rip(0x1000);
        page.set_register(7, 0x1100);
        port(page, PortAccess::new(0x1f0, PortAccess::STRING | PortAccess::IN, 2, 2, 0), 0x1001);
    });
    bench.run(&mut Devices::default());
    // SAFETY: within the page of `ram`, and aligned.
    let word = unsafe { at.wrapping_add(0x100).cast::<u32>().read() };
    assert_eq!(word, 0x6655);
    assert_eq!((bench.page.register(7), bench.page.rip()), (0x10fe, 0x1001));
}

#[test]
fn a_long_repetition_stops_on_its_way() {
    let mut bench = Bench::new();
    bench.ram(&[0xf3, 0x6e]);
    bench.next(ExitReason::Port, |page| {
        real_mode(page);
        page.set_rip(0x1000);
        page.set_register(1, 0xffff);
        port(page, PortAccess::new(0x3f8, PortAccess::STRING | PortAccess::REP, 1, 2, 3), 0x1002);
    });
    let mut bus = Devices::default();
    bench.run(&mut bus);
    assert_eq!(bus.ports.len(), 1024);
    assert_eq!((bench.page.register(1), bench.page.rip()), (0xffff - 1024, 0x1000));
}

#[test]
fn device_memory_is_read_by_the_instruction() {
    let mut bench = Bench::new();
    // mov eax, [0x8000] in 16-bit code: 66 a1 00 80
    bench.ram(&[0x66, 0xa1, 0x00, 0x80]);
    bench.next(ExitReason::Memory, |page| {
        real_mode(page);
        page.set_rip(0x1000);
        page.set_register(0, u64::MAX);
        page.set_qualification([4, 0x8000, 0]);
    });
    let mut bus = Devices::default();
    assert!(matches!(bench.run(&mut bus), Exit::Access(Access::MmioRead(0x8000))));
    assert_eq!(bus.memory, [(0x8000, None)]);
    assert_eq!((bench.page.rax(), bench.page.rip()), (0x5a5a_5a5a, 0x1004));
    assert_eq!(bench.loaded(), Groups::RIP | Groups::GPR_ACDB);
}

#[test]
fn what_cannot_be_executed_is_reported_with_registers() {
    let mut bench = Bench::new();
    bench.ram(&[0x0f, 0x0b]);
    bench.next(ExitReason::Memory, |page| {
        real_mode(page);
        page.set_rip(0x1000);
        page.set_qualification([4, 0x8000, 0]);
    });
    let Exit::Unhandled(state) = bench.run(&mut Devices::default()) else { panic!("handled") };
    assert!(state.reason.contains("0x8000"), "{state}");
    assert_eq!(state.regs.rip, 0x1000);
}

#[test]
fn registers_survive_both_ways() {
    let mut bench = Bench::new();
    let regs = kvm_bindings::kvm_regs { rax: 1, rsp: 2, r15: 3, rip: 4, rflags: 2, ..Default::default() };
    bench.vcpu.set_regs(&regs).unwrap();
    assert_eq!(bench.vcpu.regs().unwrap(), regs);
    let mut sregs = bench.vcpu.sregs().unwrap();
    sregs.cr3 = 0x5000;
    sregs.gdt.limit = 31;
    bench.vcpu.set_sregs(&sregs).unwrap();
    assert_eq!(bench.vcpu.sregs().unwrap(), sregs);
    assert!(bench.loaded().contains(Groups::CR | Groups::TABLES | Groups::GPR | Groups::RIP));
}
