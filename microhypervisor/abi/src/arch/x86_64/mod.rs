// SPDX-License-Identifier: MIT OR Apache-2.0
//! x86_64: how a hypercall lies in registers, what an exception message holds, and the state page of a virtual CPU.
//!
//! | | registers |
//! |---|---|
//! | number | `rax` = [`HYPERCALL_BASE`] + number |
//! | arguments | `rdi rsi rdx r10 r8 r9` |
//! | results | `rax` = status, `rdi`, `rsi` |
//! | lost | `rcx`, `r11` (the `syscall` instruction) |
//! | kept | all others |
//!
//! A portal's entry starts with `rdi` = identity of the portal, `rsi` = header of the message, `rsp` = as it was when the EC
//! answered last (at first, as it was created); GS base = address of the UTCB in every EC, whenever it is given the processor;
//! all other registers are as the EC left them when it answered (at first 0). Nothing of the caller's registers is seen there.
//! The kernel keeps FS base per EC, for the component's own use.

pub mod exception;
pub mod vcpu;

/// System-call numbers from here on are hypercalls; all others are foreign. No operating system uses numbers like this.
pub const HYPERCALL_BASE: u64 = 0x434c_0000;
