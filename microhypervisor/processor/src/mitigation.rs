// SPDX-License-Identifier: MIT OR Apache-2.0
//! Speculation: which weaknesses a processor has, and what the kernel does about each.
//!
//! [`Facts`] are the numbers, [`Policy`] is the wish of the command line, [`Plan`] the decision: a set of [`Actions`], and one
//! [`Verdict`] per weakness for the log. A weakness that the kernel does nothing about is *open* and said to be so: nobody is
//! to think that a processor is safe because the log is silent. docs/design/speculation.md has the reasons.
//!
//! What is to be done where follows from the actions by one table ([`steps`]), which the kernel carries out.
//!
//! Sources: Intel, "CPUID Enumeration and Architectural MSRs" and the guidance per weakness; AMD, "Software techniques for managing
//! speculation" and APM vol. 2, 3.2.9 and 7.6.4.

use bitflags::bitflags;
use core::fmt;

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
    /// Reads it, by the name in EBX, EDX, ECX of leaf 0. `cpuid` as for [`Facts::read`].
    pub fn read(cpuid: impl Fn(u32, u32) -> [u32; 4]) -> Self {
        let [_, ebx, ecx, edx] = cpuid(0, 0);
        match [ebx, edx, ecx].map(u32::to_le_bytes).as_flattened() {
            b"GenuineIntel" => Self::Intel,
            b"AuthenticAMD" | b"HygonGenuine" => Self::Amd,
            _ => Self::Other,
        }
    }
}

/// Whether it is an emulator that executes one instruction after the other, as QEMU without acceleration says of itself. `cpuid` as for
/// [`Facts::read`].
pub fn is_emulated(cpuid: impl Fn(u32, u32) -> [u32; 4]) -> bool {
    let [_, name @ ..] = if cpuid(1, 0)[2] >> 31 != 0 { cpuid(0x4000_0000, 0) } else { [0; 4] };
    name.map(u32::to_le_bytes).as_flattened() == b"TCGTCGTCGTCG"
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
    /// Reads the numbers. `cpuid` answers EAX to EDX of a leaf and subleaf, zeros where the processor has none of that number; `capabilities` reads
    /// `IA32_ARCH_CAPABILITIES`, and is asked only where there is that register.
    pub fn read(cpuid: impl Fn(u32, u32) -> [u32; 4], capabilities: impl FnOnce() -> u64) -> Self {
        let (family, model) = Self::family_model(cpuid(1, 0)[0]);
        let [subleaves, leaf7_ebx, _, leaf7_edx] = cpuid(7, 0);
        let [extended21_eax, _, extended21_ecx, _] = cpuid(0x8000_0021, 0);
        Self {
            vendor: Vendor::read(&cpuid),
            family,
            model,
            leaf7_edx,
            leaf7_ebx,
            leaf7_2_edx: if subleaves >= 2 { cpuid(7, 2)[3] } else { 0 },
            extended8_ebx: cpuid(0x8000_0008, 0)[1],
            extended21_eax,
            extended21_ecx,
            capabilities: if leaf7_edx >> 29 & 1 != 0 { capabilities() } else { 0 },
            // Several logical processors, of which some are in the same core.
            threads: cpuid(1, 0)[3] >> 28 & 1 != 0 && cpuid(0xb, 0)[1] & 0xffff > 1,
            emulated: is_emulated(cpuid),
        }
    }

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
        /// When another address space is loaded: vector registers of others are saved and cleared.
        const SWITCH_FPU = 1 << 13;

        /// All that is done again and again, with the bits of SPEC_CTRL that are set for ever.
        const FORCED = !Self::AUTO_IBRS.bits() & ((1 << 14) - 1);
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

/// Registers that are written, and their bits.
const SPEC_CTRL: u32 = 0x48;
const PRED_CMD: u32 = 0x49;
const FLUSH_CMD: u32 = 0x10b;
const IBRS: u32 = 1 << 0;

/// Where the kernel has something to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// A core starts.
    Start,
    /// The kernel is entered from a component.
    Entry,
    /// It is left to one.
    Exit,
    /// Another address space is loaded.
    Switch,
    /// A guest is entered.
    EnterGuest,
    /// A guest has exited.
    LeaveGuest,
    /// The monitor of a guest that ran goes on.
    Monitor,
}

/// What it does there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Writes a model-specific register.
    Write(u32, u32),
    /// Sets EFER.AutomaticIBRS.
    AutomaticIbrs,
    /// Fills the return stack with 32 harmless entries.
    FillReturnStack,
    /// VERW.
    Overwrite,
    /// Takes vector registers that are not the next thread's out of the processor.
    HideRegisters,
}

