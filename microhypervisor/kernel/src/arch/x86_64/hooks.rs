// SPDX-License-Identifier: MIT OR Apache-2.0
//! Puts other functions in place of those that the entry code calls, at boot, while the kernel's code may still be written.
//!
//! So a kernel that observes itself differs from one that does not by five operands, and the latter does not even ask. The calls are
//! found by what they call: `E8 rel32` for a function, `FF 14 C5 disp32` for a table indexed by RAX (Intel SDM vol. 2, CALL).

use super::entry::{entry_first_exit, entry_syscall};
use crate::width::{index, low32};

/// What lies behind the last label of the entry code, at least.
const TAIL: u64 = 16;

/// Which calls are replaced.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Callee {
    /// Those of the function at this address.
    Function(u64),
    /// Those through the table at this address.
    Table(u64),
}

impl Callee {
    /// Bytes of the instruction before its operand, and the operand of one that ends at `end`.
    fn encoding(self, end: u64) -> (&'static [u8], u32) {
        match self {
            Self::Function(address) => (&[0xe8], low32(address.wrapping_sub(end))),
            Self::Table(address) => (&[0xff, 0x14, 0xc5], low32(address)),
        }
    }
}

fn byte(address: u64) -> *mut u8 {
    core::ptr::with_exposed_provenance_mut(index(address))
}

fn matches(address: u64, bytes: &[u8]) -> bool {
    // SAFETY: the kernel's code; callers stay inside.
    bytes.iter().zip(address..).all(|(wanted, at)| *wanted == unsafe { byte(at).read_volatile() })
}

/// Replaces all calls of `from` in the entry code by calls of `to`. Answers how many there were.
///
/// # Safety
/// The kernel's own page tables are not active yet, so its code can be written; no other core runs; both are of the same kind and type.
pub(crate) unsafe fn redirect(from: Callee, to: Callee) -> usize {
    let (start, last) = (entry_syscall as *const () as u64, entry_first_exit as *const () as u64 + TAIL);
    let mut found = 0;
    for place in start..last {
        let length = from.encoding(0).0.len() as u64;
        let end = place + length + 4;
        let (opcode, operand) = from.encoding(end);
        if matches(place, opcode) && matches(place + length, &operand.to_le_bytes()) {
            for (value, at) in to.encoding(end).1.to_le_bytes().into_iter().zip(place + length..) {
                // SAFETY: an operand of the entry code, which the caller says can be written.
                unsafe { byte(at).write_volatile(value) };
            }
            found += 1;
        }
    }
    found
}
