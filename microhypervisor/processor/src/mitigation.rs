// SPDX-License-Identifier: MIT OR Apache-2.0
//! Speculation: which weaknesses a processor has, and what the kernel does about each.
//!
//! From the processor's [`feature`]s and the wishes of the command line follows the [`Plan`]: a set of [`Actions`], and one [`Verdict`] per
//! weakness for the log. A weakness that the kernel does nothing about is *open* and said to be so: nobody is to think that a processor is
//! safe because the log is silent. docs/design/speculation.md has the reasons.
//!
//! Sources: Intel, "CPUID Enumeration and Architectural MSRs" and the guidance per weakness; AMD, "Software techniques for managing
//! speculation" and APM vol. 2, 3.2.9 and 7.6.4.

use crate::barrier::Actions;
use crate::feature::{
    AMD, AMD_19, AMD_OLD, AUTO_IBRS, BHI_CTRL, BHI_NO, EMULATED, FB_CLEAR, FBSDP_NO, IBPB, IBPB_RETURNS, IBRS,
    IBRS_ALL, IBRS_ALWAYS, INTEL, L1D_FLUSH, MD_CLEAR, MDS_NO, PBRSB_NO, PSDP_NO, RDCL_NO, RFDS_CLEAR, RFDS_NO, RTM,
    SBDR_NO, SKIP_L1D_FLUSH, SRSO_NO, SSB_NO, SSBD, STIBP, TAA_NO, THREADS, TSA_L1_NO, TSA_SQ_NO, VERW_CLEAR,
};
use core::fmt;

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

/// What the command line asks for, `mitigations=` with words separated by commas: nothing about anything; also what costs thousands of cycles
/// per system call or exit; no loads that pass stores; in an emulator, which needs nothing, all of it, so that hooks and barriers can be tested there
/// (it means nothing on a processor: that it has the registers is known from its numbers alone). Unknown words mean nothing.
const WISHES: [(&str, u64); 4] = [("off", OFF), ("full", FULL), ("ssbd", NO_PASSING), ("force", FORCE)];
const OFF: u64 = 1 << 63;
const FULL: u64 = 1 << 62;
const NO_PASSING: u64 = 1 << 61;
const FORCE: u64 = 1 << 60;
/// What was decided before, of one of the ways in which IBRS is used.
const WITH_AUTO_IBRS: u64 = 1 << 59;
const WITH_IBRS: u64 = 1 << 58;
const WITH_ENTRY_IBRS: u64 = 1 << 57;
const _: () = assert!(RFDS_CLEAR < WITH_ENTRY_IBRS, "the last feature is below these");

/// If all of the first bits are there, and not all of the second (where there are any), this is done; with a verdict, which is the last of a weakness.
type Rule = (u64, u64, Actions, Option<Verdict>);

const fn on(needs: u64, without: u64, actions: Actions, how: &'static str) -> Rule {
    (needs, without, actions, Some(Verdict::On(how)))
}

const fn open(needs: u64, without: u64, why: &'static str) -> Rule {
    (needs, without, Actions::empty(), Some(Verdict::Open(why)))
}

const fn none(needs: u64) -> Rule {
    (needs, 0, Actions::empty(), Some(Verdict::None))
}

/// Beside what the verdict will be.
const fn also(needs: u64, without: u64, actions: Actions) -> Rule {
    (needs, without, actions, None)
}

const RETURNS: &str = "returns are not guarded; mitigations=full";
const MMIO_NO: u64 = SBDR_NO | FBSDP_NO | PSDP_NO;

