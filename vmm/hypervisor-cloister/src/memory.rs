// SPDX-License-Identifier: MIT OR Apache-2.0
//! Guest memory as the VMM mapped it, and the instructions by which guests touch device memory.
//!
//! The list of regions is replaced as a whole when something is mapped or unmapped; an exit works on the list that it
//! found. Guest memory is read and written by volatile accesses of words and bytes: the guest may change it meanwhile.

use core::ptr;
use std::sync::{Arc, PoisonError, RwLock};

use cloister_abi::arch::current::vcpu::{self as abi, Groups};
use cloister_emulate::{Changed, Cpu, Exception, Machine, Miss, Outcome, Segment, emulate};
use cloister_hypervisor::{Access, Bus, Error, Exit, MemoryRegion};

use crate::calls::Calls;
use crate::vcpu::CloisterVcpu;

/// `qualification[0]` of a memory exit: a write.
const WRITE: u64 = 1 << 1;
const DEBUG: u8 = 1;
const STACK: u8 = 12;
const GENERAL_PROTECTION: u8 = 13;
const PAGE_FAULT: u8 = 14;
const ACCESS_L: u32 = 1 << 13;
const ACCESS_DB: u32 = 1 << 14;

/// The regions of a VM. Clones are the same list.
#[derive(Clone, Debug, Default)]
pub struct Memory(Arc<RwLock<Regions>>);

type Regions = Arc<[MemoryRegion]>;

impl Memory {
    /// The present list.
    #[must_use]
    pub fn regions(&self) -> Arc<[MemoryRegion]> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Adds a region, if it overlaps no other one.
    ///
    /// # Errors
    /// [`Error::Region`]: it is no whole pages, wraps, or overlaps another one.
    ///
    /// # Safety
    /// The host memory must stay mapped, and used by volatile accesses only, until the region is removed.
    pub unsafe fn add(&self, region: MemoryRegion) -> Result<(), Error> {
        let bad = |reason| Error::Region { address: region.guest, size: region.size, reason };
        if region.size == 0 || (region.guest | region.size | region.host) & 0xfff != 0 {
            return Err(bad("not a multiple of 4 KiB"));
        }
        let end = region.guest.checked_add(region.size).ok_or_else(|| bad("wraps"))?;
        let mut list = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let overlaps =
            |other: &MemoryRegion| other.guest < end && region.guest < other.guest.saturating_add(other.size);
        if list.iter().any(overlaps) {
            return Err(bad("overlaps another region"));
        }
        *list = list.iter().copied().chain([region]).collect();
        Ok(())
    }

    /// Removes the region that is exactly this.
    ///
    /// # Errors
    /// [`Error::Region`]: there is none.
    pub fn remove(&self, guest: u64, size: u64) -> Result<(), Error> {
        let mut list = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let is_it = |region: &MemoryRegion| region.guest == guest && region.size == size;
        if !list.iter().any(is_it) {
            return Err(Error::Region { address: guest, size, reason: "not mapped" });
        }
        *list = list.iter().copied().filter(|region| !is_it(region)).collect();
        Ok(())
    }
}

/// Where the guest-physical range lies in this program, if it lies in one region (that may be written, if `write`).
fn locate(regions: &[MemoryRegion], gpa: u64, len: usize, write: bool) -> Option<*mut u8> {
    let len = u64::try_from(len).ok()?;
    let inside = |region: &&MemoryRegion| {
        let offset = gpa.wrapping_sub(region.guest);
        gpa >= region.guest && offset.checked_add(len).is_some_and(|end| end <= region.size)
    };
    let region = regions.iter().find(inside).filter(|region| !write || region.protection.write)?;
    let host = region.host.checked_add(gpa.wrapping_sub(region.guest))?;
    Some(ptr::with_exposed_provenance_mut(usize::try_from(host).ok()?))
}

