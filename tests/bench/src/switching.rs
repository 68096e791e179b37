// SPDX-License-Identifier: MIT OR Apache-2.0
//! What it costs to give the processor to others: with more and more who could run, with more and more who wait for a time, and to a
//! server that is busy. The others need no stack: each is a loop of one hypercall.

use crate::calls::{number, syscall};
use crate::report;
use cloister_abi::arch::x86_64::HYPERCALL_BASE;
use cloister_abi::cap::{NONE, Selector};
use cloister_abi::hip::ROOT_PD;
use cloister_abi::hypercall::{
    Call, CreateEc, CreateSc, CreateSm, Drop, EcFlags, IpcCall, IpcReply, SmDown, SmUp, Yield,
};
use cloister_abi::status::Status;
use cloister_abi::utcb::Header;
use cloister_bare::kernel::{call, ipc, selector, selectors};
use cloister_bare::memory::addresses;
use cloister_bare::thread::{Options, destroy, server};
use cloister_bare::time::now;
use core::arch::naked_asm;
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Priority of the thread that measures: the highest.
const HIGHEST: u32 = 127;
/// A time slice longer than any measurement, microseconds.
const QUANTUM: u64 = 1_000_000_000;
/// A time that does not come, ticks.
const NEVER: u64 = 1 << 60;
/// Rounds, of which the shortest counts.
const ROUNDS: usize = 8;
/// Most who run or wait.
const MOST: u32 = 1000;

/// Gives its turn away, for ever.
#[unsafe(naked)]
extern "C" fn yielding() -> ! {
    naked_asm!("2: mov eax, {call}", "syscall", "jmp 2b", call = const HYPERCALL_BASE + Yield::NUMBER)
}

/// Waits at the semaphore in `WAITED`, to a time that does not come.
#[unsafe(naked)]
pub(crate) extern "C" fn waiting() -> ! {
    naked_asm!("2: mov edi, [rip + {sm}]", "xor esi, esi", "mov rdx, {never}", "mov eax, {call}", "syscall", "jmp 2b",
        sm = sym WAITED, never = const NEVER, call = const HYPERCALL_BASE + SmDown::NUMBER)
}

/// Lets the measuring thread go on, again and again.
#[unsafe(naked)]
pub(crate) extern "C" fn waking() -> ! {
    naked_asm!("2: mov edi, [rip + {sm}]", "mov eax, {call}", "syscall", "jmp 2b",
        sm = sym WOKEN, call = const HYPERCALL_BASE + SmUp::NUMBER)
}

/// Calls the portal in `CALLED`, again and again.
#[unsafe(naked)]
pub(crate) extern "C" fn calling() -> ! {
    naked_asm!("2: mov edi, [rip + {portal}]", "mov esi, 1", "xor edx, edx", "mov eax, {call}", "syscall", "jmp 2b",
        portal = sym CALLED, call = const HYPERCALL_BASE + IpcCall::NUMBER)
}

/// A server's entry: wakes whoever waits at `WOKEN`, then answers.
#[unsafe(naked)]
extern "C" fn serving() -> ! {
    naked_asm!("mov edi, [rip + {sm}]", "mov eax, {up}", "syscall", "mov edi, 1", "mov eax, {reply}", "syscall", "ud2",
        sm = sym WOKEN, up = const HYPERCALL_BASE + SmUp::NUMBER, reply = const HYPERCALL_BASE + IpcReply::NUMBER)
}

pub(crate) static WAITED: AtomicU32 = AtomicU32::new(0);
pub(crate) static WOKEN: AtomicU32 = AtomicU32::new(0);
pub(crate) static CALLED: AtomicU32 = AtomicU32::new(0);

/// Threads of one kind, at selectors of their own: EC and SC of each.
pub(crate) struct Crowd {
    base: Selector,
    count: u32,
}

