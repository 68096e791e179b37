// SPDX-License-Identifier: MIT OR Apache-2.0
//! The loop of one VCPU: look at interrupts, enter the guest, handle the exit.
//!
//! The path of an access is short on purpose: after `run` has answered it, three flags decide that there is nothing else
//! to do (the guest's power wish, the fabric's attention, the local APIC touched), and the guest is entered again. Time is
//! not looked at; the back end leaves the guest when the deadline that it is given has passed.

use std::time::Duration;

use cloister_devices::power::PowerEvent;
use cloister_hypervisor::arch::Tsc;
use cloister_hypervisor::{Error, Event, Exit, Unhandled, Vcpu};

use crate::bus::VcpuBus;
use crate::stats::Stats;
use crate::wake::Bell;

/// Why a VCPU's loop ended.
#[derive(Debug)]
pub(crate) enum End {
    /// The guest switched its machine off.
    Off,
    /// The guest reset its machine, or shut its processor down.
    Reset,
    /// The guest can't go on.
    Unhandled(Box<Unhandled>),
}

/// One VCPU and what it needs to run.
#[derive(Debug)]
pub(crate) struct Runner<V: Vcpu> {
    vcpu: V,
    bus: VcpuBus,
    bell: Bell,
    stats: Option<Stats>,
    /// When the local APIC's timer is due: a copy, renewed when the guest touched it.
    timer: Option<u64>,
    /// The devices' earliest deadline in nanoseconds, and the same in ticks.
    devices: Option<(u64, Tsc)>,
    window: bool,
    look: bool,
}

impl<V: Vcpu> Runner<V> {
    pub(crate) fn new(vcpu: V, bus: VcpuBus, bell: Bell, stats: Option<Stats>) -> Self {
        bell.belongs_here(bus.vcpu, vcpu.kicker());
        Self { vcpu, bus, bell, stats, timer: None, devices: None, window: false, look: true }
    }

    pub(crate) fn stats(&self) -> Option<&Stats> {
        self.stats.as_ref()
    }

    /// Runs until something ends the machine.
    pub(crate) fn run(&mut self) -> Result<End, Error> {
        loop {
            self.notice_apic();
            if self.bus.board.fabric.attention(self.bus.vcpu) || self.look {
                self.look = false;
                self.look_at_interrupts()?;
            }
            let deadline = self.deadline();
            let exit = self.vcpu.run(&mut self.bus, deadline)?;
            if self.stats.is_some() {
                self.count(&exit);
            }
            let end = match exit {
                Exit::Access(_) => None,
                other => self.handle(other),
            };
            if let Some(end) = end {
                return Ok(end);
            }
            match self.bus.board.power.peek() {
                None => {}
                Some(PowerEvent::Off | PowerEvent::Sleep) => return Ok(End::Off),
                Some(PowerEvent::Reset) => return Ok(End::Reset),
            }
        }
    }

    /// Renews what is known of the local APIC, if the guest touched it.
    #[inline]
    fn notice_apic(&mut self) {
        if self.bus.apic_touched {
            self.bus.apic_touched = false;
            self.look = true;
            self.timer = self.bus.board.fabric.timer_deadline(self.bus.vcpu);
        }
    }

    #[cold]
    fn count(&mut self, exit: &Exit) {
        let Some(stats) = &mut self.stats else { return };
        stats.count(exit);
        if stats.take_marker() {
            let ns = self.bus.board.clock.ns_at(Tsc::now());
            eprintln!("vm: marker after {ns} ns\n{stats}");
            stats.tell(self.vcpu.exits());
        }
    }

    fn handle(&mut self, exit: Exit) -> Option<End> {
        match exit {
            Exit::Halt => self.halt(),
            Exit::InterruptWindow => self.look = true,
            Exit::Deadline => {
                self.bus.board.flush_console();
                self.advance();
            }
            Exit::Shutdown => return Some(End::Reset),
            Exit::Unhandled(state) => return Some(End::Unhandled(state)),
            _ => {}
        }
        None
    }

    /// Injects what is due, or asks for a window to do so.
    fn look_at_interrupts(&mut self) -> Result<(), Error> {
        let (board, vcpu) = (&self.bus.board, self.bus.vcpu);
        self.bus.paravirt.collect_end(&board.memory, &board.fabric, vcpu);
        let nmi = board.fabric.lapic(vcpu).is_some_and(|mut lapic| lapic.take_nmi());
        if nmi {
            self.vcpu.inject(Event::Nmi)?;
        }
        let mut waits = board.fabric.pending(vcpu).is_some();
        if waits && !nmi && self.vcpu.can_take_interrupt() {
            if let Some(vector) = board.fabric.acknowledge(vcpu) {
                self.bus.paravirt.offer_end(board, vcpu, vector);
                self.vcpu.inject(Event::Interrupt(vector))?;
            }
            waits = board.fabric.pending(vcpu).is_some();
        }
        if waits != self.window {
            self.window = waits;
            self.vcpu.request_interrupt_window(waits);
        }
        Ok(())
    }

    /// When the guest must be left.
    fn deadline(&mut self) -> Option<Tsc> {
        let board = &self.bus.board;
        let devices = board.deadlines.earliest();
        if devices != self.devices.map(|(ns, _)| ns) {
            self.devices = devices.map(|ns| (ns, board.clock.tsc_at(ns)));
        }
        match (self.timer, self.devices) {
            (Some(timer), Some((_, tsc))) => Some(Tsc(timer.min(tsc.0))),
            (Some(timer), None) => Some(Tsc(timer)),
            (None, devices) => devices.map(|(_, tsc)| tsc),
        }
    }

    /// Lets those devices act whose time has come.
    fn advance(&mut self) {
        let now = Tsc::now();
        let board = &self.bus.board;
        if self.timer.is_some_and(|due| due <= now.0) {
            board.fabric.advance_timer(self.bus.vcpu, now.0);
            self.timer = board.fabric.timer_deadline(self.bus.vcpu);
            self.look = true;
        }
        if self.devices.is_some_and(|(_, due)| due <= now) {
            board.deadlines.advance(board.clock.ns_at(now));
        }
    }

    /// The guest waits for an interrupt, and so does this thread.
    fn halt(&mut self) {
        self.notice_apic();
        let vcpu = self.bus.vcpu;
        let mut slept = false;
        loop {
            self.look = true;
            self.bus.paravirt.collect_end(&self.bus.board.memory, &self.bus.board.fabric, vcpu);
            let fabric = &self.bus.board.fabric;
            let wanted =
                || fabric.pending(vcpu).is_some() || fabric.lapic(vcpu).is_some_and(|l| !l.signals().is_none());
            if wanted() || self.bus.board.power.peek().is_some() {
                return;
            }
            if !slept {
                self.bus.board.flush_console();
                slept = true;
            }
            let deadline = self.deadline();
            let fabric = &self.bus.board.fabric;
            let time = deadline.map(|at| Duration::from_nanos(self.bus.board.clock.scale().ns(at.since(Tsc::now()))));
            if time.is_none_or(|time| !time.is_zero()) {
                self.bell.sleep(time, || fabric.attention(vcpu));
            }
            self.advance();
        }
    }
}

#[cfg(test)]
#[path = "vcpu_tests.rs"]
mod tests;
