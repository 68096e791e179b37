// SPDX-License-Identifier: MIT OR Apache-2.0
//! String instructions (SDM volume 1 section 7.3.9): MOVS, STOS, LODS, CMPS, SCAS, with and without repeat prefixes.
//!
//! Rule: one call does at most [`STEPS`] steps, and stops where source or destination come to another page: there, the
//! processor does the next translation, with all the checks that it knows better. What was done by then is done: the
//! registers say how far it came, as after an interrupt.

use crate::arithmetic::{self, ARITHMETIC};
use crate::cpu::flag::{DF, ZF};
use crate::cpu::{Cpu, SegmentName, flag, mask};
use crate::memory::Place;
use crate::walk::Access;
use crate::{Machine, Outcome, Stop};
use iced_x86::{Instruction, Mnemonic, OpKind, Register};

/// Most steps of one call.
const STEPS: u32 = 4096;

const RAX: usize = 0;
const RCX: usize = 1;
const RSI: usize = 6;
const RDI: usize = 7;

pub(crate) fn is_string(instruction: &Instruction) -> bool {
    let kind = |index| instruction.try_op_kind(index).unwrap_or(OpKind::Register);
    let implied = |k| {
        matches!(
            k,
            OpKind::MemorySegSI
                | OpKind::MemorySegESI
                | OpKind::MemorySegRSI
                | OpKind::MemoryESDI
                | OpKind::MemoryESEDI
                | OpKind::MemoryESRDI
        )
    };
    implied(kind(0)) || implied(kind(1))
}

/// What a step does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Move,
    Store,
    Load,
    Compare,
    Scan,
}

/// A string instruction, decoded.
struct Job {
    kind: Kind,
    /// Bytes of an element.
    bytes: usize,
    /// Bytes of addresses and of the count.
    address: usize,
    source_segment: SegmentName,
    repeats: bool,
    /// For comparisons: go on while the zero flag is this.
    while_zero: bool,
}

impl Job {
    fn of(instruction: &Instruction) -> Option<Self> {
        let kind = match instruction.mnemonic() {
            Mnemonic::Movsb | Mnemonic::Movsw | Mnemonic::Movsd | Mnemonic::Movsq => Kind::Move,
            Mnemonic::Stosb | Mnemonic::Stosw | Mnemonic::Stosd | Mnemonic::Stosq => Kind::Store,
            Mnemonic::Lodsb | Mnemonic::Lodsw | Mnemonic::Lodsd | Mnemonic::Lodsq => Kind::Load,
            Mnemonic::Cmpsb | Mnemonic::Cmpsw | Mnemonic::Cmpsd | Mnemonic::Cmpsq => Kind::Compare,
            Mnemonic::Scasb | Mnemonic::Scasw | Mnemonic::Scasd | Mnemonic::Scasq => Kind::Scan,
            _ => return None,
        };
        let implied = |index| instruction.try_op_kind(index).ok();
        let address = [implied(0), implied(1)].into_iter().flatten().find_map(|k| match k {
            OpKind::MemorySegSI | OpKind::MemoryESDI => Some(2),
            OpKind::MemorySegESI | OpKind::MemoryESEDI => Some(4),
            OpKind::MemorySegRSI | OpKind::MemoryESRDI => Some(8),
            _ => None,
        })?;
        let source_segment = match instruction.memory_segment() {
            Register::ES => SegmentName::Es,
            Register::CS => SegmentName::Cs,
            Register::SS => SegmentName::Ss,
            Register::FS => SegmentName::Fs,
            Register::GS => SegmentName::Gs,
            _ => SegmentName::Ds,
        };
        Some(Self {
            kind,
            bytes: instruction.memory_size().size(),
            address,
            source_segment,
            repeats: instruction.has_rep_prefix() || instruction.has_repne_prefix(),
            while_zero: !instruction.has_repne_prefix(),
        })
    }

