// SPDX-License-Identifier: MIT OR Apache-2.0
//! What cores ask of each other.
//!
//! *Mail* for what can wait: an object that belongs to another core has something done to it there, before that core next returns
//! to user mode ([`send`], [`deliver`]). *Shoot-down*: whoever takes memory away waits until each core where it may still be seen has forgotten it
//! ([`flush`]). *Grace*: whoever gives memory of dead objects back waits until each core has left its present handler ([`quiesce`]), since
//! look-ups take no lock and no reference.
//!
//! Rule: who waits for another core holds no lock, and answers what others wait for meanwhile. So nobody waits for somebody who waits
//! for him. A core that is idle refers to nothing and needs not be asked.

use crate::arch::smp;
use crate::object::{GAP, Header, Work, tell};
use crate::percore::{self, CORES, Core, MAIL, core};
use cloister_mechanism::mail::{Inbox, Letter, Mail};
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};

/// Mail: do what destruction means for it.
pub(crate) const KILL: u32 = 1 << 0;
/// Mail to an EC: its semaphore has let it go.
pub(crate) const WAKE: u32 = 1 << 1;
/// Mail to an SC: it is new, or has come from another core.
pub(crate) const START: u32 = 1 << 2;
/// Mail to an EC or semaphore, from its own core: let more of those go who wait for it.
pub(crate) const LET_GO: u32 = 1 << 3;

/// Something that others ask for and wait for.
pub(crate) struct Ticket {
    asked: AtomicU64,
    done: AtomicU64,
}

impl Ticket {
    const fn new() -> Self {
        Self { asked: AtomicU64::new(0), done: AtomicU64::new(0) }
    }

    fn ask(&self) -> u64 {
        self.asked.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// Does it, if somebody asks.
    fn serve(&self, act: impl FnOnce()) {
        let asked = self.asked.load(Ordering::SeqCst);
        if asked != self.done.load(Ordering::Relaxed) {
            act();
            self.done.store(asked, Ordering::SeqCst);
        }
    }
}

/// What other cores see of a core.
#[repr(align(64))]
pub(crate) struct Remote {
    inbox: Inbox<Header>,
    flush: Ticket,
    quiet: Ticket,
    /// Root of the guest space whose guest runs; 0 for none.
    pub(crate) guest: AtomicU64,
    /// It waits for an interrupt, and refers to nothing.
    idle: AtomicBool,
}

impl Remote {
    /// Nothing is asked.
    pub(crate) const fn new() -> Self {
        Self {
            inbox: Inbox::empty(),
            flush: Ticket::new(),
            quiet: Ticket::new(),
            guest: AtomicU64::new(0),
            idle: AtomicBool::new(false),
        }
    }

    /// The core begins or ends to wait for interrupts.
    pub(crate) fn set_idle(&self, idle: bool) {
        self.idle.store(idle, Ordering::SeqCst);
    }

    /// Whether mail is there.
    pub(crate) fn has_mail(&self) -> bool {
        !self.inbox.is_empty()
    }
}

/// Sends mail about an object to the core that it belongs to. The mail holds a reference.
pub(crate) fn send(to: &Core, object: &Header, what: u32) {
    if to.remote.inbox.send(object, what) {
        smp::interrupt(to);
    }
}

/// Reminds this core of those who wait for an object, of which it does no more now.
#[cold]
pub(crate) fn remind(object: &Header) {
    let core = core();
    core.remote.inbox.send(object, LET_GO);
    core.request(MAIL);
}

impl Letter for Header {
    fn mail(&self) -> &Mail<Self> {
        &self.mail
    }

    fn keep(&self) {
        self.acquire();
    }
}

/// Does what the mail asks for. Of what the core reminds itself of as much as one piece of work allows, the rest a little later.
pub(crate) fn deliver(core: &Core) {
    let mut work = Work::piece();
    while core.remote.has_mail() && !work.is_done() {
        let handle = |object: NonNull<Header>, what| {
            // SAFETY: mail holds a reference, let go below.
            let object = unsafe { object.as_ref() };
            work.spend(Work::LOOK);
            // It may have moved on since.
            tell(object, what, &mut work);
            object.release();
        };
        // SAFETY: the core's own inbox, whose members were acquired.
        unsafe { core.remote.inbox.take_all(handle) };
    }
    core.take_pending(MAIL);
    if core.remote.has_mail() {
        core.postpone(GAP);
    }
}

/// Another core has interrupted this one, which was in user mode, in a guest, or idle: it refers to nothing.
pub(crate) fn interrupted(core: &Core) {
    core.remote.flush.serve(|| core.flush());
    core.remote.quiet.serve(|| ());
    core.request(MAIL);
}

/// Asks all other cores that are concerned for something, and waits until each has done it.
fn ask(concerned: impl Fn(&Core) -> bool, ticket: impl Fn(&Core) -> &Ticket, meanwhile: impl Fn(&Core)) {
    if percore::count() == 1 {
        return;
    }
    // What was changed is visible before anybody is looked at.
    fence(Ordering::SeqCst);
    let own = core();
    let others = || percore::all().filter(|core| core.id != own.id);
    let mut asked = [0; CORES];
    for other in others().filter(|other| concerned(other)) {
        asked[usize::from(other.id)] = ticket(other).ask();
        smp::interrupt(other);
    }
    for other in others() {
        while ticket(other).done.load(Ordering::SeqCst) < asked[usize::from(other.id)] {
            meanwhile(own);
            core::hint::spin_loop();
        }
    }
}

/// Lets all cores forget translations and ports, where `concerned` says that they may have some.
pub(crate) fn flush(concerned: impl Fn(&Core) -> bool) {
    let own = core();
    if concerned(own) {
        own.flush();
    }
    ask(concerned, |core| &core.remote.flush, |own| own.remote.flush.serve(|| own.flush()));
}

/// Waits until each other core has left the handler that it is in now. This core must not refer to anything that may go.
pub(crate) fn quiesce() {
    ask(
        |other| !other.remote.idle.load(Ordering::SeqCst),
        |core| &core.remote.quiet,
        |own| {
            own.remote.flush.serve(|| own.flush());
            own.remote.quiet.serve(|| ());
        },
    );
}
