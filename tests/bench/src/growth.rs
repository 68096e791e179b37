// SPDX-License-Identifier: MIT OR Apache-2.0
//! How creation, delegation and destruction grow: a domain with 10, 1,000 and 100,000 semaphores that only it refers to, and with as many
//! pages. Figures are instructions per object; and of the destruction, whose calls do a piece each, the longest piece.

use crate::calls::{number, syscall};
use crate::report;
use cloister_abi::cap::{Access, NONE, Perms, SELECTORS, Selector};
use cloister_abi::hip::{MACHINE_MEMORY, ROOT_OBJECTS};
use cloister_abi::hypercall::{Call, CreatePd, CreateSm, Delegate, Destroy, Drop};
use cloister_abi::status::Status;
use cloister_bare::domain::Domain;
use cloister_bare::kernel::{call, selector, selectors};
use cloister_bare::memory::{PAGE, frames};
use cloister_bare::time::now;

/// Numbers of objects, and the figures' names.
const COUNTS: [(u64, [&str; 5]); 3] = [
    (10, ["create-10", "give-10", "map-10", "destroy-10", "piece-10"]),
    (1_000, ["create-1000", "give-1000", "map-1000", "destroy-1000", "piece-1000"]),
    (100_000, ["create-100000", "give-100000", "map-100000", "destroy-100000", "piece-100000"]),
];
/// Kernel memory of the largest domain.
const BUDGET: u64 = 64 << 20;
/// Domains with large object spaces.
const DOMAINS: u32 = 16;
/// Order of the memory whose pages are mapped, again and again.
const ORDER: u32 = 4;

/// Instructions of a call, which must succeed or be called again.
fn timed<C: Call>(call: &C) -> Result<(bool, u64), Status> {
    let args = call.encode();
    let start = now();
    let (status, _) = syscall(number::<C>(), &args);
    let length = now() - start;
    match Status::from_raw(status) {
        Some(Status::Success) => Ok((false, length)),
        Some(Status::Again) => Ok((true, length)),
        other => Err(other.unwrap_or(Status::BadHypercall)),
    }
}

/// Instructions of all these calls.
fn all<C: Call>(count: u64, mut make: impl FnMut(u64) -> C) -> Result<u64, Status> {
    (0..count).try_fold(0, |sum, index| timed(&make(index)).map(|(_, length)| sum + length))
}

/// Destroys a domain. Answers the sum, and the longest of the calls.
fn destruction(pd: Selector) -> Result<(u64, u64), Status> {
    let (mut sum, mut longest) = (0, 0);
    loop {
        let (more, length) = timed(&Destroy { sel: pd })?;
        (sum, longest) = (sum + length, longest.max(length));
        if !more {
            call(&Drop { base: pd, count: 4 })?;
            return Ok((sum, longest));
        }
    }
}

/// Each count, in a domain of its own.
pub(crate) fn growth() -> Result<(), Status> {
    let (sm, physical) = (selector(), frames(ORDER) / PAGE);
    for (count, [create, give, map, destroy, piece]) in COUNTS {
        let domain = Domain::empty(BUDGET)?;
        let (mut creating, mut giving) = (0, 0);
        for index in 0..count {
            let new = CreateSm { sel: sm, pd: domain.pd, count: 0, target: NONE, bit: 0 };
            creating += timed(&new)?.1;
            let to = Delegate {
                src: ROOT_OBJECTS,
                dst: domain.objects,
                src_base: sm.into(),
                dst_base: index,
                order: 0,
                rights: Perms::ALL.bits().into(),
            };
            giving += timed(&to)?.1;
        }
        call(&Drop { base: sm, count: 1 })?;
        let mapping = all(count, |index| Delegate {
            src: MACHINE_MEMORY,
            dst: domain.host,
            src_base: physical + index % (1 << ORDER),
            dst_base: 0x1_0000 + index,
            order: 0,
            rights: (Access::READ | Access::WRITE).bits().into(),
        })?;
        let (destroying, longest) = destruction(domain.pd)?;
        for (name, sum) in [(create, creating), (give, giving), (map, mapping), (destroy, destroying)] {
            report(name, sum / count);
        }
        report(piece, longest);
    }
    tables()
}

/// Domains in a domain, whose object spaces have all tables that there can be, with one capability each: the longest piece of destroying it.
fn tables() -> Result<(), Status> {
    let outer = Domain::empty(BUDGET)?;
    for _ in 0..DOMAINS {
        let pd = selectors(4);
        call(&CreatePd { sel: pd, pd: outer.pd, budget: 3 << 20, priorities: 0 })?;
        for table in 0..u64::from(SELECTORS) / 512 {
            call(&Delegate {
                src: ROOT_OBJECTS,
                dst: pd + 1,
                src_base: outer.pd.into(),
                dst_base: table * 512,
                order: 0,
                rights: 0,
            })?;
        }
        call(&Drop { base: pd, count: 4 })?;
    }
    let (sum, longest) = destruction(outer.pd)?;
    report("destroy-tables", sum / u64::from(DOMAINS));
    report("piece-tables", longest);
    Ok(())
}
