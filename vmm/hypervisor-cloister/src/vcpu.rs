// SPDX-License-Identifier: MIT OR Apache-2.0
//! A virtual CPU of the microhypervisor: entry, injection, and what is known of its state.
//!
//! Three notes say what the page holds: `valid`, the groups that are as the guest has them; the page's own `load`, those
//! that were changed here and go with the next run; `ready`, the answer to "can it take an interrupt", until the next
//! run or a change of what it depends on. What is not valid is fetched when it is asked for, also behind `&self`.

use core::cell::Cell;
use std::sync::Arc;

use cloister_abi::arch::current::vcpu::{self as abi, Controls, ExitReason, Groups, SHADOW_NMI, SHADOW_STI};
use cloister_abi::status::Status;
use cloister_hypervisor::arch::Tsc;
use cloister_hypervisor::{Bus, CpuidTable, Error, Event, Exit, Unhandled, Vcpu};
use kvm_bindings::{kvm_cpuid_entry2, kvm_msr_entry, kvm_regs, kvm_sregs};

use crate::calls::{Calls, Hypercalls};
use crate::groups::{self, INTERRUPTIBILITY};
use crate::memory::Memory;
use crate::page::StatePage;
use crate::vm::Session;

const RFLAGS_IF: u64 = 1 << 9;

/// A virtual CPU.
#[derive(Debug)]
pub struct CloisterVcpu<C: Calls = Hypercalls> {
    calls: C,
    pub(crate) page: StatePage,
    /// Groups of the page that are as the guest has them.
    valid: Cell<Groups>,
    /// Whether an interrupt can be injected, once that was found out.
    ready: Cell<Option<bool>>,
    /// An NMI waits for what is being delivered, or for the end of another one.
    nmi: bool,
    /// The interrupt window is asked for.
    window: bool,
    pub(crate) cpuid: CpuidTable,
    pub(crate) memory: Memory,
    /// Keeps the session, and the page with it, for as long as this is there.
    _session: Option<Arc<Session>>,
}

/// The kernel's refusal of `call`.
pub(crate) fn refused(call: &'static str) -> impl Fn(Status) -> Error {
    move |status| Error::Host { call, status: i64::try_from(status as u64).unwrap_or(i64::MAX) }
}

impl<C: Calls> CloisterVcpu<C> {
    /// The VCPU behind `calls` with its state page, in the state after reset.
    pub fn new(calls: C, page: StatePage, memory: Memory, session: Option<Arc<Session>>) -> Self {
        let mut store = [0; 32];
        for (mask, reason) in store.iter_mut().zip(ExitReason::ALL) {
            *mask = groups::of(reason).bits();
        }
        page.set_store(store);
        page.set_load(0);
        Self {
            calls,
            page,
            valid: Cell::new(Groups::empty()),
            ready: Cell::new(None),
            nmi: false,
            window: false,
            cpuid: CpuidTable::default(),
            memory,
            _session: session,
        }
    }

    /// Brings `groups` of the page up to date, if they are not.
    ///
    /// # Errors
    /// The kernel's refusal.
    #[inline]
    pub(crate) fn need(&self, groups: Groups) -> Result<(), Error> {
        let missing = groups.difference(self.valid.get());
        if missing.is_empty() { Ok(()) } else { self.fetch(missing) }
    }

    #[cold]
    fn fetch(&self, missing: Groups) -> Result<(), Error> {
        self.calls.sync(missing).map_err(refused("VcpuSync"))?;
        self.valid.set(self.valid.get().union(missing));
        Ok(())
    }

    /// Says that `groups` of the page were changed, as a whole, and are to be taken by the next run.
    #[inline]
    pub(crate) fn changed(&self, groups: Groups) {
        self.page.set_load(self.page.load() | groups.bits());
        self.valid.set(self.valid.get().union(groups));
        if groups.intersects(INTERRUPTIBILITY) {
            self.ready.set(None);
        }
    }

    /// Queues an exception in place of what is being delivered.
    pub(crate) fn queue(&self, event: abi::Event) {
        self.page.set_event(event);
        self.changed(Groups::EVENT);
    }

    /// Whether the delivery of an event was interrupted, or one is queued.
    pub(crate) fn is_delivering(&self) -> Result<bool, Error> {
        self.need(Groups::EVENT)?;
        Ok(self.page.event().is_valid())
    }

    /// The guest's next instruction is at `next`.
    #[inline]
    pub(crate) fn go_on_at(&self, next: u64) {
        self.page.set_rip(next);
        self.changed(Groups::RIP);
    }

    /// The exit for something that can't be answered.
    #[cold]
    pub(crate) fn unhandled(&self, reason: String) -> Result<Exit, Error> {
        let code = self.page.qualification();
        let (regs, sregs) = (self.regs()?, self.sregs()?);
        Ok(Exit::Unhandled(Box::new(Unhandled { reason, code, regs, sregs })))
    }

