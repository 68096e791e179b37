// SPDX-License-Identifier: MIT OR Apache-2.0
//! The fixed hardware of ACPI (ACPI 6.5 section 4.8): PM1 event and control registers, power-management timer, one
//! general-purpose event block.
//!
//! One block of ports, [`AcpiPm::LEN`] long, at an address that the VMM chooses and tells by the FADT; the offsets of
//! the registers are constants here. The hardware is in ACPI mode from the start (FADT: SMI_CMD = 0), so that SCI_EN
//! always reads 1. The system control interrupt is a level on the line given.
//!
//! The PM timer is 32 bits wide (FADT flag TMR_VAL_EXT must be set).

use crate::bits::{lo8, lo16, lo32};
use crate::bus::{PortDevice, Width};
use crate::clock::{Clock, Deadline, Frequency, Timed};
use crate::irq::IrqLine;
use crate::power::{PowerEvent, PowerLatch};
use std::sync::Arc;

/// The ISA interrupt that is usually the SCI: level, and active high here.
pub const SCI_IRQ: u32 = 9;
/// Ticks of the PM timer per second (section 4.8.2.1).
pub const PM_TIMER_HZ: u32 = 3_579_545;

const TICKS: Frequency = Frequency::new(PM_TIMER_HZ);

const TMR_STS: u16 = 1 << 0;
const GBL_STS: u16 = 1 << 5;
const PWRBTN_STS: u16 = 1 << 8;
const SLPBTN_STS: u16 = 1 << 9;
const RTC_STS: u16 = 1 << 10;
const WAK_STS: u16 = 1 << 15;
/// Status bits that software clears by writing one.
const CLEARABLE: u16 = TMR_STS | GBL_STS | PWRBTN_STS | SLPBTN_STS | RTC_STS | WAK_STS;
const ENABLEABLE: u16 = TMR_STS | GBL_STS | PWRBTN_STS | SLPBTN_STS | RTC_STS;

const SCI_EN: u16 = 1 << 0;
const SLP_EN: u16 = 1 << 13;

/// Offset in the block, in ports.
pub mod offset {
    /// PM1a event block: status (2 bytes), enable (2 bytes).
    pub const PM1_EVENT: u16 = 0x00;
    /// PM1a control block (2 bytes).
    pub const PM1_CONTROL: u16 = 0x04;
    /// PM timer block (4 bytes).
    pub const PM_TIMER: u16 = 0x08;
    /// General-purpose event block 0: status (2 bytes), enable (2 bytes).
    pub const GPE0: u16 = 0x10;
    /// Length of the general-purpose event block.
    pub const GPE0_LEN: u16 = 4;
}

/// The sleep type that means S5, off: what `\_S5` must say.
pub const SLP_TYP_S5: u8 = 5;
/// The sleep type that means S3, suspend to memory: what `\_S3` must say if it is offered.
pub const SLP_TYP_S3: u8 = 1;

/// The fixed hardware.
pub struct AcpiPm {
    status: u16,
    enable: u16,
    control: u16,
    gpe_status: u16,
    gpe_enable: u16,
    /// The timer's top bit when it was looked at last.
    timer_top: bool,
    clock: Arc<dyn Clock>,
    sci: IrqLine,
    latch: PowerLatch,
    deadline: Deadline,
}

impl std::fmt::Debug for AcpiPm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AcpiPm").field("status", &self.status).field("enable", &self.enable).finish_non_exhaustive()
    }
}

impl AcpiPm {
    /// Number of ports in the block.
    pub const LEN: u64 = 0x18;

