// SPDX-License-Identifier: MIT OR Apache-2.0
//! The root bus: which function answers a configuration cycle, and which BAR an address.
//!
//! Configuration comes in by ports 0xcf8 and 0xcfc ([`ConfigPorts`], PCI 3.0 section 3.2.2.3.2) and by memory
//! ([`Ecam`], PCI Express 5.0 section 7.2.2); BARs are reached through the windows [`PciMemory`] and [`PciIo`], which
//! the VMM puts on its buses once. What a guest moves, moves behind the windows: the list of routes is made anew when a
//! write may have changed what is decoded.
//!
//! Locks: the routes are read-locked for a lookup and never held while a function is called.
//!
//! Rule: one bus, 32 devices, function 0 of each. Absent functions read as all ones.

use super::PciFunction;
use super::config::{BarKind, ConfigSpace, bar_offset};
use cloister_devices::bits::{lo8, lo16, lo32, merge};
use cloister_devices::bus::{ByteDevice, MmioDevice, PortDevice, Width};
use cloister_devices::lock;
use cloister_devices::power::ResetControl;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

/// Number of devices on the bus.
const DEVICES: u8 = 32;

/// The global system interrupt to which pin `pin` (1 to 4 for INTA to INTD) of device `device` is wired: pins 16 to 23
/// of the IOAPIC, in turn (PCI 3.0 section 2.2.6). `_PRT` must say the same.
#[must_use]
pub const fn intx_gsi(device: u8, pin: u8) -> u32 {
    16u32.wrapping_add((device as u32).wrapping_add(pin as u32).wrapping_sub(1) & 7)
}

/// Why a function could not be plugged, or its BARs not be placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PciError {
    /// Device numbers go from 0 to 31.
    NoSuchDevice(u8),
    /// Another function is there.
    Occupied(u8),
    /// The window has no room for a BAR of this device.
    WindowFull(u8),
}

impl std::fmt::Display for PciError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoSuchDevice(d) => write!(f, "PCI device number {d} is not below 32"),
            Self::Occupied(d) => write!(f, "PCI device number {d} is taken"),
            Self::WindowFull(d) => write!(f, "the PCI window has no room for the BARs of device {d}"),
        }
    }
}

impl std::error::Error for PciError {}

#[derive(Clone, Copy, Debug)]
struct Route {
    base: u64,
    last: u64,
    io: bool,
    device: u8,
    bar: u8,
}

/// A function, shared with whoever moves its backend.
pub type Function = Arc<Mutex<dyn PciFunction>>;

/// The root bus.
#[derive(Default)]
pub struct PciRoot {
    slots: [Option<Function>; DEVICES as usize],
    routes: RwLock<Vec<Route>>,
}

impl std::fmt::Debug for PciRoot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PciRoot").field("routes", &self.routes).finish_non_exhaustive()
    }
}

impl PciRoot {
    /// An empty bus.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Plugs `function` in as device `device`, before the guest runs.
    ///
    /// # Errors
    /// See [`PciError`].
    pub fn plug(&mut self, device: u8, function: Function) -> Result<(), PciError> {
        match self.slots.get_mut(usize::from(device)) {
            None => Err(PciError::NoSuchDevice(device)),
            Some(Some(_)) => Err(PciError::Occupied(device)),
            Some(slot) => {
                *slot = Some(function);
                Ok(())
            }
        }
    }

    /// Gives each memory BAR an address in the window of `size` bytes from `base`, as firmware does, so that a system
    /// need not. Decoding stays off. I/O BARs get none.
    ///
    /// # Errors
    /// [`PciError::WindowFull`].
    pub fn assign_bars(&self, base: u64, size: u64) -> Result<(), PciError> {
        let end = base.saturating_add(size);
        let mut next = base;
        for (device, slot) in (0u8..).zip(&self.slots) {
            let Some(function) = slot else { continue };
            let mut function = lock(function);
            for (index, bar) in function.bars() {
                if bar.kind == BarKind::Io {
                    continue;
                }
                let mask = bar.size.wrapping_sub(1);
                let at = next.checked_add(mask).ok_or(PciError::WindowFull(device))? & !mask;
                let after = at.checked_add(bar.size).filter(|a| *a <= end).ok_or(PciError::WindowFull(device))?;
                function.config_write(bar_offset(index), Width::Dword, lo32(at));
                if bar.kind == BarKind::Memory64 {
                    let high = bar_offset(index.wrapping_add(1));
                    function.config_write(high, Width::Dword, lo32(at >> 32));
                }
                next = after;
            }
        }
        self.reroute();
        Ok(())
    }

