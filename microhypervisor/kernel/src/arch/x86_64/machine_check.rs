// SPDX-License-Identifier: MIT OR Apache-2.0
//! Machine checks: errors of the hardware, as the processor reports them in banks of registers.
//!
//! Each core has banks of its own, and some that it shares. All are switched on at boot; what they hold is told and cleared when an exception
//! says so, and every minute besides, since errors that hardware put right cause no exception. An error that hardware could not
//! put right stops the machine: what it damaged may be anybody's.
//!
//! An exception can come at any point, also while the console is being written, so its words may stand amid others.
//!
//! Sources: Intel SDM vol. 3, 16.3 (registers), 16.8 (initialization), 16.10 (handlers); AMD APM vol. 2, 9.4 and 9.6.

use super::cpu::{self, feature};
use super::timer;
use crate::console::Console;
use crate::flood::Flood;
use crate::percore::core;
use cloister_processor::machine_check::{BANKS, Severity, Status};
use core::fmt::Write;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use x86::msr::{rdmsr, wrmsr};

const MCG_CAP: u32 = 0x179;
const MCG_STATUS: u32 = 0x17a;
const MCG_CTL: u32 = 0x17b;
/// `MCG_STATUS`: what was interrupted can go on.
const RESTARTABLE: u64 = 1;

/// When each core looks again, ticks.
static NEXT: [AtomicU64; 64] = [const { AtomicU64::new(0) }; 64];
/// Microseconds between two looks.
const PERIOD: u64 = 60_000_000;
/// Errors that were put right, which a failing module has by the thousand.
static TOLD: Flood = Flood::new();

/// Whether the processor has banks and an exception for them.
pub(crate) fn is_supported() -> bool {
    cpu::has(feature::MACHINE_CHECK | feature::MACHINE_BANKS)
}

fn capabilities() -> u64 {
    // SAFETY: the register exists where there are banks, which each caller has checked.
    unsafe { rdmsr(MCG_CAP) }
}

/// Switches this core's banks on, after telling what they kept over a reset.
pub(crate) fn init_core() {
    if !is_supported() {
        return;
    }
    let capabilities = capabilities();
    collect("found at boot");
    if capabilities >> 8 & 1 != 0 {
        // SAFETY: the register exists; all kinds of errors are reported.
        unsafe { wrmsr(MCG_CTL, u64::MAX) };
    }
    for bank in 0..capabilities & 0xff {
        // SAFETY: the bank exists; all of its kinds of errors are reported.
        unsafe { wrmsr(BANKS + 4 * crate::width::low32(bank), u64::MAX) };
    }
}

/// Tells and clears what this core's banks hold. Answers the worst of it.
fn collect(when: &str) -> Severity {
    let capabilities = capabilities();
    let mut worst = Severity::None;
    for bank in 0..capabilities & 0xff {
        let register = BANKS + 4 * crate::width::low32(bank);
        // SAFETY: the bank exists.
        let status = Status(unsafe { rdmsr(register + 1) });
        let severity = status.severity(cpu::features(), capabilities >> 24 & 1 != 0);
        if severity == Severity::None {
            continue;
        }
        // SAFETY: the register exists where the status says that it has something.
        let address = if status.has_address() { unsafe { rdmsr(register + 2) } } else { 0 };
        // SAFETY: as above.
        let more = if status.has_more() { unsafe { rdmsr(register + 3) } } else { 0 };
        let tell = |count| {
            let _ = writeln!(
                Console,
                "[kernel] error: machine check {when}, core {}, bank {bank}: {severity:?}, {}, status {:#x}, address {address:#x}, more {more:#x}{} ({count})",
                core().id,
                status.kind(),
                status.0,
                if status.has_overflowed() { ", others lost" } else { "" },
            );
        };
        if severity == Severity::Fatal {
            tell(1)
        } else {
            TOLD.tell(tell)
        }
        // SAFETY: the bank exists; zero is what clears it.
        unsafe { wrmsr(register + 1, 0) };
        worst = worst.max(severity);
    }
    worst
}

/// The exception came, in the kernel or a component.
pub(crate) fn raised(when: &str, address: u64) {
    if !is_supported() {
        panic!("machine check {when} at {address:#x}, on a processor without banks");
    }
    let worst = collect(when);
    // SAFETY: the register exists where there are banks.
    let restartable = unsafe { rdmsr(MCG_STATUS) } & RESTARTABLE != 0;
    // Fatal ones found at boot are history; one that comes now is not.
    if worst == Severity::Fatal || !restartable {
        panic!("the hardware reported an error that it could not put right: the machine stops");
    }
    // SAFETY: as above; zero lets the next exception come, which would reset the machine before.
    unsafe { wrmsr(MCG_STATUS, 0) };
}

/// Looks for errors that caused no exception, if it was not done for a minute.
pub(crate) fn poll() {
    let Some(next) = NEXT.get(usize::from(core().id)) else { return };
    let now = cpu::ticks();
    if now >= next.load(Relaxed) && is_supported() {
        next.store(now + timer::from_micros(PERIOD), Relaxed);
        collect("found");
    }
}
