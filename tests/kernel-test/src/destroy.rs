// SPDX-License-Identifier: MIT OR Apache-2.0
//! Destruction: dead for all who hold a capability, at once, and nobody else is hurt.

use crate::guest_guards::needed;
use crate::harness::{Outcome, Test};
use crate::make::{EMPTY, down_for, give, incrementer, limited, rest, semaphore, silent, up};
use crate::{check, equal, refused};
use cloister_abi::cap::{Access, NONE, Perms, SpaceKind};
use cloister_abi::hip::{MACHINE, MACHINE_MEMORY, ROOT_EC, ROOT_PD};
use cloister_abi::hypercall::{CreatePd, CreateSm, CreateSpace, Delegate, Destroy, Drop, MoveBudget, PdInfo, SmUp};
use cloister_abi::status::Status;
use cloister_bare::domain::Domain;
use cloister_bare::kernel::{call, ipc, selector, selectors};
use cloister_bare::memory::{PAGE, frames};
use cloister_bare::thread::{Options, destroy, prepare, spawn};
use core::sync::atomic::{AtomicU64, Ordering};

pub(crate) static TESTS: [Test; 13] = [
    ("destroy-guards", guards),
    ("destroy-is-for-all-holders", all_holders),
    ("destroy-twice", twice),
    ("destroy-running-thread", running),
    ("destroy-oneself", oneself),
    ("destroy-sc-only", sc_only),
    ("destroy-domain-with-everything", domain),
    ("destroy-nested-domains", nested),
    ("destroy-not-a-domains-own-space", own_spaces),
    ("destroy-in-pieces", pieces),
    ("destroy-lets-others-run", lets_run),
    ("destroy-dropped-space-in-pieces", dropped),
    ("budget-moves", budget),
];

fn guards() -> Outcome {
    refused!(BadCapability, Destroy { sel: EMPTY });
    refused!(BadCapability, Destroy { sel: 0 });
    refused!(BadCapability, Destroy { sel: NONE });
    refused!(BadCapability, Destroy { sel: MACHINE });
    let sm = semaphore(0)?;
    refused!(BadCapability, Destroy { sel: limited(sm, Perms::ALL.difference(Perms::CTRL))? });
    up(sm)?;
    destroy(sm);
    // The branch on which the program sits.
    refused!(BadParameter, Destroy { sel: ROOT_PD });
    check!(call(&PdInfo { pd: ROOT_PD }).is_ok());
    Ok(())
}

fn all_holders() -> Outcome {
    let sm = semaphore(0)?;
    let domain = Domain::empty(0x2_0000)?;
    give(domain.objects, sm, 100, Perms::ALL)?;
    let copy = limited(sm, Perms::ALL)?;
    destroy(copy);
    refused!(BadCapability, SmUp { sm });
    refused!(BadCapability, SmUp { sm: copy });
    destroy(domain.pd);
    Ok(())
}

fn twice() -> Outcome {
    let sm = semaphore(0)?;
    let copy = limited(sm, Perms::ALL)?;
    destroy(sm);
    refused!(BadCapability, Destroy { sel: sm });
    refused!(BadCapability, Destroy { sel: copy });
    Ok(())
}

static COUNT: AtomicU64 = AtomicU64::new(0);

extern "C" fn spin(_: u64) -> ! {
    loop {
        COUNT.fetch_add(1, Ordering::Relaxed);
    }
}

fn sleep(micros: u64) -> Outcome {
    let sm = semaphore(0)?;
    equal!(down_for(sm, micros), Err(Status::Timeout));
    destroy(sm);
    Ok(())
}

/// The EC goes while its SC stays in the queue; then the SC goes.
fn running() -> Outcome {
    let thread = spawn(spin, 0, 5)?;
    sleep(2_000)?;
    destroy(thread.ec);
    let before = COUNT.load(Ordering::Relaxed);
    sleep(2_000)?;
    equal!(COUNT.load(Ordering::Relaxed), before);
    destroy(thread.sc);
    Ok(())
}

extern "C" fn end_oneself(sel: u64) -> ! {
    destroy(u32::try_from(sel).unwrap_or_default());
    COUNT.store(u64::MAX, Ordering::Relaxed);
    rest()
}

fn oneself() -> Outcome {
    COUNT.store(0, Ordering::Relaxed);
    // The thread's EC gets the selector after those that its preparation takes now.
    let thread = prepare(end_oneself, 0, &Options::default())?;
    // SAFETY: the argument on the stack of a thread that does not run yet.
    unsafe { cloister_bare::memory::write(thread.stack - 8, u64::from(thread.ec)) };
    let mut thread = thread;
    cloister_bare::thread::start(&mut thread, 100, 1000)?;
    equal!(COUNT.load(Ordering::Relaxed), 0);
    refused!(BadCapability, Destroy { sel: thread.ec });
    destroy(thread.sc);
    Ok(())
}

