// SPDX-License-Identifier: MIT OR Apache-2.0
//! Calls and replies: guards, words, nesting, other address spaces, busy callees, partners that go.

use crate::harness::{Outcome, Test};
use crate::make::{EMPTY, down, down_for, increment, incrementer, limited, rest, semaphore, silent, up};
use crate::{check, equal, refused};
use cloister_abi::cap::Perms;
use cloister_abi::hip::ROOT_PD;
use cloister_abi::hypercall::{IpcCall, IpcFlags, IpcReply};
use cloister_abi::status::Status;
use cloister_abi::utcb::{Header, ITEMS, WORDS};
use cloister_bare::domain::Domain;
use cloister_bare::kernel::{Raw, call, ipc, message};
use cloister_bare::thread::{Context, Options, destroy, server, spawn};
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

pub(crate) static TESTS: [Test; 15] = [
    ("ipc-words", words),
    ("ipc-guards", guards),
    ("ipc-reply-guards", reply_guards),
    ("ipc-nested", nested),
    ("ipc-recursion", recursion),
    ("ipc-other-address-space", other_space),
    ("ipc-reply-too-long", long_reply),
    ("ipc-busy-callee", busy),
    ("ipc-helps-busy-callee", helping),
    ("ipc-callee-destroyed", callee_destroyed),
    ("ipc-caller-destroyed", caller_destroyed),
    ("ipc-helped-callee-destroyed", helped_callee_destroyed),
    ("ipc-helped-callee-crashes", helped_callee_crashes),
    ("ipc-portal-destroyed", portal_destroyed),
    ("ipc-chain-too-long", long_chain),
];

/// More and less important than the thread that runs the tests.
const HIGH: u32 = 120;
const LOW: u32 = 1;

fn words() -> Outcome {
    let (server, portal) = incrementer(0x77)?;
    for count in [1, 2, 3, 4, 5, 8, 64, WORDS] {
        for index in 0..count {
            message().set(index, 1000 + index as u64);
        }
        equal!(ipc(portal, count, 0)?, Header::new(count, 0));
        for index in 0..count {
            equal!(message().get(index), 1001 + index as u64);
        }
    }
    equal!(ipc(portal, 0, 0)?, Header::new(1, 0));
    equal!(message().get(0), 0x77);
    server.destroy();
    Ok(())
}

fn guards() -> Outcome {
    let (server, portal) = incrementer(1)?;
    let good = IpcCall { portal, header: 0, flags: 0 };
    refused!(BadCapability, IpcCall { portal: EMPTY, ..good });
    refused!(BadCapability, IpcCall { portal: ROOT_PD, ..good });
    refused!(BadCapability, IpcCall { portal: limited(portal, Perms::ALL.difference(Perms::PT_CALL))?, ..good });
    for header in [WORDS as u64 + 1, 0xffff, (ITEMS as u64 + 1) << 16, 0xffff << 16, 1 << 32, u64::MAX] {
        refused!(BadParameter, IpcCall { header, ..good });
    }
    call(&good)?;
    server.destroy();
    Ok(())
}

fn reply_guards() -> Outcome {
    // A thread has no caller to answer.
    refused!(BadParameter, IpcReply { header: 0 });
    refused!(BadParameter, Raw::<2>([u64::MAX; 6]));
    Ok(())
}

static INNER: AtomicU32 = AtomicU32::new(0);
static RESULT: AtomicU64 = AtomicU64::new(0);

/// Passes the message on to the inner portal, and adds one to what comes back.
fn forward(_: u64, header: Header) -> Header {
    match ipc(INNER.load(Ordering::Relaxed), header.words(), 0) {
        Ok(header) => increment(0, header),
        Err(status) => {
            message().set(0, status as u64);
            Header::new(1, 0)
        }
    }
}

fn nested() -> Outcome {
    let (inner, portal) = incrementer(0)?;
    INNER.store(portal, Ordering::Relaxed);
    let middle = server(forward, &Options::default())?;
    let outer = middle.portal(0)?;
    message().set(0, 5);
    equal!(ipc(outer, 1, 0)?, Header::new(1, 0));
    equal!(message().get(0), 7);
    middle.destroy();
    inner.destroy();
    Ok(())
}

