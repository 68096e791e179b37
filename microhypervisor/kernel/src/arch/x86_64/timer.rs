// SPDX-License-Identifier: MIT OR Apache-2.0
//! Time: the time-stamp counter as clock, the local APIC's timer as alarm (one shot; TSC deadline where the processor has it).
//!
//! Both are calibrated against channel 2 of the PIT (Intel 8254 data sheet; port 0x61 gates it): 1,193,182 Hz.

use super::apic;
use super::cpu::{self, feature};
use crate::width::low8;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use x86::io::{inb, outb};

const PIT_HZ: u64 = 1_193_182;
/// Calibration takes this many PIT ticks: 10 ms.
const WINDOW: u64 = PIT_HZ / 100;

static TSC_HZ: AtomicU64 = AtomicU64::new(1_000_000_000);
/// Timer ticks per time-stamp tick, as a fraction of 2^32.
static RATIO: AtomicU64 = AtomicU64::new(1 << 32);

/// Frequency of the time-stamp counter, Hz.
pub(crate) fn tsc_hz() -> u64 {
    TSC_HZ.load(Relaxed)
}

/// Ticks of so many microseconds, as far as they fit.
pub(crate) fn from_micros(micros: u64) -> u64 {
    u64::try_from(u128::from(micros) * u128::from(tsc_hz()) / 1_000_000).unwrap_or(u64::MAX)
}

/// Measures both counters over one window of the PIT.
fn measure() -> (u64, u64) {
    // SAFETY: the port that gates the PIT's channel 2 and the speaker; reading has no effect.
    let gate = unsafe { inb(0x61) } & !3;
    for (port, value) in [(0x61, gate), (0x43, 0xb0), (0x42, low8(WINDOW)), (0x42, low8(WINDOW >> 8)), (0x61, gate | 1)]
    {
        // SAFETY: the PIT is the kernel's at boot: channel 2, one-shot, speaker off, gate on.
        unsafe { outb(port, value) };
    }
    apic::timer_count_from(u32::MAX);
    let start = cpu::ticks();
    let mut rounds = 0u64;
    // SAFETY: reads the output of channel 2.
    while unsafe { inb(0x61) } & 0x20 == 0 && rounds < 100_000_000 {
        rounds += 1;
    }
    let timer = u64::from(u32::MAX - apic::timer_count());
    let ticks = cpu::ticks() - start;
    apic::timer_count_from(0);
    (ticks, timer)
}

/// Calibrates, then switches the alarm on.
pub(crate) fn init() {
    // The shorter of two runs: an emulator or a management interrupt only ever makes it longer.
    let (ticks, timer) = [measure(), measure()].into_iter().min().unwrap_or((1, 1));
    let (ticks, timer) = (ticks.max(1), timer.max(1));
    TSC_HZ.store(ticks * PIT_HZ / WINDOW, Relaxed);
    RATIO.store(u64::try_from((u128::from(timer) << 32) / u128::from(ticks)).unwrap_or(1 << 32), Relaxed);
    apic::start_timer();
}

/// Arms the alarm for an absolute tick, `u64::MAX` for never. A tick that has passed alarms at once.
pub(crate) fn arm(tick: u64, now: u64) {
    if cpu::has(feature::TSC_DEADLINE) {
        apic::arm_deadline(if tick == u64::MAX { 0 } else { tick.max(1) });
        return;
    }
    if tick == u64::MAX {
        apic::timer_count_from(0);
        return;
    }
    let count = (u128::from(tick.saturating_sub(now)) * u128::from(RATIO.load(Relaxed))) >> 32;
    // One more than rounded down, so that the alarm is never early; a far one is armed again when the counter is through.
    apic::timer_count_from(u32::try_from(count).unwrap_or(u32::MAX - 1).saturating_add(1));
}
