// SPDX-License-Identifier: MIT OR Apache-2.0
//! Roll-back: whatever is made is first tried with no memory, then with one page, with two, until it succeeds. Each failure must leave
//! everything as it was: budgets, the kernel's pool, selectors, and what is mapped (or the try that succeeds would find it).
//!
//! The budget is squeezed by moving what is free of it elsewhere: once that of this program, which also pays for the tables of its
//! selectors, and once that of a domain that pays for the object.

use crate::harness::{Outcome, Test};
use crate::make::{EMPTY, down_for, give, semaphore};
use crate::{check, equal};
use cloister_abi::cap::{Access, NONE, Perms, Selector, SpaceKind};
use cloister_abi::hip::{MACHINE, MACHINE_MEMORY, MACHINE_PIO, ROOT_HOST, ROOT_OBJECTS, ROOT_PD};
use cloister_abi::hypercall::{
    CreateEc, CreatePd, CreatePt, CreateSc, CreateSm, CreateSpace, CreateVcpu, Delegate, Drop, EcFlags, MachineControl,
    MachineOp, MoveBudget, PdInfo, Revoke,
};
use cloister_abi::status::Status;
use cloister_bare::domain::Domain;
use cloister_bare::kernel::call;
use cloister_bare::memory::{PAGE, addresses, frames};
use cloister_bare::thread::destroy;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

pub(crate) static TESTS: [Test; 13] = [
    ("rollback-pd", pd),
    ("rollback-pd-budget", pd_budget),
    ("rollback-space", space),
    ("rollback-ec", ec),
    ("rollback-sc", sc),
    ("rollback-pt", pt),
    ("rollback-sm", sm),
    ("rollback-vcpu", vcpu),
    ("rollback-delegate-capabilities", capabilities),
    ("rollback-delegate-pages", pages),
    ("rollback-delegate-guest-pages", guest_pages),
    ("rollback-delegate-ports", ports),
    ("rollback-move-budget", budgets),
];

/// Most pages that anything here needs.
pub(crate) const MOST: u64 = 40;
/// Selectors that are looked at.
pub(crate) const LOOK: u32 = 4;

/// A selector whose neighbours are in tables that nobody has used: the last two places of one and the first of the next.
pub(crate) fn fresh() -> Selector {
    static NEXT: AtomicU32 = AtomicU32::new(100 * 512);
    NEXT.fetch_add(1024, Ordering::Relaxed) + 510
}

/// Start of a range so large that nothing of its tables is there.
fn untouched() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1 << 40);
    NEXT.fetch_add(1 << 39, Ordering::Relaxed)
}

/// What must not change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct State {
    own: (u64, u64),
    payer: (u64, u64),
    pool: u64,
    selectors: [bool; LOOK as usize],
}

impl State {
    /// Free bytes of the kernel's pool.
    pub(crate) const fn pool(&self) -> u64 {
        self.pool
    }
}

pub(crate) fn state(payer: Selector, sel: Selector) -> Result<State, Status> {
    let memory = MachineControl { machine: MACHINE, operation: MachineOp::Memory as u64, value: 0 };
    let mut there = [false; LOOK as usize];
    for (there, sel) in there.iter_mut().zip(sel..) {
        *there = give(ROOT_OBJECTS, sel, EMPTY, Perms::empty()).is_ok();
    }
    call(&Drop { base: EMPTY, count: 1 })?;
    let (own, payer) = (call(&PdInfo { pd: ROOT_PD })?, call(&PdInfo { pd: payer })?);
    Ok(State { own, payer, pool: call(&memory)?.1, selectors: there })
}

/// Leaves so much of a PD's budget, and answers how much went to `bank`.
fn squeeze(pd: Selector, bank: Selector, left: u64) -> Result<u64, Status> {
    let (limit, used) = call(&PdInfo { pd })?;
    let bytes = (limit - used).saturating_sub(left);
    call(&MoveBudget { from: pd, to: bank, bytes })?;
    Ok(bytes)
}

/// Tries with more and more memory, until it succeeds; answers how much it took.
pub(crate) fn tries(
    payer: Selector,
    sel: Selector,
    case: &dyn Fn(Selector, Selector) -> Result<(), Status>,
) -> Result<u64, Failed> {
    let bank = Domain::empty(0x1_0000)?;
    for left in 0..MOST {
        let moved = squeeze(payer, bank.pd, left * PAGE)?;
        let before = state(payer, sel)?;
        let result = case(payer, sel);
        let after = state(payer, sel)?;
        call(&MoveBudget { from: bank.pd, to: payer, bytes: moved })?;
        match result {
            Err(Status::OutOfBudget) => {
                if before != after {
                    return Err(Failed::Changed(left));
                }
            }
            Err(other) => return Err(Failed::Status(other)),
            Ok(()) => {
                destroy(bank.pd);
                call(&Drop { base: bank.pd, count: 4 })?;
                return Ok(left);
            }
        }
    }
    Err(Failed::Status(Status::OutOfBudget))
}

