// SPDX-License-Identifier: MIT OR Apache-2.0
//! The virtual CPU as VMX has it: a VMCS, the registers that it does not hold, and the way in and out. Its registers as the
//! monitor sees them are in [`crate::state`].
//!
//! The order of the kernel's calls is that of the SVM crate, with [`Vcpu::make_current`] before the first of them, and again
//! whenever another VCPU may have been active on the core since.
//!
//! CR0 and CR4 have bits that the host owns: those that VMX needs set (NE, VMXE), those that would reach beyond the guest
//! (CD, NW; MCE, without which an error of the hardware would shut the processor down), and those that no guest may have. The
//! guest reads them from the shadows. It writes the first kinds with one exit, at which the shadow takes the new value and the
//! instruction runs again ([`crate::exit`]), so that no transition of modes has to be emulated.

use crate::machine::Machine;
use crate::vmcs;
use crate::world::{self, Host, MSRS, read_register};
use cloister_abi::arch::x86_64::vcpu::Event;
use cloister_vcpu::control::GUARD_EXCEPTIONS;
use cloister_vcpu::limits::CR4_MCE;
use cloister_vcpu::{Control, Field, Registers, debug, event};
use core::ptr::NonNull;
use x86::vmx::vmcs::{control, guest, host as host_fields};

/// A virtual CPU.
#[derive(Debug)]
pub struct Vcpu {
    pub(crate) registers: Registers,
    machine: &'static Machine,
    pub(crate) physical: u64,
    ept_pointer: u64,
    tag: u32,
    /// Primary controls.
    pub(crate) primary: u32,
    pub(crate) own: Own,
}

