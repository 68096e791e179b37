// SPDX-License-Identifier: MIT OR Apache-2.0
//! Capabilities as a component sees them: selectors into its object space, permissions, kinds of object.

use bitflags::bitflags;

/// Index into the object space of the calling protection domain.
pub type Selector = u32;

/// Number of selectors in an object space.
pub const SELECTORS: u32 = 512 * 512;

/// A selector that never names anything: says "none" where a selector is optional.
pub const NONE: Selector = u32::MAX;

numbered! {
    /// Kinds of object.
    pub enum Kind: u8 {
        /// Destroyed, or never there.
        Dead = 0,
        /// Protection domain (PD): pays for kernel memory, owns an object and a host-memory space.
        Pd = 1,
        /// Execution context (EC): a thread.
        Ec = 2,
        /// Scheduling context (SC): time and priority.
        Sc = 3,
        /// Portal (PT): an entry into a component.
        Pt = 4,
        /// Semaphore (SM): counter, signal, or interrupt.
        Sm = 5,
        /// Virtual CPU (VCPU).
        Vcpu = 6,
        /// Space: what can be mapped or delegated into.
        Space = 7,
        /// The machine: interrupts, power, the debug console. Only the root task has it at first.
        Machine = 8,
    }
}

numbered! {
    /// Kinds of space.
    pub enum SpaceKind: u8 {
        /// Capabilities; the unit is a selector.
        Object = 0,
        /// A component's memory; the unit is a page.
        Host = 1,
        /// A guest's physical memory (nested page table); the unit is a page.
        Guest = 2,
        /// What a device may reach by DMA; the unit is a page.
        Dma = 3,
        /// I/O ports; the unit is a port.
        Pio = 4,
        /// Model-specific registers; the unit is a register.
        Msr = 5,
    }
}

bitflags! {
    /// What the holder of a capability may do; the meaning of a bit depends on the object's kind. A delegation can only
    /// take bits away.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct Perms: u8 {
        /// Any kind: destroy it and control it.
        const CTRL = 1 << 0;

        /// PD: create portals and semaphores that this PD pays for.
        const PD_OBJECTS = 1 << 1;
        /// PD: create ECs, SCs, VCPUs and spaces that this PD pays for.
        const PD_CONTEXTS = 1 << 2;
        /// PD: create PDs below it, move budget from it.
        const PD_CHILDREN = 1 << 3;

        /// EC: bind portals to it.
        const EC_PORTALS = 1 << 1;
        /// EC: bind an SC to it.
        const EC_SCHED = 1 << 2;

        /// PT: call it.
        const PT_CALL = 1 << 1;
        /// PT: use it as the exception portal of an EC.
        const PT_EVENT = 1 << 2;

        /// SM: count up.
        const SM_UP = 1 << 1;
        /// SM: count down, wait.
        const SM_DOWN = 1 << 2;
        /// SM: make signals that go to it, bind an interrupt to it.
        const SM_BIND = 1 << 3;

        /// VCPU: run it, read and write its state.
        const VCPU_RUN = 1 << 1;
        /// VCPU: kick it out of the guest.
        const VCPU_KICK = 1 << 2;

        /// Space: delegate out of it.
        const SPACE_TAKE = 1 << 1;
        /// Space: delegate into it, and revoke.
        const SPACE_GRANT = 1 << 2;
        /// Space (guest): run VCPUs in it. Space (DMA): assign devices to it.
        const SPACE_ASSIGN = 1 << 3;

        /// Machine: bind interrupts.
        const MACHINE_IRQ = 1 << 1;
        /// Machine: power off, reset.
        const MACHINE_POWER = 1 << 2;
        /// Machine: write to the kernel's debug console.
        const MACHINE_CONSOLE = 1 << 3;
        /// Machine: assign devices to DMA spaces, see their faults.
        const MACHINE_DEVICE = 1 << 4;

        /// Everything.
        const ALL = 0x1f;
    }
}

bitflags! {
    /// Access rights and attributes of memory in a host, guest or DMA space.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct Access: u8 {
        /// Readable.
        const READ = 1 << 0;
        /// Writable. Host memory that is writable is never executable.
        const WRITE = 1 << 1;
        /// Executable.
        const EXEC = 1 << 2;
        /// Not cached (device registers).
        const UNCACHED = 1 << 3;
        /// Write-combining (frame buffers).
        const WRITE_COMBINING = 1 << 4;
    }
}
