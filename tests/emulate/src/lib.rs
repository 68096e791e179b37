// SPDX-License-Identifier: MIT OR Apache-2.0
//! Compares the VMM's instruction emulator with the processor that runs the test.
//!
//! Each of some 200 instructions is assembled into this program, executed by the processor on random registers, flags
//! and memory, and then executed by `cloister-emulate` from the same bytes on the same state, with its memory operands
//! in device memory. Registers, defined flags and memory must agree. There is nothing in this crate but the test; on
//! processors other than x86-64 there is nothing at all.
#![cfg_attr(
    all(test, target_arch = "x86_64"),
    expect(unsafe_code, reason = "executes instructions that the test assembled")
)]

#[cfg(target_arch = "x86_64")]
#[cfg(test)]
mod tests;
