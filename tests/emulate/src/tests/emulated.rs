// SPDX-License-Identifier: MIT OR Apache-2.0
//! Executing an instruction by the emulator, with the memory as a device.

use super::instructions::Instruction;
use super::silicon::{SOURCE, State, TARGET};
use cloister_emulate::{Cpu, Machine, Miss, Outcome, Segment, emulate};

const CODE: u64 = 0x1000;
const DEVICE: u64 = 0x10_0000;

struct Toy<'a> {
    code: &'a [u8],
    memory: [u8; 512],
}

impl Toy<'_> {
    fn part(&mut self, gpa: u64, len: usize) -> &mut [u8] {
        let at = usize::try_from(gpa - DEVICE).unwrap_or(usize::MAX);
        &mut self.memory[at..at + len]
    }
}

impl Machine for Toy<'_> {
    fn ram_read(&self, gpa: u64, into: &mut [u8]) -> bool {
        if gpa >= DEVICE {
            return false;
        }
        let bytes = self.code.iter().copied().chain(std::iter::repeat(0x90));
        into.iter_mut().zip(bytes).for_each(|(slot, b)| *slot = b);
        true
    }

    fn ram_write(&self, _gpa: u64, _from: &[u8]) -> bool {
        false
    }

    fn device_read(&mut self, gpa: u64, into: &mut [u8]) {
        into.copy_from_slice(self.part(gpa, into.len()));
    }

    fn device_write(&mut self, gpa: u64, from: &[u8]) {
        self.part(gpa, from.len()).copy_from_slice(from);
    }
}

/// Executes it on a copy of `before`. `write` is what the exit is said to have been: it decides between the quick way
/// and the full decoder.
pub(super) fn execute(instruction: &Instruction, before: &State, write: bool) -> State {
    let (to, from) = (DEVICE + TARGET as u64, DEVICE + SOURCE as u64);
    // 64-bit code without paging does not exist on silicon; here it spares page tables.
    let mut cpu = Cpu { efer: 0x400, rip: CODE, rflags: before.flags | 2, ..Cpu::default() };
    cpu.segments[1] = Segment { base: 0, big: false, long: true };
    (cpu.gpr[0], cpu.gpr[1], cpu.gpr[7], cpu.gpr[6], cpu.gpr[8]) = (before.rax, before.rcx, to, from, before.r8);
    cpu.gpr[2] = before.flags | 2;
    let mut toy = Toy { code: instruction.code, memory: before.memory };
    let outcome = emulate(&mut cpu, &mut toy, Miss { gpa: to, write });
    assert_eq!(outcome, Ok(Outcome::Done { trap: false }), "{}", instruction.text);
    assert_eq!(cpu.rip, CODE + instruction.code.len() as u64, "{}", instruction.text);
    State {
        rax: cpu.gpr[0],
        rcx: cpu.gpr[1],
        r8: cpu.gpr[8],
        moved: (cpu.gpr[7].wrapping_sub(to), cpu.gpr[6].wrapping_sub(from)),
        flags: cpu.rflags,
        memory: toy.memory,
    }
}
