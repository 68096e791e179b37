// SPDX-License-Identifier: MIT OR Apache-2.0
//! One unit: its registers, its ring of commands, and what it refused.
//!
//! Sources: 48882, 2.4 (commands), 2.5 (events); VT-d, 6.5.2 (queue), 7.2 (faults), 11.4 (registers).

use crate::driver::Bus;
use crate::intel::Abilities;
use crate::{Fault, Kind, amd, intel};

/// Bytes of a ring: 256 records.
const RING: u64 = 4096;
/// Bytes of memory that a unit has for itself: rings of commands and of events (AMD-Vi), and a page for what it writes.
pub(crate) const MEMORY: u64 = 3 * RING;
/// How often a unit that says that it has a fault is looked at in vain.
const LOOKS: u32 = 2;

/// A unit.
#[derive(Debug)]
pub(crate) struct Unit {
    pub(crate) base: u64,
    pub(crate) abilities: Abilities,
    /// Physical address of [`MEMORY`] bytes, zeroed at first.
    memory: u64,
    /// Offset of the next command, and of the next event.
    command: u64,
    event: u64,
    /// How often the unit has been asked to say that commands are done.
    count: u32,
}

impl Unit {
    const fn new(base: u64, memory: u64, abilities: Abilities) -> Self {
        Self { base, abilities, memory, command: 0, event: 0, count: 0 }
    }

    /// Where the next event is read.
    const fn next_event(&self) -> u64 {
        self.memory + RING + self.event
    }

    /// A unit of AMD-Vi that takes commands, logs events, and blocks what the device table does not let pass.
    pub(crate) fn start_amd(bus: &impl Bus, base: u64, memory: u64, tables: u64, wide: bool) -> Self {
        use amd::register as reg;
        let write = |register, value| bus.write(base + register, value);
        write(reg::CONTROL, 0);
        write(reg::DEVICE_TABLE, tables | (amd::DEVICE_TABLE / 4096 - 1));
        write(reg::COMMAND_BASE, memory | amd::RING_CODE);
        write(reg::EVENT_BASE, (memory + RING) | amd::RING_CODE);
        for pointer in [reg::COMMAND_HEAD, reg::COMMAND_TAIL, reg::EVENT_HEAD, reg::EVENT_TAIL] {
            write(pointer, 0);
        }
        write(reg::STATUS, amd::EVENT_PENDING | amd::EVENT_OVERFLOW);
        let control = amd::ENABLE | amd::COMMANDS | amd::EVENT_LOG | amd::EVENT_INTERRUPT | amd::COHERENT;
        write(reg::CONTROL, if wide { control | amd::WIDE } else { control });
        Self::new(base, memory, Abilities(0, 0))
    }

    /// A unit of VT-d that takes commands and tells faults to a local APIC by that vector; nothing else is on.
    pub(crate) fn start_intel(
        bus: &impl Bus,
        base: u64,
        memory: u64,
        abilities: Abilities,
        (apic, vector): (u32, u8),
    ) -> Self {
        use intel::register as reg;
        let this = Self::new(base, memory, abilities);
        // What firmware left on goes off, in the reverse order.
        for part in [intel::TRANSLATE, intel::REMAP, intel::QUEUE] {
            if bus.read32(base + reg::STATUS) & part != 0 {
                this.switch(bus, part, false);
            }
        }
        bus.write(base + reg::QUEUE_TAIL, 0);
        bus.write(base + reg::QUEUE_BASE, memory);
        this.switch(bus, intel::QUEUE, true);
        while this.intel_fault(bus, &mut false).is_some() {}
        let [control, data, address, upper] = reg::FAULT_EVENT;
        let message = [(data, vector.into()), (address, 0xfee0_0000 | (apic & 0xff) << 12), (upper, apic & !0xff)];
        for (register, value) in message.into_iter().chain([(control, 0)]) {
            bus.write32(base + register, value);
        }
        this
    }

    /// Switches on, or off, or has done, what a bit of a VT-d unit stands for.
    pub(crate) fn switch(&self, bus: &impl Bus, part: u32, on: bool) {
        let status = self.base + intel::register::STATUS;
        let others = bus.read32(status) & intel::KEPT & !part;
        bus.write32(self.base + intel::register::COMMAND, others | if on { part } else { 0 });
        // A flush is done when its bit is 0 again; all else when it is as wanted.
        let wanted = on && part != intel::FLUSH_BUFFER;
        bus.wait("a command", || (bus.read32(status) & part != 0) == wanted);
    }

    /// Lets the unit see what processors wrote, if it must be told.
    pub(crate) fn flush_buffer(&self, bus: &impl Bus) {
        if self.abilities.has(4) {
            self.switch(bus, intel::FLUSH_BUFFER, true);
        }
    }

