// SPDX-License-Identifier: MIT OR Apache-2.0
//! VT-d units: registers, queues, and the tables that all units share. Sources: VT-d, 6.5.2 (queue), 9 (tables), 11.4 (registers).

use super::{Format, Found, Registers, Ring, Words, wait_until};
use crate::memory::boot_frame;
use crate::width::index;
use cloister_abi::status::Status;
use cloister_iommu::intel::{Abilities, context, interrupt, queue, register as reg};
use cloister_iommu::{Fault, Requester};

/// Entries of the interrupt remapping table, as log2.
const INTERRUPT_ORDER: u32 = 10;
const INTERRUPTS: u16 = 1 << INTERRUPT_ORDER;
/// Bytes of a root or context table.
const TABLE: u64 = 256 * context::SIZE;
/// Contiguous memory: root table, a context table for each bus, the interrupt remapping table.
pub(super) const MEMORY: u64 = TABLE + 256 * TABLE + INTERRUPTS as u64 * interrupt::SIZE;

/// A unit.
#[derive(Debug)]
struct Unit {
    registers: Registers,
    abilities: Abilities,
    queue: Ring,
    /// Where the unit says that invalidations are done.
    done: Words,
    count: u32,
}

/// All units, and the tables that they share.
#[derive(Debug)]
pub(super) struct Intel {
    units: [Option<Unit>; super::UNITS],
    memory: Words,
    levels: u32,
    /// Largest pages, as [`Abilities::large`].
    pub(super) large: u32,
    coherent: bool,
    remaps: bool,
    wide: bool,
    pub(super) domains: u32,
    /// A unit caches that nothing is mapped, or does not see what processors write until it is told.
    pub(super) flush_mapped: bool,
}

fn abilities(base: u64) -> Abilities {
    let registers = Registers(base);
    Abilities(registers.read(reg::CAPABILITY), registers.read(reg::EXTENDED))
}