/// Guest memory on one side, the bus on the other.
pub(crate) struct GuestMachine<'a, B> {
    pub(crate) regions: Arc<[MemoryRegion]>,
    pub(crate) bus: &'a mut B,
}

impl<B: Bus> Machine for GuestMachine<'_, B> {
    fn ram_read(&self, gpa: u64, into: &mut [u8]) -> bool {
        let Some(from) = locate(&self.regions, gpa, into.len(), false) else { return false };
        if let Ok(word) = <&mut [u8; 8]>::try_from(&mut *into)
            && from.addr() & 7 == 0
        {
            // SAFETY: the range lies in a region, which is mapped (`Memory::add`); the address is aligned.
            *word = unsafe { from.cast::<u64>().read_volatile() }.to_le_bytes();
            return true;
        }
        for (index, byte) in into.iter_mut().enumerate() {
            // SAFETY: as above, and the index is within the range.
            *byte = unsafe { from.wrapping_add(index).read_volatile() };
        }
        true
    }

    fn ram_write(&self, gpa: u64, from: &[u8]) -> bool {
        let Some(to) = locate(&self.regions, gpa, from.len(), true) else { return false };
        if let Ok(word) = <[u8; 8]>::try_from(from)
            && to.addr() & 7 == 0
        {
            // SAFETY: the range lies in a region, which is mapped (`Memory::add`); the address is aligned.
            unsafe { to.cast::<u64>().write_volatile(u64::from_le_bytes(word)) };
            return true;
        }
        for (index, byte) in from.iter().enumerate() {
            // SAFETY: as above, and the index is within the range.
            unsafe { to.wrapping_add(index).write_volatile(*byte) };
        }
        true
    }

    fn device_read(&mut self, gpa: u64, into: &mut [u8]) {
        self.bus.mmio_read(gpa, into);
    }

    fn device_write(&mut self, gpa: u64, from: &[u8]) {
        self.bus.mmio_write(gpa, from);
    }
}

const fn segment(segment: abi::Segment) -> Segment {
    let access = segment.access;
    Segment { base: segment.base, big: access & ACCESS_DB != 0, long: access & ACCESS_L != 0 }
}

impl<C: Calls> CloisterVcpu<C> {
    /// The registers as the emulator wants them. Segments other than CS, FS and GS are fetched outside of 64-bit mode only.
    pub(crate) fn processor(&self) -> Result<Cpu, Error> {
        self.need(crate::groups::INSTRUCTION)?;
        let page = self.page;
        let (cs, ss) = (segment(page.cs()), segment(page.ss()));
        let (mut ds, mut es) = (Segment::default(), Segment::default());
        if !cs.long {
            self.need(Groups::DS_ES)?;
            (ds, es) = (segment(page.ds()), segment(page.es()));
        }
        Ok(Cpu {
            gpr: page.gpr(),
            rip: page.rip(),
            rflags: page.rflags(),
            cr0: page.cr0(),
            cr3: page.cr3(),
            cr4: page.cr4(),
            efer: page.efer(),
            cpl: self.privilege(),
            segments: [es, cs, ss, ds, segment(page.fs()), segment(page.gs())],
            a20_closed: false,
            changed: Changed::default(),
        })
    }

    /// Takes back what an instruction changed.
    pub(crate) fn take_back(&self, cpu: &Cpu) {
        let page = self.page;
        let gprs = cpu.changed.gprs;
        let mut groups = Groups::RIP;
        page.set_rip(cpu.rip);
        if gprs != 0 {
            page.set_gpr(cpu.gpr);
            let parts =
                [(0xf, Groups::GPR_ACDB), (0xe0, Groups::GPR_BSD), (0xff00, Groups::GPR_R8_R15), (0x10, Groups::RSP)];
            for (_, group) in parts.into_iter().filter(|(mask, _)| gprs & mask != 0) {
                groups |= group;
            }
        }
        if cpu.changed.rflags {
            page.set_rflags(cpu.rflags);
            groups |= Groups::RFLAGS;
        }
        self.changed(groups);
    }