    /// Ends the protection of memory that firmware used before there was translation (VT-d, 11.4.8).
    pub(crate) fn unprotect(&self, bus: &impl Bus) {
        let register = self.base + intel::register::PROTECTED_MEMORY;
        if self.abilities.0 >> 5 & 3 != 0 && bus.read32(register) & 1 != 0 {
            bus.write32(register, 0);
            bus.wait("protected memory", || bus.read32(register) & 1 == 0);
        }
    }

    /// Puts a record into the ring of commands.
    pub(crate) fn push(&mut self, bus: &impl Bus, record: [u64; 2]) {
        bus.write(self.memory + self.command, record[0]);
        bus.write(self.memory + self.command + 8, record[1]);
        self.command = (self.command + 16) % RING;
    }

    /// Waits until all of the ring is done.
    pub(crate) fn finish(&mut self, bus: &impl Bus, kind: Kind) {
        self.count = self.count.wrapping_add(1);
        let done = self.memory + 2 * RING;
        let (wait, tail) = match kind {
            Kind::Amd => (amd::wait(done, self.count), amd::register::COMMAND_TAIL),
            Kind::Intel => (intel::wait(done, self.count), intel::register::QUEUE_TAIL),
        };
        self.push(bus, wait);
        bus.write(self.base + tail, self.command);
        bus.wait("commands", || bus.read32(done) == self.count);
    }

    /// Takes a fault, if there is one. Says in `lost` whether others were lost.
    pub(crate) fn fault(&mut self, bus: &impl Bus, kind: Kind, lost: &mut bool) -> Option<Fault> {
        match kind {
            Kind::Amd => self.amd_fault(bus, lost),
            Kind::Intel => self.intel_fault(bus, lost),
        }
    }

    /// An event is there if its record is not empty: its reader empties it. The tail is not asked, since a unit may have moved it before
    /// the record can be read (48882, 2.5.1). The status is cleared before the log is looked at, so that an event that comes meanwhile interrupts.
    fn amd_fault(&mut self, bus: &impl Bus, lost: &mut bool) -> Option<Fault> {
        use amd::register as reg;
        if bus.read(self.next_event()) == 0 {
            let status = bus.read(self.base + reg::STATUS);
            bus.write(self.base + reg::STATUS, amd::EVENT_PENDING);
            if status & amd::EVENT_OVERFLOW != 0 {
                *lost = true;
                self.restart_log(bus);
            }
        }
        let at = self.next_event();
        let record = [bus.read(at), bus.read(at + 8)];
        if record[0] == 0 {
            return None;
        }
        bus.write(at, 0);
        bus.write(at + 8, 0);
        self.event = (self.event + 16) % RING;
        bus.write(self.base + reg::EVENT_HEAD, self.event);
        Some(amd::fault(record))
    }

    /// A log that overflowed stands still until it is switched on anew (48882, 2.5).
    fn restart_log(&mut self, bus: &impl Bus) {
        use amd::register as reg;
        let control = bus.read(self.base + reg::CONTROL);
        bus.write(self.base + reg::CONTROL, control & !amd::EVENT_LOG);
        bus.wait("the event log", || bus.read(self.base + reg::STATUS) & amd::EVENT_RUNNING == 0);
        // All that was logged has been taken, so that it can begin at its start.
        self.event = 0;
        for pointer in [reg::EVENT_HEAD, reg::EVENT_TAIL] {
            bus.write(self.base + pointer, 0);
        }
        bus.write(self.base + reg::STATUS, amd::EVENT_OVERFLOW | amd::EVENT_PENDING);
        bus.write(self.base + reg::CONTROL, control);
    }

    /// The unit interrupts when there is a record and was none. So it is left only when it says that there is none.
    fn intel_fault(&self, bus: &impl Bus, lost: &mut bool) -> Option<Fault> {
        let (first, count) = self.abilities.faults();
        let status = self.base + intel::register::FAULT_STATUS;
        for _ in 0..LOOKS {
            for at in (0..count).map(|index| self.base + first + index * 16) {
                let record = [bus.read(at), bus.read(at + 8)];
                if intel::is_fault(record) {
                    // The record is free again when its flag, in the uppermost bits, is written.
                    bus.write32(at + 12, 1 << 31);
                    return Some(intel::fault(record));
                }
            }
            let bits = bus.read32(status);
            *lost |= bits & intel::FAULT_OVERFLOW != 0;
            bus.write32(status, intel::FAULT_OVERFLOW | intel::QUEUE_ERRORS);
            if bits & intel::FAULT_PENDING == 0 {
                break;
            }
        }
        None
    }
}
