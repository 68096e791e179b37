// SPDX-License-Identifier: MIT OR Apache-2.0
//! The sessions that every component has from the start, at fixed selectors.

use crate::link::FixedLink;
use crate::sessions::{CpuClient, LogClient, ParentClient, PdClient, id};
use crate::{Error, Link, selectors};
use cloister_abi::cap::Selector;
use cloister_abi::hypercall::SmDown;
use cloister_stubs::utcb;

/// The parent.
#[must_use]
pub const fn parent() -> ParentClient<Link> {
    ParentClient(Link(selectors::PARENT))
}

/// The component's own PD session.
#[must_use]
pub const fn pd() -> PdClient<Link> {
    PdClient(Link(selectors::PD))
}

/// Its CPU session.
#[must_use]
pub const fn cpu() -> CpuClient<Link> {
    CpuClient(Link(selectors::CPU))
}

/// Its LOG session.
#[must_use]
pub const fn log() -> LogClient<Link> {
    LogClient(Link(selectors::LOG))
}

/// Fetches the environment's sessions from the parent. To be called once, before anything else in here is used, by the
/// first thread (a freestanding component's start does it).
///
/// # Errors
/// What the parent says.
pub fn fetch() -> Result<(), Error> {
    fetch_one(id::PD, selectors::PD)?;
    fetch_one(id::CPU, selectors::CPU)?;
    fetch_one(id::LOG, selectors::LOG)?;
    // A component can do without its binary.
    let _ = fetch_one(id::BINARY, selectors::BINARY);
    Ok(())
}

/// Makes a call whose one capability has to end up at a given selector.
fn fetch_one(session: u64, at: Selector) -> Result<(), Error> {
    let parent = ParentClient(FixedLink { portal: selectors::PARENT, at });
    parent.session_cap(session)?.ok_or(Error::NotReady).map(|_| ())
}

/// Says that this component is done, and stops the calling thread for good.
pub fn exit(code: i64, reason: &str) -> ! {
    let _ = parent().exit(code, shorten(reason));
    park()
}

fn shorten(reason: &str) -> &str {
    let mut end = reason.len().min(crate::sessions::CHUNK);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    reason.get(..end).unwrap_or_default()
}

/// Stops the calling thread for good.
pub fn park() -> ! {
    if let Ok(made) = pd().alloc_semaphore(0) {
        loop {
            // SAFETY: waits; nothing else happens.
            let _ = unsafe { cloister_stubs::invoke(&SmDown { sm: made.cap.selector, flags: 0, deadline: 0 }) };
        }
    }
    loop {
        // SAFETY: gives up the rest of the time slice; nothing else happens.
        let _ = unsafe { cloister_stubs::invoke(&cloister_abi::hypercall::Yield {}) };
    }
}

/// Words of the calling thread's message page that belong to the framework's user.
///
/// # Errors
/// [`Error::Invalid`] if there is no word of that index.
pub fn set_local(index: usize, value: u64) -> Result<(), Error> {
    // SAFETY: the page belongs to this thread, and the reference ends here.
    let page = unsafe { &mut *utcb() };
    *page.tls.get_mut(index).ok_or(Error::Invalid)? = value;
    Ok(())
}

/// A word set by [`set_local`]; 0 if there is no word of that index.
#[must_use]
pub fn local(index: usize) -> u64 {
    // SAFETY: the page belongs to this thread, and the reference ends here.
    let page = unsafe { &*utcb() };
    page.tls.get(index).copied().unwrap_or(0)
}
