// SPDX-License-Identifier: MIT OR Apache-2.0
//! Groups of guest state: what [`crate::load`] and [`crate::store`] share.
//!
//! Both test the groups that nearly every exit touches inline; all others wait behind one test in a function of their
//! own, so that the shortest way (only `rip`) stays short.

use cloister_abi::arch::x86_64::vcpu::{Controls, Groups, VcpuState};
use core::mem::offset_of;

/// The guest's registers that are not in the control block, and what the kernel remembers for it.
#[derive(Clone, Debug)]
#[repr(C)]
pub(crate) struct Registers {
    /// General-purpose registers by encoding; `rax` (0) and `rsp` (4) are in the control block.
    pub(crate) gpr: [u64; 16],
    /// DR0 to DR3.
    pub(crate) dr: [u64; 4],
    /// XCR0.
    pub(crate) xcr0: u64,
    /// What the monitor asked for.
    pub(crate) controls: Controls,
    /// NMIs wait for an IRET.
    pub(crate) nmi_blocked: bool,
    /// The guest uses debug registers: they go with the world switch.
    pub(crate) debug: bool,
    /// The monitor gave an event that no processor takes.
    pub(crate) refused: bool,
}

/// Number of `rax` and `rsp` in [`Registers::gpr`].
pub(crate) const RAX: usize = 0;
/// As above.
pub(crate) const RSP: usize = 4;
/// Offset of the general-purpose registers in the page.
pub(crate) const GPR: usize = offset_of!(VcpuState, gpr);
/// DR7: some breakpoint is enabled.
pub(crate) const DR7_ENABLES: u64 = 0xff;
/// All debug registers, reads and writes.
pub(crate) const ALL_DR: u32 = u32::MAX;

/// Groups of most exits.
pub(crate) const COMMON: Groups = Groups::GPR.union(Groups::RIP).union(Groups::RFLAGS);
/// Segment and table registers.
pub(crate) const SEGMENTS: Groups =
    Groups::CS_SS.union(Groups::DS_ES).union(Groups::FS_GS).union(Groups::TR_LDTR).union(Groups::TABLES);
/// Interrupts and what belongs to them.
pub(crate) const EVENTS: Groups = Groups::EVENT.union(Groups::SHADOW).union(Groups::CONTROL).union(Groups::TPR);

macro_rules! read {
    ($page:expr, $field:ident) => {
        $page.read::<{ offset_of!(VcpuState, $field) }>()
    };
}
macro_rules! write {
    ($page:expr, $field:ident, $value:expr) => {
        $page.write::<{ offset_of!(VcpuState, $field) }>($value)
    };
}
pub(crate) use {read, write};
