// SPDX-License-Identifier: MIT OR Apache-2.0
//! Playing a scenario's steps: what is typed, and what must come of it.

use std::time::{Duration, Instant};

use crate::console::{Session, Unmet};
use crate::machine::Ending;
use crate::scenario::{Side, Step, TestSettings};

/// Plays all steps; an error says which one failed, and how.
pub(super) fn play(session: &mut Session, test: &TestSettings) -> Result<(), String> {
    let deadline = Instant::now() + Duration::from_secs(test.timeout);
    play_steps(session, test, deadline)?;
    if test.shutdown || test.reset || test.ending.is_some() {
        session.wait_for_end(deadline).map_err(|_| "the machine did not switch itself off".to_owned())?;
    }
    if session.is_over() {
        check_ending(session, test)?;
    }
    for pattern in &test.forbid {
        for (side, text) in [("console", session.console.text()), ("log", session.log.text())] {
            if let Some(found) = pattern.find(text) {
                return Err(format!("the {side} showed {:?}, which must not be", found.as_str()));
            }
        }
    }
    Ok(())
}

/// Plays all steps, without looking at what comes after.
pub(crate) fn play_steps(session: &mut Session, test: &TestSettings, deadline: Instant) -> Result<(), String> {
    for (number, step) in (1..).zip(&test.step) {
        play_step(session, step, deadline).map_err(|why| format!("step {number}: {why}"))?;
    }
    Ok(())
}

fn play_step(session: &mut Session, step: &Step, end: Instant) -> Result<(), String> {
    if let Some(line) = &step.send {
        session.machine.send(format!("{line}\n").as_bytes());
    }
    if let Some(keys) = &step.keys {
        session.machine.send(keys.as_bytes());
    }
    if let Some(command) = &step.monitor {
        session.machine.command(command);
    }
    let Some(wanted) = &step.expect else { return Ok(()) };
    let own_end = step.timeout.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let deadline = own_end.map_or(end, |own_end| own_end.min(end));
    session.expect(step.on, wanted, deadline).map_err(|unmet| {
        let side = match step.on {
            Side::Console => "console",
            Side::Log => "log",
        };
        let how = match unmet {
            Unmet::TimeOut => "in time",
            Unmet::Ended => "before the machine ended",
        };
        format!("the {side} did not show /{wanted}/ {how}")
    })
}

fn check_ending(session: &mut Session, test: &TestSettings) -> Result<(), String> {
    let ending = session.ending().map_err(|error| format!("{error:#}"))?;
    if let Some(code) = test.ending {
        return match ending {
            // QEMU's exit code has room for seven bits of it.
            Ending::Code(found) if found == code & 0x7f => Ok(()),
            other => Err(format!("the machine did not end with {code:#x}, but so: {other:?}")),
        };
    }
    match ending {
        Ending::Orderly if test.reset => Err("the machine was switched off, not reset".to_owned()),
        Ending::Orderly => Ok(()),
        Ending::Code(code) => Err(format!("the kernel ended the machine with {code:#x}")),
        Ending::Off if session.machine.triple_fault() => Err("the machine reset itself (triple fault)".to_owned()),
        Ending::Off if test.reset => Ok(()),
        Ending::Off => Err("the machine was reset or powered off without a word".to_owned()),
        Ending::Emulator => Err(format!("QEMU failed: {}", session.machine.complaint())),
    }
}
