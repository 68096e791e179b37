// SPDX-License-Identifier: MIT OR Apache-2.0
//! The kernel's table of its own functions, in the section that `link.ld` leaves room for and `xtask` fills after the link. A kernel
//! that was linked by hand has none; its backtraces then have no names, and are a guess.

use crate::width::low32;
use cloister_symbols::{Place, Table};

unsafe extern "C" {
    static TEXT_START: u8;
    static TEXT_END: u8;
    static SYMBOLS_START: u8;
    static SYMBOLS_END: u8;
}

/// The table.
fn table() -> Option<Table<'static>> {
    let start = &raw const SYMBOLS_START;
    let size = (&raw const SYMBOLS_END).addr() - start.addr();
    // SAFETY: the linker script puts both at the ends of one section, which is never written.
    Table::new(unsafe { core::slice::from_raw_parts(start, size) })
}

/// Whether there is a table.
pub(crate) fn are_there() -> bool {
    table().is_some()
}

/// Whether this is an address in the kernel's code.
pub(crate) fn is_code(address: u64) -> bool {
    ((&raw const TEXT_START).addr() as u64..(&raw const TEXT_END).addr() as u64).contains(&address)
}

/// What is known of an address in the kernel's code.
pub(crate) fn find(address: u64) -> Option<Place<'static>> {
    let offset = address.checked_sub((&raw const TEXT_START).addr() as u64).filter(|_| is_code(address))?;
    table()?.find(low32(offset))
}