fn sc_only() -> Outcome {
    let mut thread = spawn(spin, 0, 5)?;
    destroy(thread.sc);
    let before = COUNT.load(Ordering::Relaxed);
    sleep(2_000)?;
    equal!(COUNT.load(Ordering::Relaxed), before);
    // The EC can have another.
    cloister_bare::thread::start(&mut thread, 5, 1000)?;
    let mut rounds = 0;
    while COUNT.load(Ordering::Relaxed) == before && rounds < 1_000 {
        sleep(2_000)?;
        rounds += 1;
    }
    thread.destroy();
    check!(COUNT.load(Ordering::Relaxed) > before);
    Ok(())
}

/// A domain with threads, servers, semaphores, one of them waited for from outside.
fn domain() -> Outcome {
    let domain = Domain::with_image(0x20_0000)?;
    let server = domain.server(silent)?;
    let portal = server.portal(0)?;
    equal!(ipc(portal, 0, 0)?.0, 0);
    let sm = selector();
    call(&CreateSm { sel: sm, pd: domain.pd, count: 0, target: NONE, bit: 0 })?;
    for _ in 0..300 {
        let sel = selector();
        call(&CreateSm { sel, pd: domain.pd, count: 0, target: NONE, bit: 0 })?;
    }
    let waiter = spawn(wait_at, u64::from(sm), 100)?;
    equal!(COUNT.load(Ordering::Relaxed), 0);
    destroy(domain.pd);
    equal!(COUNT.load(Ordering::Relaxed), Status::Aborted as u64);
    refused!(BadCapability, PdInfo { pd: domain.pd });
    refused!(BadCapability, SmUp { sm });
    waiter.destroy();
    Ok(())
}

extern "C" fn wait_at(sm: u64) -> ! {
    COUNT.store(0, Ordering::Relaxed);
    if let Err(status) = crate::make::down(u32::try_from(sm).unwrap_or_default()) {
        COUNT.store(status as u64, Ordering::Relaxed);
    }
    rest()
}

/// Domains in domains go with the outermost, and their budgets come back.
fn nested() -> Outcome {
    let (limit, used) = call(&PdInfo { pd: ROOT_PD })?;
    let outer = Domain::empty(0x10_0000)?;
    let inner = selectors(4);
    call(&CreatePd { sel: inner, pd: outer.pd, budget: 0x4_0000, priorities: 0 })?;
    let innermost = selectors(4);
    call(&CreatePd { sel: innermost, pd: inner, budget: 0x2_0000, priorities: 0 })?;
    refused!(OutOfBudget, CreatePd { sel: selectors(4), pd: innermost, budget: 0x10_0000, priorities: 0 });
    destroy(outer.pd);
    for pd in [outer.pd, inner, innermost] {
        refused!(BadCapability, PdInfo { pd });
    }
    // What capabilities hold of it goes with these.
    for base in [outer.pd, inner, innermost] {
        call(&cloister_abi::hypercall::Drop { base, count: 4 })?;
    }
    equal!(call(&PdInfo { pd: ROOT_PD })?.0, limit);
    // Only the tables of this program's own selectors may have grown.
    check!(call(&PdInfo { pd: ROOT_PD })?.1.abs_diff(used) <= 0x4000);
    Ok(())
}

/// Threads run in the spaces of a domain, so they go with it only.
fn own_spaces() -> Outcome {
    let domain = Domain::empty(0x2_0000)?;
    for sel in [domain.objects, domain.host, domain.ports] {
        refused!(BadParameter, Destroy { sel });
    }
    destroy(domain.pd);
    for sel in [domain.objects, domain.host, domain.ports] {
        refused!(BadCapability, Destroy { sel });
    }
    Ok(())
}

