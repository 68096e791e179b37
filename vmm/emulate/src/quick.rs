// SPDX-License-Identifier: MIT OR Apache-2.0
//! The commonest instructions on device memory, without a full decoder: MOV between a register and memory, MOV of an
//! immediate to memory, MOVZX and MOVSX from memory, in 32-bit and 64-bit code.
//!
//! Drivers access registers by these (the kernel's `readl`, `writel` and their kin), so that a guest's boot needs
//! nothing else, and the tables of the full decoder are never built. The operand is not translated: it is at the address
//! of the exit.
//!
//! Rule: that short cut is taken only if it must be right: the direction agrees with the exit's, and the operand's
//! linear address has the page offset of the exit's and does not cross into the next page. All else is left to the full
//! decoder.

use crate::cpu::{Cpu, Mode, SegmentName, flag, mask, sign_extend};
use crate::fetch::Code;
use crate::memory::Place;
use crate::{Machine, Miss, Outcome};

/// What a recognised instruction does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    /// Memory to register: bytes in memory, bytes in the register, signed.
    Load { memory: usize, register: usize, signed: bool },
    /// Register to memory.
    Store { bytes: usize },
    /// Immediate to memory.
    StoreImmediate { bytes: usize, value: u64 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Recognised {
    action: Action,
    /// The register field of ModRM, with REX.R.
    register: u8,
    /// REX is there: registers 4 to 7 of one byte are SPL to DIL.
    rex: bool,
    len: usize,
    /// Linear address of the operand.
    linear: u64,
}

/// Reads bytes one after the other.
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Cursor<'_> {
    fn next(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at = self.at.saturating_add(1);
        Some(byte)
    }

    /// An immediate of `bytes`, sign-extended.
    fn immediate(&mut self, bytes: usize) -> Option<u64> {
        let mut value = [0u8; 8];
        for slot in value.iter_mut().take(bytes) {
            *slot = self.next()?;
        }
        Some(sign_extend(u64::from_le_bytes(value), bytes))
    }
}

/// What precedes the opcode.
#[derive(Clone, Copy, Default)]
struct Prefixes {
    operand16: bool,
    rex: u8,
    segment: Option<SegmentName>,
}

impl Prefixes {
    /// Reads prefixes and gives the first byte that is none. Address-size, lock and repeat prefixes are left standing,
    /// as opcodes that are not known.
    fn read(mode: Mode, code: &mut Cursor<'_>) -> Option<(Self, u8)> {
        let mut prefixes = Self::default();
        loop {
            let byte = code.next()?;
            match byte {
                0x66 => prefixes.operand16 = true,
                0x26 => prefixes.segment = Some(SegmentName::Es),
                0x2e => prefixes.segment = Some(SegmentName::Cs),
                0x36 => prefixes.segment = Some(SegmentName::Ss),
                0x3e => prefixes.segment = Some(SegmentName::Ds),
                0x64 => prefixes.segment = Some(SegmentName::Fs),
                0x65 => prefixes.segment = Some(SegmentName::Gs),
                0x40..=0x4f if mode == Mode::Bits64 => {
                    prefixes.rex = byte;
                    return Some((prefixes, code.next()?));
                }
                _ => return Some((prefixes, byte)),
            }
        }
    }

    /// Bytes of an operand that is not a byte.
    const fn wide(self) -> usize {
        match (self.rex & 8 != 0, self.operand16) {
            (true, _) => 8,
            (false, true) => 2,
            (false, false) => 4,
        }
    }
}

fn recognise(cpu: &Cpu, mode: Mode, bytes: &[u8]) -> Option<Recognised> {
    let mut code = Cursor { bytes, at: 0 };
    let (prefixes, mut opcode) = Prefixes::read(mode, &mut code)?;
    let wide = prefixes.wide();
    let extended = opcode == 0x0f;
    if extended {
        opcode = code.next()?;
    }
    let action = match (extended, opcode) {
        (false, 0x88) => Action::Store { bytes: 1 },
        (false, 0x89) => Action::Store { bytes: wide },
        (false, 0x8a) => Action::Load { memory: 1, register: 1, signed: false },
        (false, 0x8b) => Action::Load { memory: wide, register: wide, signed: false },
        (false, 0xc6) => Action::StoreImmediate { bytes: 1, value: 0 },
        (false, 0xc7) => Action::StoreImmediate { bytes: wide, value: 0 },
        (true, 0xb6) => Action::Load { memory: 1, register: wide, signed: false },
        (true, 0xb7) => Action::Load { memory: 2, register: wide, signed: false },
        (true, 0xbe) => Action::Load { memory: 1, register: wide, signed: true },
        (true, 0xbf) => Action::Load { memory: 2, register: wide, signed: true },
        _ => return None,
    };
    let address = Address::read(cpu, mode, prefixes, &mut code)?;
    let action = match action {
        Action::StoreImmediate { .. } if address.field != 0 => return None,
        Action::StoreImmediate { bytes, .. } => Action::StoreImmediate { bytes, value: code.immediate(bytes.min(4))? },
        other => other,
    };
    let behind = if address.from_rip { cpu.rip.wrapping_add(u64::try_from(code.at).ok()?) } else { 0 };
    let linear = address.linear.wrapping_add(behind);
    let register = address.field | ((prefixes.rex & 4) << 1);
    Some(Recognised { action, register, rex: prefixes.rex != 0, len: code.at, linear })
}

