// SPDX-License-Identifier: MIT OR Apache-2.0
//! Decisions for processors that exist, with current microcode where nothing else is said.

use crate::barrier::{Actions, Point, Step, list, spec_ctrl, steps};
use crate::feature::{self, read};
use crate::mitigation::{Plan, Verdict, decide};

/// Bits of CPUID 7.0 EDX: MD_CLEAR, IBRS and IBPB, STIBP, L1D flush, capabilities, SSBD.
const MD_CLEAR: u32 = 1 << 10;
const IBRS: u32 = 1 << 26;
const STIBP: u32 = 1 << 27;
const L1D: u32 = 1 << 28;
const CAPS: u32 = 1 << 29;
const SSBD: u32 = 1 << 31;
const RTM: u32 = 1 << 11;
/// Bits of CPUID 8000_0008 EBX.
const AMD_IBPB: u32 = 1 << 12;
const AMD_IBRS: u32 = 1 << 14;
const AMD_STIBP: u32 = 1 << 15;
const AMD_ALWAYS: u32 = 1 << 16;
const AMD_SSBD: u32 = 1 << 24;

const INTEL_NAME: [u32; 4] = [0x20, 0x756e_6547, 0x6c65_746e, 0x4965_6e69];
const AMD_NAME: [u32; 4] = [0x20, 0x6874_7541, 0x444d_4163, 0x6974_6e65];

/// CPUID of a processor that has only these leaves.
fn cpuid(leaves: &[(u32, u32, [u32; 4])]) -> impl Fn(u32, u32) -> [u32; 4] + '_ {
    |leaf, sub| leaves.iter().find(|it| (it.0, it.1) == (leaf, sub)).map_or([0; 4], |it| it.2)
}

fn intel(signature: u32, leaf7_edx: u32, capabilities: u64) -> u64 {
    let leaves = [(0, 0, INTEL_NAME), (1, 0, [signature, 0, 0, 0]), (7, 0, [2, 0, 0, leaf7_edx])];
    feature::THREADS | read(cpuid(&leaves), || capabilities)
}

fn amd(signature: u32, extended8_ebx: u32, extended21_eax: u32) -> u64 {
    let leaves = [
        (0, 0, AMD_NAME),
        (1, 0, [signature, 0, 0, 0]),
        (0x8000_0008, 0, [0, extended8_ebx, 0, 0]),
        (0x8000_0021, 0, [extended21_eax, 0, 0, 0]),
    ];
    feature::THREADS | read(cpuid(&leaves), || panic!("there is no such register"))
}

/// Names of what is open.
fn open(features: u64, cmdline: &str) -> Vec<&'static str> {
    let plan = decide(features, cmdline);
    plan.verdicts().filter(|(_, verdict)| matches!(verdict, Verdict::Open(_))).map(|(name, _)| name).collect()
}

fn verdict(plan: &Plan, name: &str) -> Option<Verdict> {
    plan.verdicts().find(|(known, _)| *known == name).map(|(_, verdict)| verdict)
}

struct Case {
    name: &'static str,
    features: u64,
    actions: Actions,
    open: &'static [&'static str],
}

const SWITCH: Actions = Actions::SWITCH_IBPB.union(Actions::SWITCH_RSB);

fn cases() -> Vec<Case> {
    let mut intel = intel_cases();
    intel.iter_mut().for_each(|case| case.actions |= Actions::SWITCH_FPU);
    [intel, amd_cases()].into_iter().flatten().collect()
}

fn intel_cases() -> Vec<Case> {
    let old_intel = SWITCH | Actions::ENTRY_IBRS | Actions::STIBP | Actions::GUEST_RSB;
    vec![
        Case {
            name: "Core i7-4770 (Haswell), microcode of 2017",
            features: intel(0x306c3, 0, 0),
            actions: Actions::GUEST_RSB,
            open: &["meltdown", "spectre-v2", "spectre-v2-user", "retbleed", "mds", "l1tf", "ssb"],
        },
        Case {
            name: "Core i7-4770 (Haswell)",
            features: intel(0x306c3, MD_CLEAR | IBRS | STIBP | L1D | SSBD, 0),
            actions: old_intel | Actions::VERW | Actions::GUEST_L1D,
            open: &["meltdown", "ssb"],
        },
        Case {
            name: "Xeon Gold 6148 (Skylake-SP)",
            features: intel(0x50654, MD_CLEAR | IBRS | STIBP | L1D | CAPS | SSBD, 0x0e00_0c04),
            actions: old_intel | Actions::VERW | Actions::GUEST_L1D,
            open: &["meltdown", "ssb"],
        },
        Case {
            name: "Xeon Gold 6248 (Cascade Lake), with transactions",
            features: feature::RTM
                | intel(0x50657, MD_CLEAR | IBRS | STIBP | L1D | CAPS | SSBD, 0x0e02_00ab & !(1 << 8)),
            actions: SWITCH | Actions::IBRS | Actions::GUEST_RSB | Actions::VERW,
            open: &["bhi", "ssb"],
        },
        Case {
            name: "Xeon Platinum 8380 (Ice Lake-SP)",
            features: intel(0x606a6, MD_CLEAR | IBRS | STIBP | L1D | CAPS | SSBD, 0x0c02_0d6b),
            actions: SWITCH | Actions::IBRS | Actions::GUEST_RSB | Actions::VERW,
            open: &["bhi", "ssb"],
        },
        Case {
            name: "Xeon Platinum 8480+ (Sapphire Rapids)",
            features: feature::BHI_CTRL
                | intel(0x806f8, MD_CLEAR | IBRS | STIBP | L1D | CAPS | SSBD, 0x0da0_fd6b | 1 << 24),
            actions: SWITCH | Actions::IBRS | Actions::BHI_DIS,
            open: &["ssb"],
        },
    ]
}

