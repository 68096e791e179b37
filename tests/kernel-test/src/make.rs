// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the tests of several areas make.

use cloister_abi::cap::{NONE, Perms, Selector};
use cloister_abi::hip::{ROOT_OBJECTS, ROOT_PD};
use cloister_abi::hypercall::{CreateSm, Delegate, DownFlags, PdInfo, SmDown, SmUp};
use cloister_abi::status::Status;
use cloister_abi::utcb::Header;
use cloister_bare::kernel::{call, message, selector};
use cloister_bare::thread::{Context, Options, server};
use cloister_bare::time;

/// A selector at which there is nothing.
pub(crate) const EMPTY: Selector = 200_000;

/// A semaphore with that counter.
pub(crate) fn semaphore(count: u64) -> Result<Selector, Status> {
    let sel = selector();
    call(&CreateSm { sel, pd: ROOT_PD, count, target: NONE, bit: 0 })?;
    Ok(sel)
}

/// A signal that sets that bit of `target`.
pub(crate) fn signal(target: Selector, bit: u32) -> Result<Selector, Status> {
    let sel = selector();
    call(&CreateSm { sel, pd: ROOT_PD, count: 0, target, bit })?;
    Ok(sel)
}

/// The same object at a selector of its own, with these permissions only.
pub(crate) fn limited(sel: Selector, perms: Perms) -> Result<Selector, Status> {
    let other = selector();
    give(ROOT_OBJECTS, sel, other, perms)?;
    Ok(other)
}

/// Puts a capability of this program into an object space.
pub(crate) fn give(space: Selector, sel: Selector, to: Selector, perms: Perms) -> Result<(), Status> {
    call(&Delegate {
        src: ROOT_OBJECTS,
        dst: space,
        src_base: u64::from(sel),
        dst_base: u64::from(to),
        order: 0,
        rights: u64::from(perms.bits()),
    })
    .map(drop)
}

/// Counts up.
pub(crate) fn up(sm: Selector) -> Result<(), Status> {
    call(&SmUp { sm }).map(drop)
}

/// Counts down, without limit of time.
pub(crate) fn down(sm: Selector) -> Result<u64, Status> {
    call(&SmDown { sm, flags: 0, deadline: 0 }).map(|(value, _)| value)
}

/// Counts down, but gives up after so many microseconds.
pub(crate) fn down_for(sm: Selector, micros: u64) -> Result<u64, Status> {
    call(&SmDown { sm, flags: 0, deadline: time::after(micros) }).map(|(value, _)| value)
}

/// Counts down without waiting.
pub(crate) fn try_down(sm: Selector) -> Result<u64, Status> {
    call(&SmDown { sm, flags: DownFlags::NONBLOCKING.bits(), deadline: 0 }).map(|(value, _)| value)
}

/// Used kernel memory of a PD, bytes.
pub(crate) fn used(pd: Selector) -> Result<u64, Status> {
    call(&PdInfo { pd }).map(|(_, used)| used)
}

/// Answers with the portal's identity and all words of the message, each plus one.
pub(crate) fn increment(id: u64, header: Header) -> Header {
    let message = message();
    for index in 0..header.words() {
        message.set(index, message.get(index).wrapping_add(1));
    }
    if header.words() == 0 {
        message.set(0, id);
        return Header::new(1, 0);
    }
    Header::new(header.words(), 0)
}

/// Answers nothing.
pub(crate) fn silent(_: u64, _: Header) -> Header {
    Header::new(0, 0)
}

/// A server with [`increment`], and a portal into it.
pub(crate) fn incrementer(id: u64) -> Result<(Context, Selector), Status> {
    let context = server(increment, &Options::default())?;
    Ok((context, context.portal(id)?))
}

/// What a thread does that has nothing to do any more: waits, until it is destroyed.
pub(crate) fn rest() -> ! {
    loop {
        if let Ok(sm) = semaphore(0) {
            let _ = down(sm);
        }
    }
}
