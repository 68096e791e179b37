// SPDX-License-Identifier: MIT OR Apache-2.0
//! Leaving the guest at a time or on a kick: one real-time signal, whose handler sets `immediate_exit`.
//!
//! Locking rule: none; the VCPU thread publishes its thread id, a kicker sets its flag before it sends the signal, and
//! `run` clears `immediate_exit` before it looks at the flag. Whichever way the two interleave, either the flag is seen
//! before `KVM_RUN` or `KVM_RUN` sees `immediate_exit`.

use core::cell::Cell;
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Once};

use cloister_hypervisor::{Error, Kick};
use kvm_bindings::kvm_run;

thread_local! {
    /// The run page of the VCPU that this thread runs, for the signal handler.
    static RUN: Cell<*mut kvm_run> = const { Cell::new(ptr::null_mut()) };
}

fn signal_number() -> libc::c_int {
    libc::SIGRTMIN()
}

extern "C" fn on_signal(_: libc::c_int) {
    let run = RUN.get();
    if !run.is_null() {
        // SAFETY: the page is mapped while `RUN` names it (see `Attached`).
        let flag = unsafe { &raw mut (*run).immediate_exit };
        // SAFETY: as above; only this handler and the thread that it interrupts write the field, the kernel reads it.
        unsafe { flag.write_volatile(1) };
    }
}

fn install_handler() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: all zeros is a valid `sigaction`.
        let mut action: libc::sigaction = unsafe { core::mem::zeroed() };
        action.sa_sigaction = on_signal as extern "C" fn(libc::c_int) as libc::sighandler_t;
        // SAFETY: the handler only touches a const-initialised thread-local and the run page, which is async-signal-safe.
        unsafe { libc::sigaction(signal_number(), &raw const action, ptr::null_mut()) };
    });
}

/// Kicks a KVM VCPU out of the guest.
#[derive(Clone, Debug, Default)]
pub struct Kicker(Arc<KickState>);

#[derive(Debug, Default)]
struct KickState {
    wanted: AtomicBool,
    thread: AtomicI32,
}

impl Kicker {
    pub(crate) fn take(&self) -> bool {
        // A plain load first: the swap is a locked instruction, and there is hardly ever a kick.
        self.0.wanted.load(Ordering::Relaxed) && self.0.wanted.swap(false, Ordering::AcqRel)
    }
}

impl Kick for Kicker {
    fn kick(&self) {
        self.0.wanted.store(true, Ordering::SeqCst);
        let thread = self.0.thread.load(Ordering::SeqCst);
        if thread != 0 {
            let process = libc::c_long::from(std::process::id());
            // SAFETY: sending a signal touches no memory of ours; a thread that is gone makes it fail, which is fine.
            unsafe { libc::syscall(libc::SYS_tgkill, process, thread, signal_number()) };
        }
    }
}

/// The running thread's tie to a VCPU: its run page known to the handler, and its deadline timer. Dropped by the same
/// thread, or leaves a stale timer at worst.
#[derive(Debug)]
pub(crate) struct Attached {
    run: *mut kvm_run,
    timer: libc::timer_t,
    armed: Option<u64>,
}

// SAFETY: a timer id is a number of the process, usable from any thread; the run page is only compared.
unsafe impl Send for Attached {}

impl Attached {
    /// Ties the calling thread to the VCPU with this run page.
    pub(crate) fn new(run: *mut kvm_run, kicker: &Kicker) -> Result<Self, Error> {
        install_handler();
        // SAFETY: no arguments.
        let thread = unsafe { libc::gettid() };
        // SAFETY: all zeros is a valid `sigevent`.
        let mut event: libc::sigevent = unsafe { core::mem::zeroed() };
        event.sigev_notify = libc::SIGEV_THREAD_ID;
        event.sigev_signo = signal_number();
        event.sigev_notify_thread_id = thread;
        let mut timer: libc::timer_t = ptr::null_mut();
        // SAFETY: both structures live during the call.
        let r = unsafe { libc::timer_create(libc::CLOCK_MONOTONIC, &raw mut event, &raw mut timer) };
        if r != 0 {
            return Err(Error::Unsupported("a timer for the VCPU thread"));
        }
        RUN.set(run);
        kicker.0.thread.store(thread, Ordering::SeqCst);
        Ok(Self { run, timer, armed: None })
    }

    /// Whether the calling thread is the tied one.
    pub(crate) fn is_here(&self) -> bool {
        RUN.get() == self.run
    }

    /// Arms the timer for TSC value `deadline`, `ticks` away at `tsc_khz`, unless it is armed for that.
    pub(crate) fn arm(&mut self, deadline: u64, ticks: u64, tsc_khz: u32) {
        if self.armed == Some(deadline) {
            return;
        }
        let ns = u128::from(ticks) * 1_000_000 / u128::from(tsc_khz.max(1)) + 1;
        // Longer than a year makes no difference.
        let ns = i64::try_from(ns).unwrap_or(i64::MAX).min(i64::from(u32::MAX) * 8_000_000);
        let spec = libc::itimerspec {
            it_interval: libc::timespec { tv_sec: 0, tv_nsec: 0 },
            it_value: libc::timespec { tv_sec: ns / 1_000_000_000, tv_nsec: ns % 1_000_000_000 },
        };
        // SAFETY: the structure lives during the call; the timer is ours until drop.
        unsafe { libc::timer_settime(self.timer, 0, &raw const spec, ptr::null_mut()) };
        self.armed = Some(deadline);
    }

    /// The signal came: whatever was armed is not any more.
    pub(crate) fn fired(&mut self) {
        self.armed = None;
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        RUN.set(ptr::null_mut());
        // SAFETY: the timer was made by `new` and is deleted once.
        unsafe { libc::timer_delete(self.timer) };
    }
}

#[cfg(test)]
mod tests {
    use super::Kicker;
    use cloister_hypervisor::Kick;

    #[test]
    fn kicks_before_a_run_count_as_one() {
        let kicker = Kicker::default();
        assert!(!kicker.take());
        kicker.kick();
        kicker.clone().kick();
        assert!(kicker.take());
        assert!(!kicker.take());
    }
}
