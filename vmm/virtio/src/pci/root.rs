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

#[cfg(test)]
mod tests;

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
