// SPDX-License-Identifier: MIT OR Apache-2.0
//! The virtual CPU as SVM has it: a control block, the registers that the block does not hold, and the way in and out.
//!
//! The kernel's `VcpuRun`, in this order:
//!
//! 1. [`Vcpu::take`]: what the monitor changed. If the answer says so, the kernel takes the FPU image ([`crate::fpu`]).
//!    A refused event is reported as `InvalidState` at once.
//! 2. Make FPU and XCR0 ([`Vcpu::xcr0`]) the guest's; tell [`crate::world::Host`] the thread's FS and GS base.
//! 3. [`Vcpu::enter`], with interrupts off.
//! 4. [`Vcpu::classify`]. After `Interrupt` and `Resume` the kernel lets interrupts in, looks at deadline and kick, and goes on with
//!    2, or reports `Deadline` or `Kicked`.
//! 5. [`Vcpu::report`] writes reason, details and the groups that the monitor asked for.
//!
//! An event whose delivery an exit interrupted stays queued and is delivered at the next entry by itself; a monitor that
//! loads [`Groups::EVENT`] replaces it.
//!
//! Each VCPU needs an ASID of its own among those of its core: the TLB tells guests, not page-table roots, apart.

use crate::exit::{self, Exit, GUARD_EXCEPTIONS};
use crate::limits::{EFER_SVME, Limits};
use crate::load::load;
use crate::page::StatePage;
use crate::state::{ALL_DR, DR7_ENABLES, Registers, read, write};
use crate::store::store;
use crate::vmcb::{Clean, Misc1, Misc2, Misc3, NESTED_PAGING, Segment, TLB_KEEP, V_INTR_MASKING, Vmcb};
use crate::world::{self, Host};
use cloister_abi::arch::x86_64::vcpu::{Controls, ExitReason, Groups, VcpuState};
use core::mem::offset_of;
use core::ptr::NonNull;

/// What a VCPU is made of.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// Physical address of the port map ([`crate::permission::fill_io_map`]).
    pub io_map: u64,
    /// Physical address of the MSR map ([`crate::permission::fill_msr_map`]).
    pub msr_map: u64,
    /// Physical address of the nested page table's root.
    pub nested_cr3: u64,
    /// Address-space tag, not 0.
    pub asid: u32,
    /// The machine's limits.
    pub limits: Limits,
}

/// What [`Vcpu::take`] leaves to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// The monitor gave a new FPU image.
    pub fpu: bool,
    /// The monitor gave an event that does not exist: report `InvalidState`, do not enter.
    pub refused: bool,
}

/// A virtual CPU.
#[derive(Debug)]
pub struct Vcpu {
    registers: Registers,
    vmcb: NonNull<Vmcb>,
    vmcb_physical: u64,
    exits: u64,
    limits: Limits,
}

// SAFETY: the block belongs to this value alone, and the value is moved or used under the kernel's rule for its owner.
unsafe impl Send for Vcpu {}

const MISC1: Misc1 = Misc1::INTR
    .union(Misc1::NMI)
    .union(Misc1::SMI)
    .union(Misc1::INIT)
    .union(Misc1::VINTR)
    .union(Misc1::CPUID)
    .union(Misc1::INVD)
    .union(Misc1::HLT)
    .union(Misc1::INVLPGA)
    .union(Misc1::IOIO)
    .union(Misc1::MSR)
    .union(Misc1::FERR_FREEZE)
    .union(Misc1::SHUTDOWN);
const MISC2: Misc2 = Misc2::all().difference(Misc2::RDTSCP);
const MISC3: Misc3 = Misc3::all();

impl Vcpu {
    /// A VCPU in the state after RESET (APM vol. 2, 14.1.3). Fills the block.
    ///
    /// # Safety
    /// `vmcb` must point to a page at physical address `vmcb_physical` that belongs to this VCPU alone until it is
    /// gone. The addresses in `setup` must be those of maps and of a page table that outlive it.
    #[must_use]
    pub unsafe fn new(vmcb: NonNull<Vmcb>, vmcb_physical: u64, setup: &Setup) -> Self {
        let registers = Registers {
            gpr: [0; 16],
            dr: [0; 4],
            xcr0: 1,
            controls: Controls::empty(),
            nmi_blocked: false,
            debug: false,
            refused: false,
        };
        // SAFETY: the caller gives the page to this VCPU.
        unsafe { vmcb.write(reset(setup)) };
        Self { registers, vmcb, vmcb_physical, exits: 0, limits: setup.limits }
    }

    fn parts(&mut self) -> (&mut Vmcb, &mut Registers, &Limits) {
        // SAFETY: the block is this VCPU's alone (`new`), and the processor uses it in `enter` only.
        (unsafe { self.vmcb.as_mut() }, &mut self.registers, &self.limits)
    }

    fn block(&self) -> &Vmcb {
        // SAFETY: as in `parts`.
        unsafe { self.vmcb.as_ref() }
    }

    /// Takes the groups that the page's `load` names, and clears it.
    #[inline]
    pub fn take(&mut self, page: StatePage) -> Taken {
        let groups = Groups::from_bits_truncate(read!(page, load));
        write!(page, load, 0);
        let (vmcb, registers, limits) = self.parts();
        load(groups, page, vmcb, registers, limits);
        Taken { fpu: groups.contains(Groups::FPU), refused: core::mem::take(&mut registers.refused) }
    }

    /// Writes groups to the page (`VcpuSync`). The FPU image is the kernel's to write.
    pub fn sync(&self, page: StatePage, groups: Groups) {
        store(groups, page, self.block(), &self.registers, || 0);
    }

