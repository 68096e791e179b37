// SPDX-License-Identifier: MIT OR Apache-2.0
//! The virtual CPU as VMX has it: a VMCS, the registers that it does not hold, and the way in and out. Its registers as the
//! monitor sees them are in [`crate::state`].
//!
//! The order of the kernel's calls is that of the SVM crate, with [`Enter::activate`] before the first of them, and again
//! whenever another VCPU may have been active on the core since.
//!
//! CR0 and CR4 have bits that the host owns: those that VMX needs set (NE, VMXE), those that would reach beyond the guest
//! (CD, NW; MCE, without which an error of the hardware would shut the processor down), and those that no guest may have. The
//! guest reads them from the shadows. It writes the first kinds with one exit, at which the shadow takes the new value and the
//! instruction runs again ([`crate::exit`]), so that no transition of modes has to be emulated.

use crate::machine::Machine;
use crate::vmcs;
use crate::world::{self, Host, read_register};
use cloister_abi::arch::x86_64::vcpu::Event;
use cloister_vcpu::control::GUARD_EXCEPTIONS;
use cloister_vcpu::limits::CR4_MCE;
use cloister_vcpu::{Control, Enter, Field, Registers, debug, event};
use core::ptr::NonNull;
use core::sync::atomic::Ordering::Relaxed;
use x86::vmx::vmcs::{control, guest, host as host_fields};

/// A virtual CPU.
#[derive(Debug)]
pub struct Vcpu {
    pub(crate) registers: Registers,
    pub(crate) machine: &'static Machine,
    pub(crate) physical: u64,
    ept_pointer: u64,
    tag: u32,
    /// Primary controls.
    pub(crate) primary: u64,
    /// What the VMCS has of the host, as far as that changes.
    host_rsp: u64,
    host_cr3: u64,
    host_fs: u64,
    /// The VMCS has been filled.
    prepared: bool,
    /// The next entry resumes.
    pub(crate) launched: bool,
    pub(crate) flush: bool,
    /// The last entry was refused.
    pub(crate) failed: bool,
}

pub(crate) const CR0_NW: u64 = 1 << 29;
pub(crate) const CR0_CD: u64 = 1 << 30;
/// Interruptibility: blocking by STI.
pub(crate) const BLOCKED_STI: u64 = 1 << 0;
/// As above: by MOV SS.
pub(crate) const BLOCKED_SS: u64 = 1 << 1;
/// As above: by an NMI.
pub(crate) const BLOCKED_NMI: u64 = 1 << 3;
/// EPT pointer: write-back, four levels.
const EPT_ATTRIBUTES: u64 = 6 | 3 << 3;

/// Encodings of the controls, the guest's and the host's state begin here; in each of the four widths, whose fields are 0x2000 apart.
const AREAS: [vmcs::Code; 3] = [0, 0x800, 0xc00];
/// More fields than any of them has.
const FIELDS: vmcs::Code = 64;

impl Vcpu {
    /// A VCPU in the state after RESET, not active yet.
    ///
    /// # Safety
    /// `region` must point to a zeroed page at physical address `physical` that belongs to this VCPU alone until it was
    /// forgotten. `root` must be the physical address of an EPT, and `machine` have that of a map, that outlive it. `tag` (VPID) is not 0.
    #[must_use]
    pub unsafe fn new(region: NonNull<u32>, physical: u64, root: u64, tag: u32, machine: &'static Machine) -> Self {
        // SAFETY: the caller gives the page to this VCPU.
        unsafe { region.write(machine.revision) };
        Self {
            registers: Registers::new(machine.limits),
            machine,
            physical,
            ept_pointer: root | EPT_ATTRIBUTES,
            tag,
            primary: machine.words[1],
            host_rsp: 0,
            host_cr3: 0,
            host_fs: 0,
            prepared: false,
            launched: false,
            flush: false,
            failed: false,
        }
    }

    /// Fills the VMCS: controls, the host's state, the guest's after RESET.
    pub(crate) fn prepare(&mut self, host: &Host) {
        let machine = self.machine;
        // Zero is right for most; what the processor does not have fails without effect.
        for area in AREAS {
            for field in 0..FIELDS {
                (0..4).for_each(|width| vmcs::write(area | field << 1 | width << 13, 0));
            }
        }
        for (code, value) in [
            (control::PINBASED_EXEC_CONTROLS, machine.words[0]),
            (control::PRIMARY_PROCBASED_EXEC_CONTROLS, machine.words[1]),
            (control::SECONDARY_PROCBASED_EXEC_CONTROLS, machine.words[2]),
            (control::VMEXIT_CONTROLS, machine.words[3]),
            (control::VMENTRY_CONTROLS, machine.words[4]),
            (control::EXCEPTION_BITMAP, GUARD_EXCEPTIONS.into()),
            (control::VPID, if machine.is_tagged() { self.tag.into() } else { 0 }),
            (control::EPTP_FULL, self.ept_pointer),
            (control::MSR_BITMAPS_ADDR_FULL, machine.msr_map),
            // There is no such field where there are no enclaves.
            (control::ENCLS_EXITING_BITMAP_FULL, u64::MAX),
            (control::CR0_GUEST_HOST_MASK, self.cr0_mask()),
            (control::CR4_GUEST_HOST_MASK, self.cr4_mask()),
            (guest::LINK_PTR_FULL, u64::MAX),
        ] {
            vmcs::write(code, value);
        }
        for (code, value) in host.state {
            vmcs::write(code, value);
        }
        self.reset();
    }

