// SPDX-License-Identifier: MIT OR Apache-2.0
//! PCI functions of bus 0, by the configuration ports (PCI Local Bus 3.0, 3.2.2.3 and 6), and the two that the tests of interrupts use:
//! QEMU's educational device and an Intel 82574L.

use cloister_abi::cap::Access;
use cloister_abi::hip::{MACHINE_PIO, ROOT_PIO};
use cloister_abi::hypercall::Delegate;
use cloister_abi::status::Status;
use cloister_bare::kernel::call;
use cloister_bare::memory::{addresses, map};
use core::arch::asm;

const ADDRESS: u16 = 0xcf8;
const DATA: u16 = 0xcfc;
const COMMAND: u8 = 0x04;
const CAPABILITIES: u8 = 0x34;
/// Command: memory, bus master.
const ENABLE: u32 = 6;
/// Command: no interrupts by line.
const NO_LINE: u32 = 1 << 10;

/// Capability of message-signalled interrupts.
pub(crate) const MSI: u8 = 0x05;
/// Capability of MSI-X.
pub(crate) const MSI_X: u8 = 0x11;

/// A function: its requester id.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Function(pub(crate) u32);

/// Registers of a device in memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Registers(u64);

impl Function {
    fn select(self, offset: u8) {
        let value = 1 << 31 | self.0 << 8 | u32::from(offset & 0xfc);
        // SAFETY: the root task owns the ports.
        unsafe { asm!("out dx, eax", in("dx") ADDRESS, in("eax") value, options(nostack, nomem)) };
    }

    /// Reads a configuration register.
    pub(crate) fn read(self, offset: u8) -> u32 {
        self.select(offset);
        let value: u32;
        // SAFETY: as above.
        unsafe { asm!("in eax, dx", in("dx") DATA, out("eax") value, options(nostack, nomem)) };
        value
    }

    /// Writes a configuration register.
    pub(crate) fn write(self, offset: u8, value: u32) {
        self.select(offset);
        // SAFETY: as above.
        unsafe { asm!("out dx, eax", in("dx") DATA, in("eax") value, options(nostack, nomem)) };
    }

    /// Finds the function with this vendor (low half) and device (high half), and enables it.
    pub(crate) fn find(identity: u32) -> Result<Option<Self>, Status> {
        let order = 3;
        let (src_base, dst_base) = (u64::from(ADDRESS), u64::from(ADDRESS));
        call(&Delegate { src: MACHINE_PIO, dst: ROOT_PIO, src_base, dst_base, order, rights: 1 })?;
        let found = (0..256).map(Self).find(|function| function.read(0) == identity);
        if let Some(function) = found {
            function.write(COMMAND, function.read(COMMAND) & 0xffff & !NO_LINE | ENABLE);
        }
        Ok(found)
    }

    /// Offset of a capability.
    pub(crate) fn capability(self, identity: u8) -> Option<u8> {
        let mut at = self.read(CAPABILITIES).to_le_bytes()[0];
        for _ in 0..48 {
            if at == 0 {
                break;
            }
            let [id, next, ..] = self.read(at).to_le_bytes();
            if id == identity {
                return Some(at);
            }
            at = next;
        }
        None
    }

    /// Maps the first page of the memory behind a 32-bit base address register.
    pub(crate) fn registers(self, bar: u8, offset: u64) -> Result<Registers, Status> {
        let physical = u64::from(self.read(0x10 + 4 * bar) & !0xf) + (offset & !0xfff);
        let address = addresses(0);
        map(physical, address, 0, Access::READ | Access::WRITE | Access::UNCACHED)?;
        Ok(Registers(address + (offset & 0xfff)))
    }

    /// Programs and enables its MSI.
    pub(crate) fn enable_msi(self, at: u8, (address, data): (u64, u64)) {
        let control = self.read(at);
        let [low, high] = [address, address >> 32].map(|half| u32::try_from(half & 0xffff_ffff).unwrap_or(0));
        self.write(at + 4, low);
        let data_at = if control >> 23 & 1 != 0 {
            self.write(at + 8, high);
            at + 12
        } else {
            at + 8
        };
        self.write(data_at, u32::try_from(data).unwrap_or(0));
        self.write(at, control & !(7 << 20) | 1 << 16);
    }

    /// Disables its MSI.
    pub(crate) fn disable_msi(self, at: u8) {
        self.write(at, self.read(at) & !(1 << 16));
    }
}

impl Registers {
    fn place(self, offset: u64) -> *mut u32 {
        core::ptr::with_exposed_provenance_mut(usize::try_from(self.0 + offset).unwrap_or(0))
    }

    /// Reads a register.
    pub(crate) fn read(self, offset: u64) -> u32 {
        // SAFETY: in the page that was mapped.
        unsafe { self.place(offset).read_volatile() }
    }

    /// Writes a register.
    pub(crate) fn write(self, offset: u64, value: u32) {
        // SAFETY: in the page that was mapped.
        unsafe { self.place(offset).write_volatile(value) };
    }
}
