// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a virtual CPU is on any x86_64 processor: the monitor's state page, the limits of what a guest may have, and the
//! way of each group of state between the page and a control structure, be it SVM's or VMX's.
//!
//! * [`page`] – access to the state page: each field is read once, no reference is ever formed
//! * [`limits`] – what the machine and the kernel let a guest have; masks for control registers
//! * [`control`] – [`Control`], what a back end must know of its control structure, and what follows from that: taking,
//!   reporting, bringing up to date
//! * [`field`] – names of registers
//! * [`event`] – events that processors take
//! * [`fpu`] – the XSAVE image of the state page, made safe for XRSTOR
//! * [`debug`] – the debug registers, which neither extension switches
//!
//! Rule: nothing that a monitor writes can make this crate panic, and what it hands to a back end is masked already.
#![cfg_attr(not(any(test, feature = "tests")), no_std)]
#![expect(unsafe_code, reason = "shared memory of the state page, debug registers")]

pub mod control;
pub mod debug;
pub mod event;
pub mod field;
pub mod fpu;
pub mod limits;
mod moves;
pub mod page;
#[cfg(any(test, feature = "tests"))]
pub mod tests;
mod transfer;

pub use control::{Control, Enter, Exit, Exits, Registers};
pub use field::{Field, Segment};
pub use limits::Limits;
pub use page::StatePage;
pub use transfer::PLAIN;

/// MSRs that a guest reaches without an exit, because the world switch swaps them: SYSENTER, STAR to SFMASK, FS base, GS base,
/// KERNEL_GS_BASE.
pub const SWAPPED_MSRS: [u32; 10] =
    [0x174, 0x175, 0x176, 0xc000_0081, 0xc000_0082, 0xc000_0083, 0xc000_0084, 0xc000_0100, 0xc000_0101, 0xc000_0102];