fn amd_cases() -> Vec<Case> {
    vec![
        Case {
            name: "EPYC 7601 (Zen)",
            features: amd(0x0080_0f12, AMD_IBPB, 0),
            actions: SWITCH | Actions::GUEST_RSB,
            open: &["spectre-v2", "retbleed", "ssb"],
        },
        Case {
            name: "EPYC 7742 (Zen 2)",
            features: amd(0x0083_0f10, AMD_IBPB | AMD_IBRS | AMD_STIBP | AMD_ALWAYS | AMD_SSBD, 0),
            actions: SWITCH | Actions::IBRS | Actions::STIBP | Actions::GUEST_RSB,
            open: &["retbleed", "ssb"],
        },
        Case {
            name: "EPYC 7763 (Zen 3)",
            features: amd(0x00a0_0f11, AMD_IBPB | AMD_IBRS | AMD_STIBP | AMD_ALWAYS | AMD_SSBD, 1 << 5),
            actions: SWITCH | Actions::IBRS | Actions::STIBP | Actions::GUEST_RSB | Actions::VERW,
            open: &["srso", "ssb"],
        },
        Case {
            name: "EPYC 9654 (Zen 4)",
            features: amd(
                0x00a1_0f11,
                AMD_IBPB | AMD_IBRS | AMD_STIBP | AMD_ALWAYS | AMD_SSBD | 1 << 30,
                1 << 5 | 1 << 8,
            ),
            actions: Actions::SWITCH_IBPB | Actions::AUTO_IBRS | Actions::STIBP | Actions::VERW,
            open: &["srso", "ssb"],
        },
        Case {
            name: "EPYC 9755 (Zen 5)",
            features: amd(
                0x00b0_0f21,
                AMD_IBPB | AMD_IBRS | AMD_STIBP | AMD_ALWAYS | AMD_SSBD | 1 << 30,
                1 << 8 | 1 << 30,
            ),
            actions: Actions::SWITCH_IBPB | Actions::AUTO_IBRS | Actions::STIBP,
            open: &["ssb"],
        },
        Case {
            name: "EPYC 7601 (Zen) with microcode of 2017",
            features: amd(0x0080_0f12, 0, 0),
            actions: Actions::GUEST_RSB,
            open: &["spectre-v2", "spectre-v2-user", "retbleed", "ssb"],
        },
        Case {
            name: "QEMU's EPYC without acceleration",
            features: feature::EMULATED | amd(0x0080_0f12, 0, 0),
            actions: Actions::empty(),
            open: &[],
        },
    ]
}

#[test]
fn real_processors_get_what_they_need() {
    for Case { name, features, actions, open: expected } in cases() {
        assert_eq!(decide(features, "").actions, actions, "{name}");
        assert_eq!(open(features, ""), expected, "{name}");
    }
}

#[test]
fn off_is_off_and_says_so() {
    for case in cases() {
        let plan = decide(case.features, "a mitigations=off b");
        assert_eq!(plan.actions, Actions::empty());
        assert!(plan.verdicts().all(|(_, verdict)| verdict == Verdict::Open("switched off")));
    }
}

#[test]
fn force_means_something_in_an_emulator_only() {
    for Case { name, features, actions, .. } in cases() {
        let expected = if features & feature::EMULATED != 0 { Actions::FORCED } else { actions };
        assert_eq!(decide(features, "mitigations=force").actions, expected, "{name}");
    }
    let again = Actions::ENTRY_IBRS | Actions::ENTRY_IBPB | Actions::VERW | Actions::GUEST_RSB | Actions::GUEST_IBPB;
    assert!(Actions::FORCED.contains(again | SWITCH) && !Actions::FORCED.contains(Actions::AUTO_IBRS));
}

