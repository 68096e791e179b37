// SPDX-License-Identifier: MIT OR Apache-2.0
//! Executing an instruction on the processor.

use super::instructions::Instruction;

/// CF, PF, AF, ZF, SF, OF.
pub(super) const STATUS: u64 = 0x8d5;
/// DF.
pub(super) const DIRECTION: u64 = 0x400;
/// Where RDI points in the memory.
pub(super) const TARGET: usize = 128;
/// Where RSI points in the memory.
pub(super) const SOURCE: usize = 384;

/// What an instruction works on.
#[derive(Clone, Debug)]
pub(super) struct State {
    pub(super) rax: u64,
    pub(super) rcx: u64,
    pub(super) r8: u64,
    /// How far RDI and RSI moved.
    pub(super) moved: (u64, u64),
    pub(super) flags: u64,
    pub(super) memory: [u8; 512],
}

impl Default for State {
    fn default() -> Self {
        Self { rax: 0, rcx: 0, r8: 0, moved: (0, 0), flags: 0, memory: [0; 512] }
    }
}

impl State {
    /// All that must agree: without the flags that the instruction leaves undefined.
    pub(super) fn comparable(&self, instruction: &Instruction) -> (u64, u64, u64, (u64, u64), u64, &[u8]) {
        let defined = STATUS & !instruction.undefined_flags();
        (self.rax, self.rcx, self.r8, self.moved, self.flags & defined, &self.memory)
    }
}

/// Executes it on a copy of `before`.
pub(super) fn execute(instruction: &Instruction, before: &State) -> State {
    let mut after = before.clone();
    after.flags |= 2;
    let base = after.memory.as_mut_ptr().expose_provenance() as u64;
    let (to, from) = (base + TARGET as u64, base + SOURCE as u64);
    let (mut rdi, mut rsi) = (to, from);
    // SAFETY: the entry point is one of the fragments of `instructions`, which change only the registers named here, and
    // reach, from RDI and RSI with the counts that the test chooses, no memory but `after.memory`.
    unsafe {
        core::arch::asm!(
            "call r11",
            in("r11") instruction.entry,
            inout("rax") after.rax,
            inout("rcx") after.rcx,
            inout("rdx") after.flags,
            inout("rdi") rdi,
            inout("rsi") rsi,
            inout("r8") after.r8,
            lateout("r11") _,
        );
    }
    after.moved = (rdi.wrapping_sub(to), rsi.wrapping_sub(from));
    after
}
