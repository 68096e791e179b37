// SPDX-License-Identifier: MIT OR Apache-2.0
//! The LAPIC's registers, as memory (SDM volume 3 section 11.4.1) and as MSRs (section 11.12.1).
//!
//! A register has one number: its memory offset divided by 16, which is also its MSR minus 0x800. The two interfaces
//! differ in the interrupt command (one register of 64 bits, or two of 32), in what exists (DFR and the high half
//! of the command in memory only, the self IPI as MSR only), and in manners: memory ignores what it does not like
//! and notes an error, MSRs raise a fault.

use super::timer::Mode;
use super::{ApicMode, Effect, GpFault, Ipi, LVT_MASKED, Lapic, Lvt, SVR_ENABLED, Shorthand, error};
use crate::bits::{lo8, lo32};
use crate::bus::Width;
use crate::lapic::{Delivery, Message};

/// First MSR of the x2APIC range.
pub(crate) const X2APIC_MSR_BASE: u32 = 0x800;

mod reg {
    pub(super) const ID: u8 = 0x02;
    pub(super) const VERSION: u8 = 0x03;
    pub(super) const TPR: u8 = 0x08;
    pub(super) const APR: u8 = 0x09;
    pub(super) const PPR: u8 = 0x0a;
    pub(super) const EOI: u8 = 0x0b;
    pub(super) const RRD: u8 = 0x0c;
    pub(super) const LDR: u8 = 0x0d;
    pub(super) const DFR: u8 = 0x0e;
    pub(super) const SVR: u8 = 0x0f;
    pub(super) const ISR: u8 = 0x10;
    pub(super) const ISR_LAST: u8 = 0x17;
    pub(super) const TMR: u8 = 0x18;
    pub(super) const TMR_LAST: u8 = 0x1f;
    pub(super) const IRR: u8 = 0x20;
    pub(super) const IRR_LAST: u8 = 0x27;
    pub(super) const ESR: u8 = 0x28;
    pub(super) const ICR: u8 = 0x30;
    pub(super) const ICR_HIGH: u8 = 0x31;
    pub(super) const LVT_TIMER: u8 = 0x32;
    pub(super) const LVT_THERMAL: u8 = 0x33;
    pub(super) const LVT_PERFORMANCE: u8 = 0x34;
    pub(super) const LVT_LINT0: u8 = 0x35;
    pub(super) const LVT_LINT1: u8 = 0x36;
    pub(super) const LVT_ERROR: u8 = 0x37;
    pub(super) const TIMER_INITIAL: u8 = 0x38;
    pub(super) const TIMER_CURRENT: u8 = 0x39;
    pub(super) const TIMER_DIVIDE: u8 = 0x3e;
    pub(super) const SELF_IPI: u8 = 0x3f;
}

/// Integrated APIC, six entries in the local vector table, no suppression of EOI broadcasts.
const VERSION: u32 = 0x14 | (5 << 16);
/// Spurious vector and software enable; focus checking does not exist since the Pentium 4.
const SVR_WRITABLE: u32 = 0x1ff;
/// Bits of the command register that may be written as MSR (section 11.12.9).
const ICR_X2APIC: u64 = 0xffff_ffff_000c_dfff;

impl Lvt {
    const fn of(register: u8) -> Option<Self> {
        match register {
            reg::LVT_TIMER => Some(Self::Timer),
            reg::LVT_THERMAL => Some(Self::Thermal),
            reg::LVT_PERFORMANCE => Some(Self::Performance),
            reg::LVT_LINT0 => Some(Self::Lint0),
            reg::LVT_LINT1 => Some(Self::Lint1),
            reg::LVT_ERROR => Some(Self::Error),
            _ => None,
        }
    }

    /// Bits that software may write (figure 11-8).
    const fn writable(self) -> u32 {
        match self {
            Self::Timer => 0x0007_00ff,
            Self::Thermal | Self::Performance => 0x0001_07ff,
            Self::Lint0 | Self::Lint1 => 0x0001_a7ff,
            Self::Error => 0x0001_00ff,
        }
    }
}

impl Lapic {
    // ---- as memory -----------------------------------------------------------------------------------------------