/// A memory operand (SDM volume 2 section 2.1.5).
struct Address {
    /// The register field of ModRM.
    field: u8,
    /// Linear address; counted from the end of the instruction if `from_rip`.
    linear: u64,
    from_rip: bool,
}

impl Address {
    /// Reads ModRM, SIB and displacement; `None` if the operand is not in memory.
    fn read(cpu: &Cpu, mode: Mode, prefixes: Prefixes, code: &mut Cursor<'_>) -> Option<Self> {
        let modrm = code.next()?;
        let (form, rm, long) = (modrm >> 6, modrm & 7, mode == Mode::Bits64);
        let base_extension = usize::from(prefixes.rex & 1) << 3;
        let mut sum = 0u64;
        let (mut from_rip, mut base) = (false, Some(usize::from(rm) | base_extension));
        if rm == 4 {
            let sib = code.next()?;
            let index = usize::from((sib >> 3) & 7) | (usize::from(prefixes.rex & 2) << 2);
            if index != 4 {
                sum = cpu.get(index) << (sib >> 6);
            }
            base = Some(usize::from(sib & 7) | base_extension);
            if form == 0 && sib & 7 == 5 {
                base = None;
            }
        } else if form == 0 && rm == 5 {
            (from_rip, base) = (long, None);
        }
        let displacement = match form {
            0 if base.is_none() => code.immediate(4)?,
            0 => 0,
            1 => code.immediate(1)?,
            2 => code.immediate(4)?,
            _ => return None,
        };
        sum = sum.wrapping_add(displacement).wrapping_add(base.map_or(0, |b| cpu.get(b)));
        let by_default = if matches!(base, Some(4 | 5)) { SegmentName::Ss } else { SegmentName::Ds };
        let segment = cpu.base(prefixes.segment.unwrap_or(by_default));
        let sum = if long { sum } else { sum & 0xffff_ffff };
        Some(Self { field: (modrm >> 3) & 7, linear: sum.wrapping_add(segment), from_rip })
    }
}

/// Index of the register and whether it is a high byte.
fn register_of(recognised: &Recognised, bytes: usize) -> (usize, bool) {
    let number = usize::from(recognised.register);
    match (bytes, recognised.rex, number) {
        (1, false, 4..=7) => (number & 3, true),
        _ => (number, false),
    }
}

/// Executes the instruction if it is one of those known here.
pub(crate) fn execute(cpu: &mut Cpu, machine: &mut impl Machine, miss: Miss, code: &Code) -> Option<Outcome> {
    let mode = cpu.mode();
    if mode == Mode::Bits16 {
        return None;
    }
    let found = recognise(cpu, mode, code.bytes())?;
    let (bytes, writes) = match found.action {
        Action::Load { memory, .. } => (memory, false),
        Action::Store { bytes } | Action::StoreImmediate { bytes, .. } => (bytes, true),
    };
    let within = miss.gpa & 0xfff;
    let fits = within.wrapping_add(u64::try_from(bytes).unwrap_or(8)) <= 0x1000;
    if writes != miss.write || !fits || found.linear & 0xfff != within {
        return None;
    }
    let place = Place::at(miss.gpa, bytes);
    match found.action {
        Action::Load { memory, register, signed } => {
            let value = place.read(machine);
            let value = if signed { sign_extend(value, memory) } else { value & mask(memory) };
            let (index, high) = register_of(&found, register);
            cpu.set_part(index, register, high, value);
        }
        Action::Store { bytes } => {
            let (index, high) = register_of(&found, bytes);
            place.write(machine, cpu.get_part(index, bytes, high));
        }
        Action::StoreImmediate { value, .. } => place.write(machine, value),
    }
    cpu.advance(found.len);
    Some(Outcome::Done { trap: cpu.has(flag::TF) })
}
