// SPDX-License-Identifier: MIT OR Apache-2.0
//! The board: all that a VM has beside its VCPUs and its memory, wired together.
//!
//! It is built once per start of the machine and shared by the VCPUs' threads; the buses do not change, each device has
//! its own lock. [`Board::description`] is what the ACPI tables say about it; the two are built side by side here so
//! that they can't disagree.

use std::sync::{Arc, Mutex};

use cloister_boot::acpi;
use cloister_devices::bus::{BusError, Bytewise, MmioBus, PortBus, PortDevice};
use cloister_devices::clock::Deadlines;
use cloister_devices::fabric::{Fabric, IoApicWindow, Kick, PicWindow};
use cloister_devices::ioapic::{IOAPIC_BASE, IOAPIC_LEN};
use cloister_devices::irq::{IrqLine, IrqSink};
use cloister_devices::lapic::TimerConfig;
use cloister_devices::lock;
use cloister_devices::pic::PicPort;
use cloister_devices::power::{PowerLatch, ResetControl};
use cloister_devices::serial::{COM1_IRQ, COM1_PORT, SERIAL_PORTS};
use vm_memory::GuestMemoryMmap;

use crate::clock::TscClock;
use crate::config::Profile;
use crate::console::{Port, SharedConsole};
use crate::sleep::{SLEEP_PORT, SLEEP_PORTS, SleepRegisters};

/// Port and value of the reset register that ACPI tells.
const RESET: (u16, u8) = (0xcf9, 0x06);
/// Frequency that the local APIC's timer should have, at least roughly, in kHz.
const APIC_TIMER_KHZ: u32 = 100_000;

/// What a board is made from.
pub struct Parts {
    /// APIC ids of the VCPUs.
    pub vcpus: Vec<u32>,
    /// Frequency of the time-stamp counter.
    pub tsc_khz: u32,
    /// The VM's clock.
    pub clock: TscClock,
    /// Guest memory.
    pub memory: GuestMemoryMmap,
    /// Gets VCPUs to look at their interrupts.
    pub kick: Box<dyn Kick>,
    /// Where serial output goes.
    pub console: SharedConsole,
    /// Kind of machine.
    pub profile: Profile,
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts").field("vcpus", &self.vcpus).field("tsc_khz", &self.tsc_khz).finish_non_exhaustive()
    }
}

/// The devices of a machine.
pub struct Board {
    /// I/O ports.
    pub ports: PortBus,
    /// Device memory, but for the local APICs.
    pub mmio: MmioBus,
    /// Interrupt controllers.
    pub fabric: Arc<Fabric>,
    /// When devices want to act by themselves.
    pub deadlines: Deadlines,
    /// The guest's wish to be switched off or reset.
    pub power: PowerLatch,
    /// The VM's clock.
    pub clock: TscClock,
    /// Guest memory.
    pub memory: GuestMemoryMmap,
    /// The first serial port.
    pub serial: Arc<Mutex<Port>>,
    /// Where its output goes.
    pub console: SharedConsole,
    profile: Profile,
    vcpus: usize,
    timer: TimerConfig,
    tsc_khz: u32,
}

impl std::fmt::Debug for Board {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Board").field("ports", &self.ports).field("mmio", &self.mmio).finish_non_exhaustive()
    }
}

impl Board {
    /// Builds the board.
    ///
    /// # Errors
    /// Two devices want the same addresses: a mistake in here.
    pub fn new(parts: Parts) -> Result<Arc<Self>, BusError> {
        let timer = TimerConfig { tsc_per_bus_tick: (parts.tsc_khz / APIC_TIMER_KHZ).max(1), ..TimerConfig::default() };
        let fabric = Fabric::new(&parts.vcpus, timer, parts.kick);
        let power = PowerLatch::new();
        let line = |gsi| IrqLine::new(Arc::clone(&fabric) as Arc<dyn IrqSink>, gsi);
        let serial = Arc::new(Mutex::new(Port::new(line(COM1_IRQ), Arc::clone(&parts.console))));

        let mut ports = PortBus::new();
        ports.insert(COM1_PORT, SERIAL_PORTS, Arc::clone(&serial) as Arc<Mutex<dyn PortDevice>>)?;
        ports.insert(RESET.0, 1, shared(Bytewise(ResetControl::new(power.clone()))))?;
        match parts.profile {
            Profile::Reduced => {
                ports.insert(SLEEP_PORT, SLEEP_PORTS, shared(Bytewise(SleepRegisters(power.clone()))))?;
            }
            Profile::Full => {
                let pic = |port| shared(Bytewise(PicWindow(Arc::clone(&fabric), port)));
                ports.insert(0x20, 2, pic(PicPort::First))?;
                ports.insert(0xa0, 2, pic(PicPort::Second))?;
                ports.insert(0x4d0, 2, pic(PicPort::EdgeLevel))?;
            }
        }
        let mut mmio = MmioBus::new();
        mmio.insert(IOAPIC_BASE, IOAPIC_LEN, shared(IoApicWindow(Arc::clone(&fabric))))?;
        Ok(Arc::new(Self {
            ports,
            mmio,
            fabric,
            deadlines: Deadlines::default(),
            power,
            clock: parts.clock,
            memory: parts.memory,
            serial,
            console: parts.console,
            profile: parts.profile,
            vcpus: parts.vcpus.len(),
            timer,
            tsc_khz: parts.tsc_khz,
        }))
    }

    /// Frequency of the local APIC's timer in kHz.
    #[must_use]
    pub fn apic_khz(&self) -> u32 {
        self.tsc_khz.checked_div(self.timer.tsc_per_bus_tick).unwrap_or(self.tsc_khz)
    }

    /// What ACPI says about this board.
    #[must_use]
    pub fn description(&self) -> acpi::Machine {
        acpi::Machine {
            cpus: u8::try_from(self.vcpus).unwrap_or(u8::MAX),
            profile: match self.profile {
                Profile::Reduced => acpi::Profile::Reduced { sleep_control: SLEEP_PORT },
                Profile::Full => acpi::Profile::Full { pm_base: 0x600, sci: 9 },
            },
            reset: RESET,
            serial: vec![(COM1_PORT, 4)],
            rtc: false,
            keyboard_controller: false,
            pci_routes: [[16, 17, 18, 19]; 32],
            overrides: vec![],
        }
    }

    /// Makes console output appear.
    pub fn flush_console(&self) {
        lock(&self.console).flush();
    }
}

fn shared<D>(device: D) -> Arc<Mutex<D>> {
    Arc::new(Mutex::new(device))
}
