// SPDX-License-Identifier: MIT OR Apache-2.0
//! How long the kernel keeps the processor when very many wait for one thing that goes, or goes on: the longest time that a thread of the
//! highest priority, which does it and then looks at the clock, does not get to look. What takes long must go in pieces.

use crate::report;
use crate::switching::{CALLED, Crowd, WAITED, WOKEN, calling, semaphore, waiting, waking};
use cloister_abi::hypercall::{Destroy, SmDown, SmUp};
use cloister_abi::status::Status;
use cloister_abi::utcb::Header;
use cloister_bare::kernel::call;
use cloister_bare::thread::{Context, Options, destroy, server};
use cloister_bare::time::now;
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// How many wait.
const MANY: u32 = 2_000;
/// All is over after so long, ticks.
const WHILE: u64 = 5_000_000;

static GATE: AtomicU32 = AtomicU32::new(0);
static NEXT: AtomicU32 = AtomicU32::new(0);

/// Longest time without a look at the clock, from before `act` on.
fn longest(act: impl FnOnce() -> Result<(), Status>) -> Result<u64, Status> {
    let mut last = now();
    let end = last + WHILE;
    act()?;
    let mut longest = 0;
    while last < end {
        let time = now();
        (longest, last) = (longest.max(time - last), time);
    }
    Ok(longest)
}

fn end(sel: u32) -> Result<(), Status> {
    loop {
        match call(&Destroy { sel }) {
            Err(Status::Again) => {}
            answer => return answer.map(drop),
        }
    }
}

/// Lets all others run until they wait.
fn settle() -> Result<(), Status> {
    let sm = WOKEN.load(Relaxed);
    call(&SmDown { sm, flags: 1, deadline: 0 })?;
    call(&SmDown { sm, flags: 1, deadline: 0 }).map(drop)
}

/// A server's handler: waits at the gate before it answers.
fn wait(_: u64, header: Header) -> Header {
    // Whatever ends the wait is an answer.
    let _ = call(&SmDown { sm: GATE.load(Relaxed), flags: 0, deadline: 0 });
    header
}

/// A server's handler: asks the next one.
fn ask(_: u64, header: Header) -> Header {
    cloister_bare::kernel::ipc(NEXT.load(Relaxed), header.words(), 0).unwrap_or(header)
}

/// Many want to call a server that waits for something, and its time is that of the first of them.
struct Queue {
    server: Context,
    first: Crowd,
    others: Crowd,
}

impl Queue {
    fn new(server: Context) -> Result<Self, Status> {
        GATE.store(semaphore()?, Relaxed);
        CALLED.store(server.portal(0)?, Relaxed);
        let first = Crowd::new(1, calling, 110)?;
        settle()?;
        let others = Crowd::new(MANY, calling, 100)?;
        settle()?;
        Ok(Self { server, first, others })
    }

    fn end(self) -> Result<(), Status> {
        self.first.end()?;
        self.others.end()?;
        destroy(self.server.ec);
        destroy(GATE.load(Relaxed));
        Ok(())
    }
}

/// A semaphore with many waiters is destroyed; a server with many who want to call it, and one in the middle between them and the one
/// that waits; and a server with many who want to call it goes on.
pub(crate) fn crowds() -> Result<(), Status> {
    WOKEN.store(semaphore()?, Relaxed);
    let waker = Crowd::new(1, waking, 1)?;
    let waited = semaphore()?;
    WAITED.store(waited, Relaxed);
    let crowd = Crowd::new(MANY, waiting, 100)?;
    settle()?;
    report("crowd-waits-longest", longest(|| end(waited))?);
    crowd.end()?;

    let queue = Queue::new(server(wait, &Options::default())?)?;
    report("crowd-calls-longest", longest(|| end(queue.server.ec))?);
    queue.end()?;

    let last = server(wait, &Options::default())?;
    NEXT.store(last.portal(0)?, Relaxed);
    let queue = Queue::new(server(ask, &Options::default())?)?;
    report("crowd-middle-longest", longest(|| end(queue.server.ec))?);
    queue.end()?;
    destroy(last.ec);

    let queue = Queue::new(server(wait, &Options::default())?)?;
    let gate = GATE.load(Relaxed);
    report("crowd-goes-on-longest", longest(|| call(&SmUp { sm: gate }).map(drop))?);
    queue.end()?;
    waker.end()
}
