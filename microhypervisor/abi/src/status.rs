// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a hypercall may answer. One status per guard; `docs/spec/hypercalls.md` says which call gives which, and why.

numbered! {
    /// Outcome of a hypercall, returned in the first result register.
    pub enum Status: u64 {
        /// The call did what it says.
        Success = 0,
        /// The deadline passed, or the call would have had to wait and was told not to.
        Timeout = 1,
        /// The wait or the call was ended from outside: the partner or the object was destroyed meanwhile.
        Aborted = 2,
        /// There is no hypercall of that number (and no foreign entry is registered).
        BadHypercall = 3,
        /// The selector names nothing, an object of another kind, a destroyed one, or the permission is missing.
        BadCapability = 4,
        /// An argument is out of range, misaligned or wraps; nothing was changed.
        BadParameter = 5,
        /// The feature does not exist on this machine.
        BadFeature = 6,
        /// The object lives on another core and this call cannot cross.
        BadCore = 7,
        /// The device or interrupt does not exist or belongs to somebody else.
        BadDevice = 8,
        /// The kernel-memory budget of the protection domain that pays is used up.
        OutOfBudget = 9,
        /// The kernel's own pool is used up although the budget would have allowed it.
        OutOfMemory = 10,
        /// The receiver's budget does not allow to take the message's capabilities.
        PeerOutOfBudget = 11,
        /// The object is in use in a way that forbids the call (a VCPU that runs, a range that is mapped already).
        Busy = 12,
        /// The work was done in part and has to be called again with the same arguments (a preemption point).
        Again = 13,
    }
}

/// By its name, by which the reference has it.
impl core::fmt::Display for Status {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{self:?}")
    }
}
