// SPDX-License-Identifier: MIT OR Apache-2.0
//! A guest of some kilobytes in the format of a Linux kernel (64-bit boot protocol; Linux `Documentation/arch/x86/boot.rst`). The first word
//! of its command line says what it does:
//!
//! | word | what it does |
//! |---|---|
//! | `off` | says so, and powers off |
//! | `reset` | resets the machine |
//! | `measure` | times exits in instructions (with `-icount`), prints `bench NAME VALUE instructions`, powers off |
//! | `ports SEED` | reads and writes rubbish at every port but those that end the machine |
//! | `registers SEED` | reads and writes rubbish in model-specific registers |
//! | `memory SEED` | reads and writes rubbish where devices may be |
//! | `code SEED` | executes random bytes until it dies |
//! | `spin` | does nothing, for ever |
//!
//! Exceptions in the first five are survived: the handler goes on behind the instruction that the test is about.
#![no_std]
#![no_main]
#![expect(unsafe_code, reason = "a guest kernel: ports, registers, device memory")]

mod boot;
mod machine;
mod measure;
mod random;
mod rubbish;

use core::fmt::Write;
use core::panic::PanicInfo;
use machine::Serial;

/// What the command line says, from the entry on.
fn run(command: &str) -> ! {
    let mut words = command.split_ascii_whitespace();
    let task = words.next().unwrap_or("off");
    let seed = words.next().and_then(|word| word.parse().ok()).unwrap_or(1);
    let mut random = random::Random::new(seed);
    // The serial port takes everything.
    let _ = writeln!(Serial, "small guest: {task} {seed}");
    match task {
        "measure" => measure::run(),
        "ports" => rubbish::ports(&mut random),
        "registers" => rubbish::registers(&mut random),
        "memory" => rubbish::memory(&mut random),
        "code" => rubbish::code(&mut random),
        "spin" => loop {
            core::hint::spin_loop();
        },
        "reset" => machine::reset(),
        _ => {}
    }
    let _ = writeln!(Serial, "small guest: done");
    machine::power_off()
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    let _ = writeln!(Serial, "small guest: {info}");
    machine::power_off()
}
