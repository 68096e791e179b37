// SPDX-License-Identifier: MIT OR Apache-2.0
//! The report about a guest that can't go on: its registers and the instruction it was at.

use cloister_hypervisor::Unhandled;
use kvm_bindings::kvm_sregs;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

const CR0_PG: u64 = 1 << 31;
const EFER_LMA: u64 = 1 << 10;
const PRESENT: u64 = 1;
const LARGE: u64 = 1 << 7;
const FRAME: u64 = 0x000f_ffff_ffff_f000;
/// Longest x86 instruction.
const INSTRUCTION: u64 = 15;

/// Registers, and the bytes at the instruction pointer as far as they can be read.
pub(crate) fn describe(memory: &GuestMemoryMmap, state: &Unhandled) -> String {
    let linear = if state.sregs.cs.l != 0 { state.regs.rip } else { state.sregs.cs.base.wrapping_add(state.regs.rip) };
    let bytes: Vec<String> = (0..INSTRUCTION)
        .map_while(|i| translate(memory, &state.sregs, linear.wrapping_add(i)))
        .map_while(|address| memory.read_obj::<u8>(GuestAddress(address)).ok())
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let code = if bytes.is_empty() { "not readable".into() } else { bytes.join(" ") };
    format!("{state}\n  code {code}")
}

/// The guest-physical address of a linear one; only flat memory and four-level page tables are known.
fn translate(memory: &GuestMemoryMmap, sregs: &kvm_sregs, linear: u64) -> Option<u64> {
    if sregs.cr0 & CR0_PG == 0 {
        return Some(linear);
    }
    if sregs.efer & EFER_LMA == 0 {
        return None;
    }
    let mut table = sregs.cr3 & FRAME;
    for shift in [39_u32, 30, 21, 12] {
        let index = linear.wrapping_shr(shift) & 511;
        let entry: u64 = memory.read_obj(GuestAddress(table | index << 3)).ok()?;
        if entry & PRESENT == 0 {
            return None;
        }
        let offset = 1_u64.wrapping_shl(shift).wrapping_sub(1);
        if shift == 12 || (shift < 39 && entry & LARGE != 0) {
            return Some(entry & FRAME & !offset | linear & offset);
        }
        table = entry & FRAME;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::describe;
    use cloister_boot::cpu;
    use cloister_hypervisor::Unhandled;
    use kvm_bindings::{kvm_regs, kvm_sregs};
    use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

    #[test]
    fn the_report_has_the_code_bytes() {
        let memory: GuestMemoryMmap = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x100000)]).unwrap();
        cpu::write_tables(&memory).unwrap();
        memory.write_slice(&[0x0f, 0x0b, 0x90], GuestAddress(0x50000)).unwrap();
        let mut state = Unhandled {
            reason: "test".into(),
            code: [0; 3],
            regs: kvm_regs { rip: 0x50000, ..Default::default() },
            sregs: cpu::sregs(&kvm_sregs::default()),
        };
        assert!(describe(&memory, &state).contains("code 0f 0b 90 00"));
        state.regs.rip = u64::MAX;
        assert!(describe(&memory, &state).contains("not readable"));
        state.sregs.cr3 = u64::MAX;
        assert!(describe(&memory, &state).contains("not readable"));
    }
}