impl Intel {
    /// Lets all units block everything.
    ///
    /// # Errors
    /// What is missing.
    pub(super) fn init(found: &Found, memory: Words, remaps: bool) -> Result<Self, &'static str> {
        let all = |has: &dyn Fn(Abilities) -> bool| found.units().all(|(base, _)| has(abilities(*base)));
        if !all(&Abilities::has_queue) {
            return Err("a VT-d unit has no invalidation queue");
        }
        let levels = [4, 3].into_iter().find(|levels| all(&|it| it.has_levels(*levels)));
        let mut this = Self {
            units: [const { None }; super::UNITS],
            memory,
            levels: levels.ok_or("VT-d units do not agree on a page-table format")?,
            large: (0..3).rev().find(|large| all(&|it| it.large() >= *large)).unwrap_or(0),
            coherent: all(&Abilities::is_coherent),
            remaps: remaps && all(&Abilities::remaps),
            wide: super::super::apic::is_x2apic(),
            domains: found.units().map(|(base, _)| abilities(*base).domains()).min().unwrap_or(0),
            flush_mapped: !all(&|it| it.is_coherent() && !it.caches_absence() && !it.needs_buffer_flush()),
        };
        if this.wide && !all(&Abilities::has_x2apic) {
            this.remaps = false;
        }
        let contexts = this.memory.physical() + TABLE;
        for bus in 0..256 {
            this.memory.set(bus * 2, context::root(contexts + bus as u64 * TABLE));
        }
        for ((base, _), place) in found.units().zip(&mut this.units) {
            *place = Some(Unit::new(*base)?);
        }
        this.start();
        Ok(this)
    }

    fn start(&mut self) {
        self.write_back();
        let interrupts = (self.memory.physical() + 257 * TABLE) | u64::from(INTERRUPT_ORDER - 1);
        let interrupts = if self.wide { interrupts | reg::X2APIC } else { interrupts };
        for unit in self.units.iter_mut().flatten() {
            unit.registers.write(reg::ROOT, self.memory.physical());
            unit.switch(reg::SET_ROOT);
            unit.invalidate(&[queue::invalidate_contexts(), queue::invalidate_translations()]);
            if self.remaps {
                unit.registers.write(reg::INTERRUPT_TABLE, interrupts);
                unit.switch(reg::SET_INTERRUPT_TABLE);
                unit.invalidate(&[queue::invalidate_all_interrupts()]);
                unit.switch(reg::REMAP);
            }
            unit.switch(reg::TRANSLATE);
            unit.unprotect();
        }
    }

    pub(super) const fn format(&self) -> Format {
        if self.levels == 4 { Format::Intel4 } else { Format::Intel3 }
    }

    /// Where tables are not snooped: all that was written reaches memory. Such machines are old and few, so that the bluntest way is enough.
    fn write_back(&self) {
        if !self.coherent {
            // SAFETY: writes back caches, nothing else.
            unsafe { core::arch::asm!("wbinvd", options(nostack, preserves_flags)) };
        }
    }

    fn invalidate(&mut self, what: &[queue::Record]) {
        self.write_back();
        for unit in self.units.iter_mut().flatten() {
            unit.invalidate(what);
        }
    }

    /// First word of a context entry.
    const fn context(device: Requester) -> usize {
        (index(TABLE) * (1 + device.bus() as usize) + device.function() as usize * 16) / 8
    }

    /// Puts a device into a domain with that page table, or takes it out of all.
    pub(super) fn set(&mut self, device: Requester, table: Option<u64>, domain: u16, old: u16) {
        let place = Self::context(device);
        // Blocked first, so that no access meets the table of one domain under the number of another.
        self.memory.set(place, context::translation(None, false));
        self.invalidate(&[queue::invalidate_device(device, old), queue::invalidate_domain(old)]);
        self.memory.set(place + 1, context::domain(domain, self.levels));
        self.memory.set(place, context::translation(table, false));
        // Nothing is cached of an entry that is not present, but where absence is.
        self.invalidate(&[queue::invalidate_device(device, 0), queue::invalidate_domain(domain)]);
    }

    /// Faults of the device are not told of any more, until it is put somewhere else.
    pub(super) fn silence(&mut self, device: Requester, domain: u16) {
        let place = Self::context(device);
        let old = self.memory.get(place);
        self.memory.set(place, old | context::translation(None, true));
        self.invalidate(&[queue::invalidate_device(device, domain)]);
    }

    /// Forgets translations of a range of a domain, or all of them.
    pub(super) fn flush(&mut self, domain: u16, range: Option<(u64, u32)>) {
        self.write_back();
        for unit in self.units.iter_mut().flatten() {
            unit.flush_buffer();
            let range = range.filter(|(_, order)| unit.abilities.range_order().is_some_and(|most| *order <= most));
            unit.invalidate(&[match range {
                Some((address, order)) => queue::invalidate_range(domain, address, order),
                None => queue::invalidate_domain(domain),
            }]);
        }
    }

    /// Tells what was recorded.
    pub(super) fn faults(&mut self, each: &mut impl FnMut(Fault)) {
        for unit in self.units.iter_mut().flatten() {
            unit.faults(each);
        }
    }

    // ---- interrupts

    /// First word of an entry of the interrupt remapping table.
    const fn interrupt(entry: u16) -> usize {
        (257 * index(TABLE) + entry as usize * 16) / 8
    }

    /// Takes an interrupt of a device. Answers its index, and address and data of its message.
    pub(super) fn take(
        &mut self,
        source: Requester,
        apic: u32,
        vector: u8,
        level: bool,
    ) -> Result<(u16, (u64, u64)), Status> {
        let entry = interrupt::entry(source, apic, vector, level, self.wide).ok_or(Status::BadCore)?;
        let free = |index: &u16| self.memory.get(Self::interrupt(*index)) == 0;
        let index = (0..INTERRUPTS).find(free).ok_or(Status::OutOfMemory)?;
        self.memory.set(Self::interrupt(index) + 1, entry[1]);
        self.memory.set(Self::interrupt(index), entry[0]);
        self.invalidate(&[queue::invalidate_interrupt(index)]);
        Ok((index, (interrupt::message(index), 0)))
    }

    /// Blocks or opens an interrupt; `None` gives it back.
    pub(super) fn change(&mut self, index: u16, blocked: Option<bool>) {
        let place = Self::interrupt(index);
        let word = self.memory.get(place);
        self.memory.set(place, blocked.map_or(0, |blocked| interrupt::block(word, blocked)));
        self.invalidate(&[queue::invalidate_interrupt(index)]);
    }

    /// Whether interrupts go through the table.
    pub(super) const fn remaps(&self) -> bool {
        self.remaps
    }
}

