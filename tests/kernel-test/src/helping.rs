// SPDX-License-Identifier: MIT OR Apache-2.0
//! Several callers of one server, which waits: they lend it their time, or wait with it, and get their turn.

use crate::harness::{Outcome, Test};
use crate::ipc::{GATE, PORTAL, caller, done, gate};
use crate::make::up;
use crate::{check, equal};
use cloister_abi::status::Status;
use cloister_abi::utcb::Header;
use cloister_bare::kernel::{ipc, message};
use cloister_bare::thread::spawn;
use core::sync::atomic::Ordering;

pub(crate) static TESTS: [Test; 3] = [
    ("helping-helper-destroyed", helper_destroyed),
    ("helping-callee-of-many-destroyed", callee_destroyed),
    ("helping-all-get-their-turn", all_turns),
];

/// More and less important than the thread that runs the tests.
const HIGH: u32 = 120;
const LOW: u32 = 1;

fn open() -> Result<(), Status> {
    up(GATE.load(Ordering::Relaxed))
}

/// One thread is served, another waits for its turn; the latter goes.
fn helper_destroyed() -> Outcome {
    let context = gate()?;
    let served = spawn(caller, 10, HIGH)?;
    let helper = spawn(caller, 20, HIGH)?;
    helper.destroy();
    open()?;
    equal!(done()?, 11);
    open()?;
    message().set(0, 1);
    equal!(ipc(PORTAL.load(Ordering::Relaxed), 1, 0)?, Header::new(1, 0));
    equal!(message().get(0), 2);
    served.destroy();
    context.destroy();
    Ok(())
}

/// The server goes: who is served and who waits are told.
fn callee_destroyed() -> Outcome {
    let context = gate()?;
    let threads = [spawn(caller, 10, HIGH)?, spawn(caller, 20, HIGH)?, spawn(caller, 30, LOW)?];
    context.destroy();
    let told = [Status::Aborted, Status::BadCapability].map(|status| 0x100 + status as u64);
    for _ in 0..3 {
        let result = done()?;
        check!(told.contains(&result));
    }
    threads.iter().for_each(|thread| thread.destroy());
    Ok(())
}

/// All who wait for a server are served, whatever their priorities.
fn all_turns() -> Outcome {
    let context = gate()?;
    let mut threads = [None; 6];
    for (thread, priority) in threads.iter_mut().zip([HIGH, LOW, HIGH - 1, LOW + 1, HIGH, LOW]) {
        *thread = Some(spawn(caller, 40, priority)?);
    }
    for _ in 0..6 {
        open()?;
    }
    for _ in 0..6 {
        equal!(done()?, 41);
    }
    threads.iter().flatten().for_each(|thread| thread.destroy());
    context.destroy();
    Ok(())
}
