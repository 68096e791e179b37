// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which MSRs KVM keeps for the guest: those that are processor state. All others come to the VMM's bus.
//!
//! x2APIC registers (0x800 to 0x8ff) can't be filtered; without an in-kernel local APIC KVM refuses them, and a refused
//! access comes to the bus as well.

use cloister_hypervisor::Error;
use kvm_ioctls::{MsrExitReason, MsrFilterDefaultAction, MsrFilterRange, MsrFilterRangeFlags, VmFd};

use crate::ioctl::refused;

/// First MSR and number of MSRs, in ranges that KVM keeps. At most 16 ranges.
const KEPT: [(u32, u32); 9] = [
    (0x10, 1),        // TSC
    (0x3b, 1),        // TSC_ADJUST
    (0x48, 2),        // SPEC_CTRL, PRED_CMD
    (0x174, 3),       // SYSENTER_CS, ESP, EIP
    (0x277, 1),       // PAT
    (0xda0, 1),       // XSS
    (0xc000_0080, 5), // EFER, STAR, LSTAR, CSTAR, SFMASK
    (0xc000_0100, 4), // FS_BASE, GS_BASE, KERNEL_GS_BASE, TSC_AUX
    (0xc001_011f, 1), // VIRT_SPEC_CTRL
];

/// Makes KVM keep the MSRs of [`KEPT`] and pass all else to user space.
pub(crate) fn install_filter(vm: &VmFd) -> Result<(), Error> {
    let reasons = MsrExitReason::Unknown | MsrExitReason::Inval | MsrExitReason::Filter;
    let cap = kvm_bindings::kvm_enable_cap {
        cap: kvm_bindings::KVM_CAP_X86_USER_SPACE_MSR,
        args: [u64::from(reasons.bits()), 0, 0, 0],
        ..Default::default()
    };
    vm.enable_cap(&cap).map_err(refused("KVM_ENABLE_CAP(X86_USER_SPACE_MSR)"))?;
    let all = [0xff_u8];
    let flags = MsrFilterRangeFlags::READ | MsrFilterRangeFlags::WRITE;
    let ranges = KEPT.map(|(base, msr_count)| MsrFilterRange { flags, base, msr_count, bitmap: &all });
    vm.set_msr_filter(MsrFilterDefaultAction::DENY, &ranges).map_err(refused("KVM_X86_SET_MSR_FILTER"))
}

#[cfg(test)]
mod tests {
    use super::KEPT;

    #[test]
    fn one_bitmap_byte_covers_each_range() {
        assert!(KEPT.iter().all(|&(_, n)| (1..=8).contains(&n)));
        assert!(KEPT.len() <= 16);
        assert!(KEPT.windows(2).all(|w| w[0].0 + w[0].1 <= w[1].0));
    }
}
