// SPDX-License-Identifier: MIT OR Apache-2.0
//! The architecture's door: one module per architecture with the same names behind it.
//!
//! `Frame`, `Head` (per core), `Host`/`Guest` page-table formats, `cpu`, `irq`, `timer`, `console`, `fpu`, `guest`, `power`, `boot`.

#[cfg(target_arch = "x86_64")]
mod x86_64;
#[cfg(target_arch = "x86_64")]
pub(crate) use x86_64::*;
