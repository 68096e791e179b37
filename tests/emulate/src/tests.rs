// SPDX-License-Identifier: MIT OR Apache-2.0
//! The comparison.

mod emulated;
mod instructions;
mod silicon;

use silicon::State;

/// Xorshift64*: small and repeatable.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Corner values, more often than chance would have them.
    fn value(&mut self) -> u64 {
        match self.next() % 4 {
            0 => self.next() % 3,
            1 => (1 << (self.next() % 64)) - self.next() % 2,
            2 => u64::MAX << (self.next() % 64),
            _ => self.next(),
        }
    }
}

/// A state that keeps the instruction within its memory.
fn random_state(random: &mut Random, text: &str) -> State {
    let mut state = State::default();
    for chunk in state.memory.chunks_mut(8) {
        chunk.copy_from_slice(&random.value().to_le_bytes());
    }
    (state.rax, state.rcx, state.r8) = (random.value(), random.value(), random.value());
    state.flags = random.next() & (silicon::STATUS | silicon::DIRECTION);
    if text.starts_with("rep") {
        state.rcx = random.next() % 8;
    }
    if text.starts_with("bt") {
        state.rcx = (random.next() % 256).wrapping_sub(128);
    }
    if text.starts_with("cmpxchg") && random.next().is_multiple_of(2) {
        let mut here = [0; 8];
        here.copy_from_slice(&state.memory[silicon::TARGET..silicon::TARGET + 8]);
        state.rax = u64::from_le_bytes(here);
    }
    state
}

#[test]
fn emulator_and_processor_agree() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut count = 0;
    for instruction in instructions::all() {
        for _ in 0..300 {
            let before = random_state(&mut random, instruction.text);
            let real = silicon::execute(&instruction, &before);
            for write in [false, true] {
                let ours = emulated::execute(&instruction, &before, write);
                assert_eq!(
                    ours.comparable(&instruction),
                    real.comparable(&instruction),
                    "{} ({:02x?}) on {before:x?}",
                    instruction.text,
                    instruction.code
                );
            }
        }
        count += 1;
    }
    assert!(count > 150, "{count} instructions");
}
