// SPDX-License-Identifier: MIT OR Apache-2.0
//! The way out of a guest, to its monitor and back, counted by the guest itself.

use crate::calls::{number, syscall};
use crate::report;
use cloister_abi::arch::x86_64::vcpu::{ExitReason, Groups};
use cloister_abi::hip::features;
use cloister_abi::hypercall::VcpuRun;
use cloister_abi::status::Status;
use cloister_bare::entry::hip;
use cloister_bare::guest::Guest;
use cloister_bare::println;

/// Exits that are made.
const EXITS: usize = 40;
/// Where the guest keeps the least that it saw.
const LEAST: u64 = 0x5000;
/// Instructions between the guest's readings besides the one that exits: `mov` and the second `rdtsc`.
const OVERHEAD: u64 = 2;

/// `again: rdtsc; mov esi, eax; cpuid; rdtsc; sub eax, esi; cmp eax, [LEAST]; jae again; mov [LEAST], eax; jmp again`
const CODE: [u8; 30] = [
    0x0f, 0x31, 0x89, 0xc6, 0x0f, 0xa2, 0x0f, 0x31, 0x29, 0xf0, 0x3b, 0x04, 0x25, 0x00, 0x50, 0x00, 0x00, 0x73, 0xed,
    0x89, 0x04, 0x25, 0x00, 0x50, 0x00, 0x00, 0xeb, 0xe4, 0xf4, 0xf4,
];

/// An exit to a monitor that skips the instruction, with these groups stored and loaded beside `rip`.
fn exit(groups: Groups) -> Result<u64, Status> {
    let mut guest = Guest::long(&CODE)?;
    guest.write(LEAST, &u32::MAX.to_le_bytes());
    let groups = groups.union(Groups::RIP).bits();
    let state = guest.state();
    state.store = [groups; 32];
    let args = [guest.vcpu.into(), 0, 0, 0, 0, 0];
    for _ in 0..EXITS {
        let (status, reason) = syscall(number::<VcpuRun>(), &args);
        if (status, reason) != (0, ExitReason::Cpuid as u64) {
            return Err(Status::from_raw(status).unwrap_or(Status::BadParameter));
        }
        let state = guest.state();
        state.rip += state.instruction_length;
        state.load = groups;
    }
    let least = (LEAST..LEAST + 4).rev().fold(0, |sum, place| sum << 8 | u64::from(guest.read(place)));
    guest.destroy();
    Ok(least - OVERHEAD)
}

/// The smallest state, and all general-purpose registers.
pub(crate) fn exits() -> Result<(), Status> {
    if hip().features & features::SVM == 0 {
        println!("no guests here: no figures of their exits");
        return Ok(());
    }
    report("vm-exit-min", exit(Groups::empty())?);
    report("vm-exit-gpr", exit(Groups::GPR)?);
    Ok(())
}