#[test]
fn full_guards_returns_and_monitors() {
    let wish = "mitigations=full,ssbd";
    let zen3 = cases().swap_remove(8);
    let plan = decide(zen3.features, wish);
    assert!(plan.actions.contains(Actions::ENTRY_IBPB | Actions::GUEST_IBPB | Actions::SSBD));
    assert_eq!(open(zen3.features, wish), [""; 0]);
    assert_eq!(verdict(&plan, "srso"), Some(Verdict::On("IBPB on entry")));
}

#[test]
fn more_numbers_never_mean_fewer_actions_against_buffers() {
    // Each bit that a processor may lack, alone: what is not said to be absent is taken to be there.
    for bit in 0..64 {
        let features = intel(0x50657, MD_CLEAR | IBRS | CAPS, !(1 << bit));
        let verw = decide(features, "").actions.contains(Actions::VERW);
        assert_eq!(verw, matches!(bit, 5 | 13..=15 | 27), "bit {bit}");
    }
}

#[test]
fn makers_and_families_are_read() {
    let own = feature::INTEL | feature::AMD | feature::AMD_OLD | feature::AMD_19;
    let read = |name, signature| read(cpuid(&[(0, 0, name), (1, 0, [signature, 0, 0, 0])]), || 0) & own;
    assert_eq!(read(INTEL_NAME, 0x306c3), feature::INTEL);
    assert_eq!(read(AMD_NAME, 0x0080_0f12), feature::AMD | feature::AMD_OLD);
    assert_eq!(read(AMD_NAME, 0x00a2_0f10), feature::AMD | feature::AMD_19);
    assert_eq!(read(AMD_NAME, 0x00b0_0f21), feature::AMD);
    assert_eq!(read([0; 4], 0x0080_0f12), 0);
}

#[test]
fn command_line_is_read_word_by_word() {
    let zen5 = cases().swap_remove(10).features;
    for nothing in ["", "xmitigations=off mitigations mitigations=offx", "mitigations=force"] {
        assert_eq!(decide(zen5, nothing).to_string(), decide(zen5, "").to_string());
    }
    assert!(decide(zen5, "mitigations=ssbd,off").actions.is_empty());
    assert!(decide(zen5, "mitigations=x,ssbd").actions.contains(Actions::SSBD));
}

#[test]
fn features_are_read_from_their_leaves() {
    let leaves = [
        (0, 0, INTEL_NAME),
        (1, 0, [0x806f8, 0, 1 << 21, 1 << 28]),
        (7, 0, [2, RTM, 1 << 2, CAPS | IBRS]),
        (7, 2, [0, 0, 0, 0x1f]),
        (0xb, 0, [1, 2, 0x100, 0]),
        (0x8000_0008, 0, [0, AMD_STIBP, 0, 0]),
        (0x8000_0021, 0, [1 << 30, 0, 6, 0]),
    ];
    let one_by_one = [
        feature::INTEL,
        feature::THREADS,
        feature::X2APIC,
        feature::RTM,
        feature::UMIP,
        feature::CAPABILITIES,
        feature::IBRS,
        feature::IBPB,
        feature::BHI_CTRL,
        feature::STIBP,
        feature::SRSO_NO,
        feature::TSA_SQ_NO,
        feature::TSA_L1_NO,
        feature::IBRS_ALL,
        feature::SBDR_NO,
    ];
    assert_eq!(read(cpuid(&leaves), || 1 << 1 | 1 << 13), one_by_one.into_iter().fold(0, |all, one| all | one));
    // Without the register it is not asked for; without the subleaf neither.
    let few = [(7, 0, [1, 0, 0, 0]), (7, 2, [0, 0, 0, 0x1f])];
    assert_eq!(read(cpuid(&few), || panic!("there is no such register")), 0);
    let qemu = [(1, 0, [0, 0, 1 << 31, 0]), (0x4000_0000, 0, [0x4000_0001, 0x5447_4354, 0x4354_4743, 0x4743_5447])];
    let emulated = |leaves| read(cpuid(leaves), || 0) == feature::EMULATED;
    assert!(emulated(&qemu) && !emulated(&qemu[1..]) && !emulated(&qemu[..1]));
}

const CONTROL: u32 = 0x48;
const BARRIER: Step = Step::Write(0x49, 1);
const FLUSH: Step = Step::Write(0x10b, 1);
const FILL: Step = Step::FillReturnStack;

const POINTS: [Point; 7] =
    [Point::Start, Point::Entry, Point::Exit, Point::Switch, Point::EnterGuest, Point::LeaveGuest, Point::Monitor];

