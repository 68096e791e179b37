// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the hostile component's threads and servers do, and how each call is counted.

use crate::layout::{ANSWERS, COMPLAINT, FOREIGN, KNOWN, SLOTS, Thing, record};
use crate::random::{Random, mix};
use crate::{entry, scenes, single};
use cloister_abi::arch::x86_64::HYPERCALL_BASE;
use cloister_abi::hypercall::{self as abi, Args, Call};
use cloister_abi::status::Status;
use cloister_abi::utcb::{Header, ITEMS, WORDS};
use cloister_bare::documented::DOCUMENTED;
use cloister_bare::kernel::message;
use core::sync::atomic::Ordering::Relaxed;

/// Words of an exception message that a repair looks at or sets.
const RIP: usize = 3;
const RBX: usize = 7;
const R12: usize = 17;
const EXCEPTION_WORDS: usize = 22;

/// A thread or server of the component.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hostile {
    pub(crate) slot: usize,
    pub(crate) random: Random,
}

impl Hostile {
    pub(crate) const fn new(slot: u64) -> Self {
        let slot = slot as usize % SLOTS;
        Self { slot, random: Random(slot) }
    }

    /// Makes a hypercall and counts its answer.
    pub(crate) fn call(&self, number: u64, mut args: Args) -> Result<u64, u64> {
        single::tame(*self, number, &mut args);
        let (mark, number_there) = (self.mark(), HYPERCALL_BASE.wrapping_add(number));
        let [status, first, back] = entry::syscall(number_there, &args, mark);
        if self.is_mine(mark, back) {
            self.count(number, &args, status, first);
        }
        if status == 0 { Ok(first) } else { Err(status) }
    }

    /// As [`Self::call`], of a structure.
    pub(crate) fn make<C: Call>(&self, call: &C) -> Result<u64, u64> {
        self.call(C::NUMBER, call.encode())
    }

    /// What a call takes along, to be known by when it is back.
    pub(crate) fn mark(&self) -> u64 {
        let place = &record().mark[self.slot];
        let mark = mix(place.load(Relaxed) ^ self.slot as u64 ^ entry::EXPECTED);
        place.store(mark, Relaxed);
        mark
    }

    /// Whether what is back is the answer of that call. The component writes where it likes, message pages with the registers of others
    /// among it, and may get two threads onto one stack: what such a thread believes to be an answer was never one.
    pub(crate) fn is_mine(&self, mark: u64, back: u64) -> bool {
        let mine = back == mark && record().mark[self.slot].load(Relaxed) == mark;
        if !mine {
            record().strayed.fetch_add(1, Relaxed);
        }
        mine
    }

    /// Counts an answer.
    pub(crate) fn count(&self, number: u64, args: &Args, status: u64, first: u64) {
        let record = record();
        let call = usize::try_from(number).unwrap_or(FOREIGN).min(FOREIGN);
        let answer = usize::try_from(status).unwrap_or(ANSWERS).min(ANSWERS - 1);
        record.seen[call][answer].fetch_add(1, Relaxed);
        record.made[self.slot].fetch_add(1, Relaxed);
        let digest = &record.digest[self.slot];
        let sum = args.iter().fold(digest.load(Relaxed) ^ number, |sum, arg| mix(sum ^ arg));
        digest.store(mix(sum ^ status), Relaxed);
        let allowed = DOCUMENTED.get(call).map_or(1 << Status::BadHypercall as u16 | 1, |bits| *bits);
        if allowed >> answer & 1 == 0 {
            self.complain(number, args, status, first);
        }
    }

    #[cold]
    fn complain(&self, number: u64, args: &Args, status: u64, first: u64) {
        let complaint = &record().complaint;
        if complaint[COMPLAINT].compare_exchange(0, number.wrapping_add(1), Relaxed, Relaxed).is_ok() {
            let words = args.iter().copied().chain([self.slot as u64, status, first]);
            complaint.iter().zip(words).for_each(|(place, word)| place.store(word, Relaxed));
        }
    }

