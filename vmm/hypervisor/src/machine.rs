// SPDX-License-Identifier: MIT OR Apache-2.0
//! The traits: hypervisor, VM, VCPU, and the handle that kicks a VCPU.

use core::fmt::Debug;

use kvm_bindings::{kvm_cpuid_entry2, kvm_msr_entry, kvm_regs, kvm_sregs};

use crate::arch::Tsc;
use crate::{Bus, Error, Exit};

/// What a guest may do with a memory region. Reading is always allowed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Protection {
    /// The guest may write; a write to a region without this is a device-memory write on the bus.
    pub write: bool,
    /// The guest may execute.
    pub execute: bool,
}

impl Protection {
    /// Ordinary RAM.
    pub const RAM: Self = Self { write: true, execute: true };
    /// ROM that the guest may run.
    pub const ROM: Self = Self { write: false, execute: true };
}

/// A piece of host memory that appears in the guest.
#[derive(Clone, Copy, Debug)]
pub struct MemoryRegion {
    /// Guest-physical start, a multiple of 4 KiB (2 MiB for large mappings).
    pub guest: u64,
    /// Size in bytes, a multiple of 4 KiB.
    pub size: u64,
    /// The VMM's own address of the memory, aligned as `guest` is.
    pub host: u64,
    /// What the guest may do.
    pub protection: Protection,
}

/// Something to deliver to a VCPU at its next entry.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Event {
    /// An external interrupt of this vector. Only when [`Vcpu::can_take_interrupt`].
    Interrupt(u8),
    /// A non-maskable interrupt.
    Nmi,
    /// An exception.
    Exception {
        /// Vector, 0 to 31.
        vector: u8,
        /// The error code of those vectors that have one.
        error_code: Option<u32>,
    },
}

/// A way to run VMs.
pub trait Hypervisor {
    /// Its VMs.
    type Vm: Vm;

    /// Makes an empty VM.
    ///
    /// # Errors
    /// The host's refusal.
    fn create_vm(&self) -> Result<Self::Vm, Error>;

    /// The CPUID leaves that a guest can have at most; the VMM's policy takes away from them.
    ///
    /// # Errors
    /// The host's refusal.
    fn supported_cpuid(&self) -> Result<Vec<kvm_cpuid_entry2>, Error>;
}

/// One virtual machine. Guest memory is unmapped and VCPUs are gone when it is dropped.
pub trait Vm: Send + Sync {
    /// Its VCPUs.
    type Vcpu: Vcpu;

    /// Makes `region` appear in the guest.
    ///
    /// # Errors
    /// [`Error::Region`] when it is misaligned, wraps or overlaps; the host's refusal.
    ///
    /// # Safety
    /// The host memory must stay mapped, and must be used by the VMM through volatile accesses only, until it is
    /// unmapped or the VM is dropped: the guest writes to it at any time.
    unsafe fn map(&self, region: &MemoryRegion) -> Result<(), Error>;

    /// Takes away the region that was mapped at guest-physical `guest` with `size`.
    ///
    /// # Errors
    /// [`Error::Region`] when there is no such region; the host's refusal.
    fn unmap(&self, guest: u64, size: u64) -> Result<(), Error>;

    /// Makes VCPU number `id`, in the state after reset.
    ///
    /// # Errors
    /// The host's refusal.
    fn create_vcpu(&self, id: u32) -> Result<Self::Vcpu, Error>;

    /// Frequency of the time-stamp counter, host's and guest's, in kHz.
    ///
    /// # Errors
    /// The host does not know it.
    fn tsc_khz(&self) -> Result<u32, Error>;
}

/// Kicks a VCPU out of the guest, from any thread: its current or next [`Vcpu::run`] returns [`Exit::Kicked`].
pub trait Kick: Send + Sync + Debug {
    /// Kicks. Kicks before the next return count as one.
    fn kick(&self);
}

/// One virtual processor. It is run by the thread that made it or was given it.
pub trait Vcpu: Send {
    /// Its kick handle.
    type Kicker: Kick + Clone + 'static;

    /// Enters the guest until one exit, answers it by `bus`, and returns its reason. If the TSC passes `deadline`
    /// while the guest runs, the guest is left with [`Exit::Deadline`] (at once, if it has passed already).
    ///
    /// # Errors
    /// The host's refusal; what a guest does is never an error.
    fn run<B: Bus>(&mut self, bus: &mut B, deadline: Option<Tsc>) -> Result<Exit, Error>;

    /// Whether an external interrupt can be delivered at the next entry: IF is set, no interrupt shadow, nothing else
    /// is being delivered. Costs no exit and no call.
    fn can_take_interrupt(&self) -> bool;

    /// Delivers `event` at the next entry.
    ///
    /// # Errors
    /// The host's refusal.
    fn inject(&mut self, event: Event) -> Result<(), Error>;

    /// Asks for (or no longer for) [`Exit::InterruptWindow`] as soon as [`Vcpu::can_take_interrupt`].
    fn request_interrupt_window(&mut self, wanted: bool);

    /// The handle to kick this VCPU.
    fn kicker(&self) -> Self::Kicker;

    /// How often the guest was left so far, for whatever reason, those included that never reach the monitor. `None` if the
    /// host does not tell.
    fn exits(&self) -> Option<u64> {
        None
    }

    /// The CPUID leaves that the guest sees.
    ///
    /// # Errors
    /// The host's refusal.
    fn set_cpuid(&mut self, entries: &[kvm_cpuid_entry2]) -> Result<(), Error>;

    /// General-purpose registers.
    ///
    /// # Errors
    /// The host's refusal.
    fn regs(&self) -> Result<kvm_regs, Error>;

    /// Sets the general-purpose registers.
    ///
    /// # Errors
    /// The host's refusal.
    fn set_regs(&mut self, regs: &kvm_regs) -> Result<(), Error>;

    /// Segments, tables, control registers.
    ///
    /// # Errors
    /// The host's refusal.
    fn sregs(&self) -> Result<kvm_sregs, Error>;

    /// Sets segments, tables, control registers.
    ///
    /// # Errors
    /// The host's refusal.
    fn set_sregs(&mut self, sregs: &kvm_sregs) -> Result<(), Error>;

    /// Fills in the values of those MSRs that the back end (rather than the VMM's bus) keeps.
    ///
    /// # Errors
    /// [`Error::Unsupported`] when it does not keep one of them.
    fn msrs(&self, entries: &mut [kvm_msr_entry]) -> Result<(), Error>;

    /// Sets MSRs that the back end keeps.
    ///
    /// # Errors
    /// [`Error::Unsupported`] when it does not keep one of them.
    fn set_msrs(&mut self, entries: &[kvm_msr_entry]) -> Result<(), Error>;
}
