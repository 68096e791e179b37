// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which groups of state the kernel writes back at an exit, by reason.
//!
//! The commonest exits (ports, MSRs, CPUID) need the first four registers and the instruction pointer at most, for which
//! the kernel has a short path. Exits after which the VMM looks at interrupts bring what decides on them. Exits for device
//! memory bring what it takes to find, decode and execute an instruction in 64-bit mode.

use cloister_abi::arch::current::vcpu::{ExitReason, Groups};

/// What decides whether an interrupt can be injected.
pub const INTERRUPTIBILITY: Groups = Groups::RFLAGS.union(Groups::SHADOW).union(Groups::EVENT);
/// What an instruction on memory needs in 64-bit mode.
pub const INSTRUCTION: Groups = Groups::GPR
    .union(Groups::RIP)
    .union(Groups::RFLAGS)
    .union(Groups::CS_SS)
    .union(Groups::FS_GS)
    .union(Groups::CR)
    .union(Groups::EFER)
    .union(Groups::EVENT);
const SHORT: Groups = Groups::GPR_ACDB.union(Groups::RIP);

/// The groups that come with an exit for this reason.
#[must_use]
pub const fn of(reason: ExitReason) -> Groups {
    match reason {
        ExitReason::Deadline | ExitReason::Kicked => INTERRUPTIBILITY,
        // The address of the next instruction comes with the exit.
        ExitReason::Port => Groups::GPR_ACDB,
        ExitReason::Memory => INSTRUCTION,
        ExitReason::RdMsr
        | ExitReason::WrMsr
        | ExitReason::Cpuid
        | ExitReason::Xsetbv
        | ExitReason::Rdtsc
        | ExitReason::Rdpmc => SHORT,
        ExitReason::Hlt => Groups::RIP.union(INTERRUPTIBILITY),
        ExitReason::Hypercall => SHORT.union(Groups::GPR_BSD),
        ExitReason::Pause | ExitReason::CacheControl | ExitReason::Mwait => Groups::RIP,
        ExitReason::InterruptWindow
        | ExitReason::Shutdown
        | ExitReason::Exception
        | ExitReason::Dr
        | ExitReason::Virtualization
        | ExitReason::TaskSwitch
        | ExitReason::InvalidState
        | ExitReason::Other => Groups::empty(),
    }
}

#[cfg(test)]
mod tests {
    use super::{ExitReason, Groups, of};

    #[test]
    fn hot_exits_stay_on_the_kernels_short_path() {
        let short = Groups::GPR_ACDB | Groups::RIP;
        for reason in [ExitReason::Port, ExitReason::RdMsr, ExitReason::WrMsr, ExitReason::Cpuid] {
            assert!(short.contains(of(reason)), "{reason:?}");
        }
        assert!(of(ExitReason::InterruptWindow).is_empty());
    }

    #[test]
    fn what_skips_its_instruction_has_its_length() {
        for reason in [ExitReason::RdMsr, ExitReason::WrMsr, ExitReason::Cpuid, ExitReason::Hlt, ExitReason::Xsetbv] {
            assert!(of(reason).contains(Groups::RIP), "{reason:?}");
        }
    }
}
