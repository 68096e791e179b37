// SPDX-License-Identifier: MIT OR Apache-2.0
//! Guest page tables: from linear to guest-physical addresses (SDM volume 3 chapter 4).
//!
//! All paging modes of x86: none, 32-bit, PAE, four and five levels. Rights are checked as section 4.6 says, and the
//! accessed and dirty flags are set (section 4.8).
//!
//! Rule: an entry is read once, and its flags are set by writing one byte. A guest that changes the same byte from
//! another VCPU at that moment may see its change undone; it harms no one but itself.

use crate::cpu::{Cpu, flag};
use crate::{Exception, Machine};

/// What an address is translated for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reading data.
    Read,
    /// Writing data.
    Write,
    /// Fetching an instruction.
    Fetch,
}

const CR0_WP: u64 = 1 << 16;
const CR0_PG: u64 = 1 << 31;
const CR4_PSE: u64 = 1 << 4;
const CR4_PAE: u64 = 1 << 5;
const CR4_LA57: u64 = 1 << 12;
const CR4_SMEP: u64 = 1 << 20;
const CR4_SMAP: u64 = 1 << 21;
const EFER_LMA: u64 = 1 << 10;
const EFER_NXE: u64 = 1 << 11;

const PRESENT: u64 = 1 << 0;
const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
const LARGE: u64 = 1 << 7;
const NO_EXECUTE: u64 = 1 << 63;
/// Bits 51:12 of an entry.
const FRAME: u64 = 0x000f_ffff_ffff_f000;

/// Bits of a page-fault error code (section 4.7).
mod code {
    pub(super) const PRESENT: u32 = 1 << 0;
    pub(super) const WRITE: u32 = 1 << 1;
    pub(super) const USER: u32 = 1 << 2;
    pub(super) const RESERVED: u32 = 1 << 3;
    pub(super) const FETCH: u32 = 1 << 4;
}

/// The shape of a paging mode.
#[derive(Clone, Copy)]
struct Shape {
    /// Bits of the linear address that index each level, from the root down: shifts.
    levels: &'static [u32],
    /// Bits per index.
    index_bits: u32,
    /// Bytes per entry.
    entry: usize,
}

const LEGACY: Shape = Shape { levels: &[22, 12], index_bits: 10, entry: 4 };
const PAE: Shape = Shape { levels: &[30, 21, 12], index_bits: 9, entry: 8 };
const LONG4: Shape = Shape { levels: &[39, 30, 21, 12], index_bits: 9, entry: 8 };
const LONG5: Shape = Shape { levels: &[48, 39, 30, 21, 12], index_bits: 9, entry: 8 };

/// Translates `linear`.
///
/// # Errors
/// The exception that the processor would raise: a page fault, or one for an address that is not canonical.
pub fn translate(cpu: &Cpu, machine: &impl Machine, linear: u64, access: Access) -> Result<u64, Exception> {
    let a20 = if cpu.a20_closed { !(1 << 20) } else { u64::MAX };
    if cpu.cr0 & CR0_PG == 0 {
        return Ok(linear & 0xffff_ffff & a20);
    }
    let (shape, linear) = if cpu.efer & EFER_LMA != 0 {
        let five = cpu.cr4 & CR4_LA57 != 0;
        check_canonical(linear, if five { 57 } else { 48 })?;
        (if five { LONG5 } else { LONG4 }, linear)
    } else {
        (if cpu.cr4 & CR4_PAE != 0 { PAE } else { LEGACY }, linear & 0xffff_ffff)
    };
    Walk { cpu, machine, linear, access, shape }.run().map(|gpa| gpa & a20)
}

fn check_canonical(linear: u64, bits: u32) -> Result<(), Exception> {
    let unused = 64u32.saturating_sub(bits);
    let extended = ((linear << unused).cast_signed() >> unused).cast_unsigned();
    if extended == linear { Ok(()) } else { Err(Exception::GeneralProtection) }
}

struct Walk<'a, M> {
    cpu: &'a Cpu,
    machine: &'a M,
    linear: u64,
    access: Access,
    shape: Shape,
}