    /// Reads at `offset` in the register page. Only the first four bytes of each sixteen hold something.
    pub fn mmio_read(&mut self, offset: u64, width: Width, now: u64) -> u64 {
        let register = lo8(offset >> 4);
        if offset & 0xf > 3 || self.mode() != ApicMode::XApic {
            return if self.mode() == ApicMode::XApic { 0 } else { width.mask() };
        }
        let value = match register {
            reg::ID => self.id() << 24,
            reg::DFR => self.dfr,
            reg::ICR => lo32(self.icr),
            reg::ICR_HIGH => lo32(self.icr >> 32),
            reg::EOI | reg::APR | reg::RRD => 0,
            other => self.read_common(other, now).unwrap_or_else(|| {
                self.raise_error(error::ILLEGAL_REGISTER);
                0
            }),
        };
        (u64::from(value) >> ((offset & 3) << 3)) & width.mask()
    }

    /// Writes at `offset` in the register page. Other than aligned accesses of four bytes are ignored.
    pub fn mmio_write(&mut self, offset: u64, width: Width, value: u64, now: u64) -> Effect {
        if offset & 0xf != 0 || width < Width::Dword || self.mode() != ApicMode::XApic {
            return Effect::Nothing;
        }
        let (register, value) = (lo8(offset >> 4), lo32(value));
        match register {
            reg::EOI => return self.eoi(),
            reg::TPR => self.tpr = lo8(u64::from(value)),
            reg::LDR => self.ldr = value & 0xff00_0000,
            reg::DFR => self.dfr = value | 0x0fff_ffff,
            reg::SVR => self.write_svr(value & SVR_WRITABLE),
            reg::ESR => self.write_esr(),
            reg::ICR_HIGH => self.icr = (self.icr & 0xffff_ffff) | (u64::from(value & 0xff00_0000) << 32),
            reg::ICR => {
                // Delivery is at once, so that the delivery status (bit 12) always reads idle.
                self.icr = (self.icr & !0xffff_ffff) | u64::from(value & 0x000c_cfff);
                return self.command(false);
            }
            reg::TIMER_INITIAL => self.timer.set_initial(value, now),
            reg::TIMER_DIVIDE => self.timer.set_divide(value, now),
            // Read-only, or what processors since the Pentium 4 ignore.
            reg::ID | reg::VERSION | reg::APR | reg::PPR | reg::RRD | reg::TIMER_CURRENT => {}
            other => match Lvt::of(other) {
                Some(entry) => self.write_lvt(entry, value & entry.writable(), now),
                None if (reg::ISR..=reg::IRR_LAST).contains(&other) => {}
                None => self.raise_error(error::ILLEGAL_REGISTER),
            },
        }
        Effect::Nothing
    }

    // ---- as MSRs -------------------------------------------------------------------------------------------------

    /// Reads the x2APIC register `msr` (0x800 to 0x8ff).
    ///
    /// # Errors
    /// [`GpFault`] outside of x2APIC mode, and for registers that do not exist or cannot be read.
    pub fn msr_read(&mut self, msr: u32, now: u64) -> Result<u64, GpFault> {
        let register = self.x2apic_register(msr)?;
        match register {
            reg::ID => Ok(u64::from(self.id())),
            reg::ICR => Ok(self.icr),
            other => self.read_common(other, now).map(u64::from).ok_or(GpFault),
        }
    }

    /// Writes the x2APIC register `msr` (0x800 to 0x8ff).
    ///
    /// # Errors
    /// [`GpFault`] outside of x2APIC mode, for registers that do not exist or cannot be written, and for reserved
    /// bits.
    pub fn msr_write(&mut self, msr: u32, value: u64, now: u64) -> Result<Effect, GpFault> {
        let register = self.x2apic_register(msr)?;
        let reserved = |writable: u64| if value & !writable == 0 { Ok(()) } else { Err(GpFault) };
        match register {
            // First, since it is the commonest.
            reg::EOI => reserved(0).map(|()| self.eoi()),
            reg::ICR => {
                reserved(ICR_X2APIC)?;
                self.icr = value & !(1 << 12);
                Ok(self.command(true))
            }
            reg::TPR => reserved(0xff).map(|()| {
                self.tpr = lo8(value);
                Effect::Nothing
            }),
            reg::SVR => reserved(u64::from(SVR_WRITABLE)).map(|()| {
                self.write_svr(lo32(value));
                Effect::Nothing
            }),
            reg::ESR => reserved(0).map(|()| {
                self.write_esr();
                Effect::Nothing
            }),
            reg::TIMER_INITIAL => reserved(0xffff_ffff).map(|()| {
                self.timer.set_initial(lo32(value), now);
                Effect::Nothing
            }),
            reg::TIMER_DIVIDE => reserved(0xb).map(|()| {
                self.timer.set_divide(lo32(value), now);
                Effect::Nothing
            }),
            reg::SELF_IPI => reserved(0xff).map(|()| self.self_ipi(lo8(value))),
            other => {
                let entry = Lvt::of(other).ok_or(GpFault)?;
                reserved(u64::from(entry.writable() | (1 << 12)))?;
                self.write_lvt(entry, lo32(value) & entry.writable(), now);
                Ok(Effect::Nothing)
            }
        }
    }

