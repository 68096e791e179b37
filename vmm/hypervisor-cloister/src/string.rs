// SPDX-License-Identifier: MIT OR Apache-2.0
//! String port I/O: INS and OUTS, with and without REP, over guest memory.
//!
//! Processors without decode assists tell neither the segment nor the address size of the instruction, so its prefixes
//! are read from guest memory; its length is known. A repetition does at most a page of items in one exit, and goes on in the
//! next one, as an interrupt would let it. Sources: Intel SDM volume 2, INS, OUTS, REP; AMD64 APM volume 2, 15.10.2.

use cloister_abi::arch::current::vcpu::PortAccess;
use cloister_emulate::{Access as Reach, Cpu, Exception, Machine, SegmentName, flag, translate};
use cloister_hypervisor::{Access, Bus, Error, Exit};

use crate::calls::Calls;
use crate::memory::GuestMachine;
use crate::vcpu::CloisterVcpu;

const RCX: usize = 1;
const RSI: usize = 6;
const RDI: usize = 7;
/// Items done in one exit at most.
const AT_ONCE: u64 = 1024;
const PAGE: u64 = 4096;
const EFER_LMA: u64 = 1 << 10;

/// One such instruction.
struct Instruction {
    port: u16,
    input: bool,
    size: u8,
    /// Mask of the address size.
    addresses: u64,
    /// Base of the segment.
    base: u64,
    /// The register with the address.
    pointer: usize,
}

impl<C: Calls> CloisterVcpu<C> {
    /// INS or OUTS.
    #[inline(never)]
    pub(crate) fn string_port<B: Bus>(&mut self, bus: &mut B, access: PortAccess, next: u64) -> Result<Exit, Error> {
        let mut cpu = self.processor()?;
        let mut machine = GuestMachine { regions: self.memory.regions(), bus };
        let instruction = Instruction::decode(&cpu, &machine, access, next);
        let done = instruction.execute(&mut cpu, &mut machine, access.is_rep());
        if matches!(done, Ok(true)) {
            cpu.rip = next;
        }
        self.take_back(&cpu);
        if let Err(exception) = done {
            self.raise(exception)?;
        }
        let port = access.port();
        Ok(Exit::Access(if access.is_in() { Access::PortRead(port) } else { Access::PortWrite(port) }))
    }
}

/// Width of addresses by code segment: 16, 32 or 64 bits.
fn mode(cpu: &Cpu) -> u32 {
    let cs = cpu.segment(SegmentName::Cs);
    match (cpu.efer & EFER_LMA != 0 && cs.long, cs.big) {
        (true, _) => 64,
        (false, true) => 32,
        (false, false) => 16,
    }
}

const fn mask(bits: u32) -> u64 {
    match bits {
        16 => 0xffff,
        32 => 0xffff_ffff,
        _ => u64::MAX,
    }
}

impl Instruction {
    fn decode(cpu: &Cpu, machine: &impl Machine, access: PortAccess, next: u64) -> Self {
        let bits = mode(cpu);
        let mut addresses = bits;
        let mut segment = SegmentName::Ds;
        let length = next.wrapping_sub(cpu.rip).min(15);
        let start = if bits == 64 { cpu.rip } else { cpu.segment(SegmentName::Cs).base.wrapping_add(cpu.rip) };
        for offset in 0..length {
            let mut byte = [0];
            let Ok(gpa) = translate(cpu, machine, start.wrapping_add(offset), Reach::Fetch) else { break };
            if !machine.ram_read(gpa, &mut byte) {
                break;
            }
            match byte {
                [0x67] => addresses = if bits == 32 { 16 } else { 32 },
                [0x26] => segment = SegmentName::Es,
                [0x2e] => segment = SegmentName::Cs,
                [0x36] => segment = SegmentName::Ss,
                [0x3e] => segment = SegmentName::Ds,
                [0x64] => segment = SegmentName::Fs,
                [0x65] => segment = SegmentName::Gs,
                _ => {}
            }
        }
        let input = access.is_in();
        if input {
            segment = SegmentName::Es;
        }
        let flat = bits == 64 && !matches!(segment, SegmentName::Fs | SegmentName::Gs);
        let base = if flat { 0 } else { cpu.segment(segment).base };
        let size = match access.size() {
            4 => 4,
            2 => 2,
            _ => 1,
        };
        let pointer = if input { RDI } else { RSI };
        Self { port: access.port(), input, size, addresses: mask(addresses), base, pointer }
    }

