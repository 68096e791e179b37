// SPDX-License-Identifier: MIT OR Apache-2.0
//! Opening and closing sessions.

use crate::link::FixedLink;
use crate::sessions::{Affinity, ParentSignal, PdClient, Resources, id};
use crate::{Cap, Error, Link, env, selectors, signal, time};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// What a session with a service costs its client, if the service says nothing else: core's own.
pub const USUAL: Resources = Resources { ram: 16 << 10, caps: 4 };

static NEXT: AtomicU64 = AtomicU64::new(id::FIRST_FREE);
static READY: AtomicBool = AtomicBool::new(false);

/// An open session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session {
    /// Its name towards the parent.
    pub id: u64,
    /// Its capability.
    pub cap: Cap,
}

impl Session {
    /// The session as a transport for its client.
    #[must_use]
    pub const fn link(&self) -> Link {
        Link(self.cap.selector)
    }

    /// Closes the session; the donation comes back.
    ///
    /// # Errors
    /// What the parent says.
    pub fn close(self) -> Result<(), Error> {
        self.link().drop();
        env::parent().close(self.id)
    }

    /// Donates more.
    ///
    /// # Errors
    /// What the parent says.
    pub fn upgrade(&self, donation: Resources) -> Result<(), Error> {
        env::parent().upgrade(self.id, donation)
    }
}

/// Opens a session and waits until it is there.
///
/// # Errors
/// What the parent says: `Denied`, `NotFound`, `OutOfRam`, `OutOfCaps`.
pub fn open(service: &str, label: &str, args: &str, donation: Resources) -> Result<Session, Error> {
    let id = request(service, label, args, donation)?;
    if let Some(cap) = id.1 {
        return Ok(Session { id: id.0, cap });
    }
    install_ready()?;
    loop {
        // Asked again now and then, should another thread have taken the news.
        if let Some(cap) = env::parent().session_cap(id.0)? {
            return Ok(Session { id: id.0, cap });
        }
        let _ = signal::down(selectors::READY, time::after_milliseconds(100));
    }
}

/// Asks for a session without waiting for it: its identifier, and its capability if it is there already.
///
/// # Errors
/// What the parent says.
pub fn request(service: &str, label: &str, args: &str, donation: Resources) -> Result<(u64, Option<Cap>), Error> {
    let id = NEXT.fetch_add(1, Ordering::Relaxed);
    let cap = env::parent().session(id, service, label, args, donation, Affinity::default())?;
    Ok((id, cap))
}

fn install_ready() -> Result<(), Error> {
    if READY.swap(true, Ordering::Relaxed) {
        return Ok(());
    }
    let made = PdClient(FixedLink { portal: selectors::PD, at: selectors::READY }).alloc_semaphore(0)?;
    env::parent().signal_handler(ParentSignal::SessionReady, Some(Cap::signal(made.cap.selector)))
}