    /// One thing to do.
    fn step(self) {
        match self.random.below(64) {
            0..30 => single::valid(self),
            30..46 => single::mutated(self),
            46..49 => single::anything(self),
            49..53 => scenes::thread(self),
            53..57 => scenes::server(self),
            57 => scenes::nest(self),
            58 => scenes::exhaust(self),
            59..61 => scenes::guest(self),
            61 => scenes::foreign(self),
            62 => scenes::fault(self),
            _ => scenes::scribble(self),
        }
    }

    /// Remembers what is at a selector; nothing for none.
    pub(crate) fn remember(&self, selector: u64, thing: Option<Thing>) {
        if let Some(place) = record().things.get(selector as usize) {
            place.store(thing.map_or(0, |thing| thing as u8), Relaxed);
        }
    }

    /// Whether that is believed to be at a selector.
    fn is(selector: u64, thing: Thing) -> bool {
        record().things.get(selector as usize).is_some_and(|found| found.load(Relaxed) == thing as u8)
    }

    /// A selector at which there is believed to be such a thing, or any.
    pub(crate) fn find(&self, thing: Thing) -> u64 {
        let start = self.random.below(KNOWN as u64);
        let all = (0..KNOWN as u64).map(|offset| (start + offset) % KNOWN as u64);
        all.into_iter().find(|selector| Self::is(*selector, thing)).unwrap_or(start)
    }
}

/// A thread: does things until it is stopped from outside, or has nothing better to do.
pub(crate) extern "C" fn run(slot: u64) -> ! {
    let hostile = Hostile::new(slot);
    loop {
        for _ in 0..64 {
            hostile.step();
        }
        // The first threads go on for ever.
        let first = record().first.iter().any(|first| u64::from(first.load(Relaxed)) == slot);
        if !first && hostile.random.once_in(4) {
            let sm = hostile.find(Thing::Semaphore) as u32;
            let _ = hostile.make(&abi::SmDown { sm, flags: hostile.random.below(2), deadline: 0 });
        }
    }
}

/// A server: answers, in time or late, rightly or not.
pub(crate) extern "C" fn serve(_: u64, header: u64, slot: u64) -> u64 {
    let hostile = Hostile::new(slot);
    let random = hostile.random;
    // The reply by which it came here, which answered nothing.
    record().made[hostile.slot].fetch_add(1, Relaxed);
    match random.below(64) {
        0..20 => return header,
        20..32 => (0..=random.below(3)).for_each(|_| hostile.step()),
        32..44 => single::one(hostile, abi::IpcCall::NUMBER),
        44..50 => single::one(hostile, abi::SmDown::NUMBER),
        50..54 => single::one(hostile, abi::Destroy::NUMBER),
        54 => scenes::fault(hostile),
        55 => return random.next(),
        56 => {
            let sm = hostile.find(Thing::Semaphore) as u32;
            let _ = hostile.make(&abi::SmDown { sm, flags: 0, deadline: 0 });
        }
        _ => {}
    }
    single::items(hostile);
    Header::new(random.below(24) as usize % WORDS, random.below(3) as usize % ITEMS).0
}

/// A handler of exceptions, mostly of use.
pub(crate) extern "C" fn repair(_: u64, header: u64, slot: u64) -> u64 {
    let random = Random(slot as usize);
    match random.below(32) {
        0 => 0,
        1 => {
            message().set(RIP, random.next());
            header
        }
        _ => restart(0, Header(header)).0,
    }
}

/// Lets a thread go on behind a fault that it expected, or at its beginning.
pub(crate) fn restart(_: u64, header: Header) -> Header {
    if header.words() != EXCEPTION_WORDS {
        return Header::new(0, 0);
    }
    record().faults.fetch_add(1, Relaxed);
    let expected = message().get(RBX) == entry::EXPECTED;
    let start = entry::thread as *const () as u64;
    let to = match message().get(RIP).wrapping_sub(start) {
        _ if expected => message().get(R12),
        // It cannot even start: its message page is gone, or its stack. Nobody goes on there.
        0..entry::LENGTH => u64::MAX,
        _ => start,
    };
    message().set(RIP, to);
    header
}
