// SPDX-License-Identifier: MIT OR Apache-2.0
//! AMD-Vi: one table of all devices ([`device`]), page tables ([`paging`]), interrupt tables ([`interrupt`]), a ring of commands and one of events
//! ([`queue`]), and the firmware's table ([`ivrs`]). Registers are those of 48882, 3.4.

pub mod device;
pub mod interrupt;
pub mod ivrs;
pub mod paging;
pub mod queue;

/// Registers by offset, and their bits.
pub mod register {
    /// Base and size of the device table.
    pub const DEVICE_TABLE: u64 = 0x00;
    /// Base and length of the command buffer.
    pub const COMMAND_BASE: u64 = 0x08;
    /// Base and length of the event log.
    pub const EVENT_BASE: u64 = 0x10;
    /// Control.
    pub const CONTROL: u64 = 0x18;
    /// Extended features.
    pub const FEATURES: u64 = 0x30;
    /// Head of the command buffer, bytes.
    pub const COMMAND_HEAD: u64 = 0x2000;
    /// Tail of the command buffer, bytes.
    pub const COMMAND_TAIL: u64 = 0x2008;
    /// Head of the event log, bytes.
    pub const EVENT_HEAD: u64 = 0x2010;
    /// Tail of the event log, bytes.
    pub const EVENT_TAIL: u64 = 0x2018;
    /// Status; bits are cleared by writing them.
    pub const STATUS: u64 = 0x2020;
    /// Pages that hold these.
    pub const PAGES: u64 = 3;

    /// Control: translate.
    pub const ENABLE: u64 = 1 << 0;
    /// Control: log events.
    pub const EVENT_LOG: u64 = 1 << 2;
    /// Control: interrupt on events.
    pub const EVENT_INTERRUPT: u64 = 1 << 3;
    /// Control: snoop the processors' caches for table accesses.
    pub const COHERENT: u64 = 1 << 10;
    /// Control: take commands.
    pub const COMMANDS: u64 = 1 << 12;
    /// Control: interrupt tables of 128-bit entries.
    pub const WIDE_INTERRUPTS: u64 = 1 << 17;
    /// Control: destinations of more than 8 bits.
    pub const X2APIC: u64 = 1 << 50;

    /// Status: events were lost.
    pub const EVENT_OVERFLOW: u64 = 1 << 0;
    /// Status: an event was logged.
    pub const EVENT_PENDING: u64 = 1 << 1;
    /// Status: the log is being written.
    pub const EVENT_RUNNING: u64 = 1 << 3;

    /// Features: destinations of more than 8 bits.
    pub const HAS_X2APIC: u64 = 1 << 2;
    /// Features: the command that invalidates everything.
    pub const HAS_INVALIDATE_ALL: u64 = 1 << 6;
    /// Features: interrupt tables of 128-bit entries.
    pub const HAS_WIDE_INTERRUPTS: u64 = 1 << 7;
}
