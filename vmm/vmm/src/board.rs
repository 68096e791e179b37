// SPDX-License-Identifier: MIT OR Apache-2.0
//! The board: all that a VM has beside its VCPUs and its memory, wired together.
//!
//! It is built once per start of the machine and shared by the VCPUs' threads; the buses do not change, each device has
//! its own lock. [`Board::description`] is what the ACPI tables say about it; the two are built side by side here so
//! that they can't disagree.

use std::sync::{Arc, Mutex};

use cloister_boot::{acpi, layout};
use cloister_devices::acpi_pm::{AcpiPm, SCI_IRQ};
use cloister_devices::bus::{BusError, ByteDevice, Bytewise, MmioBus, MmioDevice, PortBus, PortDevice};
use cloister_devices::clock::{Deadlines, Timed};
use cloister_devices::fabric::{Fabric, IoApicWindow, Kick, PicWindow, TIMER_GSI};
use cloister_devices::i8042::{I8042, I8042_COMMAND, I8042_DATA, I8042Port, KEYBOARD_IRQ};
use cloister_devices::ioapic::{IOAPIC_BASE, IOAPIC_LEN};
use cloister_devices::irq::{IrqLine, IrqSink, MsiSink};
use cloister_devices::lapic::TimerConfig;
use cloister_devices::lock;
use cloister_devices::pic::PicPort;
use cloister_devices::pit::{PIT_IRQ, PIT_PORT, Pit, SPEAKER_PORT, SpeakerPort};
use cloister_devices::power::{PowerLatch, ResetControl, SystemControlA};
use cloister_devices::rtc::{RTC_IRQ, RTC_PORT, Rtc};
use cloister_devices::serial::{COM1_IRQ, COM1_PORT, SERIAL_PORTS};
use cloister_virtio::VirtioPci;
use cloister_virtio::console::Console;
use cloister_virtio::pci::{ConfigPorts, Ecam, HostBridge, PciError, PciFunction, PciMemory, PciRoot, intx_gsi};
use cloister_virtio::rng::Rng;
use vm_memory::GuestMemoryMmap;

use crate::clock::{HostTime, TscClock};
use crate::config::Profile;
use crate::config_pages::ConfigPages;
use crate::console::{Port, SharedConsole, VirtioConsole};
use crate::entropy::HostEntropy;
use crate::sleep::{SLEEP_PORT, SLEEP_PORTS, SleepRegisters};

/// Port and value of the reset register that ACPI tells.
const RESET: (u16, u8) = (0xcf9, 0x06);
/// First port of the power management registers.
const PM_BASE: u16 = 0x600;
/// Interrupt of power management events.
const SCI: u16 = 9;
/// PCI device number of the entropy device.
const RNG_SLOT: u8 = 1;
/// PCI device number of the virtio console.
const CONSOLE_SLOT: u8 = 2;
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
    /// Where serial output goes.
    pub console: SharedConsole,
    /// Kind of machine.
    pub profile: Profile,
    /// Memory of the [`crate::config_pages`], if the guest has them.
    pub config_pages: Option<GuestMemoryMmap>,
}

