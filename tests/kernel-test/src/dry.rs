// SPDX-License-Identifier: MIT OR Apache-2.0
//! The kernel's pool runs dry. That happens only where the kernel was told to promise more than there is (`overcommit=` on its command
//! line): else a budget is used up first. Whoever wants memory then is told so, and nothing is changed, whatever his budget; what was taken
//! comes back.
//!
//! A domain takes the pool's frames as page tables, one for each 2 MiB of addresses, so that they can be given back one by one.

use crate::harness::{Failure, Outcome, Test, parameter};
use crate::make::{down_for, semaphore};
use crate::rollback::{LOOK, MOST, fresh, state};
use crate::{check, equal, refused};
use cloister_abi::cap::{Access, NONE, Selector};
use cloister_abi::hip::{MACHINE, MACHINE_MEMORY, ROOT_PD};
use cloister_abi::hypercall::{CreateSm, Delegate, Drop, MachineControl, MachineOp, PdInfo, Revoke};
use cloister_abi::status::Status;
use cloister_bare::domain::Domain;
use cloister_bare::entry::hip;
use cloister_bare::kernel::call;
use cloister_bare::memory::{PAGE, frames};
use cloister_bare::thread::destroy;

pub(crate) static TESTS: [Test; 2] = [("pool-size-as-told", size), ("pool-dry", dry)];

/// What is left to this program of its budget.
const KEPT: u64 = 4 << 20;
/// Where the domain's pages are mapped, each with a table of its own.
const FIRST: u64 = 1 << 40;
const STEP: u64 = 2 << 20;

/// A size on the command line, in MiB.
pub(crate) fn told(word: &str) -> Option<u64> {
    parameter(word)?.strip_suffix('M')?.parse().ok().map(|mebibytes: u64| mebibytes << 20)
}

/// The pool is as large as the command line says, or an eighteenth of memory.
fn size() -> Outcome {
    let (size, _) = call(&MachineControl { machine: MACHINE, operation: MachineOp::Memory as u64, value: 0 })?;
    equal!(hip().kernel_memory, size);
    match told("kernel-memory") {
        Some(told) => equal!(size, told),
        None => check!(((16 << 20)..=(256 << 20)).contains(&size) && size % STEP <= STEP),
    }
    Ok(())
}

/// Who holds the pool's frames.
struct Holder {
    domain: Domain,
    page: u64,
    count: u64,
}

impl Holder {
    /// Takes all frames.
    fn new() -> Result<Self, Status> {
        let (limit, used) = call(&PdInfo { pd: ROOT_PD })?;
        let mut holder = Self { domain: Domain::empty(limit - used - KEPT)?, page: frames(0) / PAGE, count: 0 };
        loop {
            match holder.map(holder.count) {
                Ok(()) => holder.count += 1,
                Err(Status::OutOfMemory) => return Ok(holder),
                Err(other) => return Err(other),
            }
        }
    }

    fn map(&self, index: u64) -> Result<(), Status> {
        let (src_base, dst_base) = (self.page, (FIRST + index * STEP) / PAGE);
        let rights = Access::READ.bits().into();
        call(&Delegate { src: MACHINE_MEMORY, dst: self.domain.host, src_base, dst_base, order: 0, rights }).map(drop)
    }

    /// Gives one frame back.
    fn release(&mut self) -> Result<(), Status> {
        self.count -= 1;
        call(&Revoke { space: self.domain.host, base: (FIRST + self.count * STEP) / PAGE, order: 0 }).map(drop)
    }

    fn end(self) -> Result<(), Status> {
        destroy(self.domain.pd);
        call(&Drop { base: self.domain.pd, count: 4 }).map(drop)
    }
}

/// Tries a case of this program's with no frame in the pool, then with one, two, until it succeeds, for which it needs so many at least.
pub(crate) fn tries(least: u64, case: &dyn Fn(Selector, Selector) -> Result<(), Status>) -> Outcome {
    if told("overcommit").is_none() {
        return Ok(());
    }
    let sel = fresh();
    let mut holder = Holder::new()?;
    let mut done = None;
    for pages in 0..MOST {
        let before = state(ROOT_PD, sel)?;
        match case(ROOT_PD, sel) {
            Err(status) => equal!(status, Status::OutOfMemory),
            Ok(()) => {
                done = Some(pages);
                break;
            }
        }
        equal!((pages, state(ROOT_PD, sel)?), (pages, before));
        holder.release()?;
    }
    for sel in sel..sel + LOOK {
        destroy(sel);
    }
    call(&Drop { base: sel, count: LOOK })?;
    holder.end()?;
    check!(done.is_some_and(|pages| pages >= least));
    Ok(())
}

fn dry() -> Outcome {
    if told("overcommit").is_none() {
        return Err(Failure::Skipped("the kernel promises no more than there is"));
    }
    // What earlier tests left to other cores is done.
    let _ = down_for(semaphore(0)?, 5_000);
    let rich = Domain::empty(1 << 20)?;
    let sel = fresh();
    let before = state(rich.pd, sel)?;
    let new = CreateSm { sel, pd: rich.pd, count: 0, target: NONE, bit: 0 };
    let mut holder = Holder::new()?;
    equal!(call(&MachineControl { machine: MACHINE, operation: MachineOp::Memory as u64, value: 0 })?.1, 0);
    // A budget of one's own is no help, and neither it nor anybody's else is charged.
    let (limit, used) = call(&PdInfo { pd: rich.pd })?;
    check!(used + 4 * PAGE <= limit);
    for _ in 0..3 {
        refused!(OutOfMemory, new);
        equal!(call(&PdInfo { pd: rich.pd })?, (limit, used));
    }
    // A frame for the object's place and one for the selector's, if there is none.
    for _ in 0..2 {
        holder.release()?;
    }
    call(&new)?;
    destroy(sel);
    call(&Drop { base: sel, count: 1 })?;
    holder.end()?;
    // The table of the selector stays.
    let after = state(rich.pd, sel)?;
    check!(after.pool() + PAGE >= before.pool());
    destroy(rich.pd);
    call(&Drop { base: rich.pd, count: 4 })?;
    Ok(())
}