/// A server that calls itself could wait for ever.
fn recursion() -> Outcome {
    let server = server(forward, &Options::default())?;
    let portal = server.portal(0)?;
    INNER.store(portal, Ordering::Relaxed);
    equal!(ipc(portal, 1, 0)?, Header::new(1, 0));
    equal!(message().get(0), Status::Busy as u64);
    server.destroy();
    Ok(())
}

fn other_space() -> Outcome {
    let domain = Domain::with_image(0x10_0000)?;
    let server = domain.server(increment)?;
    let portal = server.portal(3)?;
    for index in 0..64 {
        message().set(index, index as u64);
    }
    equal!(ipc(portal, 64, 0)?, Header::new(64, 0));
    equal!(message().get(63), 64);
    destroy(domain.pd);
    refused!(BadCapability, IpcCall { portal, header: 0, flags: 0 });
    Ok(())
}

fn too_long(_: u64, _: Header) -> Header {
    Header(WORDS as u64 + 1)
}

/// The caller of a server that answers nonsense gets an error, and the server goes on.
fn long_reply() -> Outcome {
    let context = server(too_long, &Options::default())?;
    let portal = context.portal(0)?;
    for _ in 0..2 {
        check!(ipc(portal, 0, 0).is_err());
    }
    context.set_handler(silent);
    equal!(ipc(portal, 0, 0)?, Header::new(0, 0));
    context.destroy();
    Ok(())
}

pub(crate) static GATE: AtomicU32 = AtomicU32::new(0);
static DONE: AtomicU32 = AtomicU32::new(0);
pub(crate) static PORTAL: AtomicU32 = AtomicU32::new(0);

/// A server that answers when the gate opens.
fn gated(_: u64, header: Header) -> Header {
    let _ = down(GATE.load(Ordering::Relaxed));
    increment(0, header)
}

pub(crate) extern "C" fn caller(value: u64) -> ! {
    message().set(0, value);
    let result = match ipc(PORTAL.load(Ordering::Relaxed), 1, 0) {
        Ok(_) => message().get(0),
        Err(status) => 0x100 + status as u64,
    };
    RESULT.store(result, Ordering::Relaxed);
    let _ = up(DONE.load(Ordering::Relaxed));
    rest()
}

pub(crate) fn gate() -> Result<Context, Status> {
    GATE.store(semaphore(0)?, Ordering::Relaxed);
    DONE.store(semaphore(0)?, Ordering::Relaxed);
    RESULT.store(0, Ordering::Relaxed);
    let context = server(gated, &Options::default())?;
    PORTAL.store(context.portal(0)?, Ordering::Relaxed);
    Ok(context)
}

pub(crate) fn done() -> Result<u64, Status> {
    down_for(DONE.load(Ordering::Relaxed), 1_000_000)?;
    Ok(RESULT.load(Ordering::Relaxed))
}

fn busy() -> Outcome {
    let context = gate()?;
    let thread = spawn(caller, 10, HIGH)?;
    let portal = PORTAL.load(Ordering::Relaxed);
    refused!(Timeout, IpcCall { portal, header: 0, flags: IpcFlags::NONBLOCKING.bits() });
    up(GATE.load(Ordering::Relaxed))?;
    equal!(done()?, 11);
    thread.destroy();
    context.destroy();
    Ok(())
}

static SPIN: AtomicU32 = AtomicU32::new(0);

/// A server that takes a while.
fn slow(_: u64, header: Header) -> Header {
    let _ = up(GATE.load(Ordering::Relaxed));
    while SPIN.load(Ordering::Relaxed) < 3_000_000 {
        SPIN.fetch_add(1, Ordering::Relaxed);
    }
    increment(0, header)
}

/// A caller lends its time to the callee that a less important thread has called before.
fn helping() -> Outcome {
    let context = gate()?;
    context.set_handler(slow);
    SPIN.store(0, Ordering::Relaxed);
    let unimportant = spawn(caller, 20, LOW)?;
    down(GATE.load(Ordering::Relaxed))?;
    check!(SPIN.load(Ordering::Relaxed) < 3_000_000);
    message().set(0, 30);
    equal!(ipc(PORTAL.load(Ordering::Relaxed), 1, 0)?, Header::new(1, 0));
    equal!(message().get(0), 31);
    equal!(done()?, 21);
    unimportant.destroy();
    context.destroy();
    Ok(())
}

