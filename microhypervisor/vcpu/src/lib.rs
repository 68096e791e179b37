// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a virtual CPU is on any x86_64 processor: the monitor's state page, the limits of what a guest may have, and the
//! way of each group of state between the page and a control structure, be it SVM's or VMX's.
//!
//! * [`page`] – access to the state page: each field is read once, no reference is ever formed
//! * [`limits`] – what the machine and the kernel let a guest have; masks for control registers
//! * [`control`] – [`Control`], what a back end must know of its control structure, and what follows from that: taking,
//!   reporting, bringing up to date
//! * [`fpu`] – the XSAVE image of the state page, made safe for XRSTOR
//! * [`debug`] – the debug registers, which neither extension switches
//!
//! Rule: nothing that a monitor writes can make this crate panic, and what it hands to a back end is masked already.
#![cfg_attr(not(test), no_std)]
#![expect(unsafe_code, reason = "shared memory of the state page, debug registers")]

pub mod control;
pub mod debug;
pub mod fpu;
pub mod limits;
mod load;
pub mod page;
mod store;

pub use control::{Control, Exit, Field, Registers, SegmentName, Taken};
pub use limits::{Cpuid, Limits};
pub use page::StatePage;
