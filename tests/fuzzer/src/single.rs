// SPDX-License-Identifier: MIT OR Apache-2.0
//! Single calls: valid as far as the component knows, with arguments spoiled, or anything at all.

use crate::hostile::Hostile;
use crate::layout::{
    DYNAMIC, FOREIGN, KNOWN, LARGE, PAGE, RECORD, SMALL, STACK_AREA, STACK_AREA_ORDER, STACK_BITS, STATE_AREA, STATES,
    Thing, UTCB_BITS, UTCBS, WINDOW, after, given, record, take_slot,
};
use crate::{entry, scenes};
use cloister_abi::cap::NONE;
use cloister_abi::hypercall::{self as abi, Args, Call};
use cloister_abi::utcb::{Item, WORDS};
use cloister_bare::kernel::message;
use cloister_bare::time;
use core::sync::atomic::Ordering::Relaxed;

/// How often each call is made, by number; those without an entry are made as often as the last one.
const WEIGHTS: [u64; 26] = [1, 12, 1, 3, 3, 5, 5, 6, 6, 3, 14, 6, 3, 10, 3, 2, 2, 8, 8, 8, 2, 3, 1, 2, 2, 2];

/// A call that should succeed, and a note of what it made or destroyed.
pub(crate) fn valid(hostile: Hostile) {
    one(hostile, number(hostile));
}

/// A valid call of that number.
pub(crate) fn one(hostile: Hostile, number: u64) {
    let (args, thing) = arguments(hostile, number);
    made(hostile, number, args, thing);
}

/// Makes the call, and remembers.
pub(crate) fn made(hostile: Hostile, number: u64, args: Args, thing: Option<Thing>) -> bool {
    let answer = hostile.call(number, args);
    match number {
        abi::Destroy::NUMBER => {
            // Mostly to the end; what is half destroyed is of interest too.
            let mut answer = answer;
            let mut rounds = hostile.random.of([0, 64, 64, 64]);
            while answer == Err(cloister_abi::status::Status::Again as u64) && rounds > 0 {
                answer = hostile.call(number, args);
                rounds -= 1;
            }
            if answer.is_ok() {
                hostile.remember(args[0], None);
            }
        }
        abi::Drop::NUMBER => {
            (0..args[1].min(8)).for_each(|offset| hostile.remember(args[0].wrapping_add(offset), None))
        }
        abi::CreatePd::NUMBER if answer.is_ok() => {
            for (offset, thing) in [Thing::Pd, Thing::Objects, Thing::Host, Thing::Ports].into_iter().enumerate() {
                hostile.remember(args[0] + offset as u64, Some(thing));
            }
        }
        abi::CreateSc::NUMBER if answer.is_ok() => {
            hostile.remember(args[0], thing);
            hostile.remember(args[2], Some(Thing::Started));
        }
        _ if thing.is_some() && answer.is_ok() => {
            if number == abi::CreateVcpu::NUMBER
                && let Some(place) = record().places.get(args[0] as usize)
            {
                place.store((args[4].wrapping_sub(STATE_AREA) / PAGE) as u8, Relaxed);
            }
            hostile.remember(args[0], thing);
        }
        _ => {}
    }
    answer.is_ok()
}

/// A valid call with an argument or all of them spoiled.
pub(crate) fn mutated(hostile: Hostile) {
    let number = number(hostile);
    let (mut args, thing) = arguments(hostile, number);
    let count = if hostile.random.once_in(8) { 6 } else { 1 };
    for _ in 0..count {
        args[hostile.random.below(5) as usize] = argument(hostile);
    }
    made(hostile, number, args, thing);
}

/// Any registers.
pub(crate) fn anything(hostile: Hostile) {
    let number =
        if hostile.random.once_in(8) { hostile.random.next() >> 32 } else { hostile.random.below(FOREIGN as u64) };
    let mut args = [0; 6];
    args.iter_mut().for_each(|arg| *arg = argument(hostile));
    if number < FOREIGN as u64 {
        let _ = hostile.call(number, args);
    } else {
        scenes::no_hypercall(hostile, number, &args);
    }
}

fn number(hostile: Hostile) -> u64 {
    let weight = |number: usize| WEIGHTS[number.min(WEIGHTS.len() - 1)];
    let mut left = hostile.random.below((0..FOREIGN).map(weight).sum());
    for number in 0..FOREIGN {
        match left.checked_sub(weight(number)) {
            Some(rest) => left = rest,
            None => return number as u64,
        }
    }
    0
}

