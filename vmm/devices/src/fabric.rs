// SPDX-License-Identifier: MIT OR Apache-2.0
//! The interrupt fabric: all interrupt controllers of a VM and the wires between them.
//!
//! A [`Fabric`] owns the LAPIC of each VCPU, the IOAPIC and the pair of 8259s. Devices drive lines ([`IrqSink`]) and
//! send messages ([`MsiSink`]) from any thread; each VCPU's thread asks [`Fabric::attention`] (one atomic load) whether
//! there is something for it, and then [`Fabric::pending`], [`Fabric::acknowledge`] and [`Fabric::take_signals`].
//! What another thread brings about for a VCPU is told to it through [`Kick`].
//!
//! Locks: PIC or IOAPIC before LAPIC, one LAPIC at a time; `Kick` is called with none held.

#[cfg(test)]
mod tests;

use crate::bus::{ByteDevice, MmioDevice, Width};
use crate::ioapic::IoApic;
use crate::irq::{IrqSink, MsiSink};
use crate::lapic::{Delivery, Effect, GpFault, Ipi, Lapic, Message, Shorthand, Signals, TimerConfig};
use crate::lock;
use crate::pic::{PicPair, PicPort};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

/// Wakes a VCPU, or brings it out of the guest, so that it looks at its LAPIC.
pub trait Kick: Send + Sync {
    /// VCPU `vcpu` (an index) has something new. May be called from its own thread too.
    fn kick(&self, vcpu: usize);
}

/// For VMs whose only VCPU looks at its LAPIC anyway, and for tests.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoKick;

impl Kick for NoKick {
    fn kick(&self, _vcpu: usize) {}
}

struct Seat {
    lapic: Mutex<Lapic>,
    /// Set when something came that the VCPU has not looked at.
    attention: AtomicBool,
}

/// All interrupt controllers of a VM.
pub struct Fabric {
    seats: Box<[Seat]>,
    ioapic: Mutex<IoApic>,
    pic: Mutex<PicPair>,
    /// True while the 8259s ask for service: a copy of their output that needs no lock.
    pic_output: AtomicBool,
    next_lowest: AtomicUsize,
    kick: Box<dyn Kick>,
}

impl std::fmt::Debug for Fabric {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fabric").field("vcpus", &self.seats.len()).finish_non_exhaustive()
    }
}

/// The interrupt that a VCPU should take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pending {
    /// A vector of the LAPIC.
    Vector(u8),
    /// The 8259s ask; their vector is known when it is acknowledged.
    ExtInt,
}

/// GSI of the pin at which the ISA timer (IRQ 0) arrives: told to the guest by an ACPI interrupt source override.
pub const TIMER_GSI: u32 = 2;

impl Fabric {
    /// A fabric for VCPUs with the APIC IDs `ids`, the first of which is the boot processor.
    #[must_use]
    pub fn new(ids: &[u32], timer: TimerConfig, kick: Box<dyn Kick>) -> Arc<Self> {
        Self::with_pins(ids, timer, kick, 24)
    }

    /// As [`Self::new`], with an IOAPIC of `pins` pins: see [`IoApic::with_pins`].
    #[must_use]
    pub fn with_pins(ids: &[u32], timer: TimerConfig, kick: Box<dyn Kick>, pins: u8) -> Arc<Self> {
        let seat = |(index, id): (usize, &u32)| Seat {
            lapic: Mutex::new(Lapic::new(*id, index == 0, timer)),
            attention: AtomicBool::new(false),
        };
        Arc::new(Self {
            seats: ids.iter().enumerate().map(seat).collect(),
            ioapic: Mutex::new(IoApic::with_pins(pins)),
            pic: Mutex::new(PicPair::new()),
            pic_output: AtomicBool::new(false),
            next_lowest: AtomicUsize::new(0),
            kick,
        })
    }

    /// Number of VCPUs.
    #[must_use]
    pub fn vcpus(&self) -> usize {
        self.seats.len()
    }