    /// Resets all functions, as a reset of the machine does.
    pub fn reset(&self) {
        self.slots.iter().flatten().for_each(|function| lock(function).reset());
        self.reroute();
    }

    fn function(&self, device: u8) -> Option<&Function> {
        self.slots.get(usize::from(device))?.as_ref()
    }

    /// Reads the configuration space of the function `bdf` (bus, device and function as in an ECAM address).
    #[must_use]
    pub fn config_read(&self, bdf: u16, offset: u16, width: Width) -> u32 {
        match self.addressed(bdf) {
            Some(function) => lock(function).config_read(offset, width),
            None => u32::MAX,
        }
    }

    /// Writes the configuration space of the function `bdf`.
    pub fn config_write(&self, bdf: u16, offset: u16, width: Width, value: u32) {
        if let Some(function) = self.addressed(bdf) {
            lock(function).config_write(offset, width, value);
            if ConfigSpace::decodes(offset) {
                self.reroute();
            }
        }
    }

    fn addressed(&self, bdf: u16) -> Option<&Function> {
        // Bus 0, function 0.
        (bdf & 0xff07 == 0).then(|| self.function(lo8(u64::from(bdf >> 3))))?
    }

    fn reroute(&self) {
        let mut routes = Vec::new();
        for (device, slot) in (0u8..).zip(&self.slots) {
            let Some(function) = slot else { continue };
            for m in lock(function).mappings() {
                let last = m.base.saturating_add(m.size.saturating_sub(1));
                routes.push(Route { base: m.base, last, io: m.io, device, bar: m.bar });
            }
        }
        *self.routes.write().unwrap_or_else(PoisonError::into_inner) = routes;
    }

    fn route(&self, io: bool, address: u64, width: Width) -> Option<(&Function, u8, u64)> {
        let last = address.checked_add(u64::from(width.bytes()).wrapping_sub(1))?;
        let routes = self.routes.read().unwrap_or_else(PoisonError::into_inner);
        let hit = routes.iter().find(|r| r.io == io && r.base <= address && last <= r.last)?;
        Some((self.function(hit.device)?, hit.bar, address.wrapping_sub(hit.base)))
    }

    /// Reads the BAR that is decoded at `address`.
    #[must_use]
    pub fn bar_read(&self, io: bool, address: u64, width: Width) -> u64 {
        match self.route(io, address, width) {
            Some((function, bar, offset)) => lock(function).bar_read(bar, offset, width),
            None => width.mask(),
        }
    }

    /// Writes the BAR that is decoded at `address`.
    pub fn bar_write(&self, io: bool, address: u64, width: Width, value: u64) {
        if let Some((function, bar, offset)) = self.route(io, address, width) {
            lock(function).bar_write(bar, offset, width, value);
        }
    }
}

/// Ports 0xcf8 to 0xcff: configuration mechanism 1, and the reset control at 0xcf9 if the board has one.
#[derive(Debug)]
pub struct ConfigPorts {
    root: Arc<PciRoot>,
    address: u32,
    reset: Option<ResetControl>,
}

impl ConfigPorts {
    /// First port.
    pub const BASE: u16 = 0xcf8;
    /// Number of ports.
    pub const LEN: u64 = 8;

    /// The ports of `root`.
    #[must_use]
    pub const fn new(root: Arc<PciRoot>, reset: Option<ResetControl>) -> Self {
        Self { root, address: 0, reset }
    }

    /// The function and register that an access to the data ports at `offset` is for.
    fn target(&self, offset: u16, width: Width) -> Option<(u16, u16)> {
        let within = offset & 3;
        let fits = u32::from(within).wrapping_add(width.bytes()) <= 4;
        let register = lo16(u64::from(self.address & 0xfc)) | within;
        (self.address >> 31 != 0 && fits).then_some((lo16(u64::from(self.address >> 8)), register))
    }
}

impl PortDevice for ConfigPorts {
    fn read(&mut self, offset: u16, width: Width) -> u32 {
        match (offset, width) {
            (0, Width::Dword) => self.address,
            (1, Width::Byte) => self.reset.as_mut().map_or(u32::MAX, |r| u32::from(r.read_byte(0))),
            (4..=7, _) => self.target(offset, width).map_or(u32::MAX, |(f, r)| self.root.config_read(f, r, width)),
            _ => u32::MAX,
        }
    }

