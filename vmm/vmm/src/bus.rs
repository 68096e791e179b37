// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a VCPU's accesses reach: the board's buses, its own local APIC, its MSRs.

use std::sync::Arc;

use cloister_boot::layout;
use cloister_devices::bus::Width;
use cloister_hypervisor::arch::Tsc;
use cloister_hypervisor::{Bus, Fault, MsrResult};

use crate::board::Board;
use crate::msr;
use crate::paravirt::Paravirt;

const LAPIC_PAGE: u64 = 0x1000;
const X2APIC_FIRST: u32 = 0x800;
const X2APIC_LAST: u32 = 0x8ff;
const IA32_APIC_BASE: u32 = 0x1b;
const IA32_TSC_DEADLINE: u32 = 0x6e0;

/// One VCPU's way to its devices.
#[derive(Debug)]
pub struct VcpuBus {
    pub(crate) board: Arc<Board>,
    pub(crate) vcpu: usize,
    pub(crate) paravirt: Paravirt,
    /// The guest touched its local APIC: interrupts and its timer must be looked at.
    pub(crate) apic_touched: bool,
}

impl VcpuBus {
    /// The bus of VCPU number `vcpu`.
    #[must_use]
    pub fn new(board: Arc<Board>, vcpu: usize) -> Self {
        Self { board, vcpu, paravirt: Paravirt::default(), apic_touched: true }
    }

    /// An end of interrupt that the guest told by memory comes before what it does to its local APIC now.
    fn touch_apic(&mut self) {
        self.apic_touched = true;
        self.paravirt.collect_end(&self.board.memory, &self.board.fabric, self.vcpu);
    }

    fn lapic_offset(address: u64) -> Option<u64> {
        address.checked_sub(layout::LAPIC).filter(|offset| *offset < LAPIC_PAGE)
    }
}

const fn width(size: u8) -> Width {
    match size {
        1 => Width::Byte,
        2 => Width::Word,
        _ => Width::Dword,
    }
}

impl Bus for VcpuBus {
    #[inline]
    fn io_in(&mut self, port: u16, size: u8) -> u32 {
        self.board.ports.read(port, width(size))
    }

    #[inline]
    fn io_out(&mut self, port: u16, size: u8, value: u32) {
        self.board.ports.write(port, width(size), value);
    }

    fn mmio_read(&mut self, address: u64, data: &mut [u8]) {
        match (Self::lapic_offset(address), Width::from_bytes(data.len())) {
            (Some(offset), Some(width)) => {
                let value = self.board.fabric.lapic_read(self.vcpu, offset, width, Tsc::now().0).to_le_bytes();
                data.iter_mut().zip(value).for_each(|(to, from)| *to = from);
            }
            (None, Some(_)) => self.board.mmio.read_slice(address, data),
            (_, None) => {
                for (byte, offset) in data.chunks_mut(1).zip(0..) {
                    self.mmio_read(address.wrapping_add(offset), byte);
                }
            }
        }
    }

    fn mmio_write(&mut self, address: u64, data: &[u8]) {
        match (Self::lapic_offset(address), Width::from_bytes(data.len())) {
            (Some(offset), Some(width)) => {
                self.touch_apic();
                let value = data.iter().rev().fold(0_u64, |v, b| v << 8 | u64::from(*b));
                self.board.fabric.lapic_write(self.vcpu, offset, width, value, Tsc::now().0);
            }
            (None, Some(_)) => self.board.mmio.write_slice(address, data),
            (_, None) => {
                for (byte, offset) in data.chunks(1).zip(0..) {
                    self.mmio_write(address.wrapping_add(offset), byte);
                }
            }
        }
    }

    fn rdmsr(&mut self, msr: u32) -> MsrResult<u64> {
        let fabric = &self.board.fabric;
        let lapic = || fabric.lapic(self.vcpu).ok_or(Fault);
        match msr {
            X2APIC_FIRST..=X2APIC_LAST => fabric.msr_read(self.vcpu, msr, Tsc::now().0).map_err(|_| Fault),
            IA32_TSC_DEADLINE => Ok(lapic()?.tsc_deadline()),
            IA32_APIC_BASE => Ok(lapic()?.apic_base()),
            _ => self.paravirt.read(msr).or_else(|| msr::read(msr)).ok_or(Fault),
        }
    }

    fn wrmsr(&mut self, msr: u32, value: u64) -> MsrResult<()> {
        match msr {
            X2APIC_FIRST..=X2APIC_LAST => {
                self.touch_apic();
                self.board.fabric.msr_write(self.vcpu, msr, value, Tsc::now().0).map_err(|_| Fault)
            }
            IA32_TSC_DEADLINE => {
                self.apic_touched = true;
                self.board.fabric.lapic(self.vcpu).ok_or(Fault)?.set_tsc_deadline(value);
                Ok(())
            }
            IA32_APIC_BASE => {
                self.touch_apic();
                self.board.fabric.lapic(self.vcpu).ok_or(Fault)?.set_apic_base(value).map_err(|_| Fault)
            }
            _ => {
                let known = self.paravirt.write(&self.board, msr, value) || msr::write(msr, value);
                if known { Ok(()) } else { Err(Fault) }
            }
        }
    }
}

#[cfg(test)]
#[path = "bus_tests.rs"]
mod tests;