    /// The LAPIC of VCPU `vcpu`, locked. `None` if there is no such VCPU.
    pub fn lapic(&self, vcpu: usize) -> Option<MutexGuard<'_, Lapic>> {
        self.seats.get(vcpu).map(|s| lock(&s.lapic))
    }

    // ---- what a VCPU's thread asks -------------------------------------------------------------------------------

    /// True if something came for VCPU `vcpu` since the last call: then ask the rest. Does not lock.
    #[inline]
    #[must_use]
    pub fn attention(&self, vcpu: usize) -> bool {
        self.seats
            .get(vcpu)
            .is_some_and(|s| s.attention.load(Ordering::Acquire) && s.attention.swap(false, Ordering::AcqRel))
    }

    /// The interrupt that VCPU `vcpu` should take next, if its priority allows one.
    #[must_use]
    pub fn pending(&self, vcpu: usize) -> Option<Pending> {
        let lapic = self.lapic(vcpu)?;
        if lapic.has_ext_int() || (vcpu == 0 && self.pic_output.load(Ordering::Acquire) && lapic.passes_ext_int()) {
            return Some(Pending::ExtInt);
        }
        lapic.pending_vector().map(Pending::Vector)
    }

    /// VCPU `vcpu` takes the interrupt that [`Self::pending`] gives: the vector to inject.
    pub fn acknowledge(&self, vcpu: usize) -> Option<u8> {
        match self.pending(vcpu)? {
            Pending::Vector(vector) => {
                let mut lapic = self.lapic(vcpu)?;
                // Asked again: since then, something more urgent may have come.
                let vector = lapic.pending_vector().unwrap_or(vector);
                lapic.ack(vector);
                Some(vector)
            }
            Pending::ExtInt => {
                if let Some(mut lapic) = self.lapic(vcpu) {
                    lapic.take_ext_int();
                }
                let mut pic = lock(&self.pic);
                let vector = pic.acknowledge();
                self.pic_output.store(pic.output(), Ordering::Release);
                Some(vector)
            }
        }
    }

    /// NMI, INIT and start-up messages that wait for VCPU `vcpu`.
    #[must_use]
    pub fn take_signals(&self, vcpu: usize) -> Signals {
        self.lapic(vcpu).map_or_else(Signals::default, |mut l| l.take_signals())
    }

    /// The guest's TSC at which VCPU `vcpu`'s timer is due.
    #[must_use]
    pub fn timer_deadline(&self, vcpu: usize) -> Option<u64> {
        self.lapic(vcpu)?.next_deadline()
    }

    /// Raises VCPU `vcpu`'s timer interrupt if it was due at `tsc`. True if the VCPU may have to act.
    pub fn advance_timer(&self, vcpu: usize, tsc: u64) -> bool {
        self.lapic(vcpu).is_some_and(|mut l| l.advance(tsc))
    }

    // ---- register accesses ---------------------------------------------------------------------------------------

    /// VCPU `vcpu` reads its LAPIC page at `offset`.
    pub fn lapic_read(&self, vcpu: usize, offset: u64, width: Width, tsc: u64) -> u64 {
        self.lapic(vcpu).map_or(width.mask(), |mut l| l.mmio_read(offset, width, tsc))
    }

    /// VCPU `vcpu` writes its LAPIC page at `offset`.
    pub fn lapic_write(&self, vcpu: usize, offset: u64, width: Width, value: u64, tsc: u64) {
        let effect = self.lapic(vcpu).map_or(Effect::Nothing, |mut l| l.mmio_write(offset, width, value, tsc));
        self.carry_out(vcpu, effect);
    }

    /// VCPU `vcpu` reads an x2APIC register (MSR 0x800 to 0x8ff).
    ///
    /// # Errors
    /// [`GpFault`]: the guest must get the fault.
    pub fn msr_read(&self, vcpu: usize, msr: u32, tsc: u64) -> Result<u64, GpFault> {
        self.lapic(vcpu).ok_or(GpFault)?.msr_read(msr, tsc)
    }

    /// VCPU `vcpu` writes an x2APIC register (MSR 0x800 to 0x8ff).
    ///
    /// # Errors
    /// [`GpFault`]: the guest must get the fault.
    pub fn msr_write(&self, vcpu: usize, msr: u32, value: u64, tsc: u64) -> Result<(), GpFault> {
        let effect = self.lapic(vcpu).ok_or(GpFault)?.msr_write(msr, value, tsc)?;
        self.carry_out(vcpu, effect);
        Ok(())
    }

    /// Ends the interrupt in service, as a write of the EOI register does: for a guest that told its end by memory.
    pub fn eoi(&self, vcpu: usize) {
        let effect = self.lapic(vcpu).map_or(Effect::Nothing, |mut l| l.eoi());
        self.carry_out(vcpu, effect);
    }

    fn carry_out(&self, vcpu: usize, effect: Effect) {
        match effect {
            Effect::Nothing => {}
            Effect::EndOfInterrupt(vector) => {
                lock(&self.ioapic).end_of_interrupt(vector, |message| self.deliver(&message));
            }
            Effect::Send(ipi) => self.send(vcpu, &ipi),
        }
    }

    // ---- messages ------------------------------------------------------------------------------------------------

    /// Carries an inter-processor interrupt of VCPU `from`.
    fn send(&self, from: usize, ipi: &Ipi) {
        let m = &ipi.message;
        match ipi.shorthand {
            Shorthand::None => self.deliver(m),
            Shorthand::Myself => self.hand_over(from, m),
            Shorthand::All => (0..self.seats.len()).for_each(|i| self.hand_over(i, m)),
            Shorthand::Others => (0..self.seats.len()).filter(|i| *i != from).for_each(|i| self.hand_over(i, m)),
        }
    }

    /// Carries a message to whom it names.
    pub fn deliver(&self, message: &Message) {
        if message.delivery == Delivery::LowestPriority {
            if let Some(receiver) = self.lowest_priority(message) {
                self.hand_over(receiver, message);
            }
            return;
        }
        for index in 0..self.seats.len() {
            if self.lapic(index).is_some_and(|l| l.is_addressed(message.destination, message.logical)) {
                self.hand_over(index, message);
            }
        }
    }

    /// The addressed VCPU with the lowest priority; those that are equal take turns.
    fn lowest_priority(&self, message: &Message) -> Option<usize> {
        let count = self.seats.len();
        let start = if count > 1 { self.next_lowest.fetch_add(1, Ordering::Relaxed) } else { 0 };
        let mut best: Option<(u8, usize)> = None;
        for step in 0..count {
            let index = start.wrapping_add(step).checked_rem(count)?;
            let Some(lapic) = self.lapic(index) else { continue };
            if lapic.is_addressed(message.destination, message.logical) && lapic.takes_lowest_priority() {
                let priority = lapic.ppr() >> 4;
                if best.is_none_or(|(p, _)| priority < p) {
                    best = Some((priority, index));
                }
            }
        }
        best.map(|(_, index)| index)
    }

    fn hand_over(&self, vcpu: usize, message: &Message) {
        let acts = self.lapic(vcpu).is_some_and(|mut l| l.accept(message.delivery, message.vector, message.level));
        if acts {
            self.alert(vcpu);
        }
    }

    fn alert(&self, vcpu: usize) {
        if let Some(seat) = self.seats.get(vcpu)
            && !seat.attention.swap(true, Ordering::AcqRel)
        {
            self.kick.kick(vcpu);
        }
    }

    /// A non-maskable interrupt at LINT1 of all VCPUs, as a front-panel switch gives.
    pub fn nmi_button(&self) {
        for index in 0..self.seats.len() {
            if self.lapic(index).is_some_and(|mut l| l.lint1_rises()) {
                self.alert(index);
            }
        }
    }

    // ---- lines ---------------------------------------------------------------------------------------------------

    fn drive_pic(&self, input: u32, high: bool) {
        let output = {
            let mut pic = lock(&self.pic);
            let output = pic.drive(input, high);
            self.pic_output.store(output, Ordering::Release);
            output
        };
        if output && high {
            self.pic_asks();
        }
    }

    fn pic_asks(&self) {
        if self.lapic(0).is_some_and(|mut l| l.lint0_rises()) {
            self.alert(0);
        }
    }

    fn drive_ioapic(&self, pin: u32, high: bool) {
        let message = lock(&self.ioapic).drive(pin, high);
        if let Some(message) = message {
            self.deliver(&message);
        }
    }

    /// The IOAPIC's redirection entry of `pin`, as registers show it.
    #[must_use]
    pub fn redirection(&self, pin: u32) -> Option<u64> {
        lock(&self.ioapic).entry(pin)
    }
}

