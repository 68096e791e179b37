// SPDX-License-Identifier: MIT OR Apache-2.0
//! Speculation: which weaknesses a processor has, and what the kernel does about each.
//!
//! [`Facts`] are the numbers, [`Policy`] is the wish of the command line, [`Plan`] the decision: a set of [`Actions`], and one
//! [`Verdict`] per weakness for the log. A weakness that the kernel does nothing about is *open* and said to be so: nobody is
//! to think that a processor is safe because the log is silent. docs/design/speculation.md has the reasons.
//!
//! Sources: Intel, "CPUID Enumeration and Architectural MSRs" and the guidance per weakness; AMD, "Software techniques for managing
//! speculation" and APM vol. 2, 3.2.9 and 7.6.4.

use bitflags::bitflags;

/// Who made the processor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Vendor {
    /// Intel.
    Intel,
    /// AMD, and Hygon, whose processors are AMD's.
    Amd,
    /// Somebody else.
    #[default]
    Other,
}

impl Vendor {
    /// By the registers EBX, EDX, ECX of leaf 0.
    #[must_use]
    pub fn of(ebx: u32, edx: u32, ecx: u32) -> Self {
        match [ebx, edx, ecx].map(u32::to_le_bytes).as_flattened() {
            b"GenuineIntel" => Self::Intel,
            b"AuthenticAMD" | b"HygonGenuine" => Self::Amd,
            _ => Self::Other,
        }
    }
}

/// The numbers of a processor; zero where it has none.
#[derive(Clone, Copy, Debug, Default)]
pub struct Facts {
    /// Maker.
    pub vendor: Vendor,
    /// Family, extended family added.
    pub family: u32,
    /// Model, with the extended model.
    pub model: u32,
    /// CPUID 7.0 EDX.
    pub leaf7_edx: u32,
    /// CPUID 7.0 EBX.
    pub leaf7_ebx: u32,
    /// CPUID 7.2 EDX.
    pub leaf7_2_edx: u32,
    /// CPUID 8000_0008 EBX.
    pub extended8_ebx: u32,
    /// CPUID 8000_0021 EAX.
    pub extended21_eax: u32,
    /// CPUID 8000_0021 ECX.
    pub extended21_ecx: u32,
    /// `IA32_ARCH_CAPABILITIES`.
    pub capabilities: u64,
    /// Cores have more than one thread.
    pub threads: bool,
    /// An emulator that executes one instruction after the other: it speculates on nothing.
    pub emulated: bool,
}

impl Facts {
    /// Family and model of the signature (CPUID 1 EAX).
    #[must_use]
    pub const fn family_model(signature: u32) -> (u32, u32) {
        let (family, model) = (signature >> 8 & 0xf, signature >> 4 & 0xf);
        let full = if family == 0xf { family + (signature >> 20 & 0xff) } else { family };
        let extended = if family == 6 || family == 0xf { (signature >> 16 & 0xf) << 4 } else { 0 };
        (full, model | extended)
    }
}

/// What the command line asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Do nothing about anything (`mitigations=off`).
    pub off: bool,
    /// Do also what costs thousands of cycles per system call or exit (`mitigations=full`).
    pub full: bool,
    /// Forbid loads to pass stores (`mitigations=ssbd`).
    pub ssbd: bool,
    /// In an emulator, which needs nothing, do all of it (`mitigations=force`), so that hooks and barriers can be tested there.
    /// Means nothing on a processor: that it has the registers is known from its numbers alone.
    pub force: bool,
}

impl Policy {
    /// The words after `mitigations=`, separated by commas. Unknown ones mean nothing.
    #[must_use]
    pub fn parse(cmdline: &str) -> Self {
        let words = cmdline.split_ascii_whitespace().filter_map(|word| word.strip_prefix("mitigations="));
        let mut policy = Self::default();
        for word in words.flat_map(|words| words.split(',')) {
            match word {
                "off" => policy.off = true,
                "full" => policy.full = true,
                "ssbd" => policy.ssbd = true,
                "force" => policy.force = true,
                _ => {}
            }
        }
        policy
    }
}

