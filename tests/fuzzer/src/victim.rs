// SPDX-License-Identifier: MIT OR Apache-2.0
//! A component that the hostile one has a few capabilities to, and must not harm: memory with a pattern, semaphores whose counters
//! are known, an account, a thread on each core that wakes up in time, servers that answer.

use cloister_abi::cap::{Access, NONE, Perms, Selector};
use cloister_abi::hip::{ROOT_OBJECTS, ROOT_PD};
use cloister_abi::hypercall::{CreateSm, Delegate, DownFlags, PdInfo, SmDown, SmUp};
use cloister_abi::status::Status;
use cloister_abi::utcb::Header;
use cloister_bare::domain::Domain;
use cloister_bare::kernel::{call, ipc, message, selector};
use cloister_bare::memory::{PAGE, pages, read, write};
use cloister_bare::thread::{Options, STACK_ORDER, prepare, start};
use cloister_bare::time;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What the victim has at its selectors.
const OWN_PD: Selector = 1;
const PRIVATE: Selector = 2;
const BELL: Selector = 3;
const LOCKED: Selector = 4;
const SHARED: Selector = 5;
/// Counters of the semaphores that nobody else may change.
const COUNTS: [(Selector, u64); 2] = [(PRIVATE, 5), (LOCKED, 7)];
/// Log2 of the pages with the pattern.
const PATTERN_ORDER: u32 = 2;
/// Microseconds between two ticks, and priority of the thread that ticks.
const TICK: u64 = 500;
const PRIORITY: u32 = 126;

static PATTERN: AtomicU64 = AtomicU64::new(0);
static TICKS: AtomicU64 = AtomicU64::new(0);
static PERIOD: AtomicU64 = AtomicU64::new(0);
static LATEST: AtomicU64 = AtomicU64::new(0);

/// The victim, as its maker sees it.
#[derive(Debug)]
pub(crate) struct Victim {
    /// Portal for the hostile component.
    pub(crate) portal: Selector,
    /// Semaphores that the hostile component gets with few permissions or none.
    pub(crate) bell: Selector,
    pub(crate) locked: Selector,
    pub(crate) shared: Selector,
    check: Selector,
    account: (u64, u64),
}

const fn pattern(address: u64) -> u64 {
    crate::random::mix(address ^ 0x5eed)
}

fn places() -> impl Iterator<Item = u64> {
    let base = PATTERN.load(Relaxed);
    (base..base + (PAGE << PATTERN_ORDER)).step_by(8)
}

/// Whether nobody has written to the pattern.
fn intact() -> bool {
    // SAFETY: mapped here and in the victim.
    places().all(|place| unsafe { read(place) } == pattern(place))
}

fn tick(sm: u64) {
    let deadline = time::now() + PERIOD.load(Relaxed);
    let _ = call(&SmDown { sm: sm as u32, flags: DownFlags::ZERO.bits(), deadline });
    LATEST.fetch_max(time::now().saturating_sub(deadline), Relaxed);
    TICKS.fetch_add(1, Relaxed);
}

extern "C" fn ticker(sm: u64) -> ! {
    loop {
        tick(sm);
    }
}

/// Answers the hostile component: all words plus one.
fn answer(_: u64, header: Header) -> Header {
    let message = message();
    (0..header.words()).for_each(|index| message.set(index, message.get(index).wrapping_add(1)));
    header
}

/// Answers the maker: what there is to see from inside.
fn examine(_: u64, _: Header) -> Header {
    let good = COUNTS.iter().all(|(sm, count)| count_is(*sm, *count));
    let account = call(&PdInfo { pd: OWN_PD }).unwrap_or_default();
    for (index, word) in [u64::from(intact()), u64::from(good), account.0, account.1].into_iter().enumerate() {
        message().set(index, word);
    }
    Header::new(4, 0)
}

/// Whether a semaphore's counter is that. It is so again afterwards.
fn count_is(sm: Selector, expected: u64) -> bool {
    let down = || call(&SmDown { sm, flags: DownFlags::NONBLOCKING.bits(), deadline: 0 });
    let mut found = 0;
    while found <= expected && down().is_ok() {
        found += 1;
    }
    (0..found).all(|_| call(&SmUp { sm }).is_ok()) && found == expected
}

fn semaphore(count: u64) -> Result<Selector, Status> {
    let sel = selector();
    call(&CreateSm { sel, pd: ROOT_PD, count, target: NONE, bit: 0 })?;
    Ok(sel)
}

impl Victim {
    /// Makes it.
    ///
    /// # Errors
    /// The kernel's status.
    pub(crate) fn new(cores: u32) -> Result<Self, Status> {
        let domain = Domain::with_image(0x40_0000)?;
        let (place, _) = pages(PATTERN_ORDER)?;
        PATTERN.store(place, Relaxed);
        PERIOD.store(time::micros(TICK), Relaxed);
        // SAFETY: the pages are new.
        places().for_each(|place| unsafe { write(place, pattern(place)) });
        domain.share(place, PAGE << PATTERN_ORDER, Access::READ | Access::WRITE)?;
        let (answerer, examiner) = (domain.server(answer)?, domain.server(examine)?);
        let [bell, locked, shared, private] =
            [semaphore(0)?, semaphore(COUNTS[1].1)?, semaphore(0)?, semaphore(COUNTS[0].1)?];
        let given = [(domain.pd, OWN_PD), (private, PRIVATE), (bell, BELL), (locked, LOCKED), (shared, SHARED)];
        for (sel, to) in given {
            give(domain.objects, sel, to, Perms::ALL)?;
        }
        for core in 0..cores {
            let options = Options { pd: domain.pd, core: core as u8, ..Options::default() };
            let mut thread = prepare(ticker, u64::from(if core == 0 { BELL } else { SHARED }), &options)?;
            let size = PAGE << STACK_ORDER;
            domain.share(thread.stack - size, size, Access::READ | Access::WRITE)?;
            start(&mut thread, PRIORITY, 1000)?;
        }
        let mut victim =
            Self { portal: answerer.portal(0)?, bell, locked, shared, check: examiner.portal(0)?, account: (0, 0) };
        ipc(victim.check, 0, 0)?;
        victim.account = (message().get(2), message().get(3));
        Ok(victim)
    }

    /// What is wrong with it, and the ticks that asking took.
    pub(crate) fn check(&self) -> (Option<&'static str>, u64) {
        let start = time::now();
        let answer = ipc(self.check, 0, 0);
        let found = [0, 1, 2, 3].map(|index| message().get(index));
        let wrong = match answer {
            Err(_) => Some("the victim does not answer"),
            Ok(_) if found[0] != 1 || !intact() => Some("the victim's memory has changed"),
            Ok(_) if found[1] != 1 => Some("the victim's semaphores have changed"),
            Ok(_) if (found[2], found[3]) != self.account => Some("the victim's account has changed"),
            Ok(_) => None,
        };
        (wrong, time::now().saturating_sub(start))
    }

    /// Calls the server that the hostile component calls too; it may be in the middle of that.
    pub(crate) fn greet(&self) -> Option<&'static str> {
        message().set(0, 41);
        let answer = ipc(self.portal, 1, 0);
        let good = answer == Ok(Header::new(1, 0)) && message().get(0) == 42;
        (!good).then_some("the server that both call gives no answer, or a wrong one")
    }

    /// How often its threads have woken up, and how many ticks too late at most.
    pub(crate) fn ticks(&self) -> (u64, u64) {
        (TICKS.load(Relaxed), LATEST.load(Relaxed))
    }
}

/// Puts a capability of this program into an object space.
///
/// # Errors
/// As `Delegate`.
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
