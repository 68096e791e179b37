// SPDX-License-Identifier: MIT OR Apache-2.0
//! What only those above the kernel do with the contract's values: pack what they ask for, read what they were answered.
//!
//! The kernel's image has none of this.

use crate::arch::x86_64::vcpu::{Event, PortAccess};
use crate::cap::{Perms, Selector};
use crate::hypercall::{CreateEc, EcFlags, FaultRecord};
use crate::trace::{self, Record, WORDS};
use crate::utcb::Item;

impl Item {
    /// Item that delegates a capability with these permissions.
    #[must_use]
    pub const fn delegate(sel: Selector, perms: Perms) -> Self {
        Self { value: sel as u64, attr: Self::DELEGATE | (perms.bits() as u64) << 8 }
    }

    /// Item that shows the receiver one of its own portals, or delegates if it is not the receiver's.
    #[must_use]
    pub const fn translate(sel: Selector, perms: Perms) -> Self {
        Self { value: sel as u64, attr: Self::TRANSLATE | (perms.bits() as u64) << 8 }
    }
}

impl CreateEc {
    /// Packs flags, core and exception portal into the argument.
    #[must_use]
    pub const fn pack(flags: EcFlags, core: u8, event: Selector) -> u64 {
        flags.bits() | (core as u64) << 8 | (event as u64) << 32
    }
}

impl FaultRecord {
    /// From a result's value.
    #[must_use]
    pub const fn unpack(value: u64) -> Self {
        let [low, high, cause, write, ..] = value.to_le_bytes();
        let device = u16::from_le_bytes([low, high]);
        Self { device, cause, write: write & 1 != 0, lost: (value >> 32) as u32 }
    }
}

impl Record {
    /// From words.
    #[must_use]
    pub const fn from_words([time, what, first, second]: [u64; WORDS]) -> Self {
        Self { time, what, first, second }
    }

    /// The event, if it is one of this version.
    #[must_use]
    pub const fn event(&self) -> Option<trace::Event> {
        trace::Event::from_raw(self.what & 0xff)
    }

    /// The detail.
    #[must_use]
    pub const fn detail(&self) -> u16 {
        (self.what >> 16 & 0xffff) as u16
    }
}

impl PortAccess {
    /// Port.
    #[must_use]
    pub const fn port(self) -> u16 {
        (self.0 & 0xffff) as u16
    }

    /// Bytes per access: 1, 2 or 4.
    #[must_use]
    pub const fn size(self) -> u64 {
        self.0 >> 20 & 7
    }

    /// Read rather than write.
    #[must_use]
    pub const fn is_in(self) -> bool {
        self.0 & Self::IN != 0
    }

    /// String instruction.
    #[must_use]
    pub const fn is_string(self) -> bool {
        self.0 & Self::STRING != 0
    }

    /// REP prefix.
    #[must_use]
    pub const fn is_rep(self) -> bool {
        self.0 & Self::REP != 0
    }

    /// Address size of a string instruction, in bytes.
    #[must_use]
    pub const fn address_size(self) -> u64 {
        self.0 >> 24 & 15
    }

    /// Segment register of a string instruction: ES, CS, SS, DS, FS, GS from 0.
    #[must_use]
    pub const fn segment(self) -> u64 {
        self.0 >> 28 & 7
    }
}

impl Event {
    /// External interrupt.
    #[must_use]
    pub const fn interrupt(vector: u8) -> Self {
        Self(vector as u64 | Self::INTERRUPT | Self::VALID)
    }

    /// Non-maskable interrupt.
    #[must_use]
    pub const fn nmi() -> Self {
        Self(2 | Self::NMI | Self::VALID)
    }
}
