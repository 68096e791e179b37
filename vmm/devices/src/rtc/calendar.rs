// SPDX-License-Identifier: MIT OR Apache-2.0
//! The calendar of the real-time clock: seconds since 1970 to the fields of a date and back, their forms, alarms.
//!
//! Dates are Gregorian, computed with days that are counted from the first of March of year 0, so that the leap day
//! is the last of its year. All arithmetic is over values that were brought into range first.

const DAY: i64 = 86_400;

/// How the registers show numbers (register B, bits DM and 24/12).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Format {
    binary: bool,
    hours_24: bool,
}

impl Format {
    pub(super) const fn of(register_b: u8) -> Self {
        Self { binary: register_b & 4 != 0, hours_24: register_b & 2 != 0 }
    }

    fn show(self, value: i64) -> u8 {
        let value = u8::try_from(value.rem_euclid(100)).unwrap_or(0);
        if self.binary { value } else { (value.wrapping_div(10) << 4) | value.wrapping_rem(10) }
    }

    fn parse(self, byte: u8) -> Option<i64> {
        let (tens, ones) = (byte >> 4, byte & 0xf);
        match self.binary {
            true => (byte < 100).then_some(i64::from(byte)),
            false => (tens < 10 && ones < 10).then(|| i64::from(tens).wrapping_mul(10).wrapping_add(i64::from(ones))),
        }
    }

    fn show_hour(self, hour: i64) -> u8 {
        if self.hours_24 {
            return self.show(hour);
        }
        let twelve = match hour.rem_euclid(12) {
            0 => 12,
            h => h,
        };
        self.show(twelve) | if hour >= 12 { 0x80 } else { 0 }
    }

    fn parse_hour(self, byte: u8) -> Option<i64> {
        if self.hours_24 {
            return self.parse(byte).filter(|h| *h < 24);
        }
        let hour = self.parse(byte & 0x7f).filter(|h| (1..=12).contains(h))?.rem_euclid(12);
        Some(if byte & 0x80 != 0 { hour.wrapping_add(12) } else { hour })
    }
}

/// A date and a time of day, UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fields {
    year: i64,
    month: i64,
    day: i64,
    weekday: i64,
    hour: i64,
    minute: i64,
    second: i64,
}

impl Fields {
    /// From seconds since 1970; years outside of 0 to 9999 are brought to the nearest.
    pub(super) fn from_unix(seconds: i64) -> Self {
        let seconds = seconds.clamp(-62_167_219_200, 253_402_300_799);
        let (days, time) = (seconds.div_euclid(DAY), seconds.rem_euclid(DAY));
        let shifted = days.wrapping_add(719_468);
        let era = shifted.div_euclid(146_097);
        let day_of_era = shifted.rem_euclid(146_097);
        // Take the leap days out of the count, then divide by 365.
        let leap = day_of_era
            .wrapping_sub(day_of_era.wrapping_div(1460))
            .wrapping_add(day_of_era.wrapping_div(36_524))
            .wrapping_sub(day_of_era.wrapping_div(146_096));
        let year_of_era = leap.wrapping_div(365);
        let before = days_before_year_of_era(year_of_era);
        let day_of_year = day_of_era.wrapping_sub(before);
        // March is month 0 of a year of 5-month groups of 153 days.
        let month = day_of_year.wrapping_mul(5).wrapping_add(2).wrapping_div(153);
        let day = day_of_year.wrapping_sub(days_before_month(month)).wrapping_add(1);
        let year = year_of_era.wrapping_add(era.wrapping_mul(400)).wrapping_add(i64::from(month >= 10));
        Self {
            year,
            month: if month < 10 { month.wrapping_add(3) } else { month.wrapping_sub(9) },
            day,
            weekday: days.wrapping_add(4).rem_euclid(7).wrapping_add(1),
            hour: time.wrapping_div(3600),
            minute: time.wrapping_div(60).rem_euclid(60),
            second: time.rem_euclid(60),
        }
    }

    /// To seconds since 1970.
    fn to_unix(self) -> i64 {
        let march_based = self.month.wrapping_add(9).rem_euclid(12);
        let year = self.year.wrapping_sub(i64::from(self.month <= 2));
        let era = year.div_euclid(400);
        let day_of_era = days_before_year_of_era(year.rem_euclid(400))
            .wrapping_add(days_before_month(march_based))
            .wrapping_add(self.day.wrapping_sub(1));
        let days = era.wrapping_mul(146_097).wrapping_add(day_of_era).wrapping_sub(719_468);
        let time = self.hour.wrapping_mul(3600).wrapping_add(self.minute.wrapping_mul(60)).wrapping_add(self.second);
        days.wrapping_mul(DAY).wrapping_add(time)
    }

    /// The register `index`, in `format`.
    pub(super) fn get(self, index: u8, format: Format) -> Option<u8> {
        Some(match index {
            0 => format.show(self.second),
            2 => format.show(self.minute),
            4 => format.show_hour(self.hour),
            6 => format.show(self.weekday),
            7 => format.show(self.day),
            8 => format.show(self.month),
            9 => format.show(self.year),
            0x32 => format.show(self.year.div_euclid(100)),
            _ => return None,
        })
    }

