// SPDX-License-Identifier: MIT OR Apache-2.0
//! Operands in memory, by linear address: translated once, then read, written, or both.
//!
//! A [`Place`] is an operand of up to eight bytes, in one page or across two. Both pages are translated before anything
//! happens, so that an operand that faults has had no effect. A part that is not guest memory goes to the devices, in
//! pieces of 1, 2, 4 or 8 bytes.

use crate::walk::{Access, translate};
use crate::{Cpu, Exception, Machine};

const PAGE: u64 = 4096;

/// An operand in memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    first: u64,
    first_len: usize,
    second: u64,
    bytes: usize,
}

impl Place {
    /// The operand of `bytes` (1, 2, 4 or 8) bytes at `linear`.
    pub(crate) fn new(
        cpu: &Cpu,
        machine: &impl Machine,
        linear: u64,
        bytes: usize,
        access: Access,
    ) -> Result<Self, Exception> {
        let bytes = bytes.min(8);
        let first = translate(cpu, machine, linear, access)?;
        let room = usize::try_from(PAGE.wrapping_sub(linear & PAGE.wrapping_sub(1))).unwrap_or(0);
        if room >= bytes {
            return Ok(Self { first, first_len: bytes, second: 0, bytes });
        }
        let next = linear.wrapping_add(u64::try_from(room).unwrap_or(0));
        let next = if cpu.is_64() { next } else { next & 0xffff_ffff };
        let second = translate(cpu, machine, next, access)?;
        Ok(Self { first, first_len: room, second, bytes })
    }

    /// The operand at guest-physical `gpa`, which does not cross a page.
    pub(crate) const fn at(gpa: u64, bytes: usize) -> Self {
        Self { first: gpa, first_len: bytes, second: 0, bytes }
    }

    pub(crate) fn read(&self, machine: &mut impl Machine) -> u64 {
        let mut value = [0u8; 8];
        let (first, second) = value.split_at_mut_checked(self.first_len).unwrap_or_default();
        let rest = self.bytes.saturating_sub(self.first_len);
        read_part(machine, self.first, first);
        if let Some(second) = second.get_mut(..rest).filter(|s| !s.is_empty()) {
            read_part(machine, self.second, second);
        }
        u64::from_le_bytes(value)
    }

    pub(crate) fn write(&self, machine: &mut impl Machine, value: u64) {
        let value = value.to_le_bytes();
        let (first, second) = value.split_at_checked(self.first_len).unwrap_or_default();
        let rest = self.bytes.saturating_sub(self.first_len);
        write_part(machine, self.first, first);
        if let Some(second) = second.get(..rest).filter(|s| !s.is_empty()) {
            write_part(machine, self.second, second);
        }
    }
}

/// The length of the next piece of `left` bytes: a power of two.
fn piece(left: usize) -> usize {
    1usize.checked_shl(left.checked_ilog2().unwrap_or(0).min(3)).unwrap_or(1)
}

fn read_part(machine: &mut impl Machine, mut gpa: u64, mut into: &mut [u8]) {
    if machine.ram_read(gpa, into) {
        return;
    }
    while !into.is_empty() {
        let Some((now, later)) = into.split_at_mut_checked(piece(into.len())) else { return };
        machine.device_read(gpa, now);
        gpa = gpa.wrapping_add(u64::try_from(now.len()).unwrap_or(0));
        into = later;
    }
}

fn write_part(machine: &mut impl Machine, mut gpa: u64, mut from: &[u8]) {
    if machine.ram_write(gpa, from) {
        return;
    }
    while !from.is_empty() {
        let Some((now, later)) = from.split_at_checked(piece(from.len())) else { return };
        machine.device_write(gpa, now);
        gpa = gpa.wrapping_add(u64::try_from(now.len()).unwrap_or(0));
        from = later;
    }
}
