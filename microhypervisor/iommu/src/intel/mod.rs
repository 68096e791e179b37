// SPDX-License-Identifier: MIT OR Apache-2.0
//! Intel VT-d in legacy mode: root and context tables ([`context`]), second-level page tables ([`paging`]), the interrupt remapping
//! table ([`interrupt`]), the invalidation queue and the fault records ([`queue`]), and the firmware's table ([`dmar`]). Registers are those of
//! the VT-d specification, chapter 11.

pub mod context;
pub mod dmar;
pub mod interrupt;
pub mod paging;
pub mod queue;

/// Registers by offset, and their bits.
pub mod register {
    /// Capabilities.
    pub const CAPABILITY: u64 = 0x08;
    /// Further capabilities.
    pub const EXTENDED: u64 = 0x10;
    /// Commands, 32 bits.
    pub const COMMAND: u64 = 0x18;
    /// Status of the commands, 32 bits.
    pub const STATUS: u64 = 0x1c;
    /// Root table.
    pub const ROOT: u64 = 0x20;
    /// Fault status, 32 bits; bits are cleared by writing them.
    pub const FAULT_STATUS: u64 = 0x34;
    /// Fault event control, 32 bits: bit 31 masks.
    pub const FAULT_CONTROL: u64 = 0x38;
    /// Fault event data, 32 bits.
    pub const FAULT_DATA: u64 = 0x3c;
    /// Fault event address, 32 bits.
    pub const FAULT_ADDRESS: u64 = 0x40;
    /// Fault event address, upper 32 bits.
    pub const FAULT_ADDRESS_HIGH: u64 = 0x44;
    /// Invalidation queue: tail, bytes.
    pub const QUEUE_TAIL: u64 = 0x88;
    /// Invalidation queue: base and size.
    pub const QUEUE_BASE: u64 = 0x90;
    /// Interrupt remapping table: base and size.
    pub const INTERRUPT_TABLE: u64 = 0xb8;

    /// Command and status: translate.
    pub const TRANSLATE: u32 = 1 << 31;
    /// Command and status: take the root table.
    pub const SET_ROOT: u32 = 1 << 30;
    /// Command and status: flush the write buffer.
    pub const FLUSH_BUFFER: u32 = 1 << 27;
    /// Command and status: take invalidations from the queue.
    pub const QUEUE: u32 = 1 << 26;
    /// Command and status: remap interrupts.
    pub const REMAP: u32 = 1 << 25;
    /// Command and status: take the interrupt remapping table.
    pub const SET_INTERRUPT_TABLE: u32 = 1 << 24;
    /// Status: interrupts that name their vector themselves still pass.
    pub const COMPATIBLE: u32 = 1 << 23;

    /// Fault status: records were lost.
    pub const FAULT_OVERFLOW: u32 = 1 << 0;
    /// Fault status: errors of the invalidation queue.
    pub const QUEUE_ERRORS: u32 = 7 << 4;
    /// Interrupt table: destinations of 32 bits.
    pub const X2APIC: u64 = 1 << 11;
}

/// What a unit can do (registers `CAPABILITY` and `EXTENDED`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abilities(pub u64, pub u64);

impl Abilities {
    /// Number of domains.
    #[must_use]
    pub const fn domains(self) -> u32 {
        let code = self.0 & 7;
        if code >= 6 { 1 << 16 } else { 1 << (4 + 2 * code) }
    }

    /// The write buffer must be flushed by command.
    #[must_use]
    pub const fn needs_buffer_flush(self) -> bool {
        self.0 >> 4 & 1 != 0
    }

    /// It caches that something is not mapped (a unit that is emulated).
    #[must_use]
    pub const fn caches_absence(self) -> bool {
        self.0 >> 7 & 1 != 0
    }

    /// It walks tables of that many levels.
    #[must_use]
    pub const fn has_levels(self, levels: u32) -> bool {
        self.0 >> (8 + levels - 2) & 1 != 0
    }

    /// Most levels above the first of a page, counted from pages of 4 KiB: 1 with 2 MiB pages, 2 with those of 1 GiB.
    #[must_use]
    pub const fn large(self) -> u32 {
        match self.0 >> 34 & 3 {
            3 => 2,
            1 => 1,
            _ => 0,
        }
    }

    /// Offset of the first fault record, and number of records.
    #[must_use]
    pub const fn faults(self) -> (u64, u64) {
        ((self.0 >> 24 & 0x3ff) * 16, (self.0 >> 40 & 0xff) + 1)
    }

    /// It can invalidate a range of at most 2^order pages; `None` if only whole domains.
    #[must_use]
    pub fn range_order(self) -> Option<u32> {
        (self.0 >> 39 & 1 != 0).then_some((self.0 >> 48 & 0x3f).to_le_bytes()[0].into())
    }

    /// Table accesses snoop the processors' caches.
    #[must_use]
    pub const fn is_coherent(self) -> bool {
        self.1 & 1 != 0
    }

    /// It takes invalidations from a queue.
    #[must_use]
    pub const fn has_queue(self) -> bool {
        self.1 >> 1 & 1 != 0
    }

    /// It remaps interrupts.
    #[must_use]
    pub const fn remaps(self) -> bool {
        self.1 >> 3 & 1 != 0
    }

    /// It remaps interrupts to APICs of 32-bit identities.
    #[must_use]
    pub const fn has_x2apic(self) -> bool {
        self.1 >> 4 & 1 != 0
    }
}

#[cfg(test)]
mod tests {
    use super::Abilities;

    #[test]
    fn abilities_vt_d_11_4_2() {
        // 2 MiB pages, ranges up to 2^18 pages, records from 0x220 on, 39 bits, 16-bit domains.
        let unit = Abilities(18 << 48 | 1 << 39 | 1 << 34 | 0x22 << 24 | 2 << 8 | 6, 1 << 3 | 2);
        assert_eq!((unit.domains(), unit.large(), unit.faults()), (1 << 16, 1, (0x220, 1)));
        assert_eq!((unit.has_levels(3), unit.has_levels(4)), (true, false));
        assert_eq!(unit.range_order(), Some(18));
        assert_eq!(
            (unit.has_queue(), unit.remaps(), unit.has_x2apic(), unit.is_coherent()),
            (true, true, false, false)
        );
    }
}