/// An argument that may be anything: a selector, mostly; an address; a number near an edge.
fn argument(hostile: Hostile) -> u64 {
    let random = hostile.random;
    let value = random.next();
    match random.below(16) {
        0..5 => value % KNOWN as u64,
        5 => value % 24,
        6 => (value % 1024) << 12,
        7 => UTCBS + ((value % 1024) << 12),
        8 => [0, 1, u64::MAX, 1 << 32, 1 << 47, (1 << 47) - PAGE, 1 << 63, u64::from(u32::MAX), 262_143, 262_144]
            [value as usize % 10],
        9 => LARGE / PAGE + value % 512,
        10 => value >> 32,
        11 => 1 << (value % 64),
        12 => WINDOW / PAGE + value % 64,
        13 => (1u64 << (value % 64)).wrapping_sub(1),
        _ => value,
    }
}

/// A selector to put something at.
fn fresh(hostile: Hostile) -> u64 {
    DYNAMIC + hostile.random.below(KNOWN as u64 - DYNAMIC)
}

/// Which PD pays.
fn payer(hostile: Hostile) -> u64 {
    if hostile.random.once_in(6) { hostile.find(Thing::Pd) } else { given::PD }
}

/// A core that is there, mostly.
fn core(hostile: Hostile) -> u64 {
    if hostile.random.once_in(64) {
        return hostile.random.below(256);
    }
    hostile.random.below(u64::from(record().cores.load(Relaxed)))
}

/// A deadline soon, or one that has passed, or none.
fn deadline(hostile: Hostile) -> u64 {
    match hostile.random.below(16) {
        0 => 0,
        1 => hostile.random.next(),
        2 => time::now().wrapping_sub(1),
        _ => after(hostile.random.below(40)),
    }
}

/// Fills items and window of the own message page.
pub(crate) fn items(hostile: Hostile) {
    let random = hostile.random;
    for index in 0..4 {
        let kind = random.of([0, 1, 1, 1, 2, 2, 3]);
        let value = if random.once_in(8) { random.next() } else { random.below(KNOWN as u64) };
        message().set_item(index, Item { value, attr: kind | (random.below(32) << 8) });
    }
    let base = match random.below(16) {
        0 => random.next() as u32,
        // Where there is no table of selectors yet.
        1..4 => random.below(512) as u32 * 512,
        _ => fresh(hostile) as u32,
    };
    message().set_window(base, random.below(4) as u32);
}

/// Number of words and items.
fn header(hostile: Hostile) -> u64 {
    let random = hostile.random;
    let words = if random.once_in(8) { random.below(WORDS as u64 + 1) } else { random.below(9) };
    let items = if random.once_in(3) {
        items(hostile);
        random.below(4)
    } else {
        0
    };
    words | items << 16
}

/// A slot, and its stack's end and its message page.
fn slot(hostile: Hostile) -> (u64, u64) {
    let slot = take_slot();
    let page = UTCBS + (slot << UTCB_BITS);
    if hostile.random.once_in(32) {
        return (hostile.random.next(), page + (hostile.random.below(1024) << 12));
    }
    (STACK_AREA + ((slot + 1) << STACK_BITS), page)
}

/// Arguments of a PD, with as many priorities as the one that pays, fewer, or more than there are.
fn domain(hostile: Hostile) -> Args {
    let random = hostile.random;
    [fresh(hostile) & !3, payer(hostile), random.below(24) << 12, random.of([0, 0, 50, 130]), 0, 0]
}

