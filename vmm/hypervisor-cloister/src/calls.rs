// SPDX-License-Identifier: MIT OR Apache-2.0
//! The three hypercalls of a VCPU, and a handle to kick it.
//!
//! [`Calls`] is the seam at which tests put a kernel of their own.

use core::fmt::Debug;
use std::sync::Arc;

use cloister_abi::arch::current::vcpu::Groups;
use cloister_abi::cap::Selector;
use cloister_abi::hypercall::{VcpuKick, VcpuRun, VcpuSync};
use cloister_abi::status::Status;
use cloister_base::selectors;
use cloister_hypervisor::Kick;

/// What a VCPU asks of the kernel.
pub trait Calls: Send + Debug {
    /// The handle by which others kick the VCPU.
    type Kicker: Kick + Clone + 'static;

    /// Runs the guest until it exits. Answers the number of the reason.
    ///
    /// # Errors
    /// The kernel's refusal.
    fn run(&mut self) -> Result<u64, Status>;

    /// Brings groups of the state page up to date.
    ///
    /// # Errors
    /// The kernel's refusal.
    fn sync(&self, groups: Groups) -> Result<(), Status>;

    /// A handle to kick the VCPU.
    fn kicker(&self) -> Self::Kicker;
}

/// The capability of a VCPU. It is dropped with the last handle.
#[derive(Debug)]
struct Capability(Selector);

impl Drop for Capability {
    fn drop(&mut self) {
        selectors::drop_capability(self.0);
    }
}

/// The hypercalls of one VCPU.
#[derive(Debug)]
pub struct Hypercalls(Arc<Capability>);

impl Hypercalls {
    /// Those of the VCPU whose capability is at `vcpu`, which is dropped with the last handle.
    #[must_use]
    pub fn new(vcpu: Selector) -> Self {
        Self(Arc::new(Capability(vcpu)))
    }
}

impl Calls for Hypercalls {
    type Kicker = Kicker;

    #[inline]
    fn run(&mut self) -> Result<u64, Status> {
        // SAFETY: the guest runs in its own memory; of this program only the state page changes, which nobody refers to.
        unsafe { cloister_stubs::invoke(&VcpuRun { vcpu: self.0.0 }) }.map(|(reason, _)| reason)
    }

    fn sync(&self, groups: Groups) -> Result<(), Status> {
        // SAFETY: of this program only the state page changes, which nobody refers to.
        unsafe { cloister_stubs::invoke(&VcpuSync { vcpu: self.0.0, groups: groups.bits() }) }.map(|_| ())
    }

    fn kicker(&self) -> Kicker {
        Kicker(Arc::clone(&self.0))
    }
}

/// Kicks a VCPU of the microhypervisor out of the guest.
#[derive(Clone, Debug)]
pub struct Kicker(Arc<Capability>);

impl Kick for Kicker {
    fn kick(&self) {
        // A VCPU that is gone needs no kick.
        // SAFETY: makes a run of the VCPU return; nothing else happens.
        let _ = unsafe { cloister_stubs::invoke(&VcpuKick { vcpu: self.0.0 }) };
    }
}
