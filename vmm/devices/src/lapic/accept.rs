// SPDX-License-Identifier: MIT OR Apache-2.0
//! How interrupts come in (SDM volume 3 sections 11.5.1, 11.5.3, 11.6.2 and 11.8.1): which messages are for this LAPIC,
//! what they do to it, its own errors, and its pins.

use super::{ApicMode, BROADCAST, Delivery, LVT_MASKED, Lapic, Lvt, error};

impl Lapic {
    /// True if a message to `destination` is for this LAPIC (SDM volume 3 section 11.6.2).
    #[must_use]
    pub fn is_addressed(&self, destination: u32, logical: bool) -> bool {
        match (self.mode(), logical) {
            (ApicMode::Disabled, _) => false,
            (_, false) => destination == BROADCAST || destination == self.id,
            (_, true) if destination == BROADCAST => true,
            (ApicMode::X2Apic, true) => destination >> 16 == self.ldr >> 16 && destination & self.ldr & 0xffff != 0,
            (ApicMode::XApic, true) => {
                let (mine, theirs) = (self.ldr >> 24, destination & 0xff);
                if self.dfr >> 28 == 0xf {
                    mine & theirs != 0
                } else {
                    mine >> 4 == theirs >> 4 && mine & theirs & 0xf != 0
                }
            }
        }
    }

    /// True if a lowest-priority message may come here: one does not go to a LAPIC that would lose it.
    #[must_use]
    pub const fn takes_lowest_priority(&self) -> bool {
        self.software_enabled()
    }

    /// Takes a message that is addressed here (SDM volume 3 section 11.8.1). True if the VCPU may have to act.
    pub fn accept(&mut self, delivery: Delivery, vector: u8, level: bool) -> bool {
        match delivery {
            Delivery::Fixed | Delivery::LowestPriority => self.accept_vector(vector, level),
            Delivery::Nmi => {
                self.signals.nmi = true;
                true
            }
            Delivery::Init => {
                self.signals.init = true;
                self.signals.start_up = None;
                self.waits_for_sipi = true;
                true
            }
            Delivery::StartUp if self.waits_for_sipi => {
                self.waits_for_sipi = false;
                self.signals.start_up = Some(vector);
                true
            }
            Delivery::ExtInt if self.software_enabled() => {
                self.ext_int = true;
                true
            }
            Delivery::StartUp | Delivery::ExtInt | Delivery::Smi => false,
        }
    }

    fn accept_vector(&mut self, vector: u8, level: bool) -> bool {
        if !self.software_enabled() || self.mode() == ApicMode::Disabled {
            return false;
        }
        if vector < 16 {
            self.raise_error(error::RECEIVED_ILLEGAL_VECTOR);
            return true;
        }
        if level {
            self.tmr.insert(vector);
        } else {
            self.tmr.remove(vector);
        }
        self.irr.insert(vector)
    }

    /// Notes an error and raises the error interrupt (SDM volume 3 section 11.5.3).
    pub(super) fn raise_error(&mut self, bit: u32) {
        let new = self.esr_pending & bit == 0;
        self.esr_pending |= bit;
        let entry = self.lvt(Lvt::Error);
        let vector = crate::bits::lo8(u64::from(entry));
        if new && entry & LVT_MASKED == 0 && vector >= 16 {
            self.accept_vector(vector, false);
        }
    }

    /// Raises a local interrupt as its entry of the local vector table says. True if the VCPU may have to act.
    pub(super) fn raise_local(&mut self, entry: Lvt) -> bool {
        let lvt = self.lvt(entry);
        if lvt & LVT_MASKED != 0 {
            return false;
        }
        match Delivery::decode(lvt >> 8) {
            _ if entry == Lvt::Timer => self.accept_vector(crate::bits::lo8(u64::from(lvt)), false),
            Some(Delivery::Fixed) => self.accept_vector(crate::bits::lo8(u64::from(lvt)), false),
            Some(Delivery::Nmi) => self.accept(Delivery::Nmi, 0, false),
            // ExtINT at a LINT pin follows the level of the pin: see `passes_ext_int`.
            _ => false,
        }
    }

    /// The 8259's output at LINT0 went high. True if the VCPU may have to act.
    pub fn lint0_rises(&mut self) -> bool {
        self.passes_ext_int() || self.raise_local(Lvt::Lint0)
    }

    /// An NMI at LINT1. True if the VCPU may have to act.
    pub fn lint1_rises(&mut self) -> bool {
        self.raise_local(Lvt::Lint1)
    }

    /// True if the 8259 may interrupt this VCPU through LINT0: the LAPIC is off and out of the way, or LINT0 is open
    /// and in ExtINT mode (SDM volume 3 section 11.5.1).
    #[must_use]
    pub fn passes_ext_int(&self) -> bool {
        if self.mode() == ApicMode::Disabled {
            return true;
        }
        let lint0 = self.lvt(Lvt::Lint0);
        lint0 & LVT_MASKED == 0 && Delivery::decode(lint0 >> 8) == Some(Delivery::ExtInt)
    }

    /// True if an ExtINT message came from the IOAPIC; it is forgotten.
    pub const fn take_ext_int(&mut self) -> bool {
        std::mem::replace(&mut self.ext_int, false)
    }

    /// True if an ExtINT message waits.
    #[must_use]
    pub const fn has_ext_int(&self) -> bool {
        self.ext_int
    }
}