impl IrqSink for Fabric {
    /// GSIs 0 to 15 are the ISA interrupts: they reach the 8259 input of their number and the IOAPIC pin of their
    /// number, except that IRQ 0 reaches pin 2 ([`TIMER_GSI`]). Higher GSIs reach their IOAPIC pin.
    fn drive(&self, gsi: u32, high: bool) {
        if gsi < 16 {
            self.drive_pic(gsi, high);
        }
        self.drive_ioapic(if gsi == 0 { TIMER_GSI } else { gsi }, high);
    }
}

impl MsiSink for Fabric {
    fn msi(&self, address: u64, data: u32) {
        if let Some(message) = Message::from_msi(address, data) {
            self.deliver(&message);
        }
    }
}

/// The IOAPIC's registers on the memory bus.
#[derive(Clone, Debug)]
pub struct IoApicWindow(pub Arc<Fabric>);

impl MmioDevice for IoApicWindow {
    fn read(&mut self, offset: u64, width: Width) -> u64 {
        lock(&self.0.ioapic).read(offset, width)
    }

    fn write(&mut self, offset: u64, width: Width, value: u64) {
        let fabric = &self.0;
        lock(&fabric.ioapic).write(offset, width, value, |message| fabric.deliver(&message));
    }
}

/// One port range of the 8259s on the port bus.
#[derive(Clone, Debug)]
pub struct PicWindow(pub Arc<Fabric>, pub PicPort);

impl ByteDevice for PicWindow {
    fn read_byte(&mut self, offset: u16) -> u8 {
        let mut pic = lock(&self.0.pic);
        let value = pic.read(self.1, offset);
        self.0.pic_output.store(pic.output(), Ordering::Release);
        value
    }

    fn write_byte(&mut self, offset: u16, value: u8) {
        let output = {
            let mut pic = lock(&self.0.pic);
            let output = pic.write(self.1, offset, value);
            self.0.pic_output.store(output, Ordering::Release);
            output
        };
        if output {
            self.0.pic_asks();
        }
    }
}
