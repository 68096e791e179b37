// SPDX-License-Identifier: MIT OR Apache-2.0
//! AMD-Vi units: registers, rings, and the tables that all units share. Sources: 48882, 2.2 (tables), 2.4 (commands), 2.5 (events), 3.4
//! (registers).

use super::{Found, Registers, Ring, Words, pci, wait_until};
use crate::memory::boot_frame;
use crate::width::{index, low16};
use cloister_abi::status::Status;
use cloister_iommu::amd::device::{self, Translation};
use cloister_iommu::amd::interrupt::{FREE, Width, block};
use cloister_iommu::amd::{queue, register as reg};
use cloister_iommu::{Fault, Requester};

/// Interrupts of a device, as log2.
const INTERRUPT_ORDER: u32 = 6;
const INTERRUPTS: u64 = 1 << INTERRUPT_ORDER;
/// Most devices with interrupts.
const INTERRUPT_TABLES: u64 = 256;
/// Bytes of the device table.
const DEVICES: u64 = device::SIZE * device::COUNT;
/// Contiguous memory: device table, and interrupt tables of the widest kind.
pub(super) const MEMORY: u64 = DEVICES + INTERRUPT_TABLES * INTERRUPTS * 16;

/// A unit.
#[derive(Debug)]
struct Unit {
    registers: Registers,
    commands: Ring,
    events: Ring,
    /// Where the unit says that commands are done.
    done: Words,
    count: u64,
}

/// All units, and the tables that they share.
#[derive(Debug)]
pub(super) struct Amd {
    units: [Option<Unit>; super::UNITS],
    /// The device table, and the interrupt tables after it.
    memory: Words,
    width: Width,
    /// Interrupt tables that are in use.
    used: u64,
    remaps: bool,
    /// A unit caches that nothing is mapped.
    pub(super) flush_mapped: bool,
}