    /// Queues the NMI that waits, if nothing stands in its way.
    #[cold]
    fn try_nmi(&mut self) -> Result<(), Error> {
        self.need(INTERRUPTIBILITY)?;
        let blocked = self.page.shadow() & (SHADOW_NMI | SHADOW_STI) != 0;
        if !blocked && !self.page.event().is_valid() {
            self.nmi = false;
            self.queue(abi::Event::nmi());
        }
        Ok(())
    }

    fn find_ready(&self) -> Result<bool, Error> {
        self.need(INTERRUPTIBILITY)?;
        let page = self.page;
        let blocked = page.shadow() & SHADOW_STI != 0 || page.event().is_valid();
        Ok(page.rflags() & RFLAGS_IF != 0 && !blocked)
    }

    #[inline]
    fn enter(&mut self, deadline: Option<Tsc>) -> Result<ExitReason, Error> {
        if self.nmi {
            self.try_nmi()?;
        }
        self.page.set_deadline(deadline.map_or(0, |at| at.0.max(1)));
        let number = self.calls.run();
        self.ready.set(None);
        self.valid.set(Groups::empty());
        let number = number.map_err(refused("VcpuRun"))?;
        let reason = ExitReason::from_raw(number).ok_or(Error::Unsupported("this reason of an exit"))?;
        self.valid.set(groups::of(reason));
        Ok(reason)
    }
}

impl<C: Calls> Vcpu for CloisterVcpu<C> {
    type Kicker = C::Kicker;

    #[inline]
    fn run<B: Bus>(&mut self, bus: &mut B, deadline: Option<Tsc>) -> Result<Exit, Error> {
        match self.enter(deadline)? {
            ExitReason::Port => self.port(bus),
            ExitReason::WrMsr => self.write_msr(bus),
            ExitReason::RdMsr => self.read_msr(bus),
            ExitReason::InterruptWindow => {
                self.ready.set(Some(true));
                Ok(Exit::InterruptWindow)
            }
            ExitReason::Deadline => Ok(Exit::Deadline),
            ExitReason::Kicked => Ok(Exit::Kicked),
            other => self.other(bus, other),
        }
    }

    fn can_take_interrupt(&self) -> bool {
        if let Some(known) = self.ready.get() {
            return known;
        }
        // A VCPU whose state can't be fetched will not run either, and says so then.
        let ready = self.find_ready().unwrap_or(false);
        self.ready.set(Some(ready));
        ready
    }

    fn inject(&mut self, event: Event) -> Result<(), Error> {
        match event {
            Event::Interrupt(vector) => self.queue(abi::Event::interrupt(vector)),
            Event::Nmi => self.nmi = true,
            Event::Exception { vector, error_code } => self.queue(abi::Event::exception(vector, error_code)),
        }
        self.ready.set(Some(false));
        Ok(())
    }

    fn request_interrupt_window(&mut self, wanted: bool) {
        if self.window != wanted {
            self.window = wanted;
            let controls = if wanted { Controls::INTERRUPT_WINDOW } else { Controls::empty() };
            self.page.set_controls(controls.bits());
            self.changed(Groups::CONTROL);
        }
    }

    fn kicker(&self) -> Self::Kicker {
        self.calls.kicker()
    }

    fn exits(&self) -> Option<u64> {
        Some(self.page.exits())
    }

    fn set_cpuid(&mut self, entries: &[kvm_cpuid_entry2]) -> Result<(), Error> {
        self.cpuid = CpuidTable::new(entries);
        Ok(())
    }

    fn regs(&self) -> Result<kvm_regs, Error> {
        self.get_regs()
    }

    fn set_regs(&mut self, regs: &kvm_regs) -> Result<(), Error> {
        self.put_regs(regs);
        Ok(())
    }

    fn sregs(&self) -> Result<kvm_sregs, Error> {
        self.get_sregs()
    }

    fn set_sregs(&mut self, sregs: &kvm_sregs) -> Result<(), Error> {
        self.put_sregs(sregs)
    }

    fn msrs(&self, entries: &mut [kvm_msr_entry]) -> Result<(), Error> {
        entries.iter_mut().try_for_each(|entry| {
            entry.data = self.kept_msr(entry.index)?.ok_or(Error::Unsupported("one of the MSRs asked for"))?;
            Ok(())
        })
    }

    fn set_msrs(&mut self, entries: &[kvm_msr_entry]) -> Result<(), Error> {
        entries.iter().try_for_each(|entry| {
            let taken = self.keep_msr(entry.index, entry.data)?;
            if taken == Some(true) { Ok(()) } else { Err(Error::Unsupported("one of the MSRs to be set")) }
        })
    }
}
