// SPDX-License-Identifier: MIT OR Apache-2.0
//! Kernel memory: what creation takes, destruction gives back, to the byte, for each kind of object.
//!
//! Each case is done in a domain of its own that pays for it: once to let tables grow that stay, then again between two
//! readings.

use crate::harness::{Failure, Outcome, Test};
use crate::make::{semaphore, used};
use crate::{check, equal};
use cloister_abi::cap::{Access, NONE, Selector, SpaceKind};
use cloister_abi::hip::{MACHINE, MACHINE_MEMORY, ROOT_PD};
use cloister_abi::hypercall::{
    CreateEc, CreatePd, CreatePt, CreateSc, CreateSm, CreateSpace, CreateVcpu, Delegate, Drop, EcFlags, MachineControl,
    MachineOp, Revoke,
};
use cloister_abi::status::Status;
use cloister_bare::domain::Domain;
use cloister_bare::kernel::{call, selectors};
use cloister_bare::memory::{PAGE, frames};
use cloister_bare::thread::destroy;

pub(crate) static TESTS: [Test; 10] = [
    ("account-semaphore", semaphores),
    ("account-portal-and-local-ec", portal),
    ("account-thread", thread),
    ("account-domain", domain),
    ("account-guest-space", guest_space),
    ("account-vcpu", vcpu),
    ("account-mappings", mappings),
    ("account-failed-creation", failed),
    ("account-hundred-domains", hundred),
    ("account-pool", pool),
];

/// Where in the domain's memory things are put.
const PLACE: u64 = 0x7000_0000;

/// Runs `case` twice in a fresh domain; what is used before and after the second time is the same.
fn balanced(case: fn(&Domain, Selector) -> Result<(), Status>) -> Outcome {
    let domain = Domain::empty(0x20_0000)?;
    let sel = selectors(16);
    case(&domain, sel)?;
    let before = used(domain.pd)?;
    for _ in 0..3 {
        case(&domain, sel)?;
    }
    equal!(used(domain.pd)?, before);
    destroy(domain.pd);
    call(&Drop { base: domain.pd, count: 4 })?;
    Ok(())
}

/// Destroys, and drops the capabilities that keep what is left.
fn clear(base: Selector, count: u32) -> Result<(), Status> {
    for sel in base..base + count {
        destroy(sel);
    }
    call(&Drop { base, count }).map(drop)
}

fn semaphores() -> Outcome {
    balanced(|domain, sel| {
        for sel in sel..sel + 8 {
            call(&CreateSm { sel, pd: domain.pd, count: 0, target: NONE, bit: 0 })?;
        }
        clear(sel, 8)
    })
}

fn local_ec(domain: &Domain, sel: Selector, flags: EcFlags) -> Result<(), Status> {
    let flags = CreateEc::pack(flags, 0, NONE);
    call(&CreateEc { sel, pd: domain.pd, flags, utcb: PLACE, sp: PLACE, ip: PLACE }).map(drop)
}

fn portal() -> Outcome {
    balanced(|domain, sel| {
        local_ec(domain, sel, EcFlags::FPU)?;
        call(&CreatePt { sel: sel + 1, pd: domain.pd, ec: sel, ip: 0x1000, id: 0 })?;
        clear(sel, 2)
    })
}

fn thread() -> Outcome {
    balanced(|domain, sel| {
        local_ec(domain, sel, EcFlags::GLOBAL)?;
        call(&CreateSc { sel: sel + 1, pd: domain.pd, ec: sel, priority: 0, quantum: 1000 })?;
        clear(sel, 2)
    })
}

fn domain() -> Outcome {
    balanced(|domain, sel| {
        call(&CreatePd { sel, pd: domain.pd, budget: 0x2_0000, priorities: 0 })?;
        call(&CreateSm { sel: sel + 4, pd: sel, count: 0, target: NONE, bit: 0 })?;
        destroy(sel);
        call(&Drop { base: sel, count: 5 }).map(drop)
    })
}

fn guest_pages(domain: &Domain, sel: Selector) -> Result<(), Status> {
    call(&CreateSpace { sel, pd: domain.pd, kind: SpaceKind::Guest as u64 })?;
    let rights = (Access::READ | Access::WRITE).bits().into();
    let src_base = frames(0) / PAGE;
    for dst_base in [0, 0x200, 0x4_0000, 0x800_0000] {
        call(&Delegate { src: MACHINE_MEMORY, dst: sel, src_base, dst_base, order: 0, rights })?;
    }
    Ok(())
}

