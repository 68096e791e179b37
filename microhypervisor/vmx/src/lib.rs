// SPDX-License-Identifier: MIT OR Apache-2.0
//! Intel VMX with EPT and unrestricted guests, as the microhypervisor uses it.
//!
//! ```text
//!   state page (shared with the monitor)          VMCS + Vcpu (the kernel's)
//!        |  Control::take  --- sanitised --->            |
//!        |                                        world::enter
//!        |  <--- Control::report (reason, groups)  Control::classify |
//! ```
//!
//! * [`machine`] – what the processor's capability registers say, and the control words that follow
//! * `vmcs` – access to the fields of the control structure (VMCS)
//! * [`vcpu`] – the virtual CPU: initial state, entry
//! * `state` – its registers: the VMCS behind [`cloister_vcpu::Control`]
//! * `exit` – exit reasons into the contract's, and which of them the kernel ends itself
//! * [`permission`] – the map of intercepted MSRs
//! * [`world`] – what a core has for its guests ([`world::Host`]), the world switch, instructions of VMX
//!
//! The outside shape is that of the SVM crate. What differs: a VMCS must be the core's current one before anything is done
//! to it ([`cloister_vcpu::Enter::activate`]); the system-call registers, CR2, CR8 and DR6 are not in it and are switched here.
//!
//! Sources: Intel SDM vol. 3C, chapters 24 to 28 and 31 (numbers as of 2023), appendices A to C.
//!
//! Rule: nothing that a monitor or a guest writes can make this crate panic, or the machine do more than refuse the state
//! ([`cloister_abi::arch::x86_64::vcpu::ExitReason::InvalidState`]).
#![cfg_attr(not(test), no_std)]
#![expect(unsafe_code, reason = "instructions of VMX, the region that the processor writes")]

mod exit;
pub mod machine;
pub mod permission;
mod state;
pub mod vcpu;
mod vmcs;
pub mod world;

pub use machine::Machine;
pub use vcpu::Vcpu;

#[cfg(test)]
mod tests;
