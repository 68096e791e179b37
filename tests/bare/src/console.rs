// SPDX-License-Identifier: MIT OR Apache-2.0
//! Text on the kernel's debug console, through the message words of the calling thread.

use crate::kernel::{call, message};
use cloister_abi::hip::MACHINE;
use cloister_abi::hypercall::{MachineControl, MachineOp};
use cloister_abi::utcb::WORDS;
use core::fmt;

/// Longest piece of text that goes out at once, bytes.
const LINE: usize = 256;
const _: () = assert!(LINE <= WORDS * 8);

/// Collects text and hands it over line by line, so that lines of several threads do not mix.
#[derive(Debug)]
pub struct Console {
    text: [u8; LINE],
    length: usize,
}

impl Console {
    /// With nothing to say yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { text: [0; LINE], length: 0 }
    }

    /// Hands over what was collected.
    pub fn flush(&mut self) {
        let length = core::mem::take(&mut self.length);
        for (index, piece) in self.text[..length].chunks(8).enumerate() {
            let mut word = [0; 8];
            word[..piece.len()].copy_from_slice(piece);
            message().set(index, u64::from_le_bytes(word));
        }
        // There is nowhere to complain to.
        let _ = call(&MachineControl { machine: MACHINE, operation: MachineOp::Console as u64, value: length as u64 });
    }
}

impl Default for Console {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            self.text[self.length] = byte;
            self.length += 1;
            if self.length == LINE {
                self.flush();
            }
        }
        Ok(())
    }
}

/// Writes text at once.
pub fn print(text: fmt::Arguments<'_>) {
    let mut console = Console::new();
    // The console takes everything.
    let _ = fmt::Write::write_fmt(&mut console, text);
    console.flush();
}

/// Writes a line.
#[macro_export]
macro_rules! println {
    ($($text:tt)*) => { $crate::console::print(format_args!("{}\n", format_args!($($text)*))) };
}