    /// Runs the guest until something happens.
    ///
    /// # Safety
    /// Interrupts must be off. FPU state and XCR0 must be the guest's. `host` must be this core's, and its block as
    /// [`Host`] asks. The nested page table must map nothing that the guest must not have.
    #[inline]
    pub unsafe fn enter(&mut self, host: &Host) {
        if self.registers.debug {
            // SAFETY: the values are addresses of breakpoints that the host has switched off.
            unsafe { world::load_debug(&self.registers.dr) };
        }
        // SAFETY: the block and the registers are this VCPU's; the caller vouches for the host.
        unsafe { world::enter(&mut self.registers.gpr, self.vmcb_physical, host.physical()) };
        let (vmcb, registers, _) = self.parts();
        vmcb.control.clean = Clean::all().bits();
        vmcb.control.tlb = TLB_KEEP;
        if registers.debug {
            self.leave_debug();
        }
        self.exits += 1;
    }

    /// Saves the guest's debug registers. Those of a guest that has no breakpoint enabled need not go with the next switch.
    #[cold]
    fn leave_debug(&mut self) {
        // SAFETY: the host uses no debug registers.
        self.registers.dr = unsafe { world::save_debug() };
        let (vmcb, registers, _) = self.parts();
        if vmcb.save.dr7 & DR7_ENABLES == 0 {
            registers.debug = false;
            vmcb.control.intercept_dr = ALL_DR;
            vmcb.control.clean &= !Clean::INTERCEPTS.bits();
        }
    }

    /// Says what the last exit means.
    #[inline]
    pub fn classify(&mut self) -> Exit {
        let (vmcb, registers, _) = self.parts();
        exit::classify(vmcb, registers)
    }

    /// Tells the monitor why the guest exited. Answers whether it wants the FPU image, which is the kernel's to write.
    #[inline]
    pub fn report(&self, page: StatePage, reason: ExitReason) -> bool {
        let vmcb = self.block();
        let [first, second, third] = exit::qualification(vmcb, reason, &self.limits);
        let groups = page.read_element::<{ offset_of!(VcpuState, store) }, 32>(index(reason));
        let groups = Groups::from_bits_truncate(groups);
        write!(page, reason, reason as u64);
        page.write_element::<{ offset_of!(VcpuState, qualification) }, 3>(0, first);
        page.write_element::<{ offset_of!(VcpuState, qualification) }, 3>(1, second);
        page.write_element::<{ offset_of!(VcpuState, qualification) }, 3>(2, third);
        write!(page, exits, self.exits);
        store(groups, page, vmcb, &self.registers, || length(vmcb, reason, &self.limits));
        groups.contains(Groups::FPU)
    }

    /// XCR0 of the guest: to be loaded before [`Self::enter`].
    #[inline]
    #[must_use]
    pub const fn xcr0(&self) -> u64 {
        self.registers.xcr0
    }

    /// Makes the next entry forget all translations of this guest (after its nested page table lost or changed one).
    pub fn flush_tlb(&mut self) {
        let (vmcb, _, limits) = self.parts();
        vmcb.control.tlb = limits.flush();
    }

    /// Gives the guest another tag, whose stale translations the next entry forgets.
    pub fn set_asid(&mut self, asid: u32) {
        let (vmcb, _, limits) = self.parts();
        vmcb.control.asid = asid;
        vmcb.control.tlb = limits.flush();
        vmcb.control.clean &= !Clean::ASID.bits();
    }

    /// Makes the next entry read the whole block: nothing that the processor may have kept of it holds (after the VCPU moved to another core).
    pub fn forget(&mut self) {
        let (vmcb, _, _) = self.parts();
        vmcb.control.clean = 0;
    }
}

/// Length of the exited instruction; 0 for reasons that are the host's and have none.
#[inline]
fn length(vmcb: &Vmcb, reason: ExitReason, limits: &Limits) -> u64 {
    match reason {
        ExitReason::Deadline | ExitReason::Kicked => 0,
        _ => exit::length(vmcb, limits),
    }
}

#[inline]
const fn index(reason: ExitReason) -> usize {
    (reason as u64).to_le_bytes()[0] as usize
}

const fn segment(selector: u16, attributes: u16, base: u64) -> Segment {
    Segment { selector, attributes, limit: 0xffff, base }
}

/// A block with all intercepts and the state after RESET.
fn reset(setup: &Setup) -> Vmcb {
    let mut vmcb = Vmcb::zeroed();
    let control = &mut vmcb.control;
    control.intercept_dr = ALL_DR;
    control.intercept_exceptions = GUARD_EXCEPTIONS;
    control.intercept_misc1 = MISC1.bits();
    control.intercept_misc2 = MISC2.bits();
    control.intercept_misc3 = MISC3.bits();
    control.io_map = setup.io_map;
    control.msr_map = setup.msr_map;
    control.asid = setup.asid;
    control.tlb = setup.limits.flush();
    control.interrupt = V_INTR_MASKING;
    control.nested = NESTED_PAGING;
    control.nested_cr3 = setup.nested_cr3;
    let save = &mut vmcb.save;
    save.cs = segment(0xf000, 0x9b, 0xffff_0000);
    for register in [&mut save.ds, &mut save.es, &mut save.ss, &mut save.fs, &mut save.gs] {
        *register = segment(0, 0x93, 0);
    }
    save.ldtr = segment(0, 0x82, 0);
    save.tr = segment(0, 0x8b, 0);
    save.gdtr = segment(0, 0, 0);
    save.idtr = segment(0, 0, 0);
    save.efer = EFER_SVME;
    save.cr0 = 0x6000_0010;
    save.dr6 = setup.limits.dr6(0);
    save.dr7 = setup.limits.dr7(0);
    save.rflags = 2;
    save.rip = 0xfff0;
    save.pat = 0x0007_0406_0007_0406;
    vmcb
}