fn budget() -> Outcome {
    let domain = Domain::empty(0x2_0000)?;
    let (limit, used) = call(&PdInfo { pd: domain.pd })?;
    equal!(limit, 0x2_0000);
    check!(used > 0 && used < limit);
    let to = domain.pd;
    call(&MoveBudget { from: ROOT_PD, to, bytes: 0x1_0000 })?;
    equal!(call(&PdInfo { pd: to })?.0, 0x3_0000);
    call(&MoveBudget { from: to, to: ROOT_PD, bytes: 0x1_0000 })?;
    equal!(call(&PdInfo { pd: to })?, (0x2_0000, used));
    refused!(OutOfBudget, MoveBudget { from: to, to: ROOT_PD, bytes: limit - used + 1 });
    refused!(OutOfBudget, MoveBudget { from: ROOT_PD, to, bytes: u64::MAX });
    refused!(BadCapability, MoveBudget { from: EMPTY, to, bytes: 1 });
    refused!(BadCapability, MoveBudget { from: ROOT_PD, to: ROOT_EC, bytes: 1 });
    let from = limited(to, Perms::ALL.difference(Perms::PD_CHILDREN))?;
    refused!(BadCapability, MoveBudget { from, to: ROOT_PD, bytes: 1 });
    let weak = limited(to, Perms::ALL.difference(Perms::CTRL))?;
    refused!(BadCapability, MoveBudget { from: ROOT_PD, to: weak, bytes: 1 });
    refused!(BadCapability, PdInfo { pd: weak });
    // All of it, and not a byte more: then nothing can be made any more, and then again.
    call(&MoveBudget { from: to, to: ROOT_PD, bytes: limit - used })?;
    let (server, _) = incrementer(0)?;
    let mut made = 0;
    while call(&CreateSm { sel: selector(), pd: to, count: 0, target: NONE, bit: 0 }) != Err(Status::OutOfBudget) {
        made += 1;
        check!(made < 1000);
    }
    call(&MoveBudget { from: ROOT_PD, to, bytes: 0x1000 })?;
    call(&CreateSm { sel: selector(), pd: to, count: 0, target: NONE, bit: 0 })?;
    server.destroy();
    destroy(to);
    Ok(())
}

/// A domain whose object space has the only capabilities to so many semaphores, which it pays for or not.
fn large(count: u32, own: bool) -> Result<Domain, Status> {
    let domain = Domain::empty(8 << 20)?;
    let pd = if own { domain.pd } else { ROOT_PD };
    let sm = selector();
    for index in 0..count {
        call(&CreateSm { sel: sm, pd, count: 0, target: NONE, bit: 0 })?;
        give(domain.objects, sm, index, Perms::ALL)?;
    }
    call(&Drop { base: sm, count: 1 })?;
    Ok(domain)
}

/// What is large goes in many pieces, and nothing gets into an object space that is being emptied.
fn pieces() -> Outcome {
    let used = call(&PdInfo { pd: ROOT_PD })?.1;
    let domain = large(3_000, false)?;
    let sm = semaphore(0)?;
    let mut more = 0;
    while call(&Destroy { sel: domain.pd }) == Err(Status::Again) {
        more += 1;
        // Behind where the pieces have come, and before.
        for place in [0, 2_900] {
            equal!(give(domain.objects, sm, place, Perms::ALL), Err(Status::BadCapability));
        }
    }
    // A piece is some fifty thousand instructions at most, an object some five hundred.
    check!((30..300).contains(&more));
    up(sm)?;
    destroy(sm);
    call(&Drop { base: domain.pd, count: 4 })?;
    equal!(call(&PdInfo { pd: ROOT_PD })?.1, used);
    Ok(())
}

extern "C" fn tick(sm: u64) -> ! {
    let sm = u32::try_from(sm).unwrap_or_default();
    while down_for(sm, 200) == Err(Status::Timeout) {
        COUNT.fetch_add(1, Ordering::Relaxed);
    }
    rest()
}

/// Who has a higher priority gets his time between the pieces.
fn lets_run() -> Outcome {
    let sm = semaphore(0)?;
    COUNT.store(0, Ordering::Relaxed);
    let thread = spawn(tick, u64::from(sm), 100)?;
    let mut between = 0;
    // Where a busy host lets the emulator's alarms ring late, one is not enough.
    for _ in 0..20 {
        let domain = large(3_000, true)?;
        let mut last = COUNT.load(Ordering::Relaxed);
        while call(&Destroy { sel: domain.pd }) == Err(Status::Again) {
            let count = COUNT.load(Ordering::Relaxed);
            between += u64::from(count != last);
            last = count;
        }
        call(&Drop { base: domain.pd, count: 4 })?;
        if between >= 2 {
            break;
        }
    }
    thread.destroy();
    destroy(sm);
    check!(between >= 2);
    Ok(())
}

/// A guest's space with many tables that nobody destroys: when the last capability is dropped all its memory comes back, and who asks for
/// it waits for that.
fn dropped() -> Outcome {
    needed()?;
    let used = call(&PdInfo { pd: ROOT_PD })?.1;
    let (space, physical) = (selector(), frames(0) / PAGE);
    for _ in 0..3 {
        call(&CreateSpace { sel: space, pd: ROOT_PD, kind: SpaceKind::Guest as u64 })?;
        for table in 0..600 {
            call(&Delegate {
                src: MACHINE_MEMORY,
                dst: space,
                src_base: physical,
                dst_base: table << 9,
                order: 0,
                rights: Access::READ.bits().into(),
            })?;
        }
        check!(call(&PdInfo { pd: ROOT_PD })?.1 > used + 600 * PAGE);
        call(&Drop { base: space, count: 1 })?;
        equal!(call(&PdInfo { pd: ROOT_PD })?.1, used);
    }
    Ok(())
}
