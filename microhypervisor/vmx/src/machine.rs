// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the processor's capability registers say (SDM vol. 3D, appendix A), and the control words that follow.
//!
//! A control is *required* (no guest without it), *wanted* (set where it exists), or off. Everything that a processor with
//! unrestricted guests has always had besides is required, so that there is one way of each thing.

use cloister_vcpu::Limits;
use cloister_vcpu::limits::{CR4_LA57, CR4_MCE};
use x86::msr::{
    IA32_VMX_BASIC, IA32_VMX_CR0_FIXED0, IA32_VMX_CR4_FIXED0, IA32_VMX_CR4_FIXED1, IA32_VMX_EPT_VPID_CAP,
    IA32_VMX_MISC, IA32_VMX_PROCBASED_CTLS2, IA32_VMX_TRUE_ENTRY_CTLS, IA32_VMX_TRUE_EXIT_CTLS,
    IA32_VMX_TRUE_PINBASED_CTLS, IA32_VMX_TRUE_PROCBASED_CTLS,
};

/// External interrupts, NMIs, virtual NMIs.
const PIN_REQUIRED: u64 = 1 << 0 | 1 << 3 | 1 << 5;
/// The preemption timer.
const TIMER: u64 = 1 << 6;
/// Primary controls that [`crate::vcpu`] switches.
pub(crate) const INTERRUPT_WINDOW: u64 = 1 << 2;
/// As above.
pub(crate) const RDPMC: u64 = 1 << 11;
/// As above.
pub(crate) const RDTSC: u64 = 1 << 12;
/// As above.
pub(crate) const MOV_DR: u64 = 1 << 23;
/// As above.
pub(crate) const PAUSE: u64 = 1 << 30;
/// TSC offset, HLT, MWAIT, MOV DR, TPR shadow, every port, MSR bitmap, MONITOR, secondary controls.
const PRIMARY_REQUIRED: u64 =
    1 << 3 | 1 << 7 | 1 << 10 | MOV_DR | 1 << 21 | 1 << 24 | 1 << 28 | 1 << 29 | SECONDARY_CONTROLS;
const SECONDARY_CONTROLS: u64 = 1 << 31;
/// EPT, WBINVD, unrestricted guest.
const SECONDARY_REQUIRED: u64 = 1 << 1 | 1 << 6 | 1 << 7;
const LACKS_SECONDARY: &str = "VMX lacks EPT, unrestricted guests, or an instruction of the processor's";
/// VPID, and that instructions for enclaves exit, which do not exist for a guest.
const SECONDARY_WANTED: u64 = TAGGED | 1 << 15;
/// RDTSCP and RDPID, INVPCID: a guest can execute them. Required where the processor has them, since its CPUID tells guests so.
const RDTSCP: u64 = 1 << 3;
/// As above.
const INVPCID: u64 = 1 << 12;
/// VPID: translations are tagged.
const TAGGED: u64 = 1 << 5;
/// Save debug controls, 64-bit host, save and load PAT, save and load EFER.
const EXIT_REQUIRED: u64 = 1 << 2 | 1 << 9 | 1 << 18 | 1 << 19 | 1 << 20 | 1 << 21;
/// Load debug controls, PAT and EFER.
const ENTRY_REQUIRED: u64 = 1 << 2 | 1 << 14 | 1 << 15;
/// Entry control: the guest is in long mode.
pub(crate) const ENTRY_LONG_MODE: u64 = 1 << 9;

/// Page walks of 4 levels, write-back tables, pages of 2 MiB, INVEPT for everything.
const EPT_REQUIRED: u64 = 1 << 6 | 1 << 14 | 1 << 16 | 1 << 20 | 1 << 26;
/// Processors (CPUID leaf 1, EAX) with unrestricted guests whose preemption timer counts at a rate of its own, by Intel's specification
/// updates: Xeon 7500, Core of 2010 in two steppings, Xeon E3-1200 v2.
const TIMER_ERRATUM: [u32; 4] = [0x2_06e6, 0x2_0652, 0x2_0655, 0x3_06a8];

