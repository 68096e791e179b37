// SPDX-License-Identifier: MIT OR Apache-2.0
//! What it costs to reach another core: a call to a server there, waking a thread there and being woken back, taking memory from a
//! space that is active there.
//!
//! Where the machine counts instructions, its cores take turns on one thread of the host and their counters are one: a figure is then the
//! instructions of both cores between the two readings, waiting in a loop for the other one's answer included, so the smallest is as near to the
//! truth as one comes. On a machine with time the unit is ticks, and the median is told beside the same on one core.

use crate::calls::{echo, number, syscall};
use cloister_abi::cap::{Access, NONE, Selector};
use cloister_abi::hip::{MACHINE_MEMORY, ROOT_HOST, ROOT_PD};
use cloister_abi::hypercall::{Call, CreateSm, Delegate, IpcCall, Revoke, SmDown, SmUp};
use cloister_abi::status::Status;
use cloister_abi::utcb::Header;
use cloister_bare::entry::hip;
use cloister_bare::kernel::{call, selector};
use cloister_bare::memory::{PAGE, addresses, frames};
use cloister_bare::println;
use cloister_bare::thread::{Options, server, spawn_on};
use cloister_bare::time::now;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

/// Walks of each path.
const ROUNDS: usize = 101;
/// Priority of threads on the other core.
const PRIORITY: u32 = 100;

static PING: AtomicU32 = AtomicU32::new(0);
static PONG: AtomicU32 = AtomicU32::new(0);
static SPINS: AtomicBool = AtomicBool::new(false);

/// Tells the least and the median of several walks.
fn tell(name: &str, mut walk: impl FnMut()) {
    let mut lengths = [0; ROUNDS];
    for length in &mut lengths {
        let start = now();
        walk();
        *length = now().saturating_sub(start);
    }
    lengths.sort_unstable();
    println!("bench {name}-least {} instructions", lengths[0]);
    println!("bench {name}-median {} instructions", lengths[ROUNDS / 2]);
}

fn semaphore() -> Result<Selector, Status> {
    let sel = selector();
    call(&CreateSm { sel, pd: ROOT_PD, count: 0, target: NONE, bit: 0 })?;
    Ok(sel)
}

fn make<C: Call>(call: &C) {
    syscall(number::<C>(), &call.encode());
}

extern "C" fn answer(_: u64) -> ! {
    loop {
        make(&SmDown { sm: PING.load(Relaxed), flags: 0, deadline: 0 });
        make(&SmUp { sm: PONG.load(Relaxed) });
    }
}

extern "C" fn spin(_: u64) -> ! {
    SPINS.store(true, Relaxed);
    loop {
        core::hint::spin_loop();
    }
}

/// Call and reply, and waking and being woken, with a core.
fn with(core: u8, names: [&str; 2]) -> Result<(), Status> {
    let server = server(|_, header| header, &Options { core, ..Options::default() })?;
    let portal = server.portal_at(echo as *const () as u64, 0)?;
    let header = Header::new(1, 0).0;
    tell(names[0], || make(&IpcCall { portal, header, flags: 0 }));
    PING.store(semaphore()?, Relaxed);
    PONG.store(semaphore()?, Relaxed);
    let thread = spawn_on(core, answer, 0, PRIORITY)?;
    tell(names[1], || {
        make(&SmUp { sm: PING.load(Relaxed) });
        make(&SmDown { sm: PONG.load(Relaxed), flags: 0, deadline: 0 });
    });
    thread.destroy();
    server.destroy();
    Ok(())
}

/// A page is revoked.
fn revoke(name: &str) {
    let (src_base, dst_base) = (frames(0) / PAGE, addresses(0) / PAGE);
    let rights = u64::from((Access::READ | Access::WRITE).bits());
    let page = Delegate { src: MACHINE_MEMORY, dst: ROOT_HOST, src_base, dst_base, order: 0, rights };
    let mut length = [0; ROUNDS];
    for length in &mut length {
        make(&page);
        let start = now();
        make(&Revoke { space: ROOT_HOST, base: dst_base, order: 0 });
        *length = now().saturating_sub(start);
    }
    length.sort_unstable();
    println!("bench {name}-least {} instructions", length[0]);
    println!("bench {name}-median {} instructions", length[ROUNDS / 2]);
}

/// All of it, if there is another core.
pub(crate) fn cross() -> Result<(), Status> {
    if hip().cores < 2 {
        return Ok(());
    }
    with(0, ["call-here", "wake-here"])?;
    with(1, ["call-there", "wake-there"])?;
    revoke("flush-idle");
    let thread = spawn_on(1, spin, 0, PRIORITY)?;
    while !SPINS.load(Relaxed) {
        core::hint::spin_loop();
    }
    revoke("flush-busy");
    thread.destroy();
    Ok(())
}