    /// The hardware as after reset, with its interrupt at `sci`.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>, sci: IrqLine, latch: PowerLatch) -> Self {
        Self {
            status: 0,
            enable: 0,
            control: SCI_EN,
            gpe_status: 0,
            gpe_enable: 0,
            timer_top: false,
            clock,
            sci,
            latch,
            deadline: Deadline::default(),
        }
    }

    /// Presses the power button once: the guest is asked to shut down.
    pub fn press_power_button(&mut self) {
        self.status |= PWRBTN_STS;
        self.update_sci();
    }

    /// Presses the sleep button once.
    pub fn press_sleep_button(&mut self) {
        self.status |= SLPBTN_STS;
        self.update_sci();
    }

    /// Raises general-purpose event `number` (0 to 15); others do not exist and are ignored.
    pub fn raise_event(&mut self, number: u8) {
        if let Some(bit) = 1u16.checked_shl(u32::from(number)) {
            self.gpe_status |= bit;
            self.update_sci();
        }
    }

    /// The guest was woken from S3.
    pub fn wake(&mut self) {
        self.status |= WAK_STS;
    }

    fn update_sci(&mut self) {
        let high = self.status & self.enable != 0 || self.gpe_status & self.gpe_enable != 0;
        self.sci.set(high);
    }

    fn timer(&self) -> u32 {
        lo32(TICKS.ticks(self.clock.now()))
    }

    /// TMR_STS is set when the top bit of the timer changes (section 4.8.3.1.1).
    fn follow_timer(&mut self) {
        let top = self.timer() >> 31 != 0;
        if top != self.timer_top {
            self.timer_top = top;
            self.status |= TMR_STS;
        }
    }

    fn publish(&mut self) {
        self.update_sci();
        let wanted = self.enable & TMR_STS != 0;
        let ticks = TICKS.ticks(self.clock.now());
        let next = (ticks | 0x7fff_ffff).saturating_add(1);
        self.deadline.set(wanted.then(|| TICKS.ns(next)));
    }

    fn sleep(&self, control: u16) {
        match lo8(u64::from(control >> 10)) & 7 {
            SLP_TYP_S5 => self.latch.request(PowerEvent::Off),
            SLP_TYP_S3 => self.latch.request(PowerEvent::Sleep),
            _ => {}
        }
    }

    /// The 16-bit register at `at` (even).
    fn register(&mut self, at: u16) -> u16 {
        match at {
            0x00 => {
                self.follow_timer();
                self.status
            }
            0x02 => self.enable,
            0x04 => self.control,
            0x10 => self.gpe_status,
            0x12 => self.gpe_enable,
            _ => 0,
        }
    }

    fn set_register(&mut self, at: u16, value: u16, touched: u16) {
        match at {
            0x00 => {
                self.follow_timer();
                self.status &= !(value & touched & CLEARABLE);
            }
            0x02 => self.enable = ((self.enable & !touched) | (value & touched)) & ENABLEABLE,
            0x04 => {
                let new = (self.control & !touched) | (value & touched);
                self.control = (new & !SLP_EN) | SCI_EN;
                if new & SLP_EN & touched != 0 {
                    self.sleep(new);
                }
            }
            0x10 => self.gpe_status &= !(value & touched),
            0x12 => self.gpe_enable = (self.gpe_enable & !touched) | (value & touched),
            _ => return,
        }
        self.publish();
    }
}

impl PortDevice for AcpiPm {
    fn read(&mut self, offset: u16, width: Width) -> u32 {
        // The timer first: it is read in loops.
        if offset & !3 == offset::PM_TIMER {
            return self.timer() >> ((u32::from(offset) & 3) << 3);
        }
        let even = offset & !1;
        let low = u64::from(self.register(even));
        let high = u64::from(self.register(even.wrapping_add(2)));
        let value = (low | (high << 16)) >> ((offset & 1) << 3);
        lo32(value & width.mask())
    }

    fn write(&mut self, offset: u16, width: Width, value: u32) {
        let even = offset & !1;
        let shift = (offset & 1) << 3;
        let (mask, value) = (width.mask() << shift, u64::from(value) << shift);
        if lo16(mask) != 0 {
            self.set_register(even, lo16(value), lo16(mask));
        }
        if lo16(mask >> 16) != 0 {
            self.set_register(even.wrapping_add(2), lo16(value >> 16), lo16(mask >> 16));
        }
    }
}