fn callee_destroyed() -> Outcome {
    let context = gate()?;
    let thread = spawn(caller, 10, HIGH)?;
    context.destroy();
    equal!(done()?, 0x100 + Status::Aborted as u64);
    refused!(BadCapability, IpcCall { portal: PORTAL.load(Ordering::Relaxed), header: 0, flags: 0 });
    thread.destroy();
    Ok(())
}

/// A server whose caller goes answers into nothing, and serves the next.
fn caller_destroyed() -> Outcome {
    let context = gate()?;
    let thread = spawn(caller, 10, HIGH)?;
    thread.destroy();
    let (gate, portal) = (GATE.load(Ordering::Relaxed), PORTAL.load(Ordering::Relaxed));
    up(gate)?;
    up(gate)?;
    message().set(0, 1);
    equal!(ipc(portal, 1, 0)?, Header::new(1, 0));
    equal!(message().get(0), 2);
    context.destroy();
    Ok(())
}

/// A helper whose callee goes makes its call again, and finds that it is gone.
fn helped_callee_destroyed() -> Outcome {
    let context = gate()?;
    let first = spawn(caller, 10, HIGH)?;
    let helper = spawn(caller, 10, HIGH)?;
    context.destroy();
    let statuses = [done()?, done()?];
    check!(statuses.contains(&(0x100 + Status::BadCapability as u64)));
    first.destroy();
    helper.destroy();
    Ok(())
}

/// A server that crashes when the gate opens.
fn crashing(_: u64, header: Header) -> Header {
    let _ = down(GATE.load(Ordering::Relaxed));
    // SAFETY: an exception, which ends this server.
    unsafe { core::arch::asm!("ud2") };
    header
}

/// Neither the caller nor the helper of a server that crashes waits for ever.
fn helped_callee_crashes() -> Outcome {
    let context = gate()?;
    context.set_handler(crashing);
    let first = spawn(caller, 10, HIGH)?;
    let helper = spawn(caller, 10, HIGH)?;
    up(GATE.load(Ordering::Relaxed))?;
    for _ in 0..2 {
        equal!(done()?, 0x100 + Status::Aborted as u64);
    }
    first.destroy();
    helper.destroy();
    context.destroy();
    Ok(())
}

fn portal_destroyed() -> Outcome {
    let (server, portal) = incrementer(1)?;
    let copy = limited(portal, Perms::ALL)?;
    let other = server.portal(2)?;
    destroy(portal);
    refused!(BadCapability, IpcCall { portal, header: 0, flags: 0 });
    refused!(BadCapability, IpcCall { portal: copy, header: 0, flags: 0 });
    equal!(ipc(other, 0, 0)?, Header::new(1, 0));
    equal!(message().get(0), 2);
    server.destroy();
    Ok(())
}

/// A server that calls the portal that its own portal's identity names, if there is one, else waits for the gate.
fn link(next: u64, header: Header) -> Header {
    let done = match u32::try_from(next) {
        Ok(portal) if portal != 0 => ipc(portal, 0, 0).map(drop),
        _ => down(GATE.load(Ordering::Relaxed)).map(drop),
    };
    message().set(0, done.is_ok().into());
    header
}

/// A chain of callees that is longer than the kernel follows harms only who waits at its beginning.
fn long_chain() -> Outcome {
    const LINKS: usize = 300;
    let last = gate()?;
    last.set_handler(link);
    let mut servers = [last.ec; LINKS];
    let mut portal = last.portal(0)?;
    let mut near = portal;
    for (index, place) in servers.iter_mut().enumerate().skip(1) {
        let server = server(link, &Options::default())?;
        portal = server.portal(portal.into())?;
        *place = server.ec;
        if index == 100 {
            near = portal;
        }
    }
    PORTAL.store(portal, Ordering::Relaxed);
    let thread = spawn(caller, 10, HIGH)?;
    // The whole chain waits now. Its beginning is too far from its end to be helped, the middle is not.
    refused!(Busy, IpcCall { portal, header: 0, flags: 0 });
    refused!(Timeout, IpcCall { portal: near, header: 0, flags: IpcFlags::NONBLOCKING.bits() });
    up(GATE.load(Ordering::Relaxed))?;
    up(GATE.load(Ordering::Relaxed))?;
    equal!(ipc(near, 0, 0)?, Header::new(0, 0));
    thread.destroy();
    servers.into_iter().for_each(destroy);
    Ok(())
}
