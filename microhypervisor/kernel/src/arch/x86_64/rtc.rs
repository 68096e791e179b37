// SPDX-License-Identifier: MIT OR Apache-2.0
//! The wall clock at boot, from the battery-backed clock (Motorola MC146818A data sheet). It is read once; time goes on by the time-stamp
//! counter.

use x86::io::{inb, outb};

fn register(index: u8) -> u8 {
    // SAFETY: the clock is the kernel's at boot; this chooses a register.
    unsafe { outb(0x70, index) };
    // SAFETY: as above; reading has no effect.
    unsafe { inb(0x71) }
}

/// Seconds since 1970-01-01 UTC, 0 if the clock makes no sense.
pub(crate) fn seconds_since_epoch() -> u64 {
    let mut last = [0; 7];
    for _ in 0..1000 {
        if register(0x0a) & 0x80 != 0 {
            continue;
        }
        let now = [0, 2, 4, 7, 8, 9, 0x32].map(register);
        if now == last {
            return convert(now, register(0x0b)).unwrap_or(0);
        }
        last = now;
    }
    0
}

fn convert(fields: [u8; 7], status: u8) -> Option<u64> {
    let afternoon = status & 2 == 0 && fields[2] & 0x80 != 0;
    let number = |value: u8| u64::from(if status & 4 != 0 { value } else { (value >> 4) * 10 + (value & 15) });
    let [second, minute, hour, day, month, year, century] =
        [fields[0], fields[1], fields[2] & 0x7f, fields[3], fields[4], fields[5], fields[6]].map(number);
    let hour = if status & 2 != 0 { hour } else { hour % 12 + if afternoon { 12 } else { 0 } };
    let year = if (19..=21).contains(&century) { century * 100 + year } else { 2000 + year };
    if second > 60 || minute > 59 || hour > 23 || !(1..=31).contains(&day) || !(1..=12).contains(&month) || year < 1970
    {
        return None;
    }
    // Days since 1970-01-01 in the proleptic Gregorian calendar, with years that begin in March.
    let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1;
    Some((days - 719_468) * 86_400 + hour * 3600 + minute * 60 + second)
}