impl<M: Machine> Walk<'_, M> {
    fn run(&self) -> Result<u64, Exception> {
        let pae = self.shape.levels.len() == 3;
        let mut table = if pae { self.cpu.cr3 & 0xffff_ffe0 } else { self.cpu.cr3 & FRAME };
        let mut rights = WRITABLE | USER;
        let mut no_execute = false;
        for (depth, shift) in self.shape.levels.iter().enumerate() {
            let root_of_pae = pae && depth == 0;
            let at = table.wrapping_add(self.index(*shift, root_of_pae));
            let entry = self.load(at)?;
            if entry & PRESENT == 0 {
                return Err(self.fault(0));
            }
            if root_of_pae {
                // The four entries have neither rights nor flags (section 4.4.1).
                table = entry & FRAME;
                continue;
            }
            if entry & NO_EXECUTE != 0 && self.shape.entry == 8 {
                if self.cpu.efer & EFER_NXE == 0 {
                    return Err(self.fault(code::PRESENT | code::RESERVED));
                }
                no_execute = true;
            }
            rights &= entry;
            let leaf = *shift == 12 || self.is_large(entry, *shift);
            if !leaf {
                self.mark(at, entry, ACCESSED);
                table = entry & FRAME;
                continue;
            }
            self.check(rights, no_execute)?;
            self.mark(at, entry, if self.access == Access::Write { ACCESSED | DIRTY } else { ACCESSED });
            return Ok(self.frame(entry, *shift) | (self.linear & low_mask(*shift)));
        }
        Err(self.fault(0))
    }

    /// Byte offset in a table.
    fn index(&self, shift: u32, root_of_pae: bool) -> u64 {
        let bits = if root_of_pae { 2 } else { self.shape.index_bits };
        let index = (self.linear >> shift) & low_mask(bits);
        index.wrapping_mul(u64::try_from(self.shape.entry).unwrap_or(8))
    }

    fn load(&self, at: u64) -> Result<u64, Exception> {
        let mut bytes = [0u8; 8];
        let part = bytes.get_mut(..self.shape.entry).unwrap_or_default();
        // Tables outside of guest memory read as ones on hardware, which is an entry with reserved bits set.
        if self.machine.ram_read(at, part) {
            Ok(u64::from_le_bytes(bytes))
        } else {
            Err(self.fault(code::PRESENT | code::RESERVED))
        }
    }

    fn is_large(&self, entry: u64, shift: u32) -> bool {
        let allowed = match self.shape.entry {
            4 => shift == 22 && self.cpu.cr4 & CR4_PSE != 0,
            _ => shift == 21 || (shift == 30 && self.shape.levels.len() > 3),
        };
        allowed && entry & LARGE != 0
    }

    /// Guest-physical address of the page that a leaf at `shift` maps.
    fn frame(&self, entry: u64, shift: u32) -> u64 {
        if self.shape.entry == 4 && shift == 22 {
            // PSE-36: bits 20:13 are bits 39:32 of the address (section 4.3).
            return (entry & 0xffc0_0000) | ((entry >> 13) & 0xff) << 32;
        }
        entry & FRAME & !low_mask(shift)
    }

    /// Access rights (section 4.6).
    fn check(&self, rights: u64, no_execute: bool) -> Result<(), Exception> {
        let user_mode = self.cpu.cpl == 3;
        let user_page = rights & USER != 0;
        let writable = rights & WRITABLE != 0;
        let allowed = match (self.access, user_mode) {
            (_, true) if !user_page => false,
            (Access::Read, true) => true,
            (Access::Write, true) => writable,
            (Access::Fetch, true) => !no_execute,
            (Access::Fetch, false) => !(no_execute || user_page && self.cpu.cr4 & CR4_SMEP != 0),
            (Access::Read, false) => self.may_touch(user_page),
            (Access::Write, false) => self.may_touch(user_page) && (writable || self.cpu.cr0 & CR0_WP == 0),
        };
        if allowed { Ok(()) } else { Err(self.fault(code::PRESENT)) }
    }

    /// Supervisor-mode access prevention.
    const fn may_touch(&self, user_page: bool) -> bool {
        !user_page || self.cpu.cr4 & CR4_SMAP == 0 || self.cpu.has(flag::AC)
    }

    fn mark(&self, at: u64, entry: u64, flags: u64) {
        if entry & flags != flags {
            let [low, ..] = (entry | flags).to_le_bytes();
            // It was readable, so that it is guest memory; should it be gone, the flags are lost with it.
            let _written = self.machine.ram_write(at, &[low]);
        }
    }

    fn fault(&self, cause: u32) -> Exception {
        let mut code = cause;
        if self.access == Access::Write {
            code |= code::WRITE;
        }
        if self.cpu.cpl == 3 {
            code |= code::USER;
        }
        if self.access == Access::Fetch && (self.cpu.efer & EFER_NXE != 0 || self.cpu.cr4 & CR4_SMEP != 0) {
            code |= code::FETCH;
        }
        Exception::Page { address: self.linear, code }
    }
}

const fn low_mask(bits: u32) -> u64 {
    match 1u64.checked_shl(bits) {
        Some(bit) => bit.wrapping_sub(1),
        None => u64::MAX,
    }
}