    fn x2apic_register(&self, msr: u32) -> Result<u8, GpFault> {
        let number = msr.checked_sub(X2APIC_MSR_BASE).ok_or(GpFault)?;
        match self.mode() {
            ApicMode::X2Apic => u8::try_from(number).map_err(|_| GpFault),
            _ => Err(GpFault),
        }
    }

    // ---- what both share -----------------------------------------------------------------------------------------

    fn read_common(&mut self, register: u8, now: u64) -> Option<u32> {
        Some(match register {
            reg::VERSION => VERSION,
            reg::TPR => u32::from(self.tpr),
            reg::PPR => u32::from(self.ppr()),
            reg::LDR => self.ldr,
            reg::SVR => self.svr,
            reg::ISR..=reg::ISR_LAST => self.isr.register(register & 7),
            reg::TMR..=reg::TMR_LAST => self.tmr.register(register & 7),
            reg::IRR..=reg::IRR_LAST => self.irr.register(register & 7),
            reg::ESR => self.esr,
            reg::TIMER_INITIAL => self.timer.initial(),
            reg::TIMER_CURRENT => {
                self.advance(now);
                self.timer.current(now)
            }
            reg::TIMER_DIVIDE => self.timer.divide(),
            other => return Lvt::of(other).map(|entry| self.lvt(entry)),
        })
    }

    fn write_svr(&mut self, value: u32) {
        self.svr = value;
        if value & SVR_ENABLED == 0 {
            // Section 11.4.7.2: the mask bits are set and stay so.
            self.lvt.iter_mut().for_each(|entry| *entry |= LVT_MASKED);
        }
    }

    /// A write makes what happened since the last write visible (section 11.5.3).
    fn write_esr(&mut self) {
        self.esr = std::mem::take(&mut self.esr_pending);
    }

    fn write_lvt(&mut self, entry: Lvt, value: u32, now: u64) {
        let value = if self.svr & SVR_ENABLED == 0 { value | LVT_MASKED } else { value };
        if entry == Lvt::Timer {
            // What was due before the change fires under the old rules.
            self.advance(now);
            self.timer.set_mode(Mode::decode(value));
        }
        let [timer, thermal, performance, lint0, lint1, error] = &mut self.lvt;
        *match entry {
            Lvt::Timer => timer,
            Lvt::Thermal => thermal,
            Lvt::Performance => performance,
            Lvt::Lint0 => lint0,
            Lvt::Lint1 => lint1,
            Lvt::Error => error,
        } = value;
    }

    fn command(&mut self, x2apic: bool) -> Effect {
        match Ipi::from_icr(self.icr, x2apic) {
            Some(ipi) if Self::lacks_vector(&ipi.message) => {
                self.raise_error(error::SEND_ILLEGAL_VECTOR);
                Effect::Nothing
            }
            Some(ipi) => Effect::Send(ipi),
            None => Effect::Nothing,
        }
    }

    fn self_ipi(&mut self, vector: u8) -> Effect {
        let message =
            Message { destination: self.id(), logical: false, delivery: Delivery::Fixed, vector, level: false };
        if Self::lacks_vector(&message) {
            self.raise_error(error::SEND_ILLEGAL_VECTOR);
            return Effect::Nothing;
        }
        Effect::Send(Ipi { message, shorthand: Shorthand::Myself })
    }

    const fn lacks_vector(message: &Message) -> bool {
        matches!(message.delivery, Delivery::Fixed | Delivery::LowestPriority) && message.vector < 16
    }
}