    const fn has_source(&self) -> bool {
        matches!(self.kind, Kind::Move | Kind::Load | Kind::Compare)
    }

    const fn has_target(&self) -> bool {
        !matches!(self.kind, Kind::Load)
    }

    const fn compares(&self) -> bool {
        matches!(self.kind, Kind::Compare | Kind::Scan)
    }

    fn linear(&self, cpu: &Cpu, index: usize) -> u64 {
        let segment = if index == RSI { self.source_segment } else { SegmentName::Es };
        let linear = cpu.base(segment).wrapping_add(cpu.get(index) & mask(self.address));
        if cpu.is_64() { linear } else { linear & 0xffff_ffff }
    }

    /// One element.
    fn step(&self, cpu: &mut Cpu, machine: &mut impl Machine) -> Result<(), Stop> {
        let target_access = if self.compares() { Access::Read } else { Access::Write };
        let place = |cpu: &Cpu, machine: &_, wanted, index, access| {
            if wanted {
                Place::new(cpu, machine, self.linear(cpu, index), self.bytes, access).map(Some)
            } else {
                Ok(None)
            }
        };
        let source = place(cpu, &*machine, self.has_source(), RSI, Access::Read)?;
        let target = place(cpu, &*machine, self.has_target(), RDI, target_access)?;
        let value = match &source {
            Some(source) => source.read(machine),
            None => cpu.get_part(RAX, self.bytes, false),
        };
        match (self.kind, &target) {
            (Kind::Load, _) => cpu.set_part(RAX, self.bytes, false, value),
            (Kind::Move | Kind::Store, Some(target)) => target.write(machine, value),
            (Kind::Compare | Kind::Scan, Some(target)) => {
                let other = target.read(machine);
                let (_, flags) = arithmetic::sub(value, other, false, self.bytes);
                cpu.set_flags(ARITHMETIC, flags);
            }
            _ => {}
        }
        let size = u64::try_from(self.bytes).unwrap_or(1);
        let by = if cpu.has(DF) { size.wrapping_neg() } else { size };
        for (wanted, index) in [(self.has_source(), RSI), (self.has_target(), RDI)] {
            if wanted {
                let moved = cpu.get_part(index, self.address, false).wrapping_add(by);
                cpu.set_part(index, self.address, false, moved);
            }
        }
        Ok(())
    }

    /// The pages that source and target are in: a change ends the call.
    fn pages(&self, cpu: &Cpu) -> (u64, u64) {
        let page = |wanted, index| if wanted { self.linear(cpu, index) >> 12 } else { 0 };
        (page(self.has_source(), RSI), page(self.has_target(), RDI))
    }
}

pub(crate) fn execute(cpu: &mut Cpu, machine: &mut impl Machine, instruction: &Instruction) -> Result<Outcome, Stop> {
    let job = Job::of(instruction).ok_or(Stop::Unsupported("a string instruction that is not emulated"))?;
    let done = Ok(Outcome::Done { trap: cpu.has(flag::TF) });
    if !job.repeats {
        job.step(cpu, machine)?;
        cpu.advance(instruction.len());
        return done;
    }
    let pages = job.pages(cpu);
    for step in 0..STEPS {
        let left = cpu.get_part(RCX, job.address, false);
        if left == 0 {
            cpu.advance(instruction.len());
            return done;
        }
        match job.step(cpu, machine) {
            Ok(()) => {}
            // What was done stays; the processor finds the fault again by itself.
            Err(Stop::Fault(_)) if step != 0 => return Ok(Outcome::Partial),
            Err(stop) => return Err(stop),
        }
        cpu.set_part(RCX, job.address, false, left.wrapping_sub(1));
        if job.compares() && cpu.has(ZF) != job.while_zero {
            cpu.advance(instruction.len());
            return done;
        }
        if job.pages(cpu) != pages && left != 1 {
            return Ok(Outcome::Partial);
        }
    }
    Ok(Outcome::Partial)
}
