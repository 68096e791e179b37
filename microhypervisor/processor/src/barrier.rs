// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the kernel does against speculation, and where: [`Actions`] are decided ([`crate::mitigation`]), and what is to be done at which
//! [`Point`] follows from them by one table ([`steps`]), which the kernel carries out.
//!
//! Sources: as for the decision.

use bitflags::bitflags;

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