/// The PCI devices of a board.
pub const PCI_DEVICES: [u8; 3] = [0, RNG_SLOT, CONSOLE_SLOT];

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
    /// The virtio console.
    pub virtio_console: Arc<Mutex<VirtioConsole>>,
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
    /// Builds the board; `kick` gets VCPUs to look at their interrupts.
    ///
    /// # Errors
    /// Two devices want the same place: a mistake in here.
    pub fn new(parts: Parts, kick: Box<dyn Kick>) -> Result<Arc<Self>, BoardError> {
        let timer = TimerConfig { tsc_per_bus_tick: (parts.tsc_khz / APIC_TIMER_KHZ).max(1), ..TimerConfig::default() };
        let fabric = Fabric::new(&parts.vcpus, timer, kick);
        let mut wiring = Wiring {
            ports: PortBus::new(),
            mmio: MmioBus::new(),
            deadlines: Deadlines::default(),
            power: PowerLatch::new(),
            clock: Arc::new(parts.clock),
            fabric,
        };
        let serial = Arc::new(Mutex::new(Port::new(wiring.line(COM1_IRQ), Arc::clone(&parts.console))));
        wiring.ports.insert(COM1_PORT, SERIAL_PORTS, Arc::clone(&serial) as Arc<Mutex<dyn PortDevice>>)?;
        wiring.mmio.insert(IOAPIC_BASE, IOAPIC_LEN, shared(IoApicWindow(Arc::clone(&wiring.fabric))))?;
        let rtc = Rtc::new(wiring.clock.clone(), Arc::new(HostTime), wiring.line(RTC_IRQ));
        wiring.timed(RTC_PORT, 2, rtc)?;
        let (root, console) = wiring.pci(&parts)?;
        match parts.profile {
            Profile::Reduced => wiring.reduced()?,
            Profile::Full => wiring.full(&root)?,
        }
        Ok(Arc::new(Self {
            ports: wiring.ports,
            mmio: wiring.mmio,
            fabric: wiring.fabric,
            deadlines: wiring.deadlines,
            power: wiring.power,
            clock: parts.clock,
            memory: parts.memory,
            serial,
            virtio_console: console,
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
                Profile::Full => acpi::Profile::Full { pm_base: PM_BASE, sci: SCI },
            },
            reset: RESET,
            serial: vec![(COM1_PORT, 4)],
            rtc: true,
            keyboard_controller: false,
            pci_routes: core::array::from_fn(|device| {
                let device = u8::try_from(device).unwrap_or(0);
                [1, 2, 3, 4].map(|pin| intx_gsi(device, pin))
            }),
            overrides: match self.profile {
                Profile::Reduced => vec![],
                Profile::Full => vec![(0, TIMER_GSI)],
            },
        }
    }

    /// Makes console output appear.
    pub fn flush_console(&self) {
        lock(&self.console).flush();
    }
}

/// Where devices are while the board is being built.
struct Wiring {
    ports: PortBus,
    mmio: MmioBus,
    deadlines: Deadlines,
    power: PowerLatch,
    clock: Arc<TscClock>,
    fabric: Arc<Fabric>,
}

impl Wiring {
    fn line(&self, gsi: u32) -> IrqLine {
        IrqLine::new(Arc::clone(&self.fabric) as Arc<dyn IrqSink>, gsi)
    }