/// Arguments as they should be, and what the call makes at its first argument.
fn arguments(hostile: Hostile, number: u64) -> (Args, Option<Thing>) {
    let random = hostile.random;
    let find = |thing| hostile.find(thing);
    let semaphore = |random: crate::random::Random| if random.once_in(4) { Thing::Signal } else { Thing::Semaphore };
    match number {
        abi::IpcCall::NUMBER => {
            let portal =
                if random.once_in(6) { random.of([given::VICTIM, given::SUPERVISOR]) } else { find(Thing::Portal) };
            ([portal, header(hostile), random.of([0, 1, 1]), 0, 0, 0], None)
        }
        abi::IpcReply::NUMBER => ([header(hostile), 0, 0, 0, 0, 0], None),
        abi::CreatePd::NUMBER => (domain(hostile), None),
        abi::CreateSpace::NUMBER => ([fresh(hostile), payer(hostile), 2, 0, 0, 0], Some(Thing::Guest)),
        abi::CreateEc::NUMBER => ec(hostile),
        abi::CreateSc::NUMBER => {
            let quantum = 50 + random.below(500);
            ([fresh(hostile), payer(hostile), find(Thing::Thread), random.below(128), quantum, 0], Some(Thing::Sc))
        }
        abi::CreatePt::NUMBER => {
            let handler = random.once_in(4);
            let ip = if handler { entry::handler } else { entry::server } as *const () as u64;
            let thing = if handler { Thing::Handler } else { Thing::Portal };
            ([fresh(hostile), payer(hostile), find(Thing::Server), ip, random.next(), 0], Some(thing))
        }
        abi::CreateSm::NUMBER => sm(hostile),
        abi::CreateVcpu::NUMBER => {
            let (guest, place) = (find(Thing::Guest), STATE_AREA + random.below(STATES) * PAGE);
            ([fresh(hostile), payer(hostile), guest, given::HOST, place, core(hostile)], Some(Thing::Vcpu))
        }
        abi::Delegate::NUMBER => (delegate(hostile), None),
        abi::Revoke::NUMBER => (revoke(hostile), None),
        abi::Drop::NUMBER => ([fresh(hostile), random.below(4), 0, 0, 0, 0], None),
        abi::Destroy::NUMBER => ([fresh(hostile), 0, 0, 0, 0, 0], None),
        abi::MoveBudget::NUMBER => {
            let (own, child) = (given::PD, find(Thing::Pd));
            let (from, to) = random.of([(own, child), (child, own)]);
            ([from, to, random.below(16) << 10, 0, 0, 0], None)
        }
        abi::PdInfo::NUMBER => ([find(Thing::Pd), 0, 0, 0, 0, 0], None),
        abi::ScTime::NUMBER => ([find(Thing::Sc), 0, 0, 0, 0, 0], None),
        abi::SmUp::NUMBER => {
            ([if random.once_in(8) { given::BELL } else { find(semaphore(random)) }, 0, 0, 0, 0, 0], None)
        }
        abi::SmDown::NUMBER => ([find(Thing::Semaphore), random.below(4), deadline(hostile), 0, 0, 0], None),
        abi::VcpuRun::NUMBER => ([scenes::prepared(hostile), 0, 0, 0, 0, 0], None),
        abi::VcpuSync::NUMBER => ([find(Thing::Vcpu), random.next() & 0x7f_ffff, 0, 0, 0, 0], None),
        abi::VcpuKick::NUMBER => ([find(Thing::Vcpu), 0, 0, 0, 0, 0], None),
        abi::IrqBind::NUMBER => {
            ([random.below(16), find(Thing::Semaphore), random.below(24), random.below(8), 0, 0], None)
        }
        abi::IrqAck::NUMBER => ([find(semaphore(random)), 0, 0, 0, 0, 0], None),
        abi::MachineControl::NUMBER => ([random.below(16), random.below(4), random.below(64), 0, 0, 0], None),
        _ => ([argument(hostile), argument(hostile), argument(hostile), argument(hostile), 0, 0], None),
    }
}

fn sm(hostile: Hostile) -> (Args, Option<Thing>) {
    let random = hostile.random;
    if random.below(3) == 0 {
        let target = hostile.find(Thing::Semaphore);
        return ([fresh(hostile), payer(hostile), 0, target, random.below(64), 0], Some(Thing::Signal));
    }
    ([fresh(hostile), payer(hostile), random.below(4), NONE.into(), 0, 0], Some(Thing::Semaphore))
}

fn ec(hostile: Hostile) -> (Args, Option<Thing>) {
    let random = hostile.random;
    let thing = random.of([Thing::Server, Thing::Thread]);
    let event = if random.once_in(4) { NONE.into() } else { hostile.find(Thing::Handler) };
    let flags = u64::from(thing == Thing::Thread) | random.below(2) << 1 | core(hostile) << 8 | event << 32;
    let (stack, page) = slot(hostile);
    let ip = if random.once_in(32) { argument(hostile) } else { entry::thread as *const () as u64 };
    ([fresh(hostile), payer(hostile), flags, page, stack, ip], Some(thing))
}