    /// Bits of CR0 that the host owns.
    pub(crate) const fn cr0_mask(&self) -> u64 {
        self.machine.cr0_ones | CR0_CD | CR0_NW
    }

    /// Bits of CR4 that the host owns: all that no guest may have, and MCE.
    pub(crate) const fn cr4_mask(&self) -> u64 {
        !self.machine.limits.cr4 | CR4_MCE
    }

    /// What the next entry needs beside the VMCS.
    #[inline(always)]
    fn give(&mut self, host: &mut Host, [fs_base, kernel_gs_base]: [u64; 2], ticks: u64) {
        if self.machine.has_timer() {
            // One more than rounded down, so that it is never early.
            let count = (ticks >> self.machine.timer_shift).saturating_add(1);
            vmcs::write(guest::VMX_PREEMPTION_TIMER_VALUE, count.min(u64::from(u32::MAX)));
        }
        if self.event() & Event::VALID != 0 {
            self.inject();
        }
        if core::mem::take(&mut self.flush) {
            world::forget_translations(self.machine.flush, self.ept_pointer);
        }
        let root = read_register!("cr3");
        if self.host_cr3 != root {
            self.host_cr3 = root;
            vmcs::write(host_fields::CR3, root);
        }
        if self.host_fs != fs_base {
            self.host_fs = fs_base;
            vmcs::write(host_fields::FS_BASE, fs_base);
        }
        host.tpr.store(self.registers.words[Field::CR8.index()].to_le_bytes()[0] << 4, Relaxed);
        world::set_cr2(self.registers.words[Field::CR2.index()]);
        if self.registers.debug {
            debug::load(&self.registers.words[Field::BREAKPOINTS]);
            world::set_dr6(self.registers.words[Field::DR6.index()]);
        }
        host.give_msrs(kernel_gs_base, &self.registers.words[Field::SYSCALL]);
    }

    /// What the exit left beside the VMCS.
    #[inline(always)]
    fn take_back(&mut self, host: &mut Host, failed: bool) {
        host.repair();
        host.take_msrs(&mut self.registers.words[Field::SYSCALL]);
        self.failed = failed;
        *self.registers.place(Field::CR2) = read_register!("cr2");
        *self.registers.place(Field::CR8) = u64::from(host.tpr.load(Relaxed) >> 4);
        if self.registers.debug {
            *self.registers.place(Field::DR6) = read_register!("dr6");
            self.leave_debug();
        }
        self.registers.exits += 1;
    }

    /// Has the next entry deliver the event (SDM vol. 3C, 26.8.3, 27.2.1.3 and 27.3.1.5: what is refused there is made fit here,
    /// where SVM would take it).
    #[cold]
    pub(crate) fn inject(&mut self) {
        let event = self.event();
        let (vector, plain) = (event & 0xff, event & (Event::VALID | event::TYPE | 0xff));
        let has_code = matches!(vector, 8 | 10..=14 | 17) && vmcs::read(guest::CR0) & 1 != 0;
        match event & event::TYPE {
            Event::EXCEPTION if has_code => {
                vmcs::write(control::VMENTRY_EXCEPTION_ERR_CODE, event >> 32 & 0xffff);
                return vmcs::write(control::VMENTRY_INTERRUPTION_INFO_FIELD, plain | Event::ERROR_VALID);
            }
            Event::EXCEPTION => (),
            // Nothing may be in the way of these. The handler of an NMI begins to block others.
            Event::NMI => unblock(BLOCKED_STI | BLOCKED_SS | BLOCKED_NMI),
            Event::INTERRUPT => unblock(BLOCKED_STI | BLOCKED_SS),
            _ => {
                // The processor pushes the address after a software interrupt, of which it wants to know a length.
                self.set(Field::RIP, vmcs::read(guest::RIP).wrapping_sub(1));
                vmcs::write(control::VMENTRY_INSTRUCTION_LEN, 1);
            }
        }
        vmcs::write(control::VMENTRY_INTERRUPTION_INFO_FIELD, plain);
    }

    /// The event that the next entry delivers.
    #[inline(always)]
    pub(crate) const fn event(&self) -> u64 {
        self.registers.words[Field::EVENT.index()]
    }
}

impl Enter for Vcpu {
    type Host = Host;

    #[inline]
    unsafe fn activate(&mut self, host: &mut Host) {
        // SAFETY: the region is this VCPU's, and this core's by the caller's word.
        if unsafe { host.make_current(self.physical) } {
            self.launched = false;
            if !self.prepared {
                self.prepare(host);
                self.prepared = true;
            }
        }
    }

    #[inline]
    fn has_timer(&self) -> bool {
        self.machine.has_timer()
    }

    #[inline]
    unsafe fn enter(&mut self, host: &mut Host, thread: [u64; 2], ticks: u64) {
        self.give(host, thread, ticks);
        // SAFETY: the VMCS is complete and current; the caller vouches for the rest.
        let done = unsafe { world::enter(self.registers.words.as_mut_ptr(), self.launched, &mut self.host_rsp) };
        self.take_back(host, !done);
    }

    fn retire(&self, host: &mut Host) {
        host.forget(self.physical);
    }
}

/// Ends blocking of interrupts.
pub(crate) fn unblock(bits: u64) {
    vmcs::write(guest::INTERRUPTIBILITY_STATE, vmcs::read(guest::INTERRUPTIBILITY_STATE) & !bits);
}
