// SPDX-License-Identifier: MIT OR Apache-2.0
//! PVH: one structure with pointers to a list of modules, the command line, and the memory map.

use cloister_abi::hip::MemoryKind;

use crate::{Info, Memory, kind};

const MAGIC: u32 = 0x336e_c578;
/// More entries of a memory map are nonsense.
const ENTRIES: u32 = 4096;
/// Size of an entry.
const ENTRY: u64 = 24;

pub(crate) fn read(
    memory: &Memory<'_>,
    start: u64,
    info: &mut Info,
    range: &mut dyn FnMut(u64, u64, MemoryKind),
) -> Option<()> {
    let field = |offset: u64| start.checked_add(offset);
    // The memory map is there from version 1 on.
    if memory.u32(start)? != MAGIC || memory.u32(field(4)?)? < 1 {
        return None;
    }
    if memory.u32(field(12)?)? > 0 {
        let module = memory.u64(field(16)?)?;
        info.image = (memory.u64(module)?, memory.u64(module.checked_add(8)?)?);
    }
    let cmdline = memory.u64(field(24)?)?;
    if cmdline != 0 {
        memory.string(cmdline, &mut info.cmdline);
    }
    info.rsdp = memory.u64(field(32)?)?;
    let (map, entries) = (memory.u64(field(40)?)?, memory.u32(field(48)?)?);
    if entries > ENTRIES {
        return None;
    }
    for index in 0..u64::from(entries) {
        let entry = map.checked_add(ENTRY.checked_mul(index)?)?;
        let (size, number) = (memory.u64(entry.checked_add(8)?)?, memory.u32(entry.checked_add(16)?)?);
        range(memory.u64(entry)?, size, kind(number));
    }
    Some(())
}
