// SPDX-License-Identifier: MIT OR Apache-2.0
//! What arguments and results of hypercalls are made of: flags, operations, packed values.

use super::CreateEc;
use crate::cap::Selector;
use bitflags::bitflags;

bitflags! {
    /// How a portal is called.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct IpcFlags: u64 {
        /// Answer `Timeout` at once if the callee is busy, instead of helping it.
        const NONBLOCKING = 1 << 0;
    }
}

bitflags! {
    /// What kind of EC is created.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct EcFlags: u64 {
        /// A thread that gets an SC of its own; else a local one that serves portals on its callers' time.
        const GLOBAL = 1 << 0;
        /// It uses floating-point and vector registers.
        const FPU = 1 << 1;
    }
}

impl CreateEc {
    /// Flags of the packed argument, `None` if an unknown one is set.
    #[must_use]
    pub const fn ec_flags(&self) -> Option<EcFlags> {
        EcFlags::from_bits(self.flags & 0xffff_00ff)
    }

    /// Core of the packed argument.
    #[must_use]
    pub const fn core(&self) -> u8 {
        (self.flags >> 8 & 0xff) as u8
    }

    /// Exception portal of the packed argument.
    #[must_use]
    pub const fn event(&self) -> Selector {
        (self.flags >> 32) as Selector
    }
}

bitflags! {
    /// How a semaphore is counted down.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct DownFlags: u64 {
        /// Take the whole counter instead of one.
        const ZERO = 1 << 0;
        /// Do not wait: answer `Timeout` if it is 0.
        const NONBLOCKING = 1 << 1;
    }
}

bitflags! {
    /// How an interrupt is wired. Without flags as the machine's tables say (ISA: edge, high; PCI: level, low).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct IrqFlags: u64 {
        /// Level-triggered.
        const LEVEL = 1 << 0;
        /// Active low.
        const LOW = 1 << 1;
        /// Trigger and polarity are given by the two bits above, not by the tables.
        const EXPLICIT = 1 << 2;
    }
}

bitflags! {
    /// What [`AssignDevice`] does.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct DeviceFlags: u64 {
        /// Take the device out of the space.
        const REMOVE = 1 << 0;
    }
}

/// What is told of a device's fault beside its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FaultRecord {
    /// Requester id of the device.
    pub device: u16,
    /// 1: nothing mapped at the address, or not with that right; 2: the device is in no space; 3: an interrupt that is not its own;
    /// 4: something else.
    pub cause: u8,
    /// It was a write.
    pub write: bool,
    /// Faults that were not kept since the last that was taken.
    pub lost: u32,
}

impl FaultRecord {
    /// As a result's value: device in bits 0..16, cause in 16..24, write in 24, lost in 32..64.
    #[must_use]
    pub const fn pack(self) -> u64 {
        self.device as u64 | (self.cause as u64) << 16 | (self.write as u64) << 24 | (self.lost as u64) << 32
    }
}

numbered! {
    /// Operations of [`MachineControl`].
    pub enum MachineOp: u64 {
        /// Power off (`MACHINE_POWER`). The value is the exit code for machines that have one.
        PowerOff = 0,
        /// Reset (`MACHINE_POWER`).
        Reset = 1,
        /// Write as many bytes as the value says, out of the message words, to the debug console (`MACHINE_CONSOLE`).
        Console = 2,
        /// Answer how much memory is where, bytes; the value is a [`MemoryPart`] (`CTRL`).
        Memory = 3,
        /// Answer the time of a core that no SC used, ticks; the value is the core's number (`CTRL`).
        Idle = 4,
    }
}

numbered! {
    /// What [`MachineOp::Memory`] tells of. The pool is the root task's budget (PD information), and what the kernel took for itself at
    /// boot: `Cores` and `Other`.
    pub enum MemoryPart: u64 {
        /// Size of the kernel's pool, and what is free of it.
        Pool = 0,
        /// Size of the firmware's memory map, which is that of all ranges of the information page; and of the kernel's image.
        Machine = 1,
        /// Of the pool: structures and stacks of cores; page tables of the kernel.
        Cores = 2,
        /// Of the pool: interrupts, devices, guests and tracing. Beside the pool: tables of the IOMMU.
        Other = 3,
    }
}