/// What is done where, for each processor: at entry, exit, switch, before a guest, after it, before its monitor; and what a core starts with.
type Steps = [&'static [Step]; 7];

fn done(features: u64, cmdline: &str) -> Vec<Vec<Step>> {
    let actions = decide(features, cmdline).actions;
    POINTS.into_iter().map(|point| steps(actions, point).collect()).collect()
}

const NOTHING: &[Step] = &[];
const OLD_INTEL: Steps = [
    &[Step::Write(CONTROL, 3)],
    &[Step::Write(CONTROL, 3)],
    &[Step::Write(CONTROL, 2), Step::Overwrite],
    &[BARRIER, FILL, Step::HideRegisters],
    &[FLUSH],
    &[FILL],
    NOTHING,
];
const ENHANCED: Steps = [
    &[Step::Write(CONTROL, 1)],
    NOTHING,
    &[Step::Overwrite],
    &[BARRIER, FILL, Step::HideRegisters],
    &[Step::Overwrite],
    &[FILL],
    NOTHING,
];

#[test]
fn each_processor_does_this_at_each_point() {
    let expected: [Steps; 13] = [
        [NOTHING, NOTHING, NOTHING, &[Step::HideRegisters], NOTHING, &[FILL], NOTHING],
        OLD_INTEL,
        OLD_INTEL,
        ENHANCED,
        ENHANCED,
        [
            &[Step::Write(CONTROL, 0x401)],
            NOTHING,
            NOTHING,
            &[BARRIER, FILL, Step::HideRegisters],
            NOTHING,
            NOTHING,
            NOTHING,
        ],
        [NOTHING, NOTHING, NOTHING, &[BARRIER, FILL], NOTHING, &[FILL], NOTHING],
        [&[Step::Write(CONTROL, 3)], NOTHING, NOTHING, &[BARRIER, FILL], NOTHING, &[FILL], NOTHING],
        [
            &[Step::Write(CONTROL, 3)],
            NOTHING,
            &[Step::Overwrite],
            &[BARRIER, FILL],
            &[Step::Overwrite],
            &[FILL],
            NOTHING,
        ],
        [
            &[Step::Write(CONTROL, 2), Step::AutomaticIbrs],
            NOTHING,
            &[Step::Overwrite],
            &[BARRIER],
            &[Step::Overwrite],
            NOTHING,
            NOTHING,
        ],
        [&[Step::Write(CONTROL, 2), Step::AutomaticIbrs], NOTHING, NOTHING, &[BARRIER], NOTHING, NOTHING, NOTHING],
        [NOTHING, NOTHING, NOTHING, NOTHING, NOTHING, &[FILL], NOTHING],
        [NOTHING; 7],
    ];
    assert_eq!(cases().len(), expected.len());
    for (case, expected) in cases().iter().zip(expected) {
        assert_eq!(done(case.features, ""), expected, "{}", case.name);
    }
}

#[test]
fn full_has_barriers_where_they_cost() {
    let zen2 = cases().swap_remove(7);
    let done = done(zen2.features, "mitigations=full,ssbd");
    let control = Step::Write(CONTROL, 7);
    assert_eq!(done, [vec![control], vec![BARRIER], vec![], vec![BARRIER, FILL], vec![], vec![FILL], vec![BARRIER]]);
}

/// Nobody is left with what another point was to take back, for any set of actions.
#[test]
fn what_entry_switches_on_exit_switches_off() {
    for bits in 0..=Actions::all().bits() {
        let actions = Actions::from_bits_truncate(bits);
        let control = |point| {
            steps(actions, point).find_map(|step| match step {
                Step::Write(CONTROL, value) => Some(value),
                _ => None,
            })
        };
        for point in POINTS {
            assert!(list(actions, point).into_iter().flatten().eq(steps(actions, point)), "no step is left out");
        }
        let [user, kernel] = spec_ctrl(actions);
        assert_eq!(control(Point::Entry).is_some(), control(Point::Exit).is_some());
        assert_eq!(control(Point::Entry), control(Point::Exit).map(|_| kernel));
        assert_eq!(control(Point::Start).unwrap_or(0), kernel);
        // What is to hold in components holds there without the kernel's own.
        assert!(control(Point::Exit).is_none_or(|value| value == user) && user & !kernel == 0);
        assert!(kernel == user || control(Point::Exit) == Some(user));
    }
}

#[test]
fn the_boot_log_has_one_line() {
    let line = |index: usize| decide(cases().swap_remove(index).features, "").to_string();
    assert_eq!(line(12), "12 not needed");
    let zen5 = "swapgs by LFENCE, spectre-v2 by automatic IBRS, spectre-v2-user by IBPB and return stack on a switch, \
                ssb OPEN (within a component only; mitigations=ssbd), 8 not needed";
    assert_eq!(line(10), zen5);
}