/// The machine, as far as guests are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machine {
    /// What a guest may have.
    pub limits: Limits,
    /// Revision that a VMXON region and a VMCS begin with.
    pub revision: u32,
    /// Physical address of the MSR map ([`crate::permission::fill_msr_map`]).
    pub msr_map: u64,
    /// Pages of 1 GiB in guest spaces.
    pub huge_pages: bool,
    /// The preemption timer counts ticks of the time-stamp counter, shifted right by this.
    pub(crate) timer_shift: u64,
    /// Control words: of pins, primary, secondary, of exits, of entries.
    pub(crate) words: [u64; 5],
    /// Bits of CR0 that are always set while a guest runs.
    pub(crate) cr0_ones: u64,
    /// As above, of CR4.
    pub(crate) cr4_ones: u64,
    /// Type of INVEPT: one guest's translations (1), or everybody's (2).
    pub(crate) flush: u64,
    /// The processor tells more of INS and OUTS.
    pub(crate) string_details: bool,
}

/// A control word: low half of the register: what must be set; high half: what may be.
fn word(capability: u64, required: u64, wanted: u64, lack: &'static str) -> Result<u64, &'static str> {
    let (ones, most) = (capability & 0xffff_ffff, capability >> 32);
    if required & !most == 0 { Ok(ones | required | wanted & most) } else { Err(lack) }
}

impl Machine {
    /// Reads the capability registers, which exist where CPUID says that VMX does; `leaf` answers CPUID (subleaf 0), zeros for a leaf that does not
    /// exist.
    ///
    /// # Errors
    /// What the processor lacks.
    pub fn detect(
        leaf: impl Fn(u32) -> [u32; 4],
        msr: impl Fn(u32) -> u64,
        msr_map: u64,
    ) -> Result<Self, &'static str> {
        let basic = msr(IA32_VMX_BASIC);
        // Bit 55: the registers of A.3 to A.5 exist that tell the truth; memory type write-back: bits 50..53 = 6.
        if basic >> 55 & 1 == 0 || basic >> 50 & 0xf != 6 {
            return Err("the processor's VMX is too old");
        }
        let ([_, seven_ebx, seven_ecx, _], [.., extended_edx]) = (leaf(7), leaf(0x8000_0001));
        let rdtscp = if extended_edx >> 27 & 1 != 0 || seven_ecx >> 22 & 1 != 0 { RDTSCP } else { 0 };
        let invpcid = if seven_ebx >> 10 & 1 != 0 { INVPCID } else { 0 };
        let required = SECONDARY_REQUIRED | rdtscp | invpcid;
        let ept = msr(IA32_VMX_EPT_VPID_CAP);
        if ept & EPT_REQUIRED != EPT_REQUIRED {
            return Err("the processor's EPT lacks something");
        }
        let [a, b, c, d, ..] = basic.to_le_bytes();
        let cr4_most = msr(IA32_VMX_CR4_FIXED1);
        let timer = if TIMER_ERRATUM.contains(&leaf(1)[0]) { 0 } else { TIMER };
        let words = [
            word(msr(IA32_VMX_TRUE_PINBASED_CTLS), PIN_REQUIRED, timer, "VMX lacks virtual NMIs")?,
            word(msr(IA32_VMX_TRUE_PROCBASED_CTLS), PRIMARY_REQUIRED, 0, "VMX lacks a primary control")?,
            word(msr(IA32_VMX_PROCBASED_CTLS2), required, SECONDARY_WANTED, LACKS_SECONDARY)?,
            word(msr(IA32_VMX_TRUE_EXIT_CTLS), EXIT_REQUIRED, 0, "VMX lacks an exit control")?,
            word(msr(IA32_VMX_TRUE_ENTRY_CTLS), ENTRY_REQUIRED, 0, "VMX lacks an entry control")?,
        ];
        let mut limits = Limits::from_cpuid(leaf);
        limits.cr4 &= cr4_most & !CR4_LA57;
        Ok(Self {
            limits,
            revision: u32::from_le_bytes([a, b, c, d]) & 0x7fff_ffff,
            msr_map,
            huge_pages: ept >> 17 & 1 != 0,
            timer_shift: msr(IA32_VMX_MISC) & 0x1f,
            words,
            // An unrestricted guest may be without protection and paging.
            cr0_ones: msr(IA32_VMX_CR0_FIXED0) & !(1 << 31 | 1),
            cr4_ones: msr(IA32_VMX_CR4_FIXED0) | cr4_most & CR4_MCE,
            flush: if ept >> 25 & 1 != 0 { 1 } else { 2 },
            string_details: basic >> 54 & 1 != 0,
        })
    }

    /// Whether a guest can be ended at a time without the host's timer.
    #[must_use]
    pub const fn has_timer(&self) -> bool {
        self.words[0] & TIMER != 0
    }

    /// Whether translations are tagged by guest.
    pub(crate) const fn is_tagged(&self) -> bool {
        self.words[2] & TAGGED != 0
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::Machine;

    /// A processor like Haswell, as far as it matters.
    fn haswell_msr(msr: u32) -> u64 {
        match msr {
            0x480 => 0x00da_0400_0000_0012,
            0x485 => 0x0000_0000_0004_01e5,
            0x486 => 0x8000_0021,
            0x488 => 0x2000,
            0x489 => 0x0017_67ff,
            0x48b => 0x0000_7cff_0000_0000,
            0x48c => 0x0000_0f01_0633_4141,
            0x48d => 0x0000_007f_0000_0016,
            0x48e => 0xfff9_fffe_0400_6172,
            0x48f => 0x007f_ffff_0003_6dfb,
            0x490 => 0x0000_ffff_0000_11fb,
            _ => 0,
        }
    }

    fn haswell_leaf(leaf: u32) -> [u32; 4] {
        match leaf {
            1 => [0x0003_06c3, 0, 0x77fa_fbff, 0xbfeb_fbff],
            7 => [0, 0x0000_27ab, 0, 0],
            0xd => [7, 0x340, 0x340, 0],
            0x8000_0001 => [0, 0, 0x21, 0x2c10_0800],
            0x8000_0008 => [0x3027, 0, 0, 0],
            _ => [0; 4],
        }
    }

    pub(crate) fn haswell() -> Machine {
        Machine::detect(haswell_leaf, haswell_msr, 0x4000).unwrap()
    }

    #[test]
    fn controls_of_a_processor() {
        let machine = haswell();
        assert_eq!((machine.revision, machine.flush, machine.huge_pages), (0x12, 1, true));
        assert_eq!((machine.words[0], machine.timer_shift), (0x16 | 0x69, 5));
        assert!(machine.has_timer());
        assert_eq!(machine.words[1] & !0x0400_6172, 0xb1a0_0488 & !0x0400_6172);
        assert_eq!(machine.words[2], 0x10ea);
        assert_eq!((machine.cr0_ones, machine.cr4_ones), (0x20, 0x2040));
        assert!(machine.is_tagged() && machine.string_details);
    }

    #[test]
    fn a_timer_with_an_erratum_is_not_used() {
        let old = |leaf| if leaf == 1 { [0x3_06a8, 0, 0x77fa_fbff, 0xbfeb_fbff] } else { haswell_leaf(leaf) };
        assert!(!Machine::detect(old, haswell_msr, 0).unwrap().has_timer());
    }

    #[test]
    fn what_is_lacking_is_told() {
        let without = |number: u32, bit: u32| {
            let less = |msr| haswell_msr(msr) & !(if msr == number { 1 << bit } else { 0 });
            Machine::detect(haswell_leaf, less, 0x4000)
        };
        for (number, bit) in [
            (0x480, 55),
            (0x48b, 39),
            (0x48b, 33),
            (0x48b, 35),
            (0x48b, 44),
            (0x48c, 26),
            (0x48d, 37),
            (0x48e, 53),
            (0x48f, 53),
        ] {
            assert!(without(number, bit).is_err(), "{number:#x} bit {bit}");
        }
        assert!(!without(0x48b, 37).unwrap().is_tagged());
        assert_eq!(without(0x48c, 25).unwrap().flush, 2);
    }
}