/// Weaknesses, and what is decided about each: its first rule with a verdict that holds; if none does, the processor does not have it. Intel's
/// processors say what they do not have; one that says nothing may have all.
const WEAKNESSES: [(&str, &[Rule]); 12] = [
    ("meltdown", &[open(INTEL, RDCL_NO, "no page-table isolation")]),
    ("swapgs", &[on(0, 0, Actions::empty(), "LFENCE")]),
    (
        "spectre-v2",
        &[
            on(AMD | AUTO_IBRS, 0, Actions::AUTO_IBRS, "automatic IBRS"),
            on(IBRS_ALL, 0, Actions::IBRS, "enhanced IBRS"),
            on(AMD | IBRS | IBRS_ALWAYS, 0, Actions::IBRS, "IBRS always on"),
            on(IBRS, 0, Actions::ENTRY_IBRS, "IBRS on entry"),
            open(0, 0, "no IBRS"),
        ],
    ),
    (
        "spectre-v2-user",
        &[
            open(0, IBPB, "no IBPB"),
            also(0, IBPB_RETURNS, Actions::SWITCH_RSB),
            also(THREADS | STIBP, IBRS_ALL, Actions::STIBP),
            on(0, 0, Actions::SWITCH_IBPB, "IBPB and return stack on a switch"),
        ],
    ),
    (
        "spectre-v2-guest",
        &[
            also(FULL | IBPB, 0, Actions::GUEST_IBPB),
            none(WITH_AUTO_IBRS),
            none(WITH_IBRS | INTEL | PBRSB_NO),
            on(0, 0, Actions::GUEST_RSB, "return stack after a guest"),
        ],
    ),
    (
        "bhi",
        &[
            on(WITH_IBRS | INTEL | BHI_CTRL, BHI_NO, Actions::BHI_DIS, "BHI_DIS_S"),
            open(WITH_IBRS | INTEL, BHI_NO, "no BHI_DIS_S"),
        ],
    ),
    (
        "retbleed",
        &[
            // Returns can be led astray from user mode.
            on(AMD_OLD | FULL | IBPB, 0, Actions::ENTRY_IBPB, "IBPB on entry"),
            open(AMD_OLD, 0, RETURNS),
            on(INTEL | WITH_ENTRY_IBRS, 0, Actions::empty(), "IBRS on entry"),
            open(INTEL, WITH_IBRS, "no IBRS"),
        ],
    ),
    (
        "srso",
        &[on(AMD_19 | FULL | IBPB, SRSO_NO, Actions::ENTRY_IBPB, "IBPB on entry"), open(AMD_19, SRSO_NO, RETURNS)],
    ),
    (
        "mds",
        &[
            // Transient scheduler attacks: those that have the cure say so, and say which they do not have.
            on(AMD_19 | VERW_CLEAR, TSA_SQ_NO | TSA_L1_NO, Actions::VERW, "VERW"),
            on(INTEL | MD_CLEAR, MDS_NO, Actions::VERW, "VERW"),
            on(INTEL | MD_CLEAR | RTM, TAA_NO, Actions::VERW, "VERW"),
            open(INTEL, MDS_NO, "no MD_CLEAR"),
            open(INTEL | RTM, TAA_NO, "no MD_CLEAR"),
            on(INTEL | FB_CLEAR, MMIO_NO, Actions::VERW, "VERW"),
            on(INTEL | RFDS_CLEAR, RFDS_NO, Actions::VERW, "VERW"),
        ],
    ),
    (
        "l1tf",
        &[
            none(RDCL_NO),
            none(SKIP_L1D_FLUSH),
            on(INTEL | L1D_FLUSH, 0, Actions::GUEST_L1D, "flush before a guest"),
            open(INTEL, 0, "no L1D flush"),
        ],
    ),
    (
        "ssb",
        &[
            none(SSB_NO),
            on(SSBD | NO_PASSING, 0, Actions::SSBD, "SSBD"),
            open(SSBD, 0, "within a component only; mitigations=ssbd"),
            open(0, 0, "within a component only; no SSBD"),
        ],
    ),
    // Registers that the unit's trap guards are guessed with all the same. Intel's processors do not say whether they do.
    ("lazy-fp", &[on(0, AMD, Actions::SWITCH_FPU, "clearing on a switch")]),
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
        for (name, verdict) in self.verdicts() {
            match verdict {
                Verdict::None => {}
                Verdict::On(how) => write!(f, "{name} by {how}, ")?,
                Verdict::Open(why) => write!(f, "{name} OPEN ({why}), ")?,
            }
        }
        write!(f, "{} not needed", self.verdicts().filter(|(_, verdict)| *verdict == Verdict::None).count())
    }
}

/// Decides for a processor with these [`feature`]s.
#[must_use]
pub fn decide(features: u64, cmdline: &str) -> Plan {
    let words = cmdline.split_ascii_whitespace().filter_map(|word| word.strip_prefix("mitigations="));
    let wishes = words.flat_map(|words| words.split(',')).filter_map(|word| WISHES.iter().find(|wish| wish.0 == word));
    let mut known = wishes.fold(features, |all, (_, wish)| all | wish);
    let mut actions = Actions::empty();
    let all = |actions, verdict| Plan { actions, verdicts: [verdict; WEAKNESSES.len()] };
    match known & (OFF | EMULATED | FORCE) {
        wishes if wishes & OFF != 0 => return all(actions, Verdict::Open("switched off")),
        wishes if wishes == EMULATED | FORCE => return all(Actions::FORCED, Verdict::On("force")),
        EMULATED => return all(actions, Verdict::None),
        _ => {}
    }
    let verdicts = WEAKNESSES.map(|(_, rules)| {
        let holds =
            |(needs, without, ..): &&Rule| known & needs == *needs && (*without == 0 || known & without != *without);
        for (.., more, verdict) in rules.iter().filter(holds) {
            actions |= *more;
            if let Some(verdict) = verdict {
                let ways = [
                    (Actions::AUTO_IBRS, WITH_AUTO_IBRS),
                    (Actions::IBRS, WITH_IBRS),
                    (Actions::ENTRY_IBRS, WITH_ENTRY_IBRS),
                ];
                known |= ways.iter().filter(|(way, _)| actions.contains(*way)).fold(0, |all, (_, bit)| all | bit);
                return *verdict;
            }
        }
        Verdict::None
    });
    Plan { actions, verdicts }
}