fn guest_space() -> Outcome {
    balanced(|domain, sel| {
        guest_pages(domain, sel)?;
        clear(sel, 1)
    })
}

fn vcpu() -> Outcome {
    let result = balanced(|domain, sel| {
        guest_pages(domain, sel)?;
        call(&CreateVcpu { sel: sel + 1, pd: domain.pd, guest: sel, host: domain.host, address: PLACE, core: 0 })?;
        clear(sel, 2)
    });
    match result {
        Err(Failure::Failed(_)) if !crate::guest_guards::supported() => Err(Failure::Skipped("no guests here")),
        other => other,
    }
}

/// Tables of a space may stay until the space goes, or go with the last page: the second time costs nothing more.
fn mappings() -> Outcome {
    balanced(|domain, _| {
        let rights = (Access::READ | Access::WRITE).bits().into();
        for (order, place) in [(0, PLACE), (4, PLACE + 0x10_0000), (9, PLACE + 0x20_0000)] {
            let (src_base, dst_base) = (frames(order) / PAGE, place / PAGE);
            call(&Delegate { src: MACHINE_MEMORY, dst: domain.host, src_base, dst_base, order, rights })?;
            call(&Revoke { space: domain.host, base: dst_base, order })?;
        }
        Ok(())
    })
}

/// With any budget, creation succeeds or changes nothing.
fn failed() -> Outcome {
    let (mut refused, mut succeeded) = (0, 0);
    for pages in 0..24 {
        let domain = Domain::empty(pages * 0x1000);
        let Ok(domain) = domain else {
            refused += 1;
            continue;
        };
        let sel = selectors(8);
        let before = used(domain.pd)?;
        for (kind, result) in [
            local_ec(&domain, sel, EcFlags::FPU),
            call(&CreateSpace { sel, pd: domain.pd, kind: SpaceKind::Guest as u64 }).map(drop),
            call(&CreatePd { sel, pd: domain.pd, budget: 0x8000, priorities: 0 }).map(drop),
            call(&CreateSm { sel, pd: domain.pd, count: 0, target: NONE, bit: 0 }).map(drop),
        ]
        .into_iter()
        .enumerate()
        {
            match result {
                Ok(()) => succeeded += 1,
                Err(Status::OutOfBudget) => refused += 1,
                // The EC's capability was replaced, its message page may still be there.
                Err(other) => {
                    equal!((kind, other), (0, Status::Busy));
                }
            }
        }
        check!(used(domain.pd)? >= before);
        destroy(domain.pd);
        call(&Drop { base: domain.pd, count: 4 })?;
        call(&Drop { base: sel, count: 8 })?;
    }
    check!(refused > 0 && succeeded > 0);
    Ok(())
}

/// A hundred lives of a domain leave this program's account where it was.
fn hundred() -> Outcome {
    let base = selectors(12);
    let life = || -> Result<(), Status> {
        call(&CreatePd { sel: base, pd: ROOT_PD, budget: 0x10_0000, priorities: 0 })?;
        let domain = Domain { pd: base, objects: base + 1, host: base + 2, ports: base + 3 };
        local_ec(&domain, base + 4, EcFlags::GLOBAL | EcFlags::FPU)?;
        call(&CreateSm { sel: base + 5, pd: domain.pd, count: 0, target: NONE, bit: 0 })?;
        destroy(domain.pd);
        call(&Drop { base, count: 12 }).map(drop)
    };
    life()?;
    let before = used(ROOT_PD)?;
    for _ in 0..100 {
        life()?;
    }
    equal!(used(ROOT_PD)?, before);
    Ok(())
}

/// The kernel's pool and the accounts move together.
fn pool() -> Outcome {
    let memory = || call(&MachineControl { machine: MACHINE, operation: MachineOp::Memory as u64, value: 0 });
    let base = selectors(4);
    let life = || -> Result<(), Status> {
        call(&CreatePd { sel: base, pd: ROOT_PD, budget: 0x10_0000, priorities: 0 })?;
        destroy(base);
        call(&Drop { base, count: 4 }).map(drop)
    };
    life()?;
    let (_, before) = memory()?;
    for _ in 0..20 {
        life()?;
    }
    equal!(memory()?.1, before);
    let sm = semaphore(0)?;
    destroy(sm);
    Ok(())
}