/// Why the tries came to nothing.
pub(crate) enum Failed {
    Status(Status),
    /// With so many pages it failed, and changed something.
    Changed(u64),
}

impl From<Status> for Failed {
    fn from(status: Status) -> Self {
        Self::Status(status)
    }
}

/// Tries a case as this program's, then as a domain's that pays. At least `own` and `other` pages are needed for that. Then, where the
/// kernel has promised more than there is, as this program's with the kernel's pool dry.
pub(crate) fn squeezed(own: u64, other: u64, case: &dyn Fn(Selector, Selector) -> Result<(), Status>) -> Outcome {
    // What earlier tests left to other cores is done.
    let _ = down_for(semaphore(0)?, 5_000);
    let domain = Domain::empty(0x20_0000)?;
    fill(&domain)?;
    for (payer, least) in [(ROOT_PD, own), (domain.pd, other)] {
        let sel = fresh();
        match tries(payer, sel, case) {
            Ok(pages) => check!(pages >= least),
            Err(Failed::Status(status)) => return Err(status.into()),
            Err(Failed::Changed(pages)) => equal!(("changed with pages", pages), ("changed with pages", u64::MAX)),
        }
        for sel in sel..sel + LOOK {
            destroy(sel);
        }
        call(&Drop { base: sel, count: LOOK })?;
    }
    destroy(domain.pd);
    call(&Drop { base: domain.pd, count: 4 })?;
    crate::dry::tries(own, case)
}

/// Makes semaphores in a domain until there is no slot left among its objects of their size.
fn fill(domain: &Domain) -> Result<(), Status> {
    let bank = Domain::empty(0x1_0000)?;
    let bytes = squeeze(domain.pd, bank.pd, 0)?;
    let semaphore = CreateSm { sel: EMPTY, pd: domain.pd, count: 0, target: NONE, bit: 0 };
    let keep = fresh();
    let full = (keep..keep + 100).try_for_each(|sel| call(&CreateSm { sel, ..semaphore }).map(drop));
    call(&MoveBudget { from: bank.pd, to: domain.pd, bytes })?;
    destroy(bank.pd);
    call(&Drop { base: bank.pd, count: 4 })?;
    if full == Err(Status::OutOfBudget) { Ok(()) } else { Err(Status::BadParameter) }
}

fn pd() -> Outcome {
    squeezed(2, 1, &|pd, sel| call(&CreatePd { sel, pd, budget: 4 * PAGE, priorities: 0 }).map(drop))
}

/// The new PD's own budget is what is too small.
fn pd_budget() -> Outcome {
    let sel = fresh();
    let mut refused = 0;
    for pages in 0..MOST {
        let before = state(ROOT_PD, sel)?;
        match call(&CreatePd { sel, pd: ROOT_PD, budget: pages * PAGE, priorities: 0 }) {
            Ok(_) => break,
            Err(status) => {
                equal!(status, Status::OutOfBudget);
                refused += 1;
            }
        }
        equal!(state(ROOT_PD, sel)?, before);
    }
    check!((2..MOST).contains(&refused));
    destroy(sel);
    call(&Drop { base: sel, count: LOOK })?;
    Ok(())
}

fn space() -> Outcome {
    squeezed(2, 1, &|pd, sel| call(&CreateSpace { sel, pd, kind: SpaceKind::Guest as u64 }).map(drop))
}

fn new_ec(sel: Selector, pd: Selector, flags: EcFlags, utcb: u64) -> Result<(), Status> {
    call(&CreateEc { sel, pd, flags: CreateEc::pack(flags, 0, NONE), utcb, sp: 0x1000, ip: 0x1000 }).map(drop)
}

fn ec() -> Outcome {
    for flags in [EcFlags::empty(), EcFlags::FPU, EcFlags::GLOBAL | EcFlags::FPU] {
        let utcb = untouched();
        squeezed(5, 4, &|pd, sel| new_ec(sel, pd, flags, utcb))?;
    }
    Ok(())
}

fn sc() -> Outcome {
    let domain = Domain::empty(0x2_0000)?;
    let ec = cloister_bare::kernel::selector();
    // It faults at once if it ever runs, and is stopped.
    new_ec(ec, domain.pd, EcFlags::GLOBAL, 0x7000_0000)?;
    squeezed(1, 0, &|pd, sel| call(&CreateSc { sel, pd, ec, priority: 0, quantum: 1000 }).map(drop))
}

fn pt() -> Outcome {
    let ec = cloister_bare::kernel::selector();
    new_ec(ec, ROOT_PD, EcFlags::empty(), addresses(0))?;
    squeezed(1, 0, &|pd, sel| call(&CreatePt { sel, pd, ec, ip: 0x1000, id: 0 }).map(drop))
}

