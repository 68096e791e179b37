// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who runs next, and when the alarm rings.
//!
//! Fixed priorities, round robin within one by time slices, tickless: the alarm is armed for the soonest of the deadlines of waiting
//! ECs, the deadline of the guest that runs, and, only if somebody of the same priority waits, the end of the time slice. The
//! current SC is not in the run queue. What runs on an SC's time is the end of its EC's chain of callees; if that is blocked, the SC
//! is parked with it.
//!
//! [`settle`] is the one place where the kernel decides what to return to; the fast paths (IPC, semaphores without waiting) do not
//! come here. All of it is about the core that runs; what concerns another is mail to it ([`crate::remote`]).

use crate::arch::{self, timer};
use crate::journey::{self, Next};
use crate::object::ec::Resume;
use crate::object::{Ec, Object, Sc, reap};
use crate::percore::{self, ALARM, Core, MAIL, REAP, RESCHEDULE, RESUME, core};
use crate::remote;
use cloister_abi::status::Status;
use core::sync::atomic::Ordering::Relaxed;

/// Puts an SC into the run queue; the current one gives way if its priority is lower.
pub(crate) fn enqueue(sc: &Sc, front: bool) {
    let core = core();
    if !sc.header().is_alive() || sc.queued.get() || core.sc().is_some_and(|current| core::ptr::eq(current, sc)) {
        return;
    }
    sc.queued.set(true);
    core.ready.insert(sc, sc.priority, front);
    match core.sc() {
        Some(current) if current.priority > sc.priority => {}
        // Same priority: the time slice counts from now on.
        Some(current) if current.priority == sc.priority => core.request(ALARM),
        _ => core.request(RESCHEDULE),
    }
}

/// The current SC goes elsewhere: its time here is over.
pub(crate) fn leave(core: &Core) {
    account(core, arch::cpu::ticks());
    core.set_sc(None);
}

/// Takes an SC out of run queue, list of who waits, and core.
pub(crate) fn forget(sc: &Sc) {
    let core = core();
    if let Some(ec) = sc.parked.take() {
        // SAFETY: an EC that is destroyed lets all go that are parked with it.
        unsafe { ec.as_ref() }.waiting.remove(sc);
    }
    if sc.queued.replace(false) {
        core.ready.remove(sc, sc.priority);
    }
    if core.sc().is_some_and(|current| core::ptr::eq(current, sc)) {
        leave(core);
        core.request(RESCHEDULE);
    }
}

/// Books the time since the last booking to the current SC, or to nobody: so all of a core's time is booked.
fn account(core: &Core, now: u64) {
    let spent = now.saturating_sub(core.since.load(Relaxed));
    core.since.store(now, Relaxed);
    if let Some(sc) = core.sc() {
        sc.used.store(sc.used.load(Relaxed).saturating_add(spent), Relaxed);
        sc.left.set(sc.left.get().saturating_sub(spent));
    } else {
        core.idle.store(core.idle.load(Relaxed).saturating_add(spent), Relaxed);
    }
}

/// Time of a core that no SC used, up to now: idle, or spent on choosing. As closely as one can see from another core.
pub(crate) fn time_idle(core: &Core) -> u64 {
    let (idle, since) = (core.idle.load(Relaxed), core.since.load(Relaxed));
    let now = arch::cpu::ticks();
    if core.is_without_sc() { idle.saturating_add(now.saturating_sub(since)) } else { idle }
}

/// Time that an SC has used, up to now. If it runs on another core, as closely as one can see from here.
pub(crate) fn time_used(sc: &Sc) -> u64 {
    let now = arch::cpu::ticks();
    let Some(home) = percore::get(sc.core()).filter(|home| home.runs(sc)) else { return sc.used.load(Relaxed) };
    if home.id == core().id {
        account(home, now);
        return sc.used.load(Relaxed);
    }
    let since = now.saturating_sub(home.since.load(Relaxed));
    sc.used.load(Relaxed).saturating_add(since)
}

/// Ends the time slice of the current SC.
pub(crate) fn yield_now() {
    if let Some(sc) = core().sc() {
        sc.left.set(0);
    }
    core().request(RESCHEDULE);
}

/// Wakes all whose deadline has passed.
fn expire(core: &Core, now: u64) {
    while let Some(ec) = core.timeouts.pop_expired(now) {
        // SAFETY: members of the queue are alive.
        let ec = unsafe { ec.as_ref() };
        // SAFETY: a semaphore lets all who wait go before it goes, and mail that says so is received before anything else.
        if ec.semaphore.get().is_some_and(|sm| unsafe { sm.as_ref() }.semaphore.forget(ec)) {
            ec.end_wait(Status::Timeout, 0);
        }
    }
}

/// Lets the hypercall of an EC be made once more when all memory of the dead was given back, if there is some. Answers whether it will be.
#[cold]
pub(crate) fn reap_and_retry(core: &Core, ec: &Ec) -> bool {
    // A try that fails may leave dead objects of its own.
    if core.graveyard.is_empty() && !core.remote.has_mail() || core.trying_again.get() {
        return false;
    }
    ec.resume.set(Resume::Retry);
    core.request(REAP | RESUME);
    true
}

