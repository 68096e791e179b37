// SPDX-License-Identifier: MIT OR Apache-2.0
//! x86_64.

pub(crate) mod acpi;
mod apic;
pub(crate) mod backtrace;
mod boot;
pub(crate) mod bootinfo;
pub(crate) mod cpu;
mod entry;
pub(crate) mod fpu;
pub(crate) mod guest;
mod idt;
mod ioapic;
pub(crate) mod iommu;
pub(crate) mod irq;
pub(crate) mod machine_check;
mod nmi;
pub(crate) mod paging;
pub(crate) mod percore;
pub(crate) mod power;
pub(crate) mod rtc;
pub(crate) mod serial;
pub(crate) mod smp;
pub(crate) mod speculation;
pub(crate) mod timer;
pub(crate) mod trap;

pub(crate) use entry::{FRESH, Frame, SYSCALL, SYSCALL_LENGTH, Way, first_exit};