    /// Gives the guest an exception that an instruction ended in.
    pub(crate) fn raise(&self, exception: Exception) -> Result<(), Error> {
        let event = match exception {
            Exception::GeneralProtection => abi::Event::exception(GENERAL_PROTECTION, Some(0)),
            Exception::Stack => abi::Event::exception(STACK, Some(0)),
            Exception::Page { address, code } => {
                self.need(Groups::CR)?;
                self.page.set_cr2(address);
                self.changed(Groups::CR);
                abi::Event::exception(PAGE_FAULT, Some(code))
            }
        };
        self.queue(event);
        Ok(())
    }

    /// The guest touched what is not mapped, or not so.
    pub(crate) fn device_memory<B: Bus>(&mut self, bus: &mut B) -> Result<Exit, Error> {
        let [error, gpa, _] = self.page.qualification();
        let write = error & WRITE != 0;
        if self.is_delivering()? {
            return self.unhandled(format!("device memory at {gpa:#x} was touched by the delivery of an event"));
        }
        let mut cpu = self.processor()?;
        let mut machine = GuestMachine { regions: self.memory.regions(), bus };
        match emulate(&mut cpu, &mut machine, Miss { gpa, write }) {
            Ok(Outcome::Done { trap }) => {
                self.take_back(&cpu);
                if trap {
                    self.queue(abi::Event::exception(DEBUG, None));
                }
            }
            Ok(Outcome::Partial) => self.take_back(&cpu),
            Ok(Outcome::Fault(exception)) => self.raise(exception)?,
            Err(error) => return self.unhandled(format!("access to device memory at {gpa:#x}: {error}")),
        }
        Ok(Exit::Access(if write { Access::MmioWrite(gpa) } else { Access::MmioRead(gpa) }))
    }
}

#[cfg(test)]
mod tests {
    use super::{Memory, locate};
    use cloister_hypervisor::{Error, MemoryRegion, Protection};

    fn region(guest: u64, size: u64, protection: Protection) -> MemoryRegion {
        MemoryRegion { guest, size, host: 0x10_0000, protection }
    }

    fn add(memory: &Memory, region: MemoryRegion) -> Result<(), Error> {
        // SAFETY: the tests never access it.
        unsafe { memory.add(region) }
    }

    #[test]
    fn regions_are_checked() {
        let memory = Memory::default();
        add(&memory, region(0x1000, 0x2000, Protection::RAM)).unwrap();
        for (guest, size) in [(0x2000, 0x1000), (0, 0x2000), (0, 0x10_0000), (0x1800, 0x1000), (0x8000, 0)] {
            assert!(add(&memory, region(guest, size, Protection::RAM)).is_err(), "{guest:#x} + {size:#x}");
        }
        assert!(add(&memory, region(!0xfff, 0x2000, Protection::RAM)).is_err());
        add(&memory, region(0x3000, 0x1000, Protection::RAM)).unwrap();
        assert!(memory.remove(0x1000, 0x1000).is_err());
        memory.remove(0x1000, 0x2000).unwrap();
        add(&memory, region(0, 0x3000, Protection::RAM)).unwrap();
    }

    #[test]
    fn a_range_must_lie_in_one_region_that_allows_it() {
        let list = [region(0x1000, 0x1000, Protection::RAM), region(0x2000, 0x1000, Protection::ROM)];
        let at = |gpa, len, write| locate(&list, gpa, len, write).map(<*mut u8>::addr);
        assert_eq!(at(0x1ff8, 8, true), Some(0x10_0ff8));
        assert_eq!(at(0x1ff9, 8, false), None);
        assert_eq!(at(0x2000, 8, false), Some(0x10_0000));
        assert_eq!(at(0x2000, 8, true), None);
        assert_eq!(at(u64::MAX - 3, 8, false), None);
    }
}