impl Amd {
    /// Lets all units block everything.
    ///
    /// # Errors
    /// What is missing.
    pub(super) fn init(found: &Found, memory: Words, remaps: bool) -> Result<Self, &'static str> {
        let features = |base: &u64| Registers(*base).read(reg::FEATURES);
        let all = found.units().map(|(base, _)| features(base)).fold(u64::MAX, |all, one| all & one);
        let wide = reg::HAS_WIDE_INTERRUPTS | reg::HAS_X2APIC;
        let width = if all & wide == wide { Width::Wide } else { Width::Narrow };
        let mut this =
            Self { units: [const { None }; super::UNITS], memory, width, used: 0, remaps, flush_mapped: false };
        for id in 0..=u16::MAX {
            this.entry(Requester(id), device::INTERRUPTS, if remaps { device::interrupts(None) } else { 0 });
            this.entry(Requester(id), device::TRANSLATION, Translation::Blocked.word());
        }
        for ((base, id), place) in found.units().zip(&mut this.units) {
            this.flush_mapped |= pci::capability(*id, 0xf).is_some_and(|at| pci::read(*id, at) >> 26 & 1 != 0);
            // What an IOMMU says of itself is not remapped.
            let unit = Unit::new(*base, *id, this.memory.physical(), width)?;
            *place = Some(unit);
        }
        for (_, id) in found.units() {
            this.entry(*id, device::INTERRUPTS, 0);
        }
        let everything = all & reg::HAS_INVALIDATE_ALL != 0;
        if everything {
            this.command(&[queue::invalidate_all()]);
        } else {
            for id in 0..=u16::MAX {
                this.command(&[queue::invalidate_device(Requester(id)), queue::invalidate_interrupts(Requester(id))]);
            }
            this.command(&[queue::invalidate_domain(0)]);
        }
        Ok(this)
    }

    fn entry(&self, device: Requester, word: usize, value: u64) {
        self.memory.set(usize::from(device.0) * 4 + word, value);
    }

    /// Gives commands to all units and waits until they are done.
    fn command(&mut self, commands: &[queue::Record]) {
        for unit in self.units.iter_mut().flatten() {
            unit.command(commands);
        }
    }

    /// Puts a device into a domain with that page table, or takes it out of all.
    pub(super) fn set(&mut self, device: Requester, table: Option<u64>, domain: u16, old: u16) {
        // Blocked first, so that no access meets the table of one domain under the number of another.
        self.entry(device, device::TRANSLATION, Translation::Blocked.word());
        self.command(&[queue::invalidate_device(device), queue::invalidate_domain(old)]);
        self.entry(device, device::DOMAIN, device::domain(domain, false));
        self.entry(device, device::TRANSLATION, table.map_or(Translation::Blocked, Translation::Table).word());
        self.command(&[queue::invalidate_device(device)]);
    }

    /// Faults of the device are not told of any more, until it is put somewhere else.
    pub(super) fn silence(&mut self, device: Requester, domain: u16) {
        self.entry(device, device::DOMAIN, device::domain(domain, true));
        self.command(&[queue::invalidate_device(device)]);
    }

    /// Forgets translations of a range of a domain, or all of them.
    pub(super) fn flush(&mut self, domain: u16, range: Option<(u64, u32)>) {
        self.command(&[match range {
            Some((address, order)) => queue::invalidate_range(domain, address, order),
            None => queue::invalidate_domain(domain),
        }]);
    }

    /// Tells what was logged.
    pub(super) fn faults(&mut self, each: &mut impl FnMut(Fault)) {
        for unit in self.units.iter_mut().flatten() {
            unit.faults(each);
        }
    }

    // ---- interrupts

    /// Offset of a device's interrupt table in the memory. It gets one with its first interrupt, for ever.
    fn table(&mut self, device: Requester) -> Result<u64, Status> {
        let word = self.memory.get(usize::from(device.0) * 4 + device::INTERRUPTS);
        if let Some(address) = device::interrupt_table(word) {
            return Ok(address - self.memory.physical());
        }
        if self.used == INTERRUPT_TABLES {
            return Err(Status::OutOfMemory);
        }
        let table = DEVICES + self.used * INTERRUPTS * self.width.bytes();
        self.used += 1;
        let word = device::interrupts(Some((self.memory.physical() + table, INTERRUPT_ORDER)));
        self.entry(device, device::INTERRUPTS, word);
        self.command(&[queue::invalidate_device(device), queue::invalidate_interrupts(device)]);
        Ok(table)
    }

    /// Word that has the first part of an entry, and where in it that begins.
    fn place(&self, table: u64, index: u16) -> (usize, u64) {
        let at = table + u64::from(index) * self.width.bytes();
        (crate::width::index(at / 8), at % 8 * 8)
    }

    fn load(&self, (word, shift): (usize, u64)) -> u64 {
        self.memory.get(word) >> shift & self.width.mask()
    }

    fn write(&mut self, source: Requester, (word, shift): (usize, u64), value: u64) {
        let others = self.memory.get(word) & !(self.width.mask() << shift);
        self.memory.set(word, others | value << shift);
        self.command(&[queue::invalidate_interrupts(source)]);
    }

    /// Takes an interrupt of a device. Answers its index, and address and data of its message.
    pub(super) fn take(&mut self, source: Requester, apic: u32, vector: u8) -> Result<(u16, (u64, u64)), Status> {
        let entry = self.width.entry(apic, vector).ok_or(Status::BadCore)?;
        let table = self.table(source)?;
        let free = |index: &u16| self.load(self.place(table, *index)) == FREE;
        let index = (0..low16(INTERRUPTS)).find(free).ok_or(Status::OutOfMemory)?;
        let place = self.place(table, index);
        if self.width == Width::Wide {
            self.memory.set(place.0 + 1, entry[1]);
        }
        self.write(source, place, entry[0]);
        Ok((index, (super::INTERRUPT_WINDOW, u64::from(index))))
    }

    /// Blocks or opens an interrupt; `None` gives it back.
    pub(super) fn change(&mut self, source: Requester, index: u16, blocked: Option<bool>) {
        let Ok(table) = self.table(source) else { return };
        let place = self.place(table, index);
        let value = blocked.map_or(FREE, |blocked| block(self.load(place), blocked));
        self.write(source, place, value);
    }

    /// Whether interrupts go through tables.
    pub(super) const fn remaps(&self) -> bool {
        self.remaps
    }
}