/// What is done at a point, in this order.
pub fn steps(actions: Actions, point: Point) -> impl Iterator<Item = Step> {
    let [user, kernel] = spec_ctrl(actions);
    let wanted = move |at: Point, action: Actions| at == point && actions.intersects(action);
    let set = Actions::IBRS | Actions::STIBP | Actions::SSBD | Actions::BHI_DIS | Actions::ENTRY_IBRS;
    // A flush of the first-level cache overwrites the same buffers.
    let overwrites = if actions.contains(Actions::GUEST_L1D) { Actions::empty() } else { Actions::VERW };
    [
        (Point::Start, set, Step::Write(SPEC_CTRL, kernel)),
        (Point::Start, Actions::AUTO_IBRS, Step::AutomaticIbrs),
        (Point::Entry, Actions::ENTRY_IBPB, Step::Write(PRED_CMD, 1)),
        (Point::Entry, Actions::ENTRY_IBRS, Step::Write(SPEC_CTRL, kernel)),
        (Point::Exit, Actions::ENTRY_IBRS, Step::Write(SPEC_CTRL, user)),
        (Point::Exit, Actions::VERW, Step::Overwrite),
        (Point::Switch, Actions::SWITCH_IBPB, Step::Write(PRED_CMD, 1)),
        (Point::Switch, Actions::SWITCH_RSB, Step::FillReturnStack),
        (Point::Switch, Actions::SWITCH_FPU, Step::HideRegisters),
        (Point::EnterGuest, Actions::GUEST_L1D, Step::Write(FLUSH_CMD, 1)),
        (Point::EnterGuest, overwrites, Step::Overwrite),
        (Point::LeaveGuest, Actions::GUEST_RSB, Step::FillReturnStack),
        (Point::Monitor, Actions::GUEST_IBPB, Step::Write(PRED_CMD, 1)),
    ]
    .into_iter()
    .filter_map(move |(at, action, step)| wanted(at, action).then_some(step))
}

/// The steps of one point, the first ones of as many places as are needed.
pub type List = [Option<Step>; 3];

/// [`steps`] as a list, for points that come often.
#[must_use]
pub fn list(actions: Actions, point: Point) -> List {
    let mut steps = steps(actions, point);
    core::array::from_fn(|_| steps.next())
}

/// SPEC_CTRL in components, and in the kernel.
#[must_use]
pub fn spec_ctrl(actions: Actions) -> [u32; 2] {
    let bits = [(Actions::IBRS, IBRS), (Actions::STIBP, 1 << 1), (Actions::SSBD, 1 << 2), (Actions::BHI_DIS, 1 << 10)];
    let user = bits.into_iter().filter(|(action, _)| actions.contains(*action)).fold(0, |all, (_, bit)| all | bit);
    [user, if actions.contains(Actions::ENTRY_IBRS) { user | IBRS } else { user }]
}

/// A weakness: its name, and what is decided about it.
type Weakness = (&'static str, fn(&mut Decision) -> Verdict);

/// All of them. Later ones look at what was decided before.
const WEAKNESSES: [Weakness; 12] = [
    ("meltdown", Decision::meltdown),
    ("swapgs", |_| Verdict::On("LFENCE")),
    ("spectre-v2", Decision::spectre_v2),
    ("spectre-v2-user", Decision::between_components),
    ("spectre-v2-guest", Decision::guests),
    ("bhi", Decision::branch_history),
    ("retbleed", Decision::retbleed),
    ("srso", Decision::srso),
    ("mds", Decision::buffers),
    ("l1tf", Decision::l1tf),
    ("ssb", Decision::store_bypass),
    ("lazy-fp", Decision::lazy_registers),
];

/// The decision.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// What to do.
    pub actions: Actions,
    verdicts: [Verdict; WEAKNESSES.len()],
}

impl Plan {
    /// The weaknesses, and what is decided about each.
    pub fn verdicts(&self) -> impl Iterator<Item = (&'static str, Verdict)> + Clone {
        WEAKNESSES.iter().map(|(name, _)| *name).zip(self.verdicts)
    }
}

/// What is done, what is not, and what need not be, in one line.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let none = self.verdicts().filter(|(_, verdict)| *verdict == Verdict::None).count();
        if none == WEAKNESSES.len() {
            return f.write_str("nothing is needed");
        }
        let mut separator = "on: ";
        for (name, verdict) in self.verdicts() {
            if let Verdict::On(how) = verdict {
                write!(f, "{separator}{name} by {how}")?;
                separator = ", ";
            }
        }
        separator = if separator == ", " { "; open: " } else { "open: " };
        for (name, verdict) in self.verdicts() {
            if let Verdict::Open(why) = verdict {
                write!(f, "{separator}{name} ({why})")?;
                separator = ", ";
            }
        }
        write!(f, "; {none} not needed")
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
    let nothing = |verdict| Plan { actions: Actions::empty(), verdicts: [verdict; WEAKNESSES.len()] };
    if policy.off {
        return nothing(Verdict::Open("switched off"));
    }
    if facts.emulated && policy.force {
        return Plan { actions: Actions::FORCED, ..nothing(Verdict::On("force")) };
    }
    if facts.emulated {
        return nothing(Verdict::None);
    }
    let mut decision = Decision { facts: *facts, policy, actions: Actions::empty() };
    let verdicts = WEAKNESSES.map(|(_, decide)| decide(&mut decision));
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

    fn meltdown(&mut self) -> Verdict {
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

    /// Registers that the unit's trap guards are guessed with all the same. Intel's processors do not say whether they do.
    fn lazy_registers(&mut self) -> Verdict {
        if self.amd() { Verdict::None } else { self.on(Actions::SWITCH_FPU, "clearing on a switch") }
    }
}