/// What no VMCS has, or what it has, to compare with.
#[derive(Debug, Default)]
pub(crate) struct Own {
    /// STAR, LSTAR, CSTAR, SFMASK, KERNEL_GS_BASE.
    pub(crate) msrs: [u64; MSRS],
    pub(crate) cr2: u64,
    pub(crate) cr8: u64,
    pub(crate) dr6: u64,
    pub(crate) event: u64,
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

/// Fields that are zero for ever, or at first.
const ZERO: [vmcs::Code; 22] = [
    control::PAGE_FAULT_ERR_CODE_MASK,
    control::PAGE_FAULT_ERR_CODE_MATCH,
    control::CR3_TARGET_COUNT,
    control::VMEXIT_MSR_STORE_COUNT,
    control::VMEXIT_MSR_LOAD_COUNT,
    control::VMENTRY_MSR_LOAD_COUNT,
    control::VMENTRY_INTERRUPTION_INFO_FIELD,
    control::VMENTRY_EXCEPTION_ERR_CODE,
    control::TPR_THRESHOLD,
    control::TSC_OFFSET_FULL,
    control::CR4_READ_SHADOW,
    guest::IA32_DEBUGCTL_FULL,
    guest::ACTIVITY_STATE,
    guest::PENDING_DBG_EXCEPTIONS,
    guest::INTERRUPTIBILITY_STATE,
    host_fields::ES_SELECTOR,
    host_fields::DS_SELECTOR,
    host_fields::FS_SELECTOR,
    host_fields::GS_SELECTOR,
    host_fields::IA32_SYSENTER_CS,
    host_fields::IA32_SYSENTER_ESP,
    host_fields::IA32_SYSENTER_EIP,
];

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
            primary: machine.primary,
            own: Own::default(),
        }
    }

    /// Makes this VCPU the one that the core works on.
    ///
    /// # Safety
    /// `host` is this core's, and no other core's since the VCPU was made.
    #[inline]
    pub unsafe fn make_current(&mut self, host: &mut Host) {
        // SAFETY: the region is this VCPU's, and this core's by the caller's word.
        if unsafe { host.make_current(self.physical) } {
            self.own.launched = false;
            if !self.own.prepared {
                self.prepare(host);
                self.own.prepared = true;
            }
        }
    }

    /// Fills the VMCS: controls, the host's state, the guest's after RESET. An exit goes to the world switch.
    pub(crate) fn prepare(&mut self, host: &Host) {
        let machine = self.machine;
        for code in ZERO {
            vmcs::write(code, 0);
        }
        for (code, value) in [
            (control::PINBASED_EXEC_CONTROLS, machine.pin.into()),
            (control::PRIMARY_PROCBASED_EXEC_CONTROLS, machine.primary.into()),
            (control::SECONDARY_PROCBASED_EXEC_CONTROLS, machine.secondary.into()),
            (control::VMEXIT_CONTROLS, machine.exit.into()),
            (control::VMENTRY_CONTROLS, machine.entry.into()),
            (control::EXCEPTION_BITMAP, GUARD_EXCEPTIONS.into()),
            (control::VPID, if machine.is_tagged() { self.tag.into() } else { 0 }),
            (control::EPTP_FULL, self.ept_pointer),
            (control::MSR_BITMAPS_ADDR_FULL, machine.msr_map),
            // Where there are no enclaves there is no such field, and the write fails without effect.
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

    /// What the machine can do.
    #[must_use]
    pub const fn machine(&self) -> &'static Machine {
        self.machine
    }

    /// Bits of CR0 that the host owns.
    pub(crate) const fn cr0_mask(&self) -> u64 {
        self.machine.cr0_ones | CR0_CD | CR0_NW
    }

    /// Bits of CR4 that the host owns: all that no guest may have, and MCE.
    pub(crate) const fn cr4_mask(&self) -> u64 {
        !self.machine.limits.cr4() | CR4_MCE
    }

    /// Runs the guest until something happens, or so many ticks of the time-stamp counter passed, where there is a timer.
    ///
    /// # Safety
    /// Interrupts must be off. FPU state and XCR0 must be the guest's. The VCPU must be active on this core, whose `host` is. The
    /// EPT must map nothing that the guest must not have.
    #[inline]
    pub unsafe fn enter(&mut self, host: &mut Host, ticks: u64) {
        self.give(host, ticks);
        // SAFETY: the VMCS is complete and current; the caller vouches for the rest.
        let failed = unsafe { world::enter(&mut self.registers.gpr, self.own.launched, &mut self.own.host_rsp) };
        self.take_back(host, failed != 0);
    }

    /// What the next entry needs beside the VMCS.
    #[inline(always)]
    fn give(&mut self, host: &Host, ticks: u64) {
        if self.machine.has_timer() {
            // One more than rounded down, so that it is never early.
            let count = (ticks >> self.machine.timer_shift).saturating_add(1);
            vmcs::write(guest::VMX_PREEMPTION_TIMER_VALUE, count.min(u64::from(u32::MAX)));
        }
        if self.own.event & Event::VALID != 0 {
            self.inject();
        }
        if core::mem::take(&mut self.own.flush) {
            world::forget_translations(self.machine.flush, self.ept_pointer);
        }
        let root = read_register!("cr3");
        if self.own.host_cr3 != root {
            self.own.host_cr3 = root;
            vmcs::write(host_fields::CR3, root);
        }
        if self.own.host_fs != host.fs_base {
            self.own.host_fs = host.fs_base;
            vmcs::write(host_fields::FS_BASE, host.fs_base);
        }
        host.set_tpr(self.own.cr8);
        world::set_cr2(self.own.cr2);
        if self.registers.debug {
            debug::load(&self.registers.dr);
            world::set_dr6(self.own.dr6);
        }
        host.give_msrs(&self.own.msrs);
    }

    /// What the exit left beside the VMCS.
    #[inline(always)]
    fn take_back(&mut self, host: &mut Host, failed: bool) {
        host.repair();
        host.take_msrs(&mut self.own.msrs);
        self.own.failed = failed;
        self.own.cr2 = read_register!("cr2");
        self.own.cr8 = host.tpr();
        if self.registers.debug {
            self.own.dr6 = read_register!("dr6");
            self.leave_debug();
        }
        self.registers.exits += 1;
    }

    /// Has the next entry deliver the event (SDM vol. 3C, 26.8.3, 27.2.1.3 and 27.3.1.5: what is refused there is made fit here,
    /// where SVM would take it).
    #[cold]
    pub(crate) fn inject(&mut self) {
        let vector = self.own.event & 0xff;
        let plain = self.own.event & (Event::VALID | event::TYPE | 0xff);
        let has_code = matches!(vector, 8 | 10..=14 | 17) && vmcs::read(guest::CR0) & 1 != 0;
        match self.own.event & event::TYPE {
            Event::EXCEPTION if has_code => {
                vmcs::write(control::VMENTRY_EXCEPTION_ERR_CODE, self.own.event >> 32 & 0xffff);
                return vmcs::write(control::VMENTRY_INTERRUPTION_INFO_FIELD, plain | Event::ERROR_VALID);
            }
            Event::EXCEPTION => (),
            // Nothing may be in the way of these. The handler of an NMI begins to block others.
            Event::NMI => unblock(BLOCKED_STI | BLOCKED_SS | BLOCKED_NMI),
            Event::INTERRUPT => unblock(BLOCKED_STI | BLOCKED_SS),
            _ => {
                // The processor pushes the address after a software interrupt, of which it wants to know a length.
                self.set(Field::Rip, vmcs::read(guest::RIP).wrapping_sub(1));
                vmcs::write(control::VMENTRY_INSTRUCTION_LEN, 1);
            }
        }
        vmcs::write(control::VMENTRY_INTERRUPTION_INFO_FIELD, plain);
    }

    /// Switches primary controls.
    pub(crate) fn set_primary(&mut self, bits: u32, on: bool) {
        self.primary = if on { self.primary | bits } else { self.primary & !bits };
        vmcs::write(control::PRIMARY_PROCBASED_EXEC_CONTROLS, u64::from(self.primary));
    }
}

/// Ends blocking of interrupts.
pub(crate) fn unblock(bits: u64) {
    vmcs::write(guest::INTERRUPTIBILITY_STATE, vmcs::read(guest::INTERRUPTIBILITY_STATE) & !bits);
}