    fn write(&mut self, offset: u16, width: Width, value: u32) {
        match (offset, width) {
            (0, Width::Dword) => self.address = value & 0x80ff_fffc,
            (1, Width::Byte) => {
                if let Some(reset) = &mut self.reset {
                    reset.write_byte(0, lo8(u64::from(value)));
                }
            }
            (4..=7, _) => {
                if let Some((function, register)) = self.target(offset, width) {
                    self.root.config_write(function, register, width, value);
                }
            }
            _ => {}
        }
    }
}

/// The memory-mapped configuration space: 1 MiB per bus.
#[derive(Clone, Debug)]
pub struct Ecam(pub Arc<PciRoot>);

impl Ecam {
    /// Bytes that the one bus takes.
    pub const LEN: u64 = 1 << 20;

    const fn split(offset: u64) -> (u16, u16) {
        (lo16(offset >> 12), lo16(offset & 0xfff))
    }
}

impl MmioDevice for Ecam {
    fn read(&mut self, offset: u64, width: Width) -> u64 {
        let (bdf, register) = Self::split(offset);
        match width {
            Width::Qword => {
                let low = self.0.config_read(bdf, register, Width::Dword);
                let high = self.0.config_read(bdf, register.wrapping_add(4), Width::Dword);
                u64::from(low) | (u64::from(high) << 32)
            }
            _ => u64::from(self.0.config_read(bdf, register, width)),
        }
    }

    fn write(&mut self, offset: u64, width: Width, value: u64) {
        let (bdf, register) = Self::split(offset);
        if width == Width::Qword {
            self.0.config_write(bdf, register, Width::Dword, lo32(value));
            self.0.config_write(bdf, register.wrapping_add(4), Width::Dword, lo32(value >> 32));
        } else {
            self.0.config_write(bdf, register, width, lo32(merge(0, value, width.mask(), 0)));
        }
    }
}

/// A window on the memory bus, behind which memory BARs are: give `base` where it is put.
#[derive(Clone, Debug)]
pub struct PciMemory {
    /// The bus.
    pub root: Arc<PciRoot>,
    /// Guest-physical address of the window.
    pub base: u64,
}

impl MmioDevice for PciMemory {
    fn read(&mut self, offset: u64, width: Width) -> u64 {
        self.root.bar_read(false, self.base.wrapping_add(offset), width)
    }

    fn write(&mut self, offset: u64, width: Width, value: u64) {
        self.root.bar_write(false, self.base.wrapping_add(offset), width, value);
    }
}

/// A window on the port bus, behind which I/O BARs are.
#[derive(Clone, Debug)]
pub struct PciIo {
    /// The bus.
    pub root: Arc<PciRoot>,
    /// First port of the window.
    pub base: u16,
}

impl PortDevice for PciIo {
    fn read(&mut self, offset: u16, width: Width) -> u32 {
        lo32(self.root.bar_read(true, u64::from(self.base.wrapping_add(offset)), width))
    }

    fn write(&mut self, offset: u16, width: Width, value: u32) {
        self.root.bar_write(true, u64::from(self.base.wrapping_add(offset)), width, u64::from(value));
    }
}

#[cfg(test)]
mod tests {
    use super::{ConfigPorts, Ecam, PciError, PciMemory, PciRoot, intx_gsi};
    use crate::pci::{Bar, BarKind, ConfigSpace, HostBridge, Identity, Mapping, PciFunction};
    use cloister_devices::bus::{MmioDevice, PortDevice, Width};
    use cloister_devices::power::{PowerEvent, PowerLatch, ResetControl};
    use std::sync::{Arc, Mutex};

    const D: Width = Width::Dword;

    struct Echo(ConfigSpace, u64);
    impl PciFunction for Echo {
        fn config_read(&mut self, offset: u16, width: Width) -> u32 {
            self.0.read(offset, width)
        }
        fn config_write(&mut self, offset: u16, width: Width, value: u32) {
            self.0.write(offset, width, value);
        }
        fn mappings(&self) -> Vec<Mapping> {
            self.0.mappings()
        }
        fn bars(&self) -> Vec<(u8, Bar)> {
            self.0.bars().collect()
        }
        fn bar_read(&mut self, bar: u8, offset: u64, _width: Width) -> u64 {
            self.1 + offset + (u64::from(bar) << 32)
        }
        fn bar_write(&mut self, _bar: u8, offset: u64, _width: Width, value: u64) {
            self.1 = value - offset;
        }
        fn reset(&mut self) {
            self.0.reset();
        }
    }

