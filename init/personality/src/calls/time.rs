// SPDX-License-Identifier: MIT OR Apache-2.0
//! Clocks and sleeping.

use super::{Answer, Personality};
use crate::clock::SECOND;
use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::linux::{
    CLOCK_BOOTTIME, CLOCK_MONOTONIC, CLOCK_MONOTONIC_COARSE, CLOCK_MONOTONIC_RAW, CLOCK_PROCESS_CPUTIME,
    CLOCK_REALTIME, CLOCK_REALTIME_COARSE, CLOCK_THREAD_CPUTIME, TIMER_ABSTIME, number,
};

impl<K: Kernel> Personality<K> {
    pub(super) fn time(&self, number: u64, args: [u64; 6]) -> Answer {
        let [first, second, third, ..] = args;
        match number {
            number::CLOCK_GETTIME => {
                let now = self.clock_time(first)?;
                self.put_words(second, &[now / SECOND, now % SECOND]).map(|()| 0)
            }
            number::CLOCK_GETRES => {
                self.clock_time(first)?;
                if second == 0 { Ok(0) } else { self.put_words(second, &[0, self.clock.resolution()]).map(|()| 0) }
            }
            number::GETTIMEOFDAY => {
                let now = self.clock.wall(self.kernel.ticks());
                self.put_words(first, &[now / SECOND, now % SECOND / 1000]).map(|()| 0)
            }
            number::TIME => {
                let now = self.clock.wall(self.kernel.ticks()) / SECOND;
                if first == 0 { Ok(now) } else { self.put_words(first, &[now]).map(|()| now) }
            }
            number::NANOSLEEP => {
                let duration = self.duration(first)?;
                self.sleep(self.clock.after(self.kernel.ticks(), duration))
            }
            _ => {
                let time = self.duration(third)?;
                let wall = first == CLOCK_REALTIME;
                self.clock_time(first)?;
                let absolute = second & TIMER_ABSTIME != 0;
                let deadline =
                    if absolute { self.clock.until(time, wall) } else { self.clock.after(self.kernel.ticks(), time) };
                self.sleep(deadline)
            }
        }
    }

    /// What a clock shows, nanoseconds. The time that the program used is not known: it is taken as all.
    fn clock_time(&self, clock: u64) -> Answer {
        let ticks = self.kernel.ticks();
        match clock {
            CLOCK_REALTIME | CLOCK_REALTIME_COARSE => Ok(self.clock.wall(ticks)),
            CLOCK_MONOTONIC
            | CLOCK_MONOTONIC_RAW
            | CLOCK_MONOTONIC_COARSE
            | CLOCK_BOOTTIME
            | CLOCK_PROCESS_CPUTIME
            | CLOCK_THREAD_CPUTIME => Ok(self.clock.nanoseconds(ticks)),
            _ => Err(Errno::INVAL),
        }
    }

    /// A `timespec` as nanoseconds; more than 584 years is as good as for ever.
    fn duration(&self, address: u64) -> Answer {
        let [seconds, rest] = self.words::<2>(address)?;
        if rest >= SECOND || seconds.cast_signed() < 0 {
            return Err(Errno::INVAL);
        }
        Ok(seconds.saturating_mul(SECOND).saturating_add(rest))
    }

    /// Deadline of a wait of that `timespec`'s length; none without one.
    pub(super) fn relative_deadline(&self, timeout: u64) -> Result<Option<u64>, Errno> {
        if timeout == 0 {
            return Ok(None);
        }
        let duration = self.duration(timeout)?;
        Ok(Some(self.clock.after(self.kernel.ticks(), duration)))
    }

    /// Deadline of a wait until that `timespec`; none without one.
    pub(super) fn absolute_deadline(&self, timeout: u64, wall: bool) -> Result<Option<u64>, Errno> {
        if timeout == 0 {
            return Ok(None);
        }
        Ok(Some(self.clock.until(self.duration(timeout)?, wall)))
    }

    /// Sleeps for as long as `poll` (milliseconds, negative for ever) or `ppoll` (a `timespec`) says.
    pub(super) fn poll_sleep(&self, number: u64, timeout: u64) -> Answer {
        let deadline = if number == number::PPOLL {
            self.relative_deadline(timeout)?.unwrap_or(u64::MAX)
        } else {
            let [a, b, c, d, ..] = timeout.to_le_bytes();
            match u64::try_from(i32::from_le_bytes([a, b, c, d])) {
                Ok(milliseconds) => self.clock.after(self.kernel.ticks(), milliseconds * 1_000_000),
                Err(_) => u64::MAX,
            }
        };
        self.sleep(deadline)
    }

    fn sleep(&self, deadline: u64) -> Answer {
        while self.kernel.ticks() < deadline && self.kernel.wait(Some(deadline)) {}
        Ok(0)
    }
}
