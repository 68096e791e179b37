// SPDX-License-Identifier: MIT OR Apache-2.0
//! Linux/KVM as a back end of the VMM.
//!
//! KVM is used the way the microhypervisor is: it runs the processor and maps memory, and nothing else. Interrupt
//! controllers, timers and the paravirtual MSRs are the VMM's, so that both back ends see the same VMM code. Hence no
//! in-kernel irqchip (interrupts by `KVM_INTERRUPT` and interrupt windows), and an MSR filter that denies all but the
//! MSRs of the processor state ([`msrs`](crate::msrs)); a denied access comes to the VMM's bus.
//!
//! A deadline is a per-thread POSIX timer whose signal, as the signal of a kick, sets `immediate_exit` in the VCPU's
//! run page: a signal that comes just before `KVM_RUN` is then not lost ([`signal`](crate::signal)).
//!
//! Source for the interface: the kernel's Documentation/virt/kvm/api.rst.
#![cfg(target_os = "linux")]
#![expect(
    unsafe_code,
    reason = "ioctls that kvm-ioctls does not wrap, signals, and the run page shared with the kernel"
)]

mod ioctl;
mod msrs;
mod signal;
mod vcpu;
mod vm;

pub use signal::Kicker;
pub use vcpu::KvmVcpu;
pub use vm::{KvmHypervisor, KvmVm};
