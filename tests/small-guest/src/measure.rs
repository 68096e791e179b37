// SPDX-License-Identifier: MIT OR Apache-2.0
//! Exits in instructions from guest to guest: under `-icount shift=0` the time-stamp counter counts them, the host's included.

use crate::machine::{Serial, in8};
use core::arch::asm;
use core::arch::x86_64::__cpuid;
use core::fmt::Write;

fn ticks() -> u64 {
    // SAFETY: RDTSC is harmless.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// The least of many runs: the first ones fill caches and take interrupts.
fn least(mut action: impl FnMut()) -> u64 {
    let run = |action: &mut dyn FnMut()| {
        let start = ticks();
        action();
        ticks() - start
    };
    let nothing = (0..100).map(|_| run(&mut || {})).min().unwrap_or(0);
    let something = (0..1000).map(|_| run(&mut action)).min().unwrap_or(0);
    something.saturating_sub(nothing)
}

/// Prints a line for each.
pub(crate) fn run() {
    let port = least(|| {
        in8(0x3fd);
    });
    let cpuid = least(|| {
        core::hint::black_box(__cpuid(0x4000_0000));
    });
    let msr = least(|| {
        // SAFETY: reads the APIC base, which every PC has.
        unsafe { asm!("rdmsr", in("ecx") 0x1b, out("eax") _, out("edx") _) };
    });
    // The names under which `cargo xtask bench` has figures to compare with.
    for (name, value) in [("port-read", port), ("guest-cpuid", cpuid), ("guest-rdmsr", msr)] {
        let _ = writeln!(Serial, "bench {name} {value} instructions");
    }
    let _ = writeln!(Serial, "bench done");
}
