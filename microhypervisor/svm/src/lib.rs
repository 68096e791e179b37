// SPDX-License-Identifier: MIT OR Apache-2.0
//! AMD SVM, as the microhypervisor uses it: the control block (VMCB), the guest's state on its way between the monitor's
//! state page and the VMCB, the meaning of exits, and the world switch.
//!
//! ```text
//!   state page (shared with the monitor)          VMCB + GuestRegs (the kernel's)
//!        |  Control::take  --- sanitised --->               |
//!        |                                        world::enter   (the only code that touches the machine)
//!        |  <--- Control::report (reason, groups)  Control::classify   |
//! ```
//!
//! * [`vmcb`] – layout of the control block (AMD APM vol. 2, appendix B)
//! * [`machine`] – what the machine can do
//! * `segment` – segment attributes, between the contract's form and SVM's
//! * [`vcpu`] – the virtual CPU: initial state, intercepts, and the control block behind [`cloister_vcpu::Control`]
//! * `exit` – exit codes into the contract's reasons, and which of them the kernel ends itself
//! * [`permission`] – the maps of intercepted ports and MSRs
//! * [`world`] – the world switch
//!
//! Rule: nothing that a monitor or a guest writes can make this crate panic, or the machine do more than refuse the state
//! ([`cloister_abi::arch::x86_64::vcpu::ExitReason::InvalidState`]). The kernel owns interrupts, FPU and XCR0
//! switching, TLB tags and time; see [`vcpu::Vcpu`] for the order of its calls.
#![cfg_attr(not(test), no_std)]
#![expect(unsafe_code, reason = "the control block that the processor writes, VMRUN")]

mod exit;
pub mod machine;
pub mod permission;
mod segment;
pub mod vcpu;
pub mod vmcb;
pub mod world;

pub use machine::Machine;
pub use vcpu::Vcpu;
pub use vmcb::Vmcb;

#[cfg(test)]
mod tests;
