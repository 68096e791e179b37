// SPDX-License-Identifier: MIT OR Apache-2.0
//! PVH: one structure with pointers to a list of modules, the command line, and the memory map.

use cloister_abi::hip::{CMDLINE, MemoryKind};

use crate::{Info, Part, Reader, kind};

const MAGIC: u32 = 0x336e_c578;
/// More entries of a memory map are nonsense.
const ENTRIES: u32 = 4096;
/// Size of an entry.
const ENTRY: u64 = 24;

pub(crate) fn read(
    memory: Reader<'_>,
    start: u64,
    info: &mut Info,
    range: &mut dyn FnMut(u64, u64, MemoryKind),
) -> Option<()> {
    let start = Part::new(memory, start, 56)?;
    // The memory map is there from version 1 on.
    if start.u32(0)? != MAGIC || start.u32(4)? < 1 {
        return None;
    }
    if start.u32(12)? > 0 {
        let module = Part::new(memory, start.number(16, 8)?, 16)?;
        info.image = (module.number(0, 8)?, module.number(8, 8)?);
    }
    let cmdline = start.number(24, 8)?;
    if cmdline != 0 {
        Part::new(memory, cmdline, CMDLINE as u64)?.string(0, &mut info.cmdline);
    }
    info.rsdp = start.number(32, 8)?;
    let entries = start.u32(48).filter(|entries| *entries <= ENTRIES)?;
    for number in 0..u64::from(entries) {
        let offset = ENTRY.checked_mul(number)?;
        let entry = Part::new(memory, start.number(40, 8)?.checked_add(offset)?, ENTRY)?;
        range(entry.number(0, 8)?, entry.number(8, 8)?, kind(entry.u32(16)?));
    }
    Some(())
}
