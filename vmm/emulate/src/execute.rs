// SPDX-License-Identifier: MIT OR Apache-2.0
//! Instructions with an operand in memory, decoded by iced-x86.
//!
//! Operands are found first, and translated for what will be done to them; then all is read, computed, and written:
//! an instruction that faults has had no effect.

use crate::arithmetic::{self, ARITHMETIC};
use crate::cpu::flag::{AF, CF, OF, PF, SF, ZF};
use crate::cpu::{Cpu, SegmentName, flag, mask, sign_extend};
use crate::fetch::Code;
use crate::memory::Place;
use crate::string;
use crate::walk::Access;
use crate::{Exception, Machine, Outcome, Stop};
use iced_x86::{ConditionCode, Decoder, DecoderOptions, Instruction, Mnemonic, OpKind, Register};

/// An operand.
#[derive(Clone, Copy, Debug)]
enum Operand {
    Register(Register),
    Memory(Place),
    Immediate(u64),
}

pub(crate) fn execute(cpu: &mut Cpu, machine: &mut impl Machine, code: &Code) -> Result<Outcome, Stop> {
    let mut decoder = Decoder::with_ip(cpu.mode().bits(), code.bytes(), cpu.rip, DecoderOptions::NONE);
    let instruction = decoder.decode();
    if instruction.is_invalid() {
        return Err(Stop::Unsupported("it cannot be decoded"));
    }
    if string::is_string(&instruction) {
        return string::execute(cpu, machine, &instruction);
    }
    Executor { cpu, machine, instruction: &instruction }.run()?;
    cpu.advance(instruction.len());
    Ok(Outcome::Done { trap: cpu.has(flag::TF) })
}

/// The linear address of the memory operand `index`; `None` if a register in it is not known.
pub(crate) fn linear_address(cpu: &Cpu, instruction: &Instruction, index: u32) -> Option<u64> {
    let address = instruction.try_virtual_address(index, 0, |register, _, _| match register {
        Register::ES => Some(cpu.base(SegmentName::Es)),
        Register::CS => Some(cpu.base(SegmentName::Cs)),
        Register::SS => Some(cpu.base(SegmentName::Ss)),
        Register::DS => Some(cpu.base(SegmentName::Ds)),
        Register::FS => Some(cpu.base(SegmentName::Fs)),
        Register::GS => Some(cpu.base(SegmentName::Gs)),
        other => cpu.read(other),
    })?;
    Some(if cpu.is_64() { address } else { address & 0xffff_ffff })
}

struct Executor<'a, M> {
    cpu: &'a mut Cpu,
    machine: &'a mut M,
    instruction: &'a Instruction,
}