impl Unit {
    fn new(base: u64) -> Result<Self, &'static str> {
        let registers = Registers(base);
        let queue = Ring::new()?;
        let done = Words { base: boot_frame()?.cast(), count: 1 };
        let mut this = Self { registers, abilities: abilities(base), queue, done, count: 0 };
        // What firmware left on goes off, in the reverse order.
        for part in [reg::TRANSLATE, reg::REMAP, reg::QUEUE] {
            this.switch_off(part);
        }
        registers.write(reg::QUEUE_TAIL, 0);
        registers.write(reg::QUEUE_BASE, this.queue.words.physical());
        this.switch(reg::QUEUE);
        this.faults(&mut |_| {});
        let (address, data) = super::own_interrupt();
        registers.write32(reg::FAULT_DATA, data);
        registers.write32(reg::FAULT_ADDRESS, address);
        registers.write32(reg::FAULT_ADDRESS_HIGH, 0);
        registers.write32(reg::FAULT_CONTROL, 0);
        Ok(this)
    }

    /// Bits of the status that are kept when another one is switched: the others are commands of one time.
    const KEPT: u32 = reg::TRANSLATE | reg::QUEUE | reg::REMAP;

    /// Switches on, or has done, what a bit stands for.
    fn switch(&mut self, part: u32) {
        let registers = self.registers;
        registers.write32(reg::COMMAND, registers.read32(reg::STATUS) & Self::KEPT | part);
        wait_until("a command", || registers.read32(reg::STATUS) & part != 0);
    }

    fn switch_off(&mut self, part: u32) {
        let registers = self.registers;
        let status = registers.read32(reg::STATUS);
        if status & part != 0 {
            registers.write32(reg::COMMAND, status & Self::KEPT & !part);
            wait_until("a command", || registers.read32(reg::STATUS) & part == 0);
        }
    }

    fn flush_buffer(&mut self) {
        if self.abilities.needs_buffer_flush() {
            let registers = self.registers;
            registers.write32(reg::COMMAND, registers.read32(reg::STATUS) & Self::KEPT | reg::FLUSH_BUFFER);
            wait_until("the write buffer", || registers.read32(reg::STATUS) & reg::FLUSH_BUFFER == 0);
        }
    }

    /// Ends the protection of memory that firmware used before there was translation (VT-d, 11.4.8).
    fn unprotect(&mut self) {
        const PROTECTED: u64 = 0x64;
        let registers = self.registers;
        if self.abilities.0 >> 5 & 3 != 0 && registers.read32(PROTECTED) & 1 != 0 {
            registers.write32(PROTECTED, 0);
            wait_until("protected memory", || registers.read32(PROTECTED) & 1 == 0);
        }
    }

    /// Gives descriptors, fewer than the queue has room for, and waits until they are done.
    fn invalidate(&mut self, what: &[queue::Record]) {
        self.count = self.count.wrapping_add(1);
        let wait = queue::wait(self.done.physical(), self.count);
        for descriptor in what.iter().chain([&wait]) {
            self.queue.push(*descriptor);
        }
        self.registers.write(reg::QUEUE_TAIL, self.queue.at);
        wait_until("invalidations", || self.done.get(0) == u64::from(self.count));
    }

    fn faults(&mut self, each: &mut impl FnMut(Fault)) {
        let (first, count) = self.abilities.faults();
        for at in (0..count).map(|index| first + index * 16) {
            let record = [self.registers.read(at), self.registers.read(at + 8)];
            if let Some(fault) = queue::fault(record) {
                each(fault);
                // The record is free again when its flag, in the uppermost bits, is written.
                self.registers.write32(at + 12, 1 << 31);
            }
        }
        self.registers.write32(reg::FAULT_STATUS, reg::FAULT_OVERFLOW | reg::QUEUE_ERRORS);
    }
}

/// Pages of registers that a unit has, as far as the kernel uses them. The registers can be read already.
pub(super) fn pages(capability: u64) -> u64 {
    let (first, count) = Abilities(capability, 0).faults();
    (first + count * 16).div_ceil(4096).max(1)
}

const _: () = assert!(TABLE == 4096);