impl Timed for AcpiPm {
    fn advance(&mut self, _now: u64) {
        self.follow_timer();
        self.publish();
    }

    fn deadline(&self) -> Deadline {
        self.deadline.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::{AcpiPm, TICKS};
    use crate::bus::{PortDevice, Width};
    use crate::clock::{ManualClock, Timed};
    use crate::irq::{IrqEvent, IrqLine, Recorder};
    use crate::power::{PowerEvent, PowerLatch};
    use std::sync::Arc;

    const B: Width = Width::Byte;
    const W: Width = Width::Word;
    const D: Width = Width::Dword;

    fn pm() -> (AcpiPm, Arc<ManualClock>, Arc<Recorder>, PowerLatch) {
        let (clock, irq, latch) = (Arc::new(ManualClock::default()), Arc::new(Recorder::default()), PowerLatch::new());
        (AcpiPm::new(clock.clone(), IrqLine::new(irq.clone(), 9), latch.clone()), clock, irq, latch)
    }

    #[test]
    fn s4_8_3_1_power_button_interrupts_until_cleared() {
        let (mut p, _, irq, _) = pm();
        p.write(2, W, 0x100);
        p.press_power_button();
        assert_eq!(irq.take(), [IrqEvent::Line(9, true)]);
        assert_eq!(p.read(0, D), 0x0100_0100);
        p.write(0, W, 0x0020);
        assert_eq!(irq.take(), [], "another bit");
        p.write(1, B, 1);
        assert_eq!((irq.take(), p.read(0, W)), (vec![IrqEvent::Line(9, false)], 0));
    }

    #[test]
    fn s4_8_3_2_1_sleep_types() {
        let (mut p, _, _, latch) = pm();
        assert_eq!(p.read(4, W), 1, "SCI_EN");
        p.write(4, W, 5 << 10);
        assert_eq!(latch.take(), None, "no SLP_EN");
        p.write(4, W, (5 << 10) | (1 << 13));
        assert_eq!(latch.take(), Some(PowerEvent::Off));
        assert_eq!(p.read(4, W), (5 << 10) | 1, "SLP_EN reads 0");
        p.write(4, W, (1 << 10) | (1 << 13));
        assert_eq!(latch.take(), Some(PowerEvent::Sleep));
        p.write(4, W, (3 << 10) | (1 << 13));
        assert_eq!(latch.take(), None);
    }

    #[test]
    fn s4_8_3_3_timer_counts_at_its_rate() {
        let (mut p, clock, _, _) = pm();
        clock.set(1_000_000_000);
        assert_eq!(p.read(8, D), 3_579_545);
        assert_eq!(p.read(9, B) & 0xff, (3_579_545 >> 8) & 0xff);
    }

    #[test]
    fn s4_8_3_1_1_timer_status_follows_the_top_bit() {
        let (mut p, clock, irq, _) = pm();
        p.write(2, W, 1);
        let at = p.deadline().get().unwrap();
        assert_eq!(at, TICKS.ns(1 << 31));
        clock.set(at);
        p.advance(at);
        assert_eq!((irq.rises(), p.read(0, W)), (1, 1));
        assert_eq!(p.deadline().get(), Some(TICKS.ns(1 << 32)));
    }

    #[test]
    fn s4_8_4_1_general_purpose_events() {
        let (mut p, _, irq, _) = pm();
        p.raise_event(3);
        p.raise_event(99);
        assert_eq!((irq.rises(), p.read(0x10, W)), (0, 8));
        p.write(0x12, W, 8);
        assert_eq!(irq.rises(), 1);
        p.write(0x10, W, 8);
        assert_eq!(irq.take(), [IrqEvent::Line(9, false)]);
    }
}
