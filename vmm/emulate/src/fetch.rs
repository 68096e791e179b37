// SPDX-License-Identifier: MIT OR Apache-2.0
//! The bytes of the instruction at RIP: at most 15, from at most two pages.
//!
//! The second page is looked at only if the first holds fewer than 15 bytes, and a fault there is an end of the bytes,
//! not a fault: the instruction may well end before it. If it does not, it is reported as not decodable.

use crate::cpu::{Cpu, Mode, SegmentName};
use crate::walk::{Access, translate};
use crate::{Exception, Machine};

const LONGEST: usize = 15;
const PAGE: u64 = 4096;

/// Bytes of an instruction, and perhaps of what follows it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Code {
    bytes: [u8; LONGEST],
    len: usize,
}

impl Code {
    pub(crate) fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or(&[])
    }

    pub(crate) const fn all(&self) -> [u8; LONGEST] {
        self.bytes
    }

    pub(crate) fn len(&self) -> u8 {
        u8::try_from(self.len).unwrap_or(0)
    }
}

pub(crate) fn fetch(cpu: &Cpu, machine: &impl Machine) -> Result<Code, Exception> {
    let start = cpu.base(SegmentName::Cs).wrapping_add(cpu.rip);
    let start = if cpu.mode() == Mode::Bits64 { start } else { start & 0xffff_ffff };
    let first = translate(cpu, machine, start, Access::Fetch)?;
    let room = usize::try_from(PAGE.wrapping_sub(start & PAGE.wrapping_sub(1))).unwrap_or(0).min(LONGEST);
    let mut code = Code { bytes: [0; LONGEST], len: 0 };
    if let Some(part) = code.bytes.get_mut(..room)
        && machine.ram_read(first, part)
    {
        code.len = room;
    }
    if code.len == room && room < LONGEST {
        let next = start.wrapping_add(u64::try_from(room).unwrap_or(0));
        if let Ok(second) = translate(cpu, machine, next, Access::Fetch)
            && let Some(part) = code.bytes.get_mut(room..)
            && machine.ram_read(second, part)
        {
            code.len = LONGEST;
        }
    }
    Ok(code)
}
