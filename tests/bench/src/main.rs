// SPDX-License-Identifier: MIT OR Apache-2.0
//! Path lengths of the kernel.
#![no_std]
#![no_main]
#![expect(unsafe_code, reason = "the program start")]

fn main() -> bool {
    true
}

cloister_bare::root_task!(main);
