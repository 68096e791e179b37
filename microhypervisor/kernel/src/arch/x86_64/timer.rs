// SPDX-License-Identifier: MIT OR Apache-2.0
//! Time: the time-stamp counter as clock, the local APIC's timer as alarm (one shot; TSC deadline where the processor has it).
//!
//! Both are calibrated against channel 2 of the PIT (Intel 8254 data sheet; port 0x61 gates it): 1,193,182 Hz. All three are read
//! together at two moments, so that it does not matter how long the way between them takes: on a busy host an emulator's processor
//! may stand still at any instruction.

use super::apic;
use super::cpu::{self, feature};
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use x86::io::{inb, outb};

const PIT_HZ: u64 = 1_193_182;
/// Calibration takes at least this many PIT ticks: 20 ms. At most it takes what the PIT can count, 55 ms.
const WINDOW: u16 = 23_864;
/// How often the counters are read together, to find a reading that nothing came between.
const READINGS: u32 = 8;
/// How often calibration is tried: an emulator may be away from its processor for longer than the PIT can count.
const TRIES: u32 = 10;

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

/// The three counters at one moment.
#[derive(Clone, Copy, Debug)]
struct Reading {
    ticks: u64,
    /// Counts down, as the next.
    pit: u16,
    timer: u32,
    /// Time-stamp ticks that reading took: the moment is as exact as this.
    took: u64,
}

/// Reads the counters, without a management interrupt or an emulator's pause in between if one can.
fn read() -> Option<Reading> {
    let one = |_| {
        let before = cpu::ticks();
        // SAFETY: latches channel 2 of the PIT, which is the kernel's at boot.
        unsafe { outb(0x43, 0x80) };
        let ticks = cpu::ticks();
        let timer = apic::timer_count();
        let took = cpu::ticks() - before;
        // SAFETY: reads what was latched, its low half first.
        let half = || u16::from(unsafe { inb(0x42) });
        let pit = half() | half() << 8;
        Reading { ticks, pit, timer, took }
    };
    (0..READINGS).map(one).min_by_key(|reading| reading.took)
}

/// Measures both counters over one window of the PIT: how far they came, and the PIT. None if the PIT was through meanwhile.
fn measure() -> Option<(u64, u64, u64)> {
    // SAFETY: the port that gates the PIT's channel 2 and the speaker; reading has no effect.
    let gate = unsafe { inb(0x61) } & !3;
    for (port, value) in [(0x61, gate), (0x43, 0xb0), (0x42, 0xff), (0x42, 0xff), (0x61, gate | 1)] {
        // SAFETY: the PIT is the kernel's at boot: channel 2, one-shot, speaker off, gate on.
        unsafe { outb(port, value) };
    }
    apic::timer_count_from(u32::MAX);
    // By the second reading the PIT has begun.
    let first = read().and_then(|_| read())?;
    let last = (0..200_000).find_map(|_| read().filter(|now| first.pit.wrapping_sub(now.pit) >= WINDOW))?;
    // SAFETY: reads the output of channel 2, which rises at 0.
    let through = unsafe { inb(0x61) } & 0x20 != 0;
    apic::timer_count_from(0);
    let pit = u64::from(first.pit.checked_sub(last.pit)?);
    let exact = (first.took + last.took).saturating_mul(200) < last.ticks - first.ticks;
    (!through && exact).then_some((last.ticks - first.ticks, u64::from(first.timer.saturating_sub(last.timer)), pit))
}

/// Calibrates, then switches the alarm on.
pub(crate) fn init() {
    let Some((ticks, timer, pit)) = (0..TRIES).find_map(|_| measure()) else {
        log::warn!("the clock could not be calibrated");
        return apic::start_timer();
    };
    let (ticks, timer) = (ticks.max(1), timer.max(1));
    TSC_HZ.store(ticks * PIT_HZ / pit, Relaxed);
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
