// SPDX-License-Identifier: MIT OR Apache-2.0
//! [`Personality`]: number and arguments of a system call in, [`Outcome`] out.
//!
//! Three tables, each with a lock of its own, are all the state: address space, descriptors, threads. No call holds two of
//! them at once. A call that is not known is answered with `ENOSYS` and named once in the log.

mod file;
mod info;
mod memory;
mod stat;
mod thread;
mod time;

use crate::clock::Clock;
use crate::errno::Errno;
use crate::files::Files;
use crate::kernel::Kernel;
use crate::linux::number;
use crate::lock::{Guard, Lock, Waiters};
use crate::memory::{Layout, Memory};
use crate::random::Random;
use crate::threads::{Threads, Wakeups};
use core::fmt::Write;
use core::sync::atomic::{AtomicU64, Ordering};

/// What the caller of the system call is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Go on with this result (a value, or an error number negated).
    Return(u64),
    /// Set the thread pointer to this, and go on with result 0.
    SetThreadPointer(u64),
    /// Go on with the thread pointer as result, stored at this address.
    GetThreadPointer(u64),
    /// End the calling thread: leave its stack, call [`Personality::end_thread`], and park.
    EndThread,
    /// The program is done; the parent knows. Park.
    EndProgram,
}

/// A result, or an error number.
type Answer = Result<u64, Errno>;

const UNKNOWN_WORDS: usize = 8;

/// The state of a program.
#[derive(Debug)]
pub struct Personality<K> {
    kernel: K,
    waiters: Waiters,
    memory: Lock<Memory>,
    files: Lock<Files>,
    threads: Lock<Threads>,
    random: Lock<Random>,
    wakeups: Wakeups,
    clock: Clock,
    unknown: [AtomicU64; UNKNOWN_WORDS],
}

const _: () = assert!(UNKNOWN_WORDS as u64 * 64 == number::END);

impl<K: Kernel> Personality<K> {
    /// A program with an empty address space of that layout and one thread.
    pub const fn new(kernel: K, layout: Layout) -> Self {
        Self {
            kernel,
            waiters: Waiters::new(),
            memory: Lock::new(Memory::new(layout)),
            files: Lock::new(Files::new()),
            threads: Lock::new(Threads::new()),
            random: Lock::new(Random::new()),
            wakeups: Wakeups::new(),
            clock: Clock::unset(),
            unknown: [const { AtomicU64::new(0) }; UNKNOWN_WORDS],
        }
    }

    /// Sets the clock and enters the first thread. Once, before the first call.
    pub fn start(&mut self, clock: Clock) {
        self.clock = clock;
        // A fresh table has a free slot.
        let _ = self.threads.lock(&self.kernel, &self.waiters).create(0);
    }

    /// The world below.
    pub const fn kernel(&self) -> &K {
        &self.kernel
    }

    /// Changes the world below, before the first call.
    pub const fn kernel_mut(&mut self) -> &mut K {
        &mut self.kernel
    }

    /// The address space, locked.
    pub fn memory(&self) -> Guard<'_, Memory, K> {
        self.memory.lock(&self.kernel, &self.waiters)
    }

    fn files(&self) -> Guard<'_, Files, K> {
        self.files.lock(&self.kernel, &self.waiters)
    }

    fn threads(&self) -> Guard<'_, Threads, K> {
        self.threads.lock(&self.kernel, &self.waiters)
    }

    /// Clock of the program.
    pub const fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Answers a system call. `frame` is handed on to [`Kernel::spawn`].
    pub fn call(&self, number: u64, args: [u64; 6], frame: u64) -> Outcome {
        let answer = match number {
            number::EXIT => return self.exit(args[0]),
            number::EXIT_GROUP => return self.end_program(args[0]),
            number::ARCH_PRCTL => return Self::arch_prctl(args),
            number::KILL | number::TKILL | number::TGKILL => return self.kill(number, args),
            number::FUTEX => self.futex(args),
            number::CLONE | number::CLONE3 => self.clone_thread(number, args, frame),
            _ => self.call_simple(number, args),
        };
        Outcome::Return(encode(answer))
    }

    /// The calls that return in the ordinary way.
    fn call_simple(&self, number: u64, args: [u64; 6]) -> Answer {
        match number {
            number::READ | number::WRITE | number::READV | number::WRITEV | number::PREAD64 => {
                self.transfer(number, args)
            }
            number::OPEN
            | number::OPENAT
            | number::CLOSE
            | number::LSEEK
            | number::DUP
            | number::FCNTL
            | number::IOCTL
            | number::POLL
            | number::PPOLL => self.descriptor(number, args),
            number::STAT | number::LSTAT | number::FSTAT | number::NEWFSTATAT | number::STATX | number::ACCESS => {
                self.file_state(number, args)
            }
            number::MMAP | number::MPROTECT | number::MUNMAP | number::MREMAP | number::MADVISE | number::BRK => {
                self.address_space(number, args)
            }
            number::CLOCK_GETTIME
            | number::CLOCK_GETRES
            | number::CLOCK_NANOSLEEP
            | number::NANOSLEEP
            | number::GETTIMEOFDAY
            | number::TIME => self.time(number, args),
            number::GETTID | number::SET_TID_ADDRESS | number::SCHED_YIELD => Ok(self.thread_call(number, args)),
            _ => self.information(number, args),
        }
    }

    /// Names a call that there is not, once.
    fn unknown(&self, number: u64) -> Answer {
        let index = usize::try_from(number / 64).unwrap_or(usize::MAX);
        let known = self
            .unknown
            .get(index)
            .map(|word| word.fetch_or(1 << (number % 64), Ordering::Relaxed) >> (number % 64) & 1);
        if known == Some(0) {
            let mut line = Message::default();
            // A number fits the buffer.
            let _ = write!(line, "linux: system call {number} is not supported");
            self.kernel.log(line.bytes());
        }
        Err(Errno::NOSYS)
    }

    /// Reads words of the program's memory.
    fn words<const N: usize>(&self, address: u64) -> Result<[u64; N], Errno> {
        if address == 0 {
            return Err(Errno::FAULT);
        }
        let mut words = [0; N];
        for (index, word) in words.iter_mut().enumerate() {
            let mut bytes = [0; 8];
            self.kernel.read(address.wrapping_add(8 * index as u64), &mut bytes);
            *word = u64::from_ne_bytes(bytes);
        }
        Ok(words)
    }

    /// Writes words to the program's memory.
    fn put_words(&self, address: u64, words: &[u64]) -> Result<(), Errno> {
        if address == 0 {
            return Err(Errno::FAULT);
        }
        for (index, word) in words.iter().enumerate() {
            self.kernel.write(address.wrapping_add(8 * index as u64), &word.to_ne_bytes());
        }
        Ok(())
    }
}

/// A result as it goes back in a register.
fn encode(answer: Answer) -> u64 {
    answer.unwrap_or_else(|Errno(number)| i64::from(-number).cast_unsigned())
}

/// A line of the personality's own.
#[derive(Debug)]
pub(crate) struct Message {
    text: [u8; 128],
    length: usize,
}

impl Default for Message {
    fn default() -> Self {
        Self { text: [0; 128], length: 0 }
    }
}

impl Message {
    /// What was written.
    #[must_use]
    pub(crate) fn bytes(&self) -> &[u8] {
        self.text.get(..self.length).unwrap_or(&[])
    }
}

impl Write for Message {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        let end = self.length + text.len();
        self.text.get_mut(self.length..end).ok_or(core::fmt::Error)?.copy_from_slice(text.as_bytes());
        self.length = end;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