    /// The time, in seconds since 1970, after `value` is written to register `index`; `None` if it makes no sense.
    /// A day that the month lacks carries over into the next month.
    pub(super) fn with(mut self, index: u8, value: u8, format: Format) -> Option<i64> {
        let within = |low: i64, high: i64| format.parse(value).filter(|v| (low..=high).contains(v));
        match index {
            0 => self.second = within(0, 59)?,
            2 => self.minute = within(0, 59)?,
            4 => self.hour = format.parse_hour(value)?,
            // The day of the week follows from the date.
            6 => {}
            7 => self.day = within(1, 31)?,
            8 => self.month = within(1, 12)?,
            9 => self.year = self.year.div_euclid(100).wrapping_mul(100).wrapping_add(within(0, 99)?),
            0x32 => self.year = within(0, 99)?.wrapping_mul(100).wrapping_add(self.year.rem_euclid(100)),
            _ => return None,
        }
        Some(self.to_unix())
    }
}

const fn days_before_year_of_era(year: i64) -> i64 {
    year.wrapping_mul(365)
        .wrapping_add(year.wrapping_div(4))
        .wrapping_sub(year.wrapping_div(100))
        .wrapping_add(year.wrapping_div(400))
}

/// Days of a year that begins in March, before month `month` (0 to 11).
const fn days_before_month(month: i64) -> i64 {
    month.wrapping_mul(153).wrapping_add(2).wrapping_div(5)
}

/// The alarm: each field a value, or "don't care" (both top bits set), or never.
#[derive(Clone, Copy, Debug)]
pub(super) struct Alarm {
    hour: Match,
    minute: Match,
    second: Match,
}

#[derive(Clone, Copy, Debug)]
enum Match {
    Any,
    Only(i64),
    Never,
}

impl Match {
    fn of(byte: u8, value: Option<i64>) -> Self {
        match value {
            _ if byte >= 0xc0 => Self::Any,
            Some(v) => Self::Only(v),
            None => Self::Never,
        }
    }

    fn holds(self, value: i64) -> bool {
        match self {
            Self::Any => true,
            Self::Only(v) => v == value,
            Self::Never => false,
        }
    }
}

impl Alarm {
    pub(super) fn new(format: Format, hour: u8, minute: u8, second: u8) -> Self {
        let sixty = |byte: u8| Match::of(byte, format.parse(byte).filter(|v| *v < 60));
        Self { hour: Match::of(hour, format.parse_hour(hour)), minute: sixty(minute), second: sixty(second) }
    }

    /// The first second after `second` at which it goes off; there is one within a day, or none ever.
    pub(super) fn next_after(self, second: i64) -> Option<i64> {
        if [self.hour, self.minute, self.second].iter().any(|m| matches!(m, Match::Never)) {
            return None;
        }
        let end = second.saturating_add(DAY);
        let mut at = second.saturating_add(1);
        while at <= end {
            let time = at.rem_euclid(DAY);
            let step = if !self.hour.holds(time.wrapping_div(3600)) {
                3600i64.wrapping_sub(time.rem_euclid(3600))
            } else if !self.minute.holds(time.wrapping_div(60).rem_euclid(60)) {
                60i64.wrapping_sub(time.rem_euclid(60))
            } else if !self.second.holds(time.rem_euclid(60)) {
                1
            } else {
                return Some(at);
            };
            at = at.saturating_add(step);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::{Alarm, Fields, Format};

    #[test]
    fn dates_go_there_and_back() {
        for seconds in (-62_167_219_200..253_402_300_799i64).step_by(86_400 * 13 + 12_345) {
            assert_eq!(Fields::from_unix(seconds).to_unix(), seconds);
        }
    }

    #[test]
    fn known_days() {
        let date = |s| {
            let f = Fields::from_unix(s);
            (f.year, f.month, f.day, f.weekday)
        };
        assert_eq!(date(0), (1970, 1, 1, 5));
        assert_eq!(date(951_782_400), (2000, 2, 29, 3));
        assert_eq!(date(4_107_542_400), (2100, 3, 1, 2));
        assert_eq!(date(i64::MIN), (0, 1, 1, 7));
        assert_eq!(date(i64::MAX), (9999, 12, 31, 6));
    }

    #[test]
    fn twelve_hour_form_of_noon_and_midnight() {
        let f = Format::of(4);
        assert_eq!((f.show_hour(0), f.show_hour(12), f.show_hour(23)), (12, 0x8c, 0x8b));
        assert_eq!(
            (f.parse_hour(12), f.parse_hour(0x8c), f.parse_hour(0), f.parse_hour(13)),
            (Some(0), Some(12), None, None)
        );
    }

    #[test]
    fn alarms_match_within_a_day_or_never() {
        let f = Format::of(6);
        assert_eq!(Alarm::new(f, 0xff, 0xff, 0xff).next_after(99), Some(100));
        assert_eq!(Alarm::new(f, 23, 59, 59).next_after(0), Some(86_399));
        assert_eq!(Alarm::new(f, 0, 0, 0).next_after(0), Some(86_400));
        assert_eq!(Alarm::new(f, 24, 0, 0).next_after(0), None);
        assert_eq!(Alarm::new(f, 0xc0, 30, 5).next_after(3600), Some(3600 + 1805));
    }
}
