// SPDX-License-Identifier: MIT OR Apache-2.0
//! A component that makes hypercalls at random: it may end itself, and nothing else.
//!
//! It holds capabilities of each kind, with all permissions, to things that are its own. After its end this program's
//! account is where it was, and the kernel answers as ever.

use crate::harness::{Outcome, Test};
use crate::make::{give, used};
use crate::{check, equal};
use cloister_abi::VERSION;
use cloister_abi::cap::{NONE, Perms, SpaceKind};
use cloister_abi::hip::ROOT_PD;
use cloister_abi::hypercall::{CreatePd, CreateSm, CreateSpace, Drop, Null};
use cloister_abi::status::Status;
use cloister_abi::utcb::Header;
use cloister_bare::domain::Domain;
use cloister_bare::kernel::{Raw, call, ipc, message, selectors};
use cloister_bare::thread::destroy;
use core::sync::atomic::{AtomicU64, Ordering};

pub(crate) static TESTS: [Test; 1] = [("random-hypercalls", random_hypercalls)];

/// Components, and calls of each.
const ROUNDS: u64 = 40;
const CALLS: u64 = 250;

/// The next of a sequence of numbers without pattern (xorshift64).
pub(crate) fn next(random: &mut u64) -> u64 {
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    *random
}

/// An argument: a selector, mostly; else an address, a number near an edge, or anything.
fn argument(random: &mut u64) -> u64 {
    let value = next(random);
    match next(random) % 12 {
        0..=5 => value % 48,
        6 => (value % 64) << 12,
        7 => 0x6000_0000 + ((value % 64) << 12),
        8 => [0, 1, u64::MAX, 1 << 32, 1 << 47, 1 << 63, u64::from(u32::MAX), 0x1_0000]
            [usize::from(value.to_le_bytes()[0] % 8)],
        9 => 0x3f0 + value % 128,
        10 => value >> 32,
        _ => value,
    }
}

/// One call; those that could wait for ever or stop the machine's clockwork are left out.
fn one(random: &mut u64) {
    let mut args = [0; 6];
    args.iter_mut().for_each(|arg| *arg = argument(random));
    let answer = match next(random) % 22 {
        0 => call(&Raw::<0>(args)),
        1 => call(&Raw::<1>([args[0], args[1], 1, 0, 0, 0])),
        2 => call(&Raw::<3>(args)),
        3 => call(&Raw::<4>(args)),
        // Threads and servers of whatever memory, but never one that gets time of its own.
        4 => call(&Raw::<5>(args)),
        5 => call(&Raw::<6>([args[0], args[1], args[2], 128 + args[3], args[4], 0])),
        6 => call(&Raw::<7>(args)),
        7 | 8 => call(&Raw::<8>(args)),
        9 => call(&Raw::<9>(args)),
        10 | 11 => call(&Raw::<10>(args)),
        12 => call(&Raw::<11>(args)),
        13 => call(&Raw::<12>(args)),
        14 => call(&Raw::<13>(args)),
        15 => call(&Raw::<14>(args)),
        16 => call(&Raw::<15>(args)),
        17 => call(&Raw::<17>(args)),
        18 => call(&Raw::<18>([args[0], 2 | args[1], args[2], 0, 0, 0])),
        19 => call(&Raw::<20>(args)),
        20 => call(&Raw::<21>(args)),
        _ => call(&Raw::<24>(args)),
    };
    MADE.fetch_add(1, Ordering::Relaxed);
    if answer.is_ok() {
        SUCCEEDED.fetch_add(1, Ordering::Relaxed);
    }
}

static MADE: AtomicU64 = AtomicU64::new(0);
static SUCCEEDED: AtomicU64 = AtomicU64::new(0);
static SEED: AtomicU64 = AtomicU64::new(0);

fn run(_: u64, _: Header) -> Header {
    let mut random = SEED.load(Ordering::Relaxed);
    for index in 0..8 {
        let item = cloister_abi::utcb::Item { value: next(&mut random) % 40, attr: next(&mut random) };
        message().set_item(index, item);
    }
    for _ in 0..CALLS {
        one(&mut random);
    }
    Header::new(0, 0)
}

/// A component with things of its own at its first selectors.
fn component(base: u32) -> Result<Domain, Status> {
    call(&CreatePd { sel: base, pd: ROOT_PD, budget: 0x20_0000, priorities: 0 })?;
    let domain = Domain { pd: base, objects: base + 1, host: base + 2, ports: base + 3 };
    domain.share_image()?;
    let server = domain.server(run)?;
    let portal = server.portal(0)?;
    call(&CreateSm { sel: base + 4, pd: domain.pd, count: 3, target: NONE, bit: 0 })?;
    call(&CreateSpace { sel: base + 5, pd: domain.pd, kind: SpaceKind::Guest as u64 })?;
    for (to, sel) in (1..).zip([base, base + 1, base + 2, base + 3, server.ec, portal, base + 4, base + 5]) {
        give(domain.objects, sel, to, Perms::ALL)?;
    }
    // It may end, or its portal, before it answers.
    let answer = ipc(portal, 0, 0);
    destroy(domain.pd);
    destroy(portal);
    call(&Drop { base: server.ec, count: 1 })?;
    call(&Drop { base: portal, count: 1 })?;
    call(&Drop { base, count: 6 })?;
    match answer {
        Ok(_) | Err(Status::Aborted | Status::BadCapability) => Ok(domain),
        Err(other) => Err(other),
    }
}

fn random_hypercalls() -> Outcome {
    let base = selectors(8);
    let mut random = 0x2545_f491_4f6c_dd1d;
    // Stacks are this program's, and its page tables grow for them.
    let mut before = 0;
    for round in 0..ROUNDS {
        SEED.store(next(&mut random), Ordering::Relaxed);
        component(base)?;
        if round == 0 {
            before = used(ROOT_PD)?;
        }
        crate::harness::alive();
    }
    let after = used(ROOT_PD)?;
    check!(after - before <= ROUNDS * 4096 / 8);
    // Enough was tried, and not all in vain.
    check!(MADE.load(Ordering::Relaxed) > ROUNDS * CALLS / 4);
    check!(SUCCEEDED.load(Ordering::Relaxed) > MADE.load(Ordering::Relaxed) / 50);
    equal!(call(&Null {})?.0, u64::from(VERSION));
    Ok(())
}
