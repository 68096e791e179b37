// SPDX-License-Identifier: MIT OR Apache-2.0
//! Guests that execute whatever bytes there are, for monitors that go past every instruction that exits.

use crate::equal;
use crate::fuzz::next;
use crate::guest_guards::needed;
use crate::harness::{Outcome, Test};
use cloister_abi::arch::x86_64::vcpu::ExitReason;
use cloister_bare::guest::{CODE, Guest, SIZE};
use cloister_bare::time;

pub(crate) static TESTS: [Test; 2] = [("guest-of-noise-real-mode", real), ("guest-of-noise-long-mode", long)];

/// Guests, and exits of each at most.
const GUESTS: usize = 60;
const EXITS: usize = 40;

fn fill(guest: &mut Guest, from: u64, random: &mut u64) {
    for place in (from..SIZE).step_by(8) {
        guest.write(place, &next(random).to_le_bytes());
    }
}

/// Runs until an exit that nothing can be done about.
fn drive(guest: &mut Guest) -> Outcome {
    for _ in 0..EXITS {
        guest.state().deadline = time::after(300);
        match guest.run()? {
            ExitReason::Port
            | ExitReason::RdMsr
            | ExitReason::WrMsr
            | ExitReason::Cpuid
            | ExitReason::Hlt
            | ExitReason::Hypercall
            | ExitReason::CacheControl
            | ExitReason::Xsetbv
            | ExitReason::Mwait
            | ExitReason::Virtualization => guest.skip(),
            _ => break,
        }
    }
    Ok(())
}

/// Guests that make sense still run.
fn sane() -> Outcome {
    let mut guest = Guest::real(&[0xf4])?;
    equal!(guest.run()?, ExitReason::Hlt);
    guest.destroy();
    Ok(())
}

fn real() -> Outcome {
    needed()?;
    let mut random = 0x1234_5678_9abc_def1;
    for _ in 0..GUESTS {
        let mut guest = Guest::real(&[])?;
        fill(&mut guest, 0, &mut random);
        guest.state().rflags = 0x202;
        drive(&mut guest)?;
        guest.destroy();
    }
    sane()
}

fn long() -> Outcome {
    needed()?;
    let mut random = 0xfeed_5678_9abc_def1;
    for _ in 0..GUESTS {
        let mut guest = Guest::long(&[])?;
        fill(&mut guest, 0x5000, &mut random);
        let mut code = [0; 64];
        code.iter_mut().for_each(|byte| *byte = next(&mut random).to_le_bytes()[0]);
        guest.write(CODE, &code);
        for (index, register) in guest.state().gpr.iter_mut().enumerate() {
            *register = if index == 4 { 0x8000 } else { next(&mut random) % SIZE };
        }
        drive(&mut guest)?;
        guest.destroy();
    }
    sane()
}