/// Arms the alarm for what comes first. `guest` is the deadline of a guest that is about to run, 0 for none.
pub(crate) fn arm(core: &Core, now: u64, guest: u64) {
    let mut next = core.timeouts.soonest().unwrap_or(u64::MAX).min(core.later.get()).min(core.brake.get());
    if guest != 0 {
        next = next.min(guest);
    }
    if let Some(sc) = core.sc()
        && core.ready.is_waiting(sc.priority)
    {
        next = next.min(now.saturating_add(sc.left.get()));
    }
    if next != core.armed.get() {
        core.armed.set(next);
        timer::arm(next, now);
    }
}

/// The alarm rang: it is armed no more.
pub(crate) fn alarm() {
    core().armed.set(u64::MAX);
    core().request(ALARM);
}

/// Chooses who runs.
fn choose(core: &Core) {
    let now = arch::cpu::ticks();
    account(core, now);
    if let Some(sc) = core.sc() {
        core.set_sc(None);
        let over = sc.left.get() == 0;
        if over {
            sc.left.set(sc.quantum);
        }
        if sc.header().is_alive() {
            sc.queued.set(true);
            core.ready.insert(sc, sc.priority, !over);
        }
    }
    loop {
        let Some(sc) = core.ready.pop() else {
            idle(core);
            continue;
        };
        // SAFETY: members of the run queue are alive.
        let sc = unsafe { sc.as_ref() };
        sc.queued.set(false);
        let (leaf, helping) = match journey::next(core, sc) {
            Next::Run(leaf, helping) => (leaf, helping),
            Next::Wait(blocked) => {
                blocked.park(sc);
                continue;
            }
            Next::Gone => continue,
        };
        account(core, arch::cpu::ticks());
        core.set_sc(Some(sc));
        leaf.stop_helping();
        core.helping.set(helping);
        core.switch(leaf);
        return;
    }
}

/// Nobody is ready: gives memory back and waits for an interrupt.
fn idle(core: &Core) {
    core.leave();
    core.later.set(u64::MAX);
    reap(core);
    remote::deliver(core);
    let now = arch::cpu::ticks();
    expire(core, now);
    if core.ready.highest().is_some() {
        return;
    }
    arm(core, now, 0);
    // Interrupts are off: what is asked from here on ends the wait.
    core.remote.set_idle(true);
    if !core.remote.has_mail() {
        crate::trace::idle(arch::power::wait);
    }
    core.remote.set_idle(false);
    core.take_pending(u32::MAX);
    remote::deliver(core);
    expire(core, arch::cpu::ticks());
}

/// Does all work that is pending, until the current EC can go on in user mode.
#[cold]
pub(crate) extern "C" fn settle(core: &Core) {
    loop {
        let mut work = core.take_pending(u32::MAX);
        if work & ALARM != 0 && core.later.get() <= arch::cpu::ticks() {
            core.later.set(u64::MAX);
            work |= MAIL | REAP;
        }
        if work & MAIL != 0 {
            remote::deliver(core);
        }
        if work & ALARM != 0 {
            let now = arch::cpu::ticks();
            expire(core, now);
            account(core, now);
            if core.sc().is_none_or(|sc| sc.left.get() == 0) {
                core.request(RESCHEDULE);
            } else {
                arm(core, now, 0);
            }
        }
        // Mail and alarm that were asked for meanwhile come round again.
        let work = work | core.take_pending(!(MAIL | ALARM));
        if work & RESCHEDULE != 0 || core.sc().is_none() || core.current().is_none_or(|ec| !ec.is_runnable()) {
            choose(core);
            arm(core, arch::cpu::ticks(), 0);
        }
        if work & REAP != 0 {
            reap(core);
        }
        let Some(ec) = core.current() else { continue };
        match ec.resume.get() {
            Resume::User => {}
            // Others may run before the next piece.
            Resume::Retry
                if (core.graveyard.is_behind() || core.remote.has_mail()) && ec.registers().vector == arch::SYSCALL =>
            {
                ec.resume.set(Resume::User);
                ec.registers().rip -= arch::SYSCALL_LENGTH;
            }
            Resume::Retry => {
                ec.resume.set(Resume::User);
                core.trying_again.set(true);
                if ec.registers().vector == arch::SYSCALL {
                    crate::syscall::dispatch(core, ec, ec.registers());
                } else {
                    crate::exception::again(core, ec);
                }
                core.trying_again.set(false);
            }
            Resume::Guest if crate::trace::is_on() => crate::guest::run::<true>(core, ec),
            Resume::Guest => crate::guest::run::<false>(core, ec),
        }
        if !core.is_pending() {
            return;
        }
    }
}

/// [`settle`] for the entry code, at boot.
pub(crate) extern "C" fn settle_here() {
    core().request(RESCHEDULE);
    settle(core());
}
