// SPDX-License-Identifier: MIT OR Apache-2.0
//! The callers of a place in the kernel.
//!
//! The kernel keeps no frame pointers: they cost three instructions per function on the fast paths. [`crate::symbols`] says for each
//! instruction how far above the stack pointer the caller's frame begins, and where the caller's RBP is.
//!
//! Rule: a stack may be damaged. Nothing is read that is not mapped, and the number of steps is bounded.

use super::entry::Frame;
use super::paging;
use crate::console::Console;
use crate::symbols;
use cloister_symbols::{Place, Rule};
use core::fmt::{self, Write};
use core::mem::offset_of;

/// Most callers that are looked at, and most that are shown.
const MOST: usize = 8192;
const LINES: usize = 48;

/// Where something was.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Registers {
    rip: u64,
    rsp: u64,
    rbp: u64,
    /// The instruction at RIP is the place itself, not the one after a call.
    exact: bool,
}

impl Registers {
    /// Where this is called.
    #[inline(always)]
    pub(crate) fn here() -> Self {
        let (rip, rsp, rbp);
        // SAFETY: reads registers.
        unsafe {
            core::arch::asm!(
                "lea {}, [rip]", "mov {}, rsp", "mov {}, rbp",
                out(reg) rip, out(reg) rsp, out(reg) rbp, options(nomem, nostack, preserves_flags)
            );
        }
        Self { rip, rsp, rbp, exact: true }
    }

    /// Where an exception or interrupt came.
    pub(crate) const fn of(frame: &Frame) -> Self {
        Self { rip: frame.rip, rsp: frame.rsp, rbp: frame.rbp, exact: true }
    }

    /// What is known of the place. After a call that never returns, the return address may lie in the next function already.
    fn place(self) -> Option<Place<'static>> {
        symbols::find(self.rip.wrapping_sub(u64::from(!self.exact)))
    }

    /// The same for the caller.
    fn caller(self) -> Option<Self> {
        // A call of something that is no code: the return address was just pushed.
        let called = Rule::Frame { base: false, words: 1, saved: 0 };
        match self.place().map_or(called, |place| place.rule) {
            Rule::End => None,
            Rule::Frame { base, words, saved } => {
                let cfa = if base { self.rbp } else { self.rsp }.checked_add(8 * u64::from(words))?;
                let rbp = if saved == 0 { self.rbp } else { word(cfa.checked_sub(8 * u64::from(saved))?)? };
                Some(Self { rip: word(cfa.checked_sub(8)?)?, rsp: cfa, rbp, exact: false })
            }
            Rule::Interrupted => {
                let [rip, rsp, rbp] = [offset_of!(Frame, rip), offset_of!(Frame, rsp), offset_of!(Frame, rbp)]
                    .map(|offset| word(self.rbp.checked_add(offset as u64)?));
                Some(Self { rip: rip?, rsp: rsp?, rbp: rbp?, exact: true })
            }
        }
    }
}

/// A word of the kernel's memory, if there is any.
fn word(address: u64) -> Option<u64> {
    if !address.is_multiple_of(8) || !paging::is_kernel_memory(address) {
        return None;
    }
    let pointer: *const u64 = core::ptr::with_exposed_provenance(crate::width::index(address));
    // SAFETY: mapped, aligned memory of the kernel; only a number is read.
    Some(unsafe { pointer.read_volatile() })
}

/// Prints the callers.
pub(crate) fn print(start: Registers) {
    let (mut at, mut last, mut lines) = (Some(start), 0, 0);
    for number in 0..MOST {
        let Some(here) = at else { return };
        at = here.caller().filter(|caller| caller.rsp > here.rsp || here.exact || caller.exact);
        // A recursion is shown by its first and its last.
        if here.rip == last && at.is_some_and(|caller| caller.rip == here.rip) {
            continue;
        }
        (last, lines) = (here.rip, lines + 1);
        if lines > LINES {
            break;
        }
        let _ = match here.place() {
            Some(place) => {
                let offset = place.offset + u32::from(!here.exact);
                writeln!(Console, "[kernel] {number:4} {:#x} {}+{offset:#x}", here.rip, place.name)
            }
            None => writeln!(Console, "[kernel] {number:4} {:#x} in no function that is known", here.rip),
        };
    }
    let _ = writeln!(Console, "[kernel]      and more");
}

/// An exception in the kernel, in words: what, where, and the registers.
pub(crate) struct Cause<'a>(pub(crate) &'a Frame);

impl fmt::Display for Cause<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let frame = self.0;
        // SAFETY: reads control registers.
        let address = unsafe { x86::controlregs::cr2() };
        // SAFETY: as above.
        let root = unsafe { x86::controlregs::cr3() };
        write!(out, "exception {} (error {:#x}, address {address:#x}) in the kernel", frame.vector, frame.error)?;
        if !paging::is_kernel_memory(frame.rsp.wrapping_sub(8)) {
            write!(out, "\n[kernel] the stack pointer is in no memory of the kernel: a stack overflow?")?;
        }
        write!(out, "\n[kernel] cr3: {root:#x}, {frame:#x?}")
    }
}

/// Reads where nothing is, to test what the kernel says then.
#[inline(never)]
pub(crate) fn wild_access() {
    let nowhere: *const u64 = core::ptr::with_exposed_provenance(0xffff_f000_dead_0000);
    // SAFETY: nothing is ever mapped there: the exception is what is asked for.
    unsafe { core::arch::asm!("mov {}, [{}]", out(reg) _, in(reg) nowhere, options(nostack, readonly)) };
}
