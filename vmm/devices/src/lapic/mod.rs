// SPDX-License-Identifier: MIT OR Apache-2.0
//! The local APIC (SDM volume 3 chapter 11), xAPIC and x2APIC.
//!
//! A [`Lapic`] is one VCPU's interrupt controller: a set of requested vectors (IRR), of vectors in service (ISR), and
//! the rules by which one follows the other. It knows nothing of its peers: what must leave it is told as an
//! [`Effect`] to the [`crate::fabric::Fabric`], which owns all LAPICs and carries messages between them.
//!
//! - this file: state, priority, end of interrupt, what the VCPU must take;
//! - `accept`: how interrupts come in;
//! - `registers`: the registers as memory and as MSRs;
//! - `base`: IA32_APIC_BASE and the three modes;
//! - `timer`, `vectors`, `message`: as they say.
//!
//! Time is a parameter, in ticks of the guest's TSC.
//!
//! Deviations, on purpose: the remote-read command and the arbitration registers (APR) of the APIC bus do not exist
//! here, as on processors since the Pentium 4; an SMI is noted and never taken.

mod accept;
mod base;
mod message;
mod registers;
#[cfg(test)]
mod tests;
mod timer;
mod vectors;

pub use base::{APIC_BASE_DEFAULT, ApicMode};
pub use message::{BROADCAST, Delivery, Ipi, Message, Shorthand, widen_broadcast};
pub use timer::TimerConfig;
pub use vectors::Vectors;

use timer::Timer;

/// An access that raises a general-protection fault in the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GpFault;

impl std::fmt::Display for GpFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the access raises a general-protection fault")
    }
}

impl std::error::Error for GpFault {}

/// What a register access does outside of the LAPIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    Nothing,
    /// A level-triggered interrupt has ended: the IOAPICs must hear of it.
    EndOfInterrupt(u8),
    /// A message to other LAPICs, or to this one.
    Send(Ipi),
}

/// Indices of the local vector table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lvt {
    Timer,
    Thermal,
    Performance,
    Lint0,
    Lint1,
    Error,
}

/// Mask bit of a local vector table entry.
pub(crate) const LVT_MASKED: u32 = 1 << 16;
/// Software enable bit of the spurious-interrupt vector register.
pub(crate) const SVR_ENABLED: u32 = 1 << 8;

/// Error status bits (SDM volume 3 section 11.5.3).
pub(crate) mod error {
    pub(crate) const SEND_ILLEGAL_VECTOR: u32 = 1 << 5;
    pub(crate) const RECEIVED_ILLEGAL_VECTOR: u32 = 1 << 6;
    pub(crate) const ILLEGAL_REGISTER: u32 = 1 << 7;
}

/// The signals at a VCPU that are not vectors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Signals {
    /// A non-maskable interrupt waits.
    pub nmi: bool,
    /// An INIT waits: the VCPU must be reset and must then wait for a start-up message.
    pub init: bool,
    /// A start-up message came: the VCPU starts in real mode at this page (address `page << 12`).
    pub start_up: Option<u8>,
}

impl Signals {
    /// True if none is there.
    #[must_use]
    pub const fn is_none(&self) -> bool {
        !self.nmi && !self.init && self.start_up.is_none()
    }
}

/// One local APIC.
#[derive(Clone, Debug)]
pub struct Lapic {
    id: u32,
    base: u64,
    tpr: u8,
    ldr: u32,
    dfr: u32,
    svr: u32,
    irr: Vectors,
    isr: Vectors,
    tmr: Vectors,
    esr: u32,
    esr_pending: u32,
    icr: u64,
    lvt: [u32; 6],
    timer: Timer,
    signals: Signals,
    ext_int: bool,
    waits_for_sipi: bool,
}

impl Lapic {
    /// A LAPIC as after power-up, in xAPIC mode. `id` is its APIC ID; the boot processor's LAPIC is not waiting for a
    /// start-up message.
    #[must_use]
    pub fn new(id: u32, boot_processor: bool, timer: TimerConfig) -> Self {
        Self {
            id,
            base: base::at_reset(boot_processor),
            tpr: 0,
            ldr: 0,
            dfr: u32::MAX,
            svr: 0xff,
            irr: Vectors::EMPTY,
            isr: Vectors::EMPTY,
            tmr: Vectors::EMPTY,
            esr: 0,
            esr_pending: 0,
            icr: 0,
            lvt: [LVT_MASKED; 6],
            timer: Timer::new(timer),
            signals: Signals::default(),
            ext_int: false,
            waits_for_sipi: !boot_processor,
        }
    }

    /// APIC ID.
    #[must_use]
    pub const fn id(&self) -> u32 {
        self.id
    }