impl<M: Machine> Executor<'_, M> {
    fn run(&mut self) -> Result<(), Stop> {
        match self.instruction.mnemonic() {
            Mnemonic::Mov | Mnemonic::Movnti => self.copy(0, |value, _, _| value),
            Mnemonic::Movzx => self.copy(0, |value, from, _| value & mask(from)),
            Mnemonic::Movsx | Mnemonic::Movsxd => self.copy(0, |value, from, _| sign_extend(value, from)),
            Mnemonic::Add => self.binary(true, |a, b, _, n| arithmetic::add(a, b, false, n)),
            Mnemonic::Adc => self.binary(true, arithmetic::add),
            Mnemonic::Sub => self.binary(true, |a, b, _, n| arithmetic::sub(a, b, false, n)),
            Mnemonic::Sbb => self.binary(true, arithmetic::sub),
            Mnemonic::Cmp => self.binary(false, |a, b, _, n| arithmetic::sub(a, b, false, n)),
            Mnemonic::And => self.binary(true, |a, b, _, n| arithmetic::logic(a & b, n)),
            Mnemonic::Or => self.binary(true, |a, b, _, n| arithmetic::logic(a | b, n)),
            Mnemonic::Xor => self.binary(true, |a, b, _, n| arithmetic::logic(a ^ b, n)),
            Mnemonic::Test => self.binary(false, |a, b, _, n| arithmetic::logic(a & b, n)),
            Mnemonic::Inc => self.unary(ARITHMETIC & !CF, |a, n| arithmetic::add(a, 1, false, n)),
            Mnemonic::Dec => self.unary(ARITHMETIC & !CF, |a, n| arithmetic::sub(a, 1, false, n)),
            Mnemonic::Neg => self.unary(ARITHMETIC, |a, n| arithmetic::sub(0, a, false, n)),
            Mnemonic::Not => self.unary(0, |a, _| (!a, 0)),
            Mnemonic::Xchg => self.exchange(),
            Mnemonic::Xadd => self.exchange_and_add(),
            Mnemonic::Cmpxchg => self.compare_and_exchange(),
            Mnemonic::Bt => self.bit(false, |value, _| value),
            Mnemonic::Bts => self.bit(true, |value, bit| value | bit),
            Mnemonic::Btr => self.bit(true, |value, bit| value & !bit),
            Mnemonic::Btc => self.bit(true, |value, bit| value ^ bit),
            Mnemonic::Push => self.push(),
            Mnemonic::Pop => self.pop(),
            _ => self.conditional(),
        }
    }

    // ---- operands ------------------------------------------------------------------------------------------------

    fn kind(&self, index: u32) -> OpKind {
        self.instruction.try_op_kind(index).unwrap_or(OpKind::NearBranch64)
    }

    /// Bytes of operand `index`.
    fn bytes(&self, index: u32) -> Result<usize, Stop> {
        let bytes = match self.kind(index) {
            OpKind::Register => self.instruction.op_register(index).size(),
            _ => self.instruction.memory_size().size(),
        };
        matches!(bytes, 1 | 2 | 4 | 8).then_some(bytes).ok_or(Stop::Unsupported("an operand of unusual size"))
    }

    fn operand(&self, index: u32, access: Access) -> Result<Operand, Stop> {
        match self.kind(index) {
            OpKind::Register => {
                let register = self.instruction.op_register(index);
                register.is_gpr().then_some(Operand::Register(register)).ok_or(Stop::Unsupported("a special register"))
            }
            OpKind::Memory => {
                let linear = linear_address(self.cpu, self.instruction, index)
                    .ok_or(Stop::Unsupported("an address with an unusual register"))?;
                self.place(linear, self.bytes(index)?, access).map(Operand::Memory)
            }
            _ => self
                .instruction
                .try_immediate(index)
                .map(Operand::Immediate)
                .map_err(|_| Stop::Unsupported("an unusual operand")),
        }
    }

    fn place(&self, linear: u64, bytes: usize, access: Access) -> Result<Place, Stop> {
        Place::new(self.cpu, self.machine, linear, bytes, access).map_err(|fault| {
            // An address that is not canonical faults by the stack segment if that is the operand's (volume 1, 3.3.7.1).
            match fault {
                Exception::GeneralProtection if self.instruction.memory_segment() == Register::SS => {
                    Stop::Fault(Exception::Stack)
                }
                other => Stop::Fault(other),
            }
        })
    }

    fn load(&mut self, operand: Operand) -> u64 {
        match operand {
            Operand::Register(register) => self.cpu.read(register).unwrap_or(0),
            Operand::Memory(place) => place.read(self.machine),
            Operand::Immediate(value) => value,
        }
    }

    fn store(&mut self, operand: Operand, value: u64) {
        match operand {
            Operand::Register(register) => _ = self.cpu.write(register, value),
            Operand::Memory(place) => place.write(self.machine, value),
            Operand::Immediate(_) => {}
        }
    }

    // ---- groups --------------------------------------------------------------------------------------------------

    /// Operand 1 to operand `to`, through `convert` (value, bytes of source, bytes of destination).
    fn copy(&mut self, to: u32, convert: impl Fn(u64, usize, usize) -> u64) -> Result<(), Stop> {
        let (into, from) = (self.bytes(to)?, self.source_bytes(to)?);
        let target = self.operand(to, Access::Write)?;
        let source = self.operand(1, Access::Read)?;
        let value = self.load(source);
        self.store(target, convert(value, from, into));
        Ok(())
    }

    fn source_bytes(&self, to: u32) -> Result<usize, Stop> {
        match self.kind(1) {
            OpKind::Register | OpKind::Memory => self.bytes(1),
            _ => self.bytes(to),
        }
    }

    /// `operand 0 = act(operand 0, operand 1, carry)`; only the flags if not `writes`.
    fn binary(&mut self, writes: bool, act: impl Fn(u64, u64, bool, usize) -> (u64, u64)) -> Result<(), Stop> {
        let bytes = self.bytes(0)?;
        let target = self.operand(0, if writes { Access::Write } else { Access::Read })?;
        let source = self.operand(1, Access::Read)?;
        let (a, b) = (self.load(target), self.load(source));
        let (result, flags) = act(a, b, self.cpu.has(CF), bytes);
        if writes {
            self.store(target, result);
        }
        self.cpu.set_flags(ARITHMETIC, flags);
        Ok(())
    }

    fn unary(&mut self, which: u64, act: impl Fn(u64, usize) -> (u64, u64)) -> Result<(), Stop> {
        let bytes = self.bytes(0)?;
        let target = self.operand(0, Access::Write)?;
        let value = self.load(target);
        let (result, flags) = act(value, bytes);
        self.store(target, result);
        if which != 0 {
            self.cpu.set_flags(which, flags);
        }
        Ok(())
    }

    fn exchange(&mut self) -> Result<(), Stop> {
        let (first, second) = (self.operand(0, Access::Write)?, self.operand(1, Access::Write)?);
        let (a, b) = (self.load(first), self.load(second));
        self.store(first, b);
        self.store(second, a);
        Ok(())
    }

    fn exchange_and_add(&mut self) -> Result<(), Stop> {
        let bytes = self.bytes(0)?;
        let (target, source) = (self.operand(0, Access::Write)?, self.operand(1, Access::Write)?);
        let (a, b) = (self.load(target), self.load(source));
        let (sum, flags) = arithmetic::add(a, b, false, bytes);
        self.store(source, a);
        self.store(target, sum);
        self.cpu.set_flags(ARITHMETIC, flags);
        Ok(())
    }

    fn compare_and_exchange(&mut self) -> Result<(), Stop> {
        let bytes = self.bytes(0)?;
        let (target, source) = (self.operand(0, Access::Write)?, self.operand(1, Access::Read)?);
        let (old, new) = (self.load(target), self.load(source));
        let accumulator = self.cpu.get_part(0, bytes, false);
        let (_, flags) = arithmetic::sub(accumulator, old, false, bytes);
        if flags & ZF != 0 {
            self.store(target, new);
        } else {
            // The destination is written in any case, with what it held (volume 2, CMPXCHG).
            self.store(target, old);
            self.cpu.set_part(0, bytes, false, old);
        }
        self.cpu.set_flags(ARITHMETIC, flags);
        Ok(())
    }

    /// Bit tests. A bit number in a register reaches beyond the operand, forwards and backwards.
    fn bit(&mut self, writes: bool, act: impl Fn(u64, u64) -> u64) -> Result<(), Stop> {
        let bytes = self.bytes(0)?;
        let access = if writes { Access::Write } else { Access::Read };
        let source = self.operand(1, Access::Read)?;
        let number = self.load(source);
        let bits = u64::try_from(bytes).unwrap_or(8).wrapping_mul(8);
        let target = match (self.kind(0), source) {
            (OpKind::Memory, Operand::Register(_)) => {
                let linear = linear_address(self.cpu, self.instruction, 0)
                    .ok_or(Stop::Unsupported("an address with an unusual register"))?;
                // Whole operands away: an arithmetic shift, then bytes.
                let away = (sign_extend(number, bytes).cast_signed() >> bits.ilog2()).cast_unsigned();
                let linear = linear.wrapping_add(away.wrapping_mul(bits >> 3));
                let linear = if self.cpu.is_64() { linear } else { linear & 0xffff_ffff };
                Operand::Memory(self.place(linear, bytes, access)?)
            }
            _ => self.operand(0, access)?,
        };
        let bit = 1u64.checked_shl(u32::try_from(number & bits.wrapping_sub(1)).unwrap_or(0)).unwrap_or(0);
        let value = self.load(target);
        if writes {
            self.store(target, act(value, bit));
        }
        self.cpu.set_flags(CF, if value & bit != 0 { CF } else { 0 });
        Ok(())
    }

    /// Bytes that the stack pointer has, and its linear address after moving by `by`.
    fn stack(&self, by: u64) -> (usize, u64, u64) {
        let bytes = match (self.cpu.is_64(), self.cpu.segment(SegmentName::Ss).big) {
            (true, _) => 8,
            (false, true) => 4,
            (false, false) => 2,
        };
        let pointer = self.cpu.get(4).wrapping_add(by) & mask(bytes);
        let linear = self.cpu.base(SegmentName::Ss).wrapping_add(pointer);
        (bytes, pointer, if bytes == 8 { linear } else { linear & 0xffff_ffff })
    }

    fn push(&mut self) -> Result<(), Stop> {
        let bytes = self.bytes(0)?;
        let source = self.operand(0, Access::Read)?;
        let (width, pointer, linear) = self.stack(u64::try_from(bytes).unwrap_or(8).wrapping_neg());
        let top = self.place(linear, bytes, Access::Write)?;
        let value = self.load(source);
        top.write(self.machine, value);
        self.cpu.set_part(4, width, false, pointer);
        Ok(())
    }

    fn pop(&mut self) -> Result<(), Stop> {
        let bytes = self.bytes(0)?;
        let (_, _, top) = self.stack(0);
        let from = self.place(top, bytes, Access::Read)?;
        // The address of the target is computed with the stack pointer already moved (volume 2, POP).
        let (before, changed) = (self.cpu.get(4), self.cpu.changed);
        let (width, pointer, _) = self.stack(u64::try_from(bytes).unwrap_or(8));
        self.cpu.set_part(4, width, false, pointer);
        let target = match self.operand(0, Access::Write) {
            Ok(target) => target,
            Err(stop) => {
                self.cpu.set_part(4, 8, false, before);
                self.cpu.changed = changed;
                return Err(stop);
            }
        };
        let value = from.read(self.machine);
        self.store(target, value);
        Ok(())
    }

    /// CMOVcc and SETcc; nothing else is known.
    fn conditional(&mut self) -> Result<(), Stop> {
        let condition = self.instruction.condition_code();
        if condition == ConditionCode::None || self.instruction.op_count() == 0 {
            return Err(Stop::Unsupported("it is not among those that are emulated"));
        }
        let holds = holds(self.cpu, condition);
        match (self.instruction.op_count(), self.kind(0)) {
            (2, OpKind::Register) => {
                let target = self.operand(0, Access::Write)?;
                let source = self.operand(1, Access::Read)?;
                // Memory is read, and the upper half of a 32-bit target cleared, whether it holds or not.
                let (old, new) = (self.load(target), self.load(source));
                self.store(target, if holds { new } else { old });
                Ok(())
            }
            (1, OpKind::Memory | OpKind::Register) => {
                let target = self.operand(0, Access::Write)?;
                self.store(target, u64::from(holds));
                Ok(())
            }
            _ => Err(Stop::Unsupported("it is not among those that are emulated")),
        }
    }
}