impl Crowd {
    pub(crate) fn new(count: u32, entry: extern "C" fn() -> !, priority: u32) -> Result<Self, Status> {
        let base = selectors(2 * count);
        for sel in (base..base + 2 * count).step_by(2) {
            let flags = CreateEc::pack(EcFlags::GLOBAL, 0, NONE);
            let ip = entry as *const () as u64;
            call(&CreateEc { sel, pd: ROOT_PD, flags, utcb: addresses(0), sp: 0, ip })?;
            call(&CreateSc { sel: sel + 1, pd: ROOT_PD, ec: sel, priority, quantum: QUANTUM })?;
        }
        Ok(Self { base, count })
    }

    pub(crate) fn end(self) -> Result<(), Status> {
        for sel in (self.base..self.base + 2 * self.count).step_by(2) {
            destroy(sel + 1);
            destroy(sel);
            call(&Drop { base: sel, count: 2 })?;
        }
        Ok(())
    }
}

pub(crate) fn semaphore() -> Result<Selector, Status> {
    let sel = selector();
    call(&CreateSm { sel, pd: ROOT_PD, count: 0, target: NONE, bit: 0 })?;
    Ok(sel)
}

fn shortest(mut walk: impl FnMut()) -> u64 {
    let mut least = u64::MAX;
    for _ in 0..ROUNDS {
        let start = now();
        walk();
        least = least.min(now() - start);
    }
    least
}

/// All who could run give their turn away: instructions of one turn.
pub(crate) fn runnable() -> Result<(), Status> {
    for (count, name) in [(2, "switch-2"), (10, "switch-10"), (100, "switch-100"), (MOST, "switch-1000")] {
        let crowd = Crowd::new(count - 1, yielding, HIGHEST)?;
        let round = shortest(|| {
            syscall(number::<Yield>(), &[0; 6]);
        });
        report(name, round / u64::from(count));
        crowd.end()?;
    }
    Ok(())
}

/// Many wait for a time that is far. One more waits for a time sooner or later than all these, and is woken by a thread.
pub(crate) fn timers() -> Result<(), Status> {
    WAITED.store(semaphore()?, Relaxed);
    WOKEN.store(semaphore()?, Relaxed);
    let waker = Crowd::new(1, waking, 1)?;
    for (count, soon, late) in
        [(0, "timer-0", "timer-0-last"), (10, "timer-10", "timer-10-last"), (MOST, "timer-1000", "timer-1000-last")]
    {
        let crowd = Crowd::new(count, waiting, 100)?;
        let woken = WOKEN.load(Relaxed);
        // Lets all of them begin to wait.
        call(&SmDown { sm: woken, flags: 0, deadline: 0 })?;
        for (name, deadline) in [(soon, NEVER - 1), (late, NEVER + 1)] {
            let walk = shortest(|| {
                syscall(number::<SmDown>(), &SmDown { sm: woken, flags: 0, deadline }.encode());
            });
            report(name, walk);
        }
        crowd.end()?;
    }
    waker.end()
}

/// A server is in the middle of answering an unimportant caller, and this thread calls it: it lends its time to the answer, then is served.
pub(crate) fn helping() -> Result<(), Status> {
    WOKEN.store(semaphore()?, Relaxed);
    let server = server(|_, header| header, &Options::default())?;
    let portal = server.portal_at(serving as *const () as u64, 0)?;
    CALLED.store(portal, Relaxed);
    ipc(portal, 1, 0)?;
    let header = Header::new(1, 0).0;
    let free = shortest(|| {
        syscall(number::<IpcCall>(), &IpcCall { portal, header, flags: 0 }.encode());
    });
    let caller = Crowd::new(1, calling, 1)?;
    let mut least = u64::MAX;
    for _ in 0..ROUNDS {
        // The semaphore counted the calls so far; when it is empty the unimportant caller's server wakes this thread.
        let woken = WOKEN.load(Relaxed);
        while call(&SmDown { sm: woken, flags: 3, deadline: 0 }).is_ok() {}
        call(&SmDown { sm: woken, flags: 0, deadline: 0 })?;
        let start = now();
        syscall(number::<IpcCall>(), &IpcCall { portal, header, flags: 0 }.encode());
        least = least.min(now() - start);
    }
    caller.end()?;
    report("ipc-idle-server", free);
    report("ipc-busy-server", least);
    server.destroy();
    Ok(())
}