impl Unit {
    fn new(base: u64, id: Requester, devices: u64, width: Width) -> Result<Self, &'static str> {
        let registers = Registers(base);
        let (commands, events) = (Ring::new()?, Ring::new()?);
        registers.write(reg::CONTROL, 0);
        registers.write(reg::DEVICE_TABLE, devices | (DEVICES / 4096 - 1));
        registers.write(reg::COMMAND_BASE, commands.words.physical() | queue::LENGTH_CODE);
        registers.write(reg::EVENT_BASE, events.words.physical() | queue::LENGTH_CODE);
        for ring in [reg::COMMAND_HEAD, reg::COMMAND_TAIL, reg::EVENT_HEAD, reg::EVENT_TAIL] {
            registers.write(ring, 0);
        }
        registers.write(reg::STATUS, reg::EVENT_PENDING | reg::EVENT_OVERFLOW);
        let (address, data) = super::own_interrupt();
        if !pci::enable_msi(id, address, data) {
            log::warn!("IOMMU {id} has no interrupt: faults of devices are not told");
        }
        let mut control = reg::ENABLE | reg::COMMANDS | reg::EVENT_LOG | reg::EVENT_INTERRUPT | reg::COHERENT;
        if width == Width::Wide {
            control |= reg::WIDE_INTERRUPTS | reg::X2APIC;
        }
        registers.write(reg::CONTROL, control);
        Ok(Self { registers, commands, events, done: Words { base: boot_frame()?.cast(), count: 1 }, count: 0 })
    }

    /// Gives commands, fewer than the ring has room for, and waits until they are done.
    fn command(&mut self, commands: &[queue::Record]) {
        self.count += 1;
        let wait = queue::completion_wait(self.done.physical(), self.count);
        for command in commands.iter().chain([&wait]) {
            self.commands.push(*command);
        }
        self.registers.write(reg::COMMAND_TAIL, self.commands.at);
        wait_until("commands", || self.done.get(0) == self.count);
    }

    /// An event is there if its record is not empty: its reader empties it. The tail is not asked, since a unit may have moved it before
    /// the record can be read (48882, 2.5.1), and since there are emulated ones that never do.
    fn faults(&mut self, each: &mut impl FnMut(Fault)) {
        let status = self.registers.read(reg::STATUS);
        for _ in 0..Ring::RECORDS {
            let Some(fault) = queue::fault(self.events.pop()) else { break };
            each(fault);
        }
        self.registers.write(reg::EVENT_HEAD, self.events.at);
        self.registers.write(reg::STATUS, reg::EVENT_PENDING);
        if status & reg::EVENT_OVERFLOW != 0 {
            self.restart_log();
        }
    }

    /// A log that overflowed stands still until it is switched on anew (48882, 2.5).
    fn restart_log(&mut self) {
        let control = self.registers.read(reg::CONTROL);
        self.registers.write(reg::CONTROL, control & !reg::EVENT_LOG);
        let registers = self.registers;
        wait_until("the event log", || registers.read(reg::STATUS) & reg::EVENT_RUNNING == 0);
        self.events.clear();
        self.registers.write(reg::EVENT_HEAD, 0);
        self.registers.write(reg::EVENT_TAIL, 0);
        self.registers.write(reg::STATUS, reg::EVENT_OVERFLOW | reg::EVENT_PENDING);
        self.registers.write(reg::CONTROL, control);
    }
}

const _: () = assert!(index(queue::RING) == cloister_mechanism::FRAME);
