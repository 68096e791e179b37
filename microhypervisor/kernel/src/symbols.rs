// SPDX-License-Identifier: MIT OR Apache-2.0
//! The kernel's table of its own functions, in the section that `link.ld` leaves room for and `xtask` fills after the link. A kernel
//! that was linked by hand has none; its backtraces then show what lies on the stack.

use cloister_symbols::{Place, Table};

unsafe extern "C" {
    static TEXT_START: u8;
    static SYMBOLS_START: u8;
    static SYMBOLS_END: u8;
}

/// What is known of an address in the kernel's code.
pub(crate) fn find(address: u64) -> Option<Place<'static>> {
    let start = &raw const SYMBOLS_START;
    let size = (&raw const SYMBOLS_END).addr() - start.addr();
    // SAFETY: the linker script puts both at the ends of one section, which is never written.
    let table = Table::new(unsafe { core::slice::from_raw_parts(start, size) })?;
    let offset = address.checked_sub((&raw const TEXT_START).addr() as u64)?;
    table.find(u32::try_from(offset).ok()?)
}
