// SPDX-License-Identifier: MIT OR Apache-2.0
//! AMD SVM, as the microhypervisor uses it: the control block (VMCB), the guest's state on its way between the monitor's
//! state page and the VMCB, the meaning of exits, and the world switch.
//!
//! ```text
//!   state page (shared with the monitor)          VMCB + GuestRegs (the kernel's)
//!        |  Vcpu::take  --- sanitised --->               |
//!        |                                        world::enter   (the only code that touches the machine)
//!        |  <--- Vcpu::report (reason, groups)  Vcpu::classify   |
//! ```
//!
//! * [`vmcb`] – layout of the control block (AMD APM vol. 2, appendix B)
//! * [`page`] – access to the state page: each field is read once, no reference is ever formed
//! * [`limits`] – what the machine and the kernel let a guest have; masks for control registers
//! * [`segment`] – segment attributes, between the contract's form and SVM's
//! * [`vcpu`] – the virtual CPU: initial state, intercepts, [`vcpu::Vcpu::take`] and [`vcpu::Vcpu::report`]
//! * [`exit`] – exit codes into the contract's reasons, and which of them the kernel ends itself
//! * [`fpu`] – the XSAVE image of the state page, made safe for XRSTOR
//! * [`permission`] – the maps of intercepted ports and MSRs
//! * [`world`] – the world switch
//!
//! Rule: nothing that a monitor or a guest writes can make this crate panic, or the machine do more than refuse the state
//! ([`cloister_abi::arch::x86_64::vcpu::ExitReason::InvalidState`]). The kernel owns interrupts, FPU and XCR0
//! switching, TLB tags and time; see [`vcpu::Vcpu`] for the order of its calls.
#![cfg_attr(not(test), no_std)]
#![expect(unsafe_code, reason = "shared memory of the state page, the control block that the processor writes, VMRUN")]

pub mod exit;
pub mod fpu;
pub mod limits;
mod load;
pub mod page;
pub mod permission;
pub mod segment;
mod state;
mod store;
pub mod vcpu;
pub mod vmcb;
pub mod world;

pub use exit::Exit;
pub use limits::Limits;
pub use page::StatePage;
pub use vcpu::{Setup, Vcpu};
pub use vmcb::Vmcb;

#[cfg(test)]
mod tests;
