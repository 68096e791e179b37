// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reading the trace, where there is one (`trace=SIZE` on the command line), and being refused it.

use crate::harness::{Failure, Outcome, Test};
use crate::make::limited;
use crate::{check, equal, refused};
use cloister_abi::cap::Perms;
use cloister_abi::hip::{MACHINE, ROOT_EC};
use cloister_abi::hypercall::{Call, Null, TraceControl};
use cloister_abi::status::Status;
use cloister_abi::trace::{Event, Record, TraceOp};
use cloister_bare::kernel::{call, message};

pub(crate) static TESTS: [Test; 3] = [("trace-refused", refusals), ("trace-reads", reads), ("trace-names", names)];

const fn control(operation: u64, argument: u32, value: u64) -> TraceControl {
    TraceControl { machine: MACHINE, operation, argument, value }
}

const fn read(from: u64) -> TraceControl {
    read_of(0, from)
}

const fn read_of(core: u32, from: u64) -> TraceControl {
    control(TraceOp::Read as u64, core, from)
}

fn refusals() -> Outcome {
    refused!(BadParameter, control(2, 0, 0));
    refused!(BadCapability, TraceControl { machine: ROOT_EC, ..read(0) });
    let machine = limited(MACHINE, Perms::ALL - Perms::CTRL)?;
    refused!(BadCapability, TraceControl { machine, ..read(0) });
    refused!(BadParameter, control(TraceOp::Name as u64, ROOT_EC, 65));
    refused!(BadFeature, control(TraceOp::Read as u64, 63, 0));
    refused!(BadFeature, control(TraceOp::Read as u64, u32::MAX, 0));
    Ok(())
}

fn record(index: usize) -> Record {
    Record::from_words([0, 1, 2, 3].map(|word| message().get(4 * index + word)))
}

/// Looks at the records of a core from that number on. Answers the number of the record that comes next.
pub(crate) fn each(core: u32, mut from: u64, mut look: impl FnMut(Record)) -> Result<u64, Failure> {
    loop {
        match call(&read_of(core, from)) {
            Err(Status::BadFeature) => return Err(Failure::Skipped("the kernel was started without a trace")),
            answer => {
                let (first, count) = answer?;
                (0..usize::try_from(count).unwrap_or(0)).map(record).for_each(&mut look);
                from = first + count;
                // The last records that there are describe the call that reads them.
                if count < 100 {
                    return Ok(from);
                }
            }
        }
    }
}

/// Number of the record of this core that comes next.
fn end() -> Result<u64, Failure> {
    each(0, 0, |_| ())
}

fn reads() -> Outcome {
    let start = end()?;
    call(&Null {})?;
    let (first, count) = call(&read(start))?;
    check!(first == start && count >= 3);
    let records = || (0..usize::try_from(count).unwrap_or(0)).map(record);
    check!(records().zip(start..).all(|(record, number)| record.what >> 32 == number & 0xffff_ffff));
    check!(records().zip(records().skip(1)).all(|(one, next)| one.time <= next.time));
    let found = |event| records().any(|r| r.event() == Some(event) && u64::from(r.detail()) == Null::NUMBER);
    check!(found(Event::CallEnter) && found(Event::CallExit));
    // Nothing is there yet of what comes a million records later.
    equal!(call(&read(start + 1_000_000))?.1, 0);
    Ok(())
}

fn names() -> Outcome {
    let start = end()?;
    message().set(0, u64::from_le_bytes(*b"the root"));
    message().set(1, u64::from_le_bytes(*b" task\0\0\0"));
    call(&control(TraceOp::Name as u64, ROOT_EC, 13))?;
    let (_, count) = call(&read(start))?;
    let named = (0..usize::try_from(count).unwrap_or(0)).map(record).filter(|r| r.event() == Some(Event::Name));
    equal!(named.clone().count(), 2);
    check!(named.map(|record| record.second).eq([*b"the root", *b" task\0\0\0"].map(u64::from_le_bytes)));
    Ok(())
}
