// SPDX-License-Identifier: MIT OR Apache-2.0
//! Random instructions in random states: none panics, and those that fail have no effect.

use super::{CODE, DEVICE, long, protected};
use crate::{Miss, Outcome, Segment, emulate};

#[test]
fn random_code_in_random_states_never_panics() {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = || {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    };
    let (mut finished, mut unknown, mut faults) = (0, 0, 0);
    for round in 0..60_000 {
        let (mut cpu, mut toy) = if round % 3 == 0 { protected() } else { long() };
        for register in &mut cpu.gpr {
            *register = match next() % 4 {
                0 => DEVICE + next() % 0x2000,
                1 => next() % 0x10_0000,
                2 => next() % 16,
                _ => next(),
            };
        }
        if round % 7 == 0 {
            for segment in &mut cpu.segments {
                *segment = Segment { base: next(), big: next() & 1 == 0, long: next() & 1 == 0 };
            }
            cpu.segments[1].base &= 0xfff;
            (cpu.cr0, cpu.cr4) = (cpu.cr0 ^ (next() & 0x8001_0000), next());
        }
        cpu.cpl = u8::try_from(next() & 3).unwrap();
        cpu.rflags = next();
        let mut code = [0u8; 16];
        code.iter_mut().for_each(|b| *b = next().to_le_bytes()[3]);
        if round % 2 == 0 {
            // Opcodes that are known, so that not all is noise.
            let known = [0x8b, 0x89, 0x01, 0x33, 0xf3, 0x0f, 0xff, 0x66, 0x48, 0xa4, 0xaa, 0x87, 0xc7, 0x8f];
            code[0] = known[usize::try_from(next()).unwrap_or(0) % known.len()];
        }
        toy.put(CODE, &code);
        let before = cpu.clone();
        match emulate(&mut cpu, &mut toy, Miss { gpa: DEVICE + next() % 0x1000, write: next() & 1 == 0 }) {
            Ok(Outcome::Done { .. } | Outcome::Partial) => finished += 1,
            Ok(Outcome::Fault(_)) => {
                faults += 1;
                assert_eq!(cpu, before, "round {round}: {code:02x?}");
            }
            Err(_) => {
                unknown += 1;
                assert_eq!(cpu, before, "round {round}: {code:02x?}");
            }
        }
    }
    assert!(finished > 1000 && unknown > 1000 && faults > 1000, "{finished} {unknown} {faults}");
}