    /// Puts a device with byte registers, which acts by itself too, on the port bus.
    fn timed<D: ByteDevice + Timed + 'static>(
        &mut self,
        port: u16,
        ports: u64,
        device: D,
    ) -> Result<Arc<Mutex<D>>, BoardError> {
        let device = shared(device);
        self.ports.insert(port, ports, shared(Bytewise(Shared(Arc::clone(&device)))))?;
        self.deadlines.add(Arc::clone(&device) as Arc<Mutex<dyn Timed>>);
        Ok(device)
    }

    /// The PCI bus with its devices, its configuration space and its memory window.
    fn pci(&mut self, parts: &Parts) -> Result<(Arc<PciRoot>, Arc<Mutex<VirtioConsole>>), BoardError> {
        let ram = Arc::new(parts.memory.clone());
        let messages = Arc::clone(&self.fabric) as Arc<dyn MsiSink>;
        let mut root = PciRoot::new();
        root.plug(0, shared(HostBridge::new()))?;
        let line = self.line(intx_gsi(RNG_SLOT, 1));
        root.plug(RNG_SLOT, shared(VirtioPci::new(Rng::new(HostEntropy), ram.clone(), messages.clone(), line)))?;
        let line = self.line(intx_gsi(CONSOLE_SLOT, 1));
        let console = shared(VirtioPci::new(Console::new(Arc::clone(&parts.console)), ram, messages, line));
        root.plug(CONSOLE_SLOT, Arc::clone(&console) as Arc<Mutex<dyn PciFunction>>)?;
        root.assign_bars(layout::PCI_MMIO, layout::PCI_MMIO_SIZE)?;
        let root = Arc::new(root);
        let space: Arc<Mutex<dyn MmioDevice>> = match &parts.config_pages {
            Some(pages) => shared(ConfigPages::new(Arc::clone(&root), pages.clone(), &PCI_DEVICES)),
            None => shared(Ecam(Arc::clone(&root))),
        };
        self.mmio.insert(layout::ECAM, Ecam::LEN, space)?;
        let window = PciMemory { root: Arc::clone(&root), base: layout::PCI_MMIO };
        self.mmio.insert(layout::PCI_MMIO, layout::PCI_MMIO_SIZE, shared(window))?;
        Ok((root, console))
    }

    /// What only a machine with hardware-reduced ACPI has.
    fn reduced(&mut self) -> Result<(), BoardError> {
        self.ports.insert(RESET.0, 1, shared(Bytewise(ResetControl::new(self.power.clone()))))?;
        let sleep = SleepRegisters(self.power.clone());
        self.ports.insert(SLEEP_PORT, SLEEP_PORTS, shared(Bytewise(sleep)))?;
        Ok(())
    }

    /// What only a PC has: legacy interrupt controllers and timers, the PCI ports, power management.
    fn full(&mut self, root: &Arc<PciRoot>) -> Result<(), BoardError> {
        let pic = |port| shared(Bytewise(PicWindow(Arc::clone(&self.fabric), port)));
        self.ports.insert(0x20, 2, pic(PicPort::First))?;
        self.ports.insert(0xa0, 2, pic(PicPort::Second))?;
        self.ports.insert(0x4d0, 2, pic(PicPort::EdgeLevel))?;
        let reset = ResetControl::new(self.power.clone());
        let config = ConfigPorts::new(Arc::clone(root), Some(reset));
        self.ports.insert(ConfigPorts::BASE, ConfigPorts::LEN, shared(config))?;
        let pit = Pit::new(self.clock.clone(), self.line(PIT_IRQ));
        let pit = self.timed(PIT_PORT, 4, pit)?;
        self.ports.insert(SPEAKER_PORT, 1, shared(Bytewise(SpeakerPort(pit))))?;
        self.ports.insert(0x92, 1, shared(Bytewise(SystemControlA::new(self.power.clone()))))?;
        let (data, command) = I8042Port::pair(I8042::new(self.line(KEYBOARD_IRQ), self.power.clone()));
        self.ports.insert(I8042_DATA, 1, shared(Bytewise(data)))?;
        self.ports.insert(I8042_COMMAND, 1, shared(Bytewise(command)))?;
        let pm = shared(AcpiPm::new(self.clock.clone(), self.line(SCI_IRQ), self.power.clone()));
        self.ports.insert(PM_BASE, AcpiPm::LEN, Arc::clone(&pm) as Arc<Mutex<dyn PortDevice>>)?;
        self.deadlines.add(pm);
        Ok(())
    }
}

/// A byte device that others hold too.
struct Shared<D>(Arc<Mutex<D>>);

impl<D: ByteDevice> ByteDevice for Shared<D> {
    fn read_byte(&mut self, offset: u16) -> u8 {
        lock(&self.0).read_byte(offset)
    }

    fn write_byte(&mut self, offset: u16, value: u8) {
        lock(&self.0).write_byte(offset, value);
    }
}

/// Two devices want the same place.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum BoardError {
    /// On a bus.
    Bus(BusError),
    /// On PCI.
    Pci(PciError),
}

impl std::fmt::Display for BoardError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bus(e) => e.fmt(f),
            Self::Pci(e) => e.fmt(f),
        }
    }
}

impl std::error::Error for BoardError {}

impl From<BusError> for BoardError {
    fn from(e: BusError) -> Self {
        Self::Bus(e)
    }
}

impl From<PciError> for BoardError {
    fn from(e: PciError) -> Self {
        Self::Pci(e)
    }
}

fn shared<D>(device: D) -> Arc<Mutex<D>> {
    Arc::new(Mutex::new(device))
}