    /// The state after INIT (SDM volume 3 section 11.4.7.3): that after reset, but ID, base and mode stay.
    fn reset_registers(&mut self) {
        self.tpr = 0;
        self.ldr = 0;
        self.dfr = u32::MAX;
        self.svr = 0xff;
        self.irr = Vectors::EMPTY;
        self.isr = Vectors::EMPTY;
        self.tmr = Vectors::EMPTY;
        self.esr = 0;
        self.esr_pending = 0;
        self.icr = 0;
        self.lvt = [LVT_MASKED; 6];
        self.timer.reset();
        self.ext_int = false;
        self.signals.nmi = false;
        if self.mode() == ApicMode::X2Apic {
            self.ldr = base::x2apic_ldr(self.id);
        }
    }

    const fn software_enabled(&self) -> bool {
        self.svr & SVR_ENABLED != 0
    }

    fn lvt(&self, entry: Lvt) -> u32 {
        let [timer, thermal, performance, lint0, lint1, error] = self.lvt;
        match entry {
            Lvt::Timer => timer,
            Lvt::Thermal => thermal,
            Lvt::Performance => performance,
            Lvt::Lint0 => lint0,
            Lvt::Lint1 => lint1,
            Lvt::Error => error,
        }
    }

    // ---- priority and service ------------------------------------------------------------------------------------

    /// Processor priority (SDM volume 3 section 11.8.3.1).
    #[must_use]
    pub fn ppr(&self) -> u8 {
        let served = self.isr.highest().unwrap_or(0);
        if self.tpr >> 4 >= served >> 4 { self.tpr } else { served & 0xf0 }
    }

    /// The vector to inject next, if its priority is above the processor's.
    #[must_use]
    pub fn pending_vector(&self) -> Option<u8> {
        if self.mode() == ApicMode::Disabled {
            return None;
        }
        self.irr.highest().filter(|v| v >> 4 > self.ppr() >> 4)
    }

    /// The VCPU takes `vector`, which [`Self::pending_vector`] gave: it is in service now.
    pub fn ack(&mut self, vector: u8) {
        if self.irr.remove(vector) {
            self.isr.insert(vector);
        }
    }

    /// Puts `vector` back: it was acknowledged but could not be injected.
    pub fn unack(&mut self, vector: u8) {
        if self.isr.remove(vector) {
            self.irr.insert(vector);
        }
    }

    /// The end of the interrupt that is served (SDM volume 3 section 11.8.5).
    pub fn eoi(&mut self) -> Effect {
        let Some(vector) = self.isr.highest() else { return Effect::Nothing };
        self.isr.remove(vector);
        if self.tmr.contains(vector) { Effect::EndOfInterrupt(vector) } else { Effect::Nothing }
    }

    /// The vector whose end the guest may tell by memory instead of by a register (the paravirtual EOI of KVM's
    /// interface): that in service, if it is edge-triggered and nothing else waits for its end.
    #[must_use]
    pub fn pv_eoi_candidate(&self) -> Option<u8> {
        if !self.irr.is_empty() {
            return None;
        }
        self.isr.highest().filter(|v| !self.tmr.contains(*v))
    }

    /// CR8: the task priority class.
    #[must_use]
    pub const fn cr8(&self) -> u8 {
        self.tpr >> 4
    }

    /// Sets the task priority from CR8 (SDM volume 3 section 11.8.6).
    pub const fn set_cr8(&mut self, cr8: u8) {
        self.tpr = (cr8 & 0xf) << 4;
    }

    /// Signals that wait for the VCPU.
    #[must_use]
    pub const fn signals(&self) -> Signals {
        self.signals
    }

    /// Takes the signals. After an INIT the LAPIC is in its INIT state.
    pub fn take_signals(&mut self) -> Signals {
        let signals = std::mem::take(&mut self.signals);
        if signals.init {
            self.reset_registers();
        }
        signals
    }

    /// Takes only the NMI, if there is one.
    pub const fn take_nmi(&mut self) -> bool {
        std::mem::replace(&mut self.signals.nmi, false)
    }

    /// True while the VCPU waits for a start-up message and must not run.
    #[must_use]
    pub const fn waits_for_start_up(&self) -> bool {
        self.waits_for_sipi
    }

    // ---- timer ---------------------------------------------------------------------------------------------------

    /// The TSC at which the timer must be looked at; `None` if it is stopped or masked.
    #[must_use]
    pub fn next_deadline(&self) -> Option<u64> {
        if self.lvt(Lvt::Timer) & LVT_MASKED != 0 {
            return None;
        }
        self.timer.fires()
    }

    /// Raises the timer interrupt if it was due at TSC `now`. True if the VCPU may have to act.
    pub fn advance(&mut self, now: u64) -> bool {
        self.timer.expire(now) && self.raise_local(Lvt::Timer)
    }

    /// IA32_TSC_DEADLINE as read.
    #[must_use]
    pub fn tsc_deadline(&self) -> u64 {
        self.timer.deadline()
    }

    /// Writes IA32_TSC_DEADLINE; ignored unless the timer is in that mode.
    pub fn set_tsc_deadline(&mut self, tsc: u64) {
        self.timer.set_deadline(tsc);
    }
}