/// True if `condition` holds (volume 1 appendix B).
fn holds(cpu: &Cpu, condition: ConditionCode) -> bool {
    let less = cpu.has(SF) != cpu.has(OF);
    match condition {
        ConditionCode::o => cpu.has(OF),
        ConditionCode::no => !cpu.has(OF),
        ConditionCode::b => cpu.has(CF),
        ConditionCode::ae => !cpu.has(CF),
        ConditionCode::e => cpu.has(ZF),
        ConditionCode::ne => !cpu.has(ZF),
        ConditionCode::be => cpu.has(CF) || cpu.has(ZF),
        ConditionCode::a => !cpu.has(CF) && !cpu.has(ZF),
        ConditionCode::s => cpu.has(SF),
        ConditionCode::ns => !cpu.has(SF),
        ConditionCode::p => cpu.has(PF),
        ConditionCode::np => !cpu.has(PF),
        ConditionCode::l => less,
        ConditionCode::ge => !less,
        ConditionCode::le => less || cpu.has(ZF),
        ConditionCode::g => !less && !cpu.has(ZF),
        ConditionCode::None => false,
    }
}

/// Auxiliary carry is part of what arithmetic sets; named here for the reader of [`ARITHMETIC`].
const _: () = assert!(ARITHMETIC & AF != 0);