    fn root() -> Arc<PciRoot> {
        let mut config = ConfigSpace::new(&Identity {
            vendor: 0x1234,
            device: 0x5678,
            class: [1, 2, 3],
            revision: 0,
            subsystem_vendor: 0,
            subsystem: 0,
            interrupt_pin: 1,
        });
        config.add_bar(0, BarKind::Memory32, 0x1000);
        config.add_bar(2, BarKind::Memory64, 0x10_0000);
        let mut root = PciRoot::new();
        root.plug(0, Arc::new(Mutex::new(HostBridge::new()))).unwrap();
        root.plug(3, Arc::new(Mutex::new(Echo(config, 0)))).unwrap();
        assert_eq!(root.plug(3, Arc::new(Mutex::new(HostBridge::new()))), Err(PciError::Occupied(3)));
        assert_eq!(root.plug(32, Arc::new(Mutex::new(HostBridge::new()))), Err(PciError::NoSuchDevice(32)));
        Arc::new(root)
    }

    #[test]
    fn pci_3_2_2_3_2_mechanism_one() {
        let root = root();
        let latch = PowerLatch::new();
        let mut ports = ConfigPorts::new(root, Some(ResetControl::new(latch.clone())));
        assert_eq!(ports.read(4, D), u32::MAX, "not enabled");
        ports.write(0, D, 0x8000_0000);
        assert_eq!((ports.read(0, D), ports.read(4, D)), (0x8000_0000, 0x29c0_8086));
        assert_eq!(ports.read(6, Width::Word), 0x29c0);
        ports.write(0, D, 0x8000_1803);
        assert_eq!((ports.read(0, D), ports.read(4, D)), (0x8000_1800, 0x5678_1234));
        for absent in [0x8000_0800u32, 0x8001_1800, 0x8000_1900] {
            ports.write(0, D, absent);
            assert_eq!(ports.read(4, D), u32::MAX, "{absent:#x}");
        }
        ports.write(1, Width::Byte, 6);
        assert_eq!(latch.take(), Some(PowerEvent::Reset));
    }

    #[test]
    fn pcie_7_2_2_ecam() {
        let mut ecam = Ecam(root());
        assert_eq!(ecam.read(3 << 15, D), 0x5678_1234);
        assert_eq!(ecam.read(3 << 15, Width::Qword) & 0xffff_ffff, 0x5678_1234);
        assert_eq!(ecam.read((3 << 15) | 0x100, D), 0);
        assert_eq!(ecam.read(4 << 15, Width::Byte) & 0xff, 0xff);
    }

    #[test]
    fn bars_answer_where_they_were_put_and_move() {
        let root = root();
        root.assign_bars(0xc000_0000, 0x1000_0000).unwrap();
        let mut window = PciMemory { root: root.clone(), base: 0xc000_0000 };
        assert_eq!(window.read(8, D), 0xffff_ffff, "not enabled");
        root.config_write(0x18, 4, Width::Word, 2);
        assert_eq!((window.read(8, D), window.read(0x10_0004, D)), (8, 0x2_0000_0004));
        root.config_write(0x18, 0x10, D, 0xc800_0000);
        assert_eq!((window.read(8, D), window.read(0x800_0008, D)), (0xffff_ffff, 8));
        assert_eq!(window.read(0x800_0ffe, D), 0xffff_ffff, "over the end");
        window.write(0x800_0000, D, 5);
        assert_eq!(window.read(0x800_0000, D), 5);
        root.reset();
        assert_eq!(window.read(0x800_0000, D), 0xffff_ffff);
        assert_eq!(root.assign_bars(0xc000_0000, 0x10_0000), Err(PciError::WindowFull(3)));
    }

    #[test]
    fn pci_2_2_6_interrupt_pins_take_turns() {
        assert_eq!(
            [intx_gsi(0, 1), intx_gsi(1, 1), intx_gsi(1, 4), intx_gsi(8, 1), intx_gsi(31, 4)],
            [16, 17, 20, 16, 18]
        );
    }
}
