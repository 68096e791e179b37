// SPDX-License-Identifier: MIT OR Apache-2.0
//! Threads: made, ended, waiting for each other.

use super::{Answer, Message, Outcome, Personality};
use crate::errno::Errno;
use crate::kernel::{Kernel, Start};
use crate::linux::{
    ARCH_GET_FS, ARCH_SET_FS, CLONE_CHILD_CLEARTID, CLONE_CHILD_SETTID, CLONE_DETACHED, CLONE_PARENT_SETTID,
    CLONE_SETTLS, CLONE_SYSVSEM, CLONE_THREAD_FLAGS, FUTEX_CLOCK_REALTIME, FUTEX_CMP_REQUEUE, FUTEX_PRIVATE,
    FUTEX_REQUEUE, FUTEX_WAIT, FUTEX_WAIT_BITSET, FUTEX_WAKE, FUTEX_WAKE_BITSET, number,
};
use crate::threads::{PID, Slots};
use core::fmt::Write;

/// What `clone` and `clone3` say in different ways.
struct Clone {
    flags: u64,
    stack: u64,
    parent_tid: u64,
    child_tid: u64,
    tls: u64,
}

impl<K: Kernel> Personality<K> {
    pub(super) fn arch_prctl([code, address, ..]: [u64; 6]) -> Outcome {
        match code {
            ARCH_SET_FS => Outcome::SetThreadPointer(address),
            ARCH_GET_FS => Outcome::GetThreadPointer(address),
            _ => Outcome::Return(super::encode(Err(Errno::INVAL))),
        }
    }

    pub(super) fn thread_call(&self, number: u64, [address, ..]: [u64; 6]) -> u64 {
        let slot = self.kernel.current();
        let mut threads = self.threads();
        if number == number::SCHED_YIELD {
            drop(threads);
            self.kernel.relax();
            return 0;
        }
        if number == number::SET_TID_ADDRESS {
            threads.set_clear_tid(slot, address);
        }
        u64::from(threads.tid(slot))
    }

    pub(super) fn clone_thread(&self, number: u64, args: [u64; 6], frame: u64) -> Answer {
        let clone = self.clone_arguments(number, args)?;
        let optional = CLONE_SYSVSEM
            | CLONE_SETTLS
            | CLONE_PARENT_SETTID
            | CLONE_CHILD_CLEARTID
            | CLONE_CHILD_SETTID
            | CLONE_DETACHED;
        if clone.flags & CLONE_THREAD_FLAGS != CLONE_THREAD_FLAGS {
            // That would be a process of its own.
            return Err(Errno::NOSYS);
        }
        if clone.flags & !(CLONE_THREAD_FLAGS | optional) != 0 || clone.stack == 0 || clone.flags & CLONE_SETTLS == 0 {
            return Err(Errno::INVAL);
        }
        let has = |flag: u64| clone.flags & flag != 0;
        let clear = if has(CLONE_CHILD_CLEARTID) { clone.child_tid } else { 0 };
        let (slot, tid) = self.threads().create(clear)?;
        if has(CLONE_PARENT_SETTID) {
            self.kernel.store(clone.parent_tid, tid);
        }
        if has(CLONE_CHILD_SETTID) {
            self.kernel.store(clone.child_tid, tid);
        }
        let start = Start { frame, stack: clone.stack, tls: clone.tls };
        self.kernel.spawn(slot, &start).inspect_err(|_| {
            self.threads().end(slot);
        })?;
        Ok(u64::from(tid))
    }

    fn clone_arguments(&self, number: u64, args: [u64; 6]) -> Result<Clone, Errno> {
        if number == number::CLONE {
            let [flags, stack, parent_tid, child_tid, tls, _] = args;
            return Ok(Clone { flags: flags & !0xff, stack, parent_tid, child_tid, tls });
        }
        let [arguments, size, ..] = args;
        if size < 64 {
            return Err(Errno::INVAL);
        }
        // flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls (linux/sched.h)
        let [flags, _, child_tid, parent_tid, _, stack, stack_size, tls] = self.words::<8>(arguments)?;
        let stack = stack.checked_add(stack_size).ok_or(Errno::INVAL)?;
        Ok(Clone { flags, stack, parent_tid, child_tid, tls })
    }

    /// `exit`: of the last thread it is the end of the program.
    pub(super) fn exit(&self, code: u64) -> Outcome {
        let last = self.threads().count() <= 1;
        if last { self.end_program(code) } else { Outcome::EndThread }
    }

