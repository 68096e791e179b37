// SPDX-License-Identifier: MIT OR Apache-2.0
//! What [`cloister_iommu`] works on: registers and tables in the direct map, and the units' own interrupt as PCI functions.

use super::pci;
use crate::arch::{cpu, timer};
use crate::memory::direct;
use cloister_iommu::Bus;
use cloister_iommu::firmware::Found;

/// The machine.
#[derive(Debug)]
pub(super) struct Machine;

impl Bus for Machine {
    fn read(&self, address: u64) -> u64 {
        // SAFETY: a register or table of the units', which are mapped.
        unsafe { direct::<u64>(address).read_volatile() }
    }

    fn write(&self, address: u64, value: u64) {
        // SAFETY: as above.
        unsafe { direct::<u64>(address).write_volatile(value) };
    }

    fn read32(&self, address: u64) -> u32 {
        // SAFETY: as above.
        unsafe { direct::<u32>(address).read_volatile() }
    }

    fn write32(&self, address: u64, value: u32) {
        // SAFETY: as above.
        unsafe { direct::<u32>(address).write_volatile(value) };
    }

    fn wait(&self, what: &str, mut done: impl FnMut() -> bool) {
        let start = cpu::ticks();
        while !done() {
            // Memory could not be taken back from devices any more.
            if cpu::ticks() - start > timer::tsc_hz() {
                panic!("the IOMMU does not answer: {what}");
            }
            core::hint::spin_loop();
        }
    }

    fn write_back(&self) {
        // What this core has written: the bluntest way, but that of few units.
        // SAFETY: writes back caches, nothing else.
        unsafe { core::arch::asm!("wbinvd", options(nostack, preserves_flags)) };
    }
}

/// Lets AMD-Vi units, which are PCI functions, interrupt a local APIC by a vector. Answers whether one of them caches that nothing is mapped.
pub(super) fn prepare_amd(found: &Found, (apic, vector): (u32, u8)) -> bool {
    let mut caches_absence = false;
    for (_, id) in found.units.iter().flatten() {
        // The capability of IOMMUs, and its flag NpCache (48882, 3.1).
        caches_absence |= pci::capability(*id, 0xf).is_some_and(|at| pci::read(*id, at) >> 26 & 1 != 0);
        if apic > 0xfe || !pci::enable_msi(*id, 0xfee0_0000 | apic << 12, vector.into()) {
            log::warn!("IOMMU {id} has no interrupt: faults of devices are not told");
        }
    }
    caches_absence
}