    /// Does items until there are no more (true), or as many as one exit may (false).
    fn execute<B: Bus>(
        &self,
        cpu: &mut Cpu,
        machine: &mut GuestMachine<'_, B>,
        repeated: bool,
    ) -> Result<bool, Exception> {
        if !repeated {
            return self.item(cpu, machine).map(|()| true);
        }
        for _ in 0..AT_ONCE {
            let left = get(cpu, RCX) & self.addresses;
            if left == 0 {
                return Ok(true);
            }
            self.item(cpu, machine)?;
            self.set(cpu, RCX, left.wrapping_sub(1));
        }
        Ok(get(cpu, RCX) & self.addresses == 0)
    }

    fn item<B: Bus>(&self, cpu: &mut Cpu, machine: &mut GuestMachine<'_, B>) -> Result<(), Exception> {
        let address = get(cpu, self.pointer) & self.addresses;
        let linear = self.base.wrapping_add(address);
        let linear = if mode(cpu) == 64 { linear } else { linear & mask(32) };
        let place = Place::new(cpu, machine, linear, self.size, self.input)?;
        if self.input {
            let value = machine.bus.io_in(self.port, self.size);
            place.write(machine, value);
        } else {
            let value = place.read(machine);
            machine.bus.io_out(self.port, self.size, value);
        }
        let step = u64::from(self.size);
        let forward = cpu.rflags & flag::DF == 0;
        let next = if forward { address.wrapping_add(step) } else { address.wrapping_sub(step) };
        self.set(cpu, self.pointer, next);
        Ok(())
    }

    /// Sets a register of the address size.
    fn set(&self, cpu: &mut Cpu, index: usize, value: u64) {
        if let Some(slot) = cpu.gpr.get_mut(index) {
            // 32 bits clear the upper half, 16 bits keep the rest.
            *slot = if self.addresses == 0xffff { *slot & !0xffff | value & 0xffff } else { value & self.addresses };
            let bit = u32::try_from(index).unwrap_or(0);
            cpu.changed.gprs |= 1_u16.wrapping_shl(bit);
        }
    }
}

fn get(cpu: &Cpu, index: usize) -> u64 {
    cpu.gpr.get(index).copied().unwrap_or(0)
}

/// An item in memory, translated byte by byte where it crosses a page.
struct Place {
    bytes: [u64; 4],
    size: usize,
}

impl Place {
    fn new(cpu: &Cpu, machine: &impl Machine, linear: u64, size: u8, write: bool) -> Result<Self, Exception> {
        let reach = if write { Reach::Write } else { Reach::Read };
        let mut bytes = [0; 4];
        let mut known: Option<(u64, u64)> = None;
        for (slot, offset) in bytes.iter_mut().zip(0..u64::from(size)) {
            let at = linear.wrapping_add(offset);
            let page = at & !(PAGE.wrapping_sub(1));
            let frame = match known {
                Some((of, frame)) if of == page => frame,
                _ => translate(cpu, machine, at, reach)? & !(PAGE.wrapping_sub(1)),
            };
            known = Some((page, frame));
            *slot = frame | at & PAGE.wrapping_sub(1);
        }
        Ok(Self { bytes, size: usize::from(size) })
    }

    fn read<B: Bus>(&self, machine: &mut GuestMachine<'_, B>) -> u32 {
        let mut value = [0; 4];
        for (byte, gpa) in value.iter_mut().zip(self.bytes).take(self.size) {
            let mut one = [0];
            if !machine.ram_read(gpa, &mut one) {
                machine.device_read(gpa, &mut one);
            }
            [*byte] = one;
        }
        u32::from_le_bytes(value)
    }

    fn write<B: Bus>(&self, machine: &mut GuestMachine<'_, B>, value: u32) {
        for (byte, gpa) in value.to_le_bytes().into_iter().zip(self.bytes).take(self.size) {
            if !machine.ram_write(gpa, &[byte]) {
                machine.device_write(gpa, &[byte]);
            }
        }
    }
}