/// A number of units as log2, and a place of so many.
fn range(hostile: Hostile, base: u64, count: u64, most: u64) -> (u64, u64) {
    let order = hostile.random.below(most + 1);
    ((base + hostile.random.below(count)) >> order << order, order)
}

fn delegate(hostile: Hostile) -> Args {
    let random = hostile.random;
    match random.below(8) {
        // Capabilities, to others or to oneself.
        0..3 => {
            let to = if random.once_in(2) { hostile.find(Thing::Objects) } else { given::OBJECTS };
            let (from, order) = range(hostile, 0, KNOWN as u64, 2);
            let base = fresh(hostile) >> order << order;
            [given::OBJECTS, to, from, base, order, random.below(32)]
        }
        // Memory for a guest.
        3..6 => {
            let (from, order) = if random.once_in(2) {
                range(hostile, LARGE / PAGE, 512, 9)
            } else {
                range(hostile, SMALL / PAGE, 64, 4)
            };
            let to = (random.below(1024)) >> order << order;
            [given::HOST, hostile.find(Thing::Guest), from, to, order, 1 + random.below(7)]
        }
        // Memory somewhere else, of one's own or of others.
        6 => {
            let to = if random.once_in(2) { hostile.find(Thing::Host) } else { given::HOST };
            let (from, order) = range(hostile, SMALL / PAGE, 64, 3);
            let base = WINDOW / PAGE + (random.below(64) >> order << order);
            [given::HOST, to, from, base, order, random.of([1, 1, 3, 3, 5])]
        }
        _ => {
            let ports = random.of([given::PORTS, hostile.find(Thing::Ports)]);
            [random.below(16), ports, random.below(0x400), random.below(0x400), 0, 1]
        }
    }
}

fn revoke(hostile: Hostile) -> Args {
    let random = hostile.random;
    let (space, (base, order)) = match random.below(4) {
        0 => (given::OBJECTS, range(hostile, DYNAMIC, KNOWN as u64 - DYNAMIC, 2)),
        1 => (hostile.find(Thing::Guest), range(hostile, 0, 1024, 9)),
        2 => (given::HOST, range(hostile, WINDOW / PAGE, 64, 3)),
        _ => (hostile.find(Thing::Objects), range(hostile, 0, 64, 4)),
    };
    [space, base, order, 0, 0, 0]
}

/// Keeps the component from ending its own life too soon, and from making threads that never get time.
pub(crate) fn tame(hostile: Hostile, number: u64, args: &mut Args) {
    let random = hostile.random;
    let own = |base: u64, order: u64| {
        let end = base.saturating_add(1 << order.min(20));
        let stacks = base < (STACK_AREA / PAGE) + (1 << STACK_AREA_ORDER) && end > STACK_AREA / PAGE;
        stacks || base < LARGE / PAGE && end > RECORD / PAGE
    };
    match number {
        abi::CreateSc::NUMBER if args[3] < 20 => args[3] += 20,
        // A guest that writes to the stacks of these threads is no test of the kernel.
        abi::Delegate::NUMBER if own(args[2], args[4]) => args[5] &= !2,
        abi::Revoke::NUMBER if args[1] < LARGE / PAGE && !random.once_in(1000) => {
            let selectors = args[0] == given::OBJECTS && args[1] >= DYNAMIC;
            if !selectors && args[1].saturating_add(1 << args[2].min(20)) > 0x400
                || args[1] < DYNAMIC && args[0] == given::OBJECTS
            {
                args[1] = WINDOW / PAGE;
            }
        }
        abi::Drop::NUMBER if args[0] < DYNAMIC && !random.once_in(1000) => args[0] += DYNAMIC,
        abi::CreatePd::NUMBER
        | abi::CreateSpace::NUMBER
        | abi::CreateEc::NUMBER
        | abi::CreateSc::NUMBER
        | abi::CreatePt::NUMBER
        | abi::CreateSm::NUMBER
        | abi::CreateVcpu::NUMBER
        | abi::Destroy::NUMBER
            if args[0] < DYNAMIC && !random.once_in(1000) =>
        {
            args[0] += DYNAMIC;
        }
        abi::Delegate::NUMBER if args[1] == given::OBJECTS && args[3] < DYNAMIC && !random.once_in(1000) => {
            args[3] += DYNAMIC
        }
        _ => {}
    }
}