fn sm() -> Outcome {
    squeezed(1, 1, &|pd, sel| call(&CreateSm { sel, pd, count: 1, target: NONE, bit: 0 }).map(drop))?;
    let target = semaphore(0)?;
    squeezed(1, 1, &|pd, sel| call(&CreateSm { sel, pd, count: 0, target, bit: 3 }).map(drop))
}

fn vcpu() -> Outcome {
    if !crate::guest_guards::supported() {
        return Err(crate::harness::Failure::Skipped("no guests here"));
    }
    let guest = cloister_bare::kernel::selector();
    call(&CreateSpace { sel: guest, pd: ROOT_PD, kind: SpaceKind::Guest as u64 })?;
    let (host, address) = (ROOT_HOST, untouched());
    squeezed(5, 3, &|pd, sel| call(&CreateVcpu { sel, pd, guest, host, address, core: 0 }).map(drop))
}

/// A domain whose spaces are delegated to while its budget is squeezed.
fn into_domain(least: u64, case: &dyn Fn(&Domain) -> Result<(), Status>) -> Outcome {
    let domain = Domain::empty(0x20_0000)?;
    match tries(domain.pd, fresh(), &|_, _| case(&domain)) {
        Ok(pages) => equal!(pages, least),
        Err(Failed::Status(status)) => return Err(status.into()),
        Err(Failed::Changed(pages)) => equal!(("changed with pages", pages), ("changed with pages", u64::MAX)),
    }
    destroy(domain.pd);
    call(&Drop { base: domain.pd, count: 4 })?;
    Ok(())
}

fn capabilities() -> Outcome {
    for order in [0, 3, 9] {
        into_domain(1, &|domain| {
            let (src_base, dst_base) = (0, 0x4000);
            let (src, dst, src_base) =
                (ROOT_OBJECTS, domain.objects, if order == 0 { ROOT_PD.into() } else { src_base });
            call(&Delegate { src, dst, src_base, dst_base, order, rights: 0 }).map(drop)
        })?;
    }
    Ok(())
}

fn map(dst: Selector, order: u32, place: u64) -> Result<(), Status> {
    let rights = (Access::READ | Access::WRITE).bits().into();
    let (src_base, dst_base) = (frames(order) / PAGE, place / PAGE);
    call(&Delegate { src: MACHINE_MEMORY, dst, src_base, dst_base, order, rights }).map(drop)
}

fn pages() -> Outcome {
    for (order, tables) in [(0, 3), (4, 3), (9, 2), (10, 2)] {
        into_domain(tables, &|domain| map(domain.host, order, 1 << 40))?;
        // Taken back, all tables are too.
        let domain = Domain::empty(0x20_0000)?;
        let before = call(&PdInfo { pd: domain.pd })?;
        map(domain.host, order, 1 << 40)?;
        call(&Revoke { space: domain.host, base: (1 << 40) / PAGE, order })?;
        equal!(call(&PdInfo { pd: domain.pd })?, before);
        destroy(domain.pd);
        call(&Drop { base: domain.pd, count: 4 })?;
    }
    Ok(())
}

fn guest_pages() -> Outcome {
    for (order, tables) in [(0, 3), (9, 2)] {
        let guest = cloister_bare::kernel::selector();
        into_domain(tables + 1, &|domain| {
            // The root of the space too, since it goes when the mapping fails.
            call(&CreateSpace { sel: guest, pd: domain.pd, kind: SpaceKind::Guest as u64 })?;
            let mapped = map(guest, order, 1 << 40);
            if mapped.is_err() {
                destroy(guest);
                call(&Drop { base: guest, count: 1 })?;
            }
            mapped
        })?;
    }
    Ok(())
}

fn ports() -> Outcome {
    into_domain(2, &|domain| {
        let (src_base, dst_base) = (0x60, 0x60);
        call(&Delegate { src: MACHINE_PIO, dst: domain.ports, src_base, dst_base, order: 2, rights: 1 }).map(drop)
    })
}

fn budgets() -> Outcome {
    let domain = Domain::empty(0x1_0000)?;
    let (limit, used) = call(&PdInfo { pd: domain.pd })?;
    let root = call(&PdInfo { pd: ROOT_PD })?;
    for bytes in [limit - used + 1, limit + 1, 1 << 62, u64::MAX] {
        equal!(call(&MoveBudget { from: domain.pd, to: ROOT_PD, bytes }), Err(Status::OutOfBudget));
        equal!(call(&PdInfo { pd: domain.pd })?, (limit, used));
        equal!(call(&PdInfo { pd: ROOT_PD })?, root);
    }
    call(&MoveBudget { from: domain.pd, to: ROOT_PD, bytes: limit - used })?;
    equal!(call(&PdInfo { pd: domain.pd })?, (used, used));
    equal!(call(&PdInfo { pd: ROOT_PD })?, (root.0 + limit - used, root.1));
    destroy(domain.pd);
    call(&Drop { base: domain.pd, count: 4 })?;
    Ok(())
}
