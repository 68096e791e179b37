// SPDX-License-Identifier: MIT OR Apache-2.0
//! The state page of a VCPU, by copies.
//!
//! The kernel writes to the page during the hypercalls of the thread that runs the VCPU, and only then; so plain copies
//! in between see a stable page. No reference into it is ever made, so that none can live across a hypercall.

use core::fmt;
use core::ptr::NonNull;

use cloister_abi::arch::current::vcpu::{Event, Segment, VcpuState};

/// The page. It belongs to one VCPU; copies of this handle are the VCPU's own.
#[derive(Clone, Copy)]
pub struct StatePage(NonNull<VcpuState>);

// SAFETY: the page is mapped memory of the process, which any thread may use; one VCPU owns it (`new`).
unsafe impl Send for StatePage {}

impl fmt::Debug for StatePage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StatePage({:p})", self.0)
    }
}

/// Declares how fields are read and written, elements of arrays by index.
macro_rules! fields {
    ($($(#[$meta:meta])* $field:ident, $set:ident: $type:ty;)+) => {
        $(
            $(#[$meta])*
            #[inline]
            #[must_use]
            pub fn $field(self) -> $type {
                // SAFETY: a place inside of the page, which `new` vouches for.
                let place = unsafe { &raw const (*self.0.as_ptr()).$field };
                // SAFETY: as above; nobody writes to the page meanwhile.
                unsafe { place.read() }
            }

            $(#[$meta])*
            #[inline]
            pub fn $set(self, value: $type) {
                // SAFETY: a place inside of the page, which `new` vouches for.
                let place = unsafe { &raw mut (*self.0.as_ptr()).$field };
                // SAFETY: as above; nobody uses the page meanwhile.
                unsafe { place.write(value) }
            }
        )+
    };
}

impl StatePage {
    /// The page at this address.
    ///
    /// # Safety
    /// A state page must be mapped there, readable and writable, for as long as this handle or a copy of it is used, and
    /// all use must be that of one VCPU's owner.
    #[must_use]
    pub const unsafe fn new(page: NonNull<VcpuState>) -> Self {
        Self(page)
    }

    fields! {
        /// Groups to be taken by the next run.
        load, set_load: u64;
        /// When to leave the guest.
        deadline, set_deadline: u64;
        /// Details of the exit.
        qualification, set_qualification: [u64; 3];
        /// Number of exits so far, those that the kernel answered included.
        exits, set_exits: u64;
        /// Length of the exited instruction.
        instruction_length, set_instruction_length: u64;
        /// General-purpose registers.
        gpr, set_gpr: [u64; 16];
        /// Instruction pointer.
        rip, set_rip: u64;
        /// Flags.
        rflags, set_rflags: u64;
        /// Segment register.
        cs, set_cs: Segment;
        /// Segment register.
        ss, set_ss: Segment;
        /// Segment register.
        ds, set_ds: Segment;
        /// Segment register.
        es, set_es: Segment;
        /// Segment register.
        fs, set_fs: Segment;
        /// Segment register.
        gs, set_gs: Segment;
        /// Task register.
        tr, set_tr: Segment;
        /// Local descriptor table.
        ldtr, set_ldtr: Segment;
        /// Global descriptor table.
        gdtr, set_gdtr: Segment;
        /// Interrupt descriptor table.
        idtr, set_idtr: Segment;
        /// Control register.
        cr0, set_cr0: u64;
        /// Control register.
        cr2, set_cr2: u64;
        /// Control register.
        cr3, set_cr3: u64;
        /// Control register.
        cr4, set_cr4: u64;
        /// Control register.
        cr8, set_cr8: u64;
        /// Extended control register 0.
        xcr0, set_xcr0: u64;
        /// Extended features.
        efer, set_efer: u64;
        /// MSR.
        sysenter_cs, set_sysenter_cs: u64;
        /// MSR.
        sysenter_esp, set_sysenter_esp: u64;
        /// MSR.
        sysenter_eip, set_sysenter_eip: u64;
        /// MSR.
        star, set_star: u64;
        /// MSR.
        lstar, set_lstar: u64;
        /// MSR.
        cstar, set_cstar: u64;
        /// MSR.
        sfmask, set_sfmask: u64;
        /// MSR.
        kernel_gs_base, set_kernel_gs_base: u64;
        /// MSR.
        pat, set_pat: u64;
        /// Event to inject, or whose delivery was interrupted.
        event, set_event: Event;
        /// Interruptibility.
        shadow, set_shadow: u64;
        /// What makes the guest exit.
        controls, set_controls: u64;
        /// Difference of the guest's time-stamp counter.
        tsc_offset, set_tsc_offset: u64;
        /// Groups to write back, by reason.
        store, set_store: [u64; 32];
        /// What RDTSCP answers.
        tsc_aux, set_tsc_aux: u64;
    }

    /// RAX.
    #[inline]
    #[must_use]
    pub fn rax(self) -> u64 {
        self.register(0)
    }

    /// General-purpose register `index` (modulo 16).
    #[inline]
    #[must_use]
    pub fn register(self, index: usize) -> u64 {
        // SAFETY: a place inside of the page, which `new` vouches for.
        let first = unsafe { &raw const (*self.0.as_ptr()).gpr };
        // SAFETY: as above, and the index is below 16; nobody writes to the page meanwhile.
        unsafe { first.cast::<u64>().wrapping_add(index & 15).read() }
    }

    /// Sets general-purpose register `index` (modulo 16).
    #[inline]
    pub fn set_register(self, index: usize, value: u64) {
        // SAFETY: a place inside of the page, which `new` vouches for.
        let first = unsafe { &raw mut (*self.0.as_ptr()).gpr };
        // SAFETY: as above, and the index is below 16; nobody uses the page meanwhile.
        unsafe { first.cast::<u64>().wrapping_add(index & 15).write(value) }
    }
}