bitflags! {
    /// What the kernel does.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Actions: u32 {
        /// At boot: SPEC_CTRL.IBRS, for ever.
        const IBRS = 1 << 0;
        /// At boot: EFER.AutomaticIBRS.
        const AUTO_IBRS = 1 << 1;
        /// At boot: SPEC_CTRL.STIBP.
        const STIBP = 1 << 2;
        /// At boot: SPEC_CTRL.SSBD.
        const SSBD = 1 << 3;
        /// At boot: SPEC_CTRL.BHI_DIS_S.
        const BHI_DIS = 1 << 4;
        /// On entry to the kernel: SPEC_CTRL.IBRS on, and off on the way out.
        const ENTRY_IBRS = 1 << 5;
        /// On entry to the kernel: a branch-predictor barrier.
        const ENTRY_IBPB = 1 << 6;
        /// On the way out of the kernel, and into a guest: VERW, which overwrites buffers.
        const VERW = 1 << 7;
        /// When another address space is loaded: a branch-predictor barrier.
        const SWITCH_IBPB = 1 << 8;
        /// When another address space is loaded: fill the return stack.
        const SWITCH_RSB = 1 << 9;
        /// After a guest: fill the return stack.
        const GUEST_RSB = 1 << 10;
        /// After a guest, on the way to its monitor: a branch-predictor barrier.
        const GUEST_IBPB = 1 << 11;
        /// Before a guest: flush the first-level data cache.
        const GUEST_L1D = 1 << 12;

        /// All that is done again and again, with the bits of SPEC_CTRL that are set for ever.
        const FORCED = !Self::AUTO_IBRS.bits() & ((1 << 13) - 1);
    }
}

/// What is done about one weakness.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The processor does not have it.
    None,
    /// It is closed, by this.
    On(&'static str),
    /// It is open, for this reason.
    Open(&'static str),
}

/// Names of the weaknesses, in the order of [`Plan::verdicts`].
pub const NAMES: [&str; 11] = [
    "meltdown",
    "swapgs",
    "spectre-v2",
    "spectre-v2-user",
    "spectre-v2-guest",
    "bhi",
    "retbleed",
    "srso",
    "mds",
    "l1tf",
    "ssb",
];

/// The decision.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// What to do.
    pub actions: Actions,
    /// One verdict for each of [`NAMES`].
    pub verdicts: [Verdict; NAMES.len()],
}

impl Plan {
    /// The verdict on a weakness.
    #[must_use]
    pub fn verdict(&self, name: &str) -> Option<Verdict> {
        NAMES.iter().position(|known| *known == name).and_then(|index| self.verdicts.get(index)).copied()
    }
}

/// Bits of `IA32_ARCH_CAPABILITIES`.
mod capability {
    pub(super) const RDCL_NO: u64 = 1 << 0;
    pub(super) const IBRS_ALL: u64 = 1 << 1;
    pub(super) const SKIP_L1D_FLUSH: u64 = 1 << 3;
    pub(super) const SSB_NO: u64 = 1 << 4;
    pub(super) const MDS_NO: u64 = 1 << 5;
    pub(super) const TAA_NO: u64 = 1 << 8;
    /// Three kinds of stale data from device registers.
    pub(super) const MMIO_NO: u64 = 7 << 13;
    pub(super) const FB_CLEAR: u64 = 1 << 17;
    pub(super) const BHI_NO: u64 = 1 << 20;
    pub(super) const PBRSB_NO: u64 = 1 << 24;
    pub(super) const RFDS_NO: u64 = 1 << 27;
    pub(super) const RFDS_CLEAR: u64 = 1 << 28;
}

