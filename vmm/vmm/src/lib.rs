// SPDX-License-Identifier: MIT OR Apache-2.0
//! The virtual-machine monitor: one process, one guest.
//!
//! [`vm::run`] builds the machine that a [`config::VmConfig`] describes and runs it until it is switched off, starting
//! anew at a reset. A VM is a [`board::Board`] (buses, interrupt fabric, devices, shared by all threads), guest memory
//! ([`memory`]), and one [`vcpu`] loop per processor, which enters the guest, answers its accesses through
//! [`bus::VcpuBus`], and injects interrupts. Another thread brings in console input.
//!
//! Neighbours: `cloister-hypervisor` is the machine underneath, `cloister-devices` and `cloister-virtio` the device
//! models, `cloister-boot` what the guest finds at its start.
//!
//! Rules. Whatever a guest does has an answer; the lints below keep its data from panicking the monitor. A VCPU's
//! thread takes no lock but those of the device that it talks to.
#![cfg_attr(
    not(test),
    deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::panic, clippy::expect_used)
)]
#![expect(unsafe_code, reason = "guest memory is mapped and shared with the guest; a test switch crashes on purpose")]

pub mod board;
pub mod bus;
pub mod clock;
pub mod cloister;
pub mod config;
pub mod config_pages;
pub mod console;
mod crash;
pub mod entropy;
pub mod memory;
mod msr;
pub mod options;
mod paravirt;
mod report;
mod sleep;
pub mod stats;
pub mod vcpu;
pub mod vm;
mod wake;
