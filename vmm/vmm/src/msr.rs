// SPDX-License-Identifier: MIT OR Apache-2.0
//! MSRs that are neither processor state (the back end keeps those) nor a device: identification and chicken bits that
//! operating systems look at. An MSR that is not listed does not exist: its access is a general-protection exception, as
//! on hardware, and the guest's probing functions expect that.
//!
//! Sources: AMD64 APM volume 2, appendix A; AMD family 17h PPR; Intel SDM volume 4.

/// Microcode revision: none.
const UCODE_REVISION: u32 = 0x8b;
/// SMI count.
const SMI_COUNT: u32 = 0x34;
/// Feature control: locked, nothing enabled.
const FEATURE_CONTROL: u32 = 0x3a;
const FEATURE_CONTROL_LOCKED: u64 = 1;
/// Intel's miscellaneous enables: fast strings; branch trace and precise sampling unavailable.
const MISC_ENABLE: u32 = 0x1a0;
const MISC_ENABLE_VALUE: u64 = 1 | 1 << 11 | 1 << 12;
/// AMD: system configuration.
const SYSCFG: u32 = 0xc001_0010;
/// AMD: hardware configuration; the counter runs at its own frequency in all P-states.
const HWCR: u32 = 0xc001_0015;
const HWCR_TSC_FREQ_SEL: u64 = 1 << 24;
/// AMD: north bridge configuration.
const NB_CFG: u32 = 0xc001_001f;
/// AMD: interrupt pending message.
const INT_PENDING: u32 = 0xc001_0055;
/// AMD: P-state limit, control, status.
const P_STATES: core::ops::RangeInclusive<u32> = 0xc001_0061..=0xc001_0063;
/// AMD: SVM is switched off and locked.
const VM_CR: u32 = 0xc001_0114;
const VM_CR_LOCK_SVMDIS: u64 = 1 << 3 | 1 << 4;
/// AMD: load-store, instruction cache, data cache, bus unit, decode configuration.
const CONFIGURATION: core::ops::RangeInclusive<u32> = 0xc001_1020..=0xc001_102a;
/// AMD: decode configuration; LFENCE is serializing.
const DE_CFG: u32 = 0xc001_1029;
const DE_CFG_LFENCE: u64 = 1 << 1;

/// The value of `msr`, if there is such an MSR.
pub(crate) fn read(msr: u32) -> Option<u64> {
    match msr {
        UCODE_REVISION | SMI_COUNT | SYSCFG | NB_CFG | INT_PENDING => Some(0),
        FEATURE_CONTROL => Some(FEATURE_CONTROL_LOCKED),
        MISC_ENABLE => Some(MISC_ENABLE_VALUE),
        HWCR => Some(HWCR_TSC_FREQ_SEL),
        VM_CR => Some(VM_CR_LOCK_SVMDIS),
        DE_CFG => Some(DE_CFG_LFENCE),
        _ if P_STATES.contains(&msr) || CONFIGURATION.contains(&msr) => Some(0),
        _ => None,
    }
}

/// Takes a write, which changes nothing. False if there is no such MSR, or the value is not one that it takes.
pub(crate) fn write(msr: u32, _value: u64) -> bool {
    match msr {
        UCODE_REVISION | MISC_ENABLE | HWCR | NB_CFG => true,
        _ => CONFIGURATION.contains(&msr),
    }
}

#[cfg(test)]
mod tests {
    use super::{read, write};

    #[test]
    fn unknown_msrs_do_not_exist() {
        for msr in [0x0, 0xfe, 0x200, 0x345, 0xc001_0117, 0x4000_0000, u32::MAX] {
            assert_eq!(read(msr), None, "{msr:#x}");
            assert!(!write(msr, 0), "{msr:#x}");
        }
    }

    #[test]
    fn svm_is_off_for_guests() {
        assert_eq!(read(0xc001_0114), Some(0x18));
        assert!(!write(0xc001_0114, 0));
    }
}
