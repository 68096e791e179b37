// SPDX-License-Identifier: MIT OR Apache-2.0
//! Assembly of both world switches: general-purpose registers out of [`crate::Registers`] and back.

/// `$moves!` of the registers that neither extension switches and no pointer is in (all but RAX, RSP, RDI), with the register that
/// points to [`crate::Registers`].
#[macro_export]
macro_rules! general_registers {
    ($moves:ident, $base:literal) => {
        $crate::$moves!($base: "rcx" 1, "rdx" 2, "rbx" 3, "rbp" 5, "rsi" 6, "r8" 8, "r9" 9, "r10" 10, "r11" 11,
            "r12" 12, "r13" 13, "r14" 14, "r15" 15)
    };
}

/// Loads registers.
#[macro_export]
macro_rules! load_moves {
    ($base:literal: $($register:literal $index:literal),+) => {
        concat!($("mov ", $register, ", [", $base, " + ", $index, " * 8]\n"),+)
    };
}

/// Stores registers.
#[macro_export]
macro_rules! store_moves {
    ($base:literal: $($register:literal $index:literal),+) => {
        concat!($("mov [", $base, " + ", $index, " * 8], ", $register, "\n"),+)
    };
}