/// Decides.
#[must_use]
pub fn decide(facts: &Facts, policy: Policy) -> Plan {
    if policy.off {
        let verdicts = [Verdict::Open("switched off"); NAMES.len()];
        return Plan { actions: Actions::empty(), verdicts };
    }
    if facts.emulated && policy.force {
        return Plan { actions: Actions::FORCED, verdicts: [Verdict::On("force"); NAMES.len()] };
    }
    if facts.emulated {
        return Plan { actions: Actions::empty(), verdicts: [Verdict::None; NAMES.len()] };
    }
    let mut decision = Decision { facts: *facts, policy, actions: Actions::empty() };
    let spectre_v2 = decision.spectre_v2();
    let verdicts = [
        decision.meltdown(),
        Verdict::On("LFENCE"),
        spectre_v2,
        decision.between_components(),
        decision.guests(),
        decision.branch_history(),
        decision.retbleed(),
        decision.srso(),
        decision.buffers(),
        decision.l1tf(),
        decision.store_bypass(),
    ];
    Plan { actions: decision.actions, verdicts }
}

struct Decision {
    facts: Facts,
    policy: Policy,
    actions: Actions,
}

impl Decision {
    fn intel(&self) -> bool {
        self.facts.vendor == Vendor::Intel
    }

    fn amd(&self) -> bool {
        self.facts.vendor == Vendor::Amd
    }

    /// Intel's processors say what they do not have; one that says nothing may have all.
    fn lacks(&self, capability: u64) -> bool {
        self.intel() && self.facts.capabilities & capability != capability
    }

    fn on(&mut self, actions: Actions, how: &'static str) -> Verdict {
        self.actions |= actions;
        Verdict::On(how)
    }

    fn has_ibpb(&self) -> bool {
        self.facts.leaf7_edx >> 26 & 1 != 0 || self.facts.extended8_ebx >> 12 & 1 != 0
    }

    fn meltdown(&self) -> Verdict {
        if self.lacks(capability::RDCL_NO) { Verdict::Open("no page-table isolation") } else { Verdict::None }
    }

    fn spectre_v2(&mut self) -> Verdict {
        let amd = self.facts.extended8_ebx;
        if self.amd() && self.facts.extended21_eax >> 8 & 1 != 0 {
            self.on(Actions::AUTO_IBRS, "automatic IBRS")
        } else if self.facts.capabilities & capability::IBRS_ALL != 0 {
            self.on(Actions::IBRS, "enhanced IBRS")
        } else if self.amd() && amd >> 14 & 1 != 0 && amd >> 16 & 1 != 0 {
            self.on(Actions::IBRS, "IBRS always on")
        } else if self.facts.leaf7_edx >> 26 & 1 != 0 || amd >> 14 & 1 != 0 {
            self.on(Actions::ENTRY_IBRS, "IBRS on entry")
        } else {
            Verdict::Open("no IBRS")
        }
    }

    fn between_components(&mut self) -> Verdict {
        if !self.has_ibpb() {
            return Verdict::Open("no IBPB");
        }
        // Some barriers empty the return stack, too.
        if self.facts.extended8_ebx >> 30 & 1 == 0 {
            self.actions |= Actions::SWITCH_RSB;
        }
        let stibp = self.facts.leaf7_edx >> 27 & 1 != 0 || self.facts.extended8_ebx >> 15 & 1 != 0;
        let enhanced = self.facts.capabilities & capability::IBRS_ALL != 0;
        if self.facts.threads && stibp && !enhanced {
            self.actions |= Actions::STIBP;
        }
        self.on(Actions::SWITCH_IBPB, "IBPB and return stack on a switch")
    }

    fn guests(&mut self) -> Verdict {
        if self.policy.full && self.has_ibpb() {
            self.actions |= Actions::GUEST_IBPB;
        }
        let clean = self.actions.contains(Actions::AUTO_IBRS)
            || (self.actions.contains(Actions::IBRS) && self.intel() && !self.lacks(capability::PBRSB_NO));
        if clean { Verdict::None } else { self.on(Actions::GUEST_RSB, "return stack after a guest") }
    }