    /// The calling thread is done with its stack: clears its word and wakes who waits for that. The slot is free then, and
    /// the caller parks until [`Kernel::spawn`] uses it again.
    pub fn end_thread(&self) {
        let slot = self.kernel.current();
        let mut threads = self.threads();
        let clear = threads.end(slot);
        let mut woken = Slots::default();
        if clear != 0 {
            self.kernel.store(clear, 0);
            woken = threads.wake(&self.wakeups, clear, 1, u32::MAX);
        }
        drop(threads);
        self.wake_all(woken);
    }

    pub(super) fn end_program(&self, code: u64) -> Outcome {
        self.files().flush(|line| self.kernel.log(line));
        self.kernel.exit(i32::from_le_bytes(low_bytes(code)));
        Outcome::EndProgram
    }

    /// A signal to oneself ends the program, as its default action is; there are no others to send one to.
    pub(super) fn kill(&self, number: u64, args: [u64; 6]) -> Outcome {
        let [first, second, third, ..] = args;
        let signal = if number == number::TGKILL { third } else { second };
        if number != number::TKILL && first != u64::from(PID) && first != 0 {
            return Outcome::Return(super::encode(Err(Errno::SRCH)));
        }
        if signal == 0 {
            return Outcome::Return(0);
        }
        let mut line = Message::default();
        // A number fits the buffer.
        let _ = write!(line, "linux: ended by signal {}", signal & 0xff);
        self.kernel.log(line.bytes());
        self.end_program(128 + (signal & 0x7f))
    }

    pub(super) fn futex(&self, args: [u64; 6]) -> Answer {
        let [address, operation, value, timeout, second, value3] = args;
        if address == 0 || !address.is_multiple_of(4) {
            return Err(Errno::INVAL);
        }
        let value = u32::from_le_bytes(low_bytes(value));
        let bits = u32::from_le_bytes(low_bytes(value3));
        let count = value.min(i32::MAX.cast_unsigned());
        match operation & !(FUTEX_PRIVATE | FUTEX_CLOCK_REALTIME) {
            FUTEX_WAIT => {
                let deadline = self.relative_deadline(timeout)?;
                self.futex_wait(address, value, deadline, u32::MAX)
            }
            FUTEX_WAIT_BITSET => {
                let deadline = self.absolute_deadline(timeout, operation & FUTEX_CLOCK_REALTIME != 0)?;
                self.futex_wait(address, value, deadline, bits)
            }
            FUTEX_WAKE => Ok(self.futex_wake(address, count, u32::MAX)),
            FUTEX_WAKE_BITSET if bits != 0 => Ok(self.futex_wake(address, count, bits)),
            FUTEX_REQUEUE => self.futex_requeue(address, count, timeout, second, None),
            FUTEX_CMP_REQUEUE => self.futex_requeue(address, count, timeout, second, Some(bits)),
            FUTEX_WAKE_BITSET => Err(Errno::INVAL),
            _ => Err(Errno::NOSYS),
        }
    }

    fn futex_wait(&self, address: u64, value: u32, deadline: Option<u64>, bits: u32) -> Answer {
        if bits == 0 {
            return Err(Errno::INVAL);
        }
        let slot = self.kernel.current();
        let mut threads = self.threads();
        if self.kernel.load(address) != value {
            return Err(Errno::AGAIN);
        }
        threads.enqueue(&self.wakeups, slot, address, bits);
        drop(threads);
        while !self.wakeups.is_set(slot) {
            let timed_out = !self.kernel.wait(deadline);
            if timed_out && self.threads().dequeue(&self.wakeups, slot) {
                return Err(Errno::TIMEDOUT);
            }
        }
        Ok(0)
    }

    fn futex_wake(&self, address: u64, count: u32, bits: u32) -> u64 {
        let woken = self.threads().wake(&self.wakeups, address, count, bits);
        self.wake_all(woken);
        u64::from(woken.count())
    }

    fn futex_requeue(&self, address: u64, count: u32, moved: u64, second: u64, expected: Option<u32>) -> Answer {
        if second == 0 || !second.is_multiple_of(4) {
            return Err(Errno::INVAL);
        }
        let mut threads = self.threads();
        if expected.is_some_and(|expected| self.kernel.load(address) != expected) {
            return Err(Errno::AGAIN);
        }
        let woken = threads.wake(&self.wakeups, address, count, u32::MAX);
        let moved = threads.requeue(address, second, u32::from_le_bytes(low_bytes(moved)));
        drop(threads);
        self.wake_all(woken);
        Ok(u64::from(woken.count() + moved))
    }

    fn wake_all(&self, woken: Slots) {
        woken.iter().for_each(|slot| self.kernel.wake(slot));
    }
}

/// The low half of a register: an `int` of C.
fn low_bytes(register: u64) -> [u8; 4] {
    let [a, b, c, d, ..] = register.to_le_bytes();
    [a, b, c, d]
}
