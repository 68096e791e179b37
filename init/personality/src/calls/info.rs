// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a program asks about itself and its machine, and signals (there are none).

use super::{Answer, Personality};
use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::linux::{RLIMIT_NOFILE, RLIMIT_STACK, SIGBUS, SIGSEGV, number};
use crate::threads::PID;

/// Size of the main thread's stack that `getrlimit` tells of, and with it glibc's default for threads, bytes.
const STACK_LIMIT: u64 = 2 << 20;
/// `GRND_NONBLOCK | GRND_RANDOM | GRND_INSECURE`
const RANDOM_FLAGS: u64 = 7;

impl<K: Kernel> Personality<K> {
    pub(super) fn information(&self, number: u64, args: [u64; 6]) -> Answer {
        let [first, second, third, fourth, ..] = args;
        match number {
            number::GETPID => Ok(u64::from(PID)),
            number::GETPPID => Ok(1),
            // Everybody is root in a sandbox of its own; signals are never delivered, so what is blocked says nothing;
            // a list of robust locks is for threads that are killed, and none is.
            number::GETUID
            | number::GETGID
            | number::GETEUID
            | number::GETEGID
            | number::SET_ROBUST_LIST
            | number::SCHED_SETAFFINITY => Ok(0),
            number::RT_SIGPROCMASK => self.signal_mask(third, fourth),
            number::RT_SIGACTION => self.signal_action(first, third),
            number::SIGALTSTACK => self.signal_stack(second),
            number::GETRANDOM if third & !RANDOM_FLAGS == 0 => self.random(first, second.min(0x1ff_ffff)),
            number::GETRANDOM => Err(Errno::INVAL),
            number::PRLIMIT64 => self.limit(second, fourth),
            number::SCHED_GETAFFINITY => self.affinity(second, third),
            number::GETCPU => {
                if first != 0 {
                    self.kernel.store(first, 0);
                }
                if second != 0 {
                    self.kernel.store(second, 0);
                }
                Ok(0)
            }
            number::UNAME => self.name(first),
            number::GETCWD => self.folder(first, second),
            number::READLINK | number::READLINKAT => Err(Errno::NOENT),
            number::PRCTL => Err(Errno::INVAL),
            // glibc asks once and does without.
            number::RSEQ => Err(Errno::NOSYS),
            _ => self.unknown(number),
        }
    }

    fn signal_mask(&self, old: u64, size: u64) -> Answer {
        if size != 8 {
            return Err(Errno::INVAL);
        }
        if old != 0 {
            self.put_words(old, &[0])?;
        }
        Ok(0)
    }

    /// Faults are the parent's business, not the program's: it is told that somebody else handles them, so that it does not
    /// set up a handler with a stack for each thread that would never run.
    fn signal_action(&self, signal: u64, old: u64) -> Answer {
        const IGNORE: u64 = 1;
        if signal == 0 || signal > 64 {
            return Err(Errno::INVAL);
        }
        if old != 0 {
            let handler = if signal == SIGSEGV || signal == SIGBUS { IGNORE } else { 0 };
            self.put_words(old, &[handler, 0, 0, 0])?;
        }
        Ok(0)
    }

    fn signal_stack(&self, old: u64) -> Answer {
        const DISABLED: u64 = 2;
        if old != 0 {
            self.put_words(old, &[0, DISABLED, 0])?;
        }
        Ok(0)
    }

    fn limit(&self, resource: u64, old: u64) -> Answer {
        if resource > 15 {
            return Err(Errno::INVAL);
        }
        if old != 0 {
            let limit = match resource {
                RLIMIT_STACK => STACK_LIMIT,
                RLIMIT_NOFILE => crate::files::FILES as u64,
                _ => u64::MAX,
            };
            self.put_words(old, &[limit, limit])?;
        }
        Ok(0)
    }

    /// Answers the number of bytes written, as the system call (not the library's function) does.
    fn affinity(&self, size: u64, mask: u64) -> Answer {
        if size < 8 || !size.is_multiple_of(8) {
            return Err(Errno::INVAL);
        }
        let processors = self.kernel.processors().clamp(1, 64);
        self.put_words(mask, &[u64::MAX >> (64 - processors)])?;
        Ok(8)
    }

    fn name(&self, address: u64) -> Answer {
        const FIELD: u64 = 65;
        let fields = ["Linux", "cloister", "6.1.0-cloister", "#1 Cloister", crate::linux::MACHINE, "(none)"];
        if address == 0 {
            return Err(Errno::FAULT);
        }
        for (field, index) in fields.iter().zip(0..) {
            let at = address.wrapping_add(index * FIELD);
            self.kernel.zero(at, FIELD);
            self.kernel.write(at, field.as_bytes());
        }
        Ok(0)
    }

    fn folder(&self, address: u64, size: u64) -> Answer {
        if size < 2 {
            return Err(Errno::RANGE);
        }
        self.kernel.write(address, b"/\0");
        Ok(2)
    }
}