    fn branch_history(&mut self) -> Verdict {
        if !self.intel() || !self.lacks(capability::BHI_NO) || !self.actions.contains(Actions::IBRS) {
            Verdict::None
        } else if self.facts.leaf7_2_edx >> 4 & 1 != 0 {
            self.on(Actions::BHI_DIS, "BHI_DIS_S")
        } else {
            Verdict::Open("no BHI_DIS_S")
        }
    }

    /// A barrier on entry, for processors whose returns can be led astray from user mode.
    fn entry_barrier(&mut self) -> Verdict {
        if self.policy.full && self.has_ibpb() {
            return self.on(Actions::ENTRY_IBPB, "IBPB on entry");
        }
        Verdict::Open("returns are not guarded; mitigations=full")
    }

    fn retbleed(&mut self) -> Verdict {
        if self.amd() && (0x15..=0x18).contains(&self.facts.family) {
            self.entry_barrier()
        } else if self.intel() && self.actions.contains(Actions::ENTRY_IBRS) {
            Verdict::On("IBRS on entry")
        } else if self.intel() && !self.actions.contains(Actions::IBRS) {
            Verdict::Open("no IBRS")
        } else {
            Verdict::None
        }
    }

    fn srso(&mut self) -> Verdict {
        // Not vulnerable at all, or not across the border of the kernel.
        let safe = self.facts.extended21_eax >> 29 & 3 != 0;
        if self.amd() && self.facts.family == 0x19 && !safe { self.entry_barrier() } else { Verdict::None }
    }

    fn buffers(&mut self) -> Verdict {
        let facts = self.facts;
        if self.amd() {
            // Transient scheduler attacks: those that have the cure say so, and say which they do not have.
            let cured = facts.extended21_eax >> 5 & 1 != 0 && facts.extended21_ecx & 6 != 6;
            return if facts.family == 0x19 && cured { self.on(Actions::VERW, "VERW") } else { Verdict::None };
        }
        let transactions = facts.leaf7_ebx >> 11 & 1 != 0;
        let sampling = self.lacks(capability::MDS_NO) || (transactions && self.lacks(capability::TAA_NO));
        let devices = self.lacks(capability::MMIO_NO) && facts.capabilities & capability::FB_CLEAR != 0;
        let registers = self.lacks(capability::RFDS_NO) && facts.capabilities & capability::RFDS_CLEAR != 0;
        if sampling && facts.leaf7_edx >> 10 & 1 == 0 {
            Verdict::Open("no MD_CLEAR")
        } else if sampling || devices || registers {
            self.on(Actions::VERW, "VERW")
        } else {
            Verdict::None
        }
    }

    fn l1tf(&mut self) -> Verdict {
        if !self.lacks(capability::RDCL_NO) || !self.lacks(capability::SKIP_L1D_FLUSH) {
            Verdict::None
        } else if self.facts.leaf7_edx >> 28 & 1 != 0 {
            self.on(Actions::GUEST_L1D, "flush before a guest")
        } else {
            Verdict::Open("no L1D flush")
        }
    }

    fn store_bypass(&mut self) -> Verdict {
        let none = self.facts.capabilities & capability::SSB_NO != 0 || self.facts.extended8_ebx >> 26 & 1 != 0;
        if none {
            return Verdict::None;
        }
        let possible = self.facts.leaf7_edx >> 31 != 0 || self.facts.extended8_ebx >> 24 & 1 != 0;
        match (possible, self.policy.ssbd) {
            (true, true) => self.on(Actions::SSBD, "SSBD"),
            (true, false) => Verdict::Open("within a component only; mitigations=ssbd"),
            (false, _) => Verdict::Open("within a component only; no SSBD"),
        }
    }
}
