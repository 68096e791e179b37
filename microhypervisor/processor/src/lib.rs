// SPDX-License-Identifier: MIT OR Apache-2.0
//! What an x86 processor is and needs, decided from the numbers it gives (CPUID, model-specific registers), without touching it.
//!
//! The kernel reads the numbers and does what is decided; everything between is here, as pure functions over plain values, so that it is
//! tested on the host with the numbers of real processors. [`mitigation`] decides what is done about speculation, [`xsave`]
//! which floating-point components fit and how they are saved, [`machine_check`] what an error bank says, [`shutdown`] how the board is
//! switched off.
#![cfg_attr(not(test), no_std)]

pub mod barrier;
pub mod feature;
pub mod machine_check;
pub mod mitigation;
#[cfg(test)]
mod mitigation_tests;
pub mod shutdown;
pub mod xsave;
