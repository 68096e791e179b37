// SPDX-License-Identifier: MIT OR Apache-2.0
//! IA32_APIC_BASE and the modes of a LAPIC (SDM volume 3 sections 11.4.3, 11.4.4 and 11.12.1).
//!
//! Rule: x2APIC mode is reached from xAPIC mode only and is left only by switching the LAPIC off; what is off loses
//! its state.

use super::{GpFault, Lapic};

/// The address at which all LAPICs are after reset.
pub const APIC_BASE_DEFAULT: u64 = 0xfee0_0000;

const BOOT_PROCESSOR: u64 = 1 << 8;
const X2APIC: u64 = 1 << 10;
const ENABLE: u64 = 1 << 11;
/// Address bits: what a guest with up to 52 physical address bits may write.
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// The mode of a LAPIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApicMode {
    /// Off: the VCPU behaves as one without a LAPIC.
    Disabled,
    /// Registers in memory, eight-bit IDs.
    XApic,
    /// Registers are MSRs, 32-bit IDs.
    X2Apic,
}

impl ApicMode {
    const fn decode(base: u64) -> Option<Self> {
        match (base & ENABLE != 0, base & X2APIC != 0) {
            (false, false) => Some(Self::Disabled),
            (true, false) => Some(Self::XApic),
            (true, true) => Some(Self::X2Apic),
            (false, true) => None,
        }
    }
}

pub(super) const fn at_reset(boot_processor: bool) -> u64 {
    APIC_BASE_DEFAULT | ENABLE | if boot_processor { BOOT_PROCESSOR } else { 0 }
}

/// The logical ID in x2APIC mode (SDM volume 3 section 11.12.10.2): cluster in the high half, one bit in the low.
pub(super) const fn x2apic_ldr(id: u32) -> u32 {
    ((id >> 4) << 16) | (1 << (id & 0xf))
}

impl Lapic {
    /// The mode it is in.
    #[must_use]
    pub const fn mode(&self) -> ApicMode {
        match ApicMode::decode(self.base) {
            Some(mode) => mode,
            None => ApicMode::Disabled,
        }
    }

    /// IA32_APIC_BASE as read.
    #[must_use]
    pub const fn apic_base(&self) -> u64 {
        self.base
    }

    /// Where the registers are in guest-physical memory, if they are there.
    #[must_use]
    pub fn register_page(&self) -> Option<u64> {
        (self.mode() == ApicMode::XApic).then_some(self.base & ADDRESS)
    }

    /// Writes IA32_APIC_BASE.
    ///
    /// # Errors
    /// [`GpFault`] for reserved bits, for the invalid mode, and for a forbidden change of mode.
    pub fn set_apic_base(&mut self, value: u64) -> Result<(), GpFault> {
        if value & !(ADDRESS | ENABLE | X2APIC | BOOT_PROCESSOR) != 0 {
            return Err(GpFault);
        }
        let (from, to) = (self.mode(), ApicMode::decode(value).ok_or(GpFault)?);
        match (from, to) {
            (ApicMode::Disabled, ApicMode::X2Apic) | (ApicMode::X2Apic, ApicMode::XApic) => return Err(GpFault),
            _ => {}
        }
        self.base = value;
        if from != to {
            match to {
                ApicMode::Disabled => self.reset_registers(),
                ApicMode::X2Apic => self.ldr = x2apic_ldr(self.id),
                ApicMode::XApic => {}
            }
        }
        Ok(())
    }
}
