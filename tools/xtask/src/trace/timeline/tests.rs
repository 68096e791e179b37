// SPDX-License-Identifier: MIT OR Apache-2.0
//! Records made by hand, and what must be seen of them.

use cloister_abi::hypercall::{Call, IpcCall, IpcReply, Null, SmDown};
use cloister_abi::trace::{Event, Record};

use super::{Flow, Timeline, Track};
use crate::trace::rings::Ring;

const CLIENT: u64 = 0x1000;
const SERVER: u64 = 0x2000;
const PD: u64 = 0x9000;

fn timeline(events: &[(Event, u64, u64, u64)]) -> Timeline {
    let records = (0..).zip(events).map(|(time, (event, detail, first, second))| {
        let detail = u16::try_from(*detail).expect("small");
        Record { time: 10 * time, ..Record::new(*event, detail, *first, *second) }
    });
    Timeline::new(&[Ring { core: 0, tsc_hz: 1_000_000, lost: 0, records: records.collect() }])
}

fn on(timeline: &Timeline, track: Track) -> Vec<(&str, u64, u64)> {
    let mut found: Vec<_> = timeline.slices.iter().filter(|slice| slice.track == track).collect();
    found.sort_by_key(|slice| (slice.start, u64::MAX - slice.end));
    found.into_iter().map(|slice| (slice.name.as_str(), slice.start, slice.end)).collect()
}

#[test]
fn a_call_and_its_reply() {
    let timeline = timeline(&[
        (Event::Switch, 0, CLIENT, PD),
        (Event::CallEnter, IpcCall::NUMBER, CLIENT, 7),
        (Event::IpcCall, 0, CLIENT, SERVER),
        (Event::Switch, 0, SERVER, PD),
        (Event::CallExit, IpcCall::NUMBER, CLIENT, 0),
        (Event::CallEnter, Null::NUMBER, SERVER, 0),
        (Event::CallExit, Null::NUMBER, SERVER, 0),
        (Event::CallEnter, IpcReply::NUMBER, SERVER, 0),
        (Event::IpcReply, 0, SERVER, CLIENT),
        (Event::Switch, 0, CLIENT, PD),
        (Event::CallExit, IpcReply::NUMBER, SERVER, 0),
    ]);
    timeline.check().expect("nests");
    assert_eq!(on(&timeline, Track::Runs(0)), [("EC 1000", 0, 30), ("EC 2000", 30, 90), ("EC 1000", 90, 100)]);
    assert_eq!(on(&timeline, Track::Kernel(0)), [("IpcCall", 10, 40), ("Null", 50, 60), ("IpcReply", 70, 100)]);
    assert_eq!(on(&timeline, Track::Ec(0, CLIENT)), [("IpcCall", 10, 90)]);
    assert_eq!(
        on(&timeline, Track::Ec(0, SERVER)),
        [("serves EC 1000", 20, 70), ("Null", 50, 60), ("waits for a call", 70, 100)]
    );
    assert_eq!(timeline.flows, [Flow { from: (0, CLIENT), to: (0, SERVER), time: 20 }]);
}

#[test]
fn waiting_lasts_until_the_ec_runs_again() {
    let timeline = timeline(&[
        (Event::Switch, 0, CLIENT, PD),
        (Event::CallEnter, SmDown::NUMBER, CLIENT, 1),
        (Event::CallExit, SmDown::NUMBER, CLIENT, 0),
        (Event::CallEnter, SmDown::NUMBER, CLIENT, 1),
        (Event::CallExit, SmDown::NUMBER, CLIENT, 0),
        (Event::SettleEnter, 0, 0, 0),
        (Event::Switch, 0, 0, 0),
        (Event::IdleEnter, 0, 0, 0),
        (Event::TrapEnter, 0xf0, 0, 0),
        (Event::TrapExit, 0xf0, 0, 0),
        (Event::IdleExit, 0, 0, 0),
        (Event::Switch, 0, CLIENT, PD),
        (Event::SettleExit, 0, 0, 0),
    ]);
    timeline.check().expect("nests");
    let kernel = on(&timeline, Track::Kernel(0));
    assert_eq!(kernel[2..], [("schedule", 50, 120), ("idle", 70, 100), ("timer", 80, 90)]);
    assert_eq!(on(&timeline, Track::Ec(0, CLIENT)), [("SmDown", 10, 20), ("SmDown", 30, 110)]);
}

#[test]
fn a_guest_lies_in_its_run() {
    let timeline = timeline(&[
        (Event::Switch, 0, CLIENT, PD),
        (Event::CallEnter, 19, CLIENT, 1),
        (Event::GuestEnter, 0, 5, CLIENT),
        (Event::GuestExit, 0xfffe, 5, CLIENT),
        (Event::GuestEnter, 0, 5, CLIENT),
        (Event::GuestExit, 2, 5, CLIENT),
        (Event::CallExit, 19, CLIENT, 0),
    ]);
    timeline.check().expect("nests");
    let seen = [("VcpuRun", 10, 60), ("guest, until an interrupt", 20, 30), ("guest, until Port", 40, 50)];
    assert_eq!(on(&timeline, Track::Ec(0, CLIENT)), seen);
}

#[test]
fn a_trace_that_begins_and_ends_in_the_middle() {
    let timeline = timeline(&[
        (Event::CallExit, 1, CLIENT, 0),
        (Event::TrapExit, 14, 0, 0),
        (Event::GuestExit, 0, 5, CLIENT),
        (Event::Switch, 0, CLIENT, PD),
        (Event::TrapEnter, 14, CLIENT, 0x1234),
        (Event::SettleEnter, 0, 0, 0),
    ]);
    timeline.check().expect("nests");
    assert_eq!(on(&timeline, Track::Kernel(0)), [("page fault", 40, 50), ("schedule", 50, 50)]);
}

#[test]
fn a_call_to_another_core() {
    let record = |time, event, detail, first, second| Record { time, ..Record::new(event, detail, first, second) };
    let call = u16::try_from(IpcCall::NUMBER).expect("small");
    let here = vec![
        record(0, Event::Switch, 0, CLIENT, PD),
        record(10, Event::CallEnter, call, CLIENT, 7),
        record(20, Event::CallExit, call, CLIENT, 0),
        record(20, Event::SettleEnter, 0, 0, 0),
        record(25, Event::Switch, 0, 0, 0),
        record(60, Event::Switch, 0, CLIENT, PD),
        record(65, Event::SettleExit, 0, 0, 0),
    ];
    let there = vec![
        record(30, Event::SettleEnter, 0, 0, 0),
        record(35, Event::IpcCall, 0, CLIENT, SERVER),
        record(40, Event::Switch, 0, SERVER, PD),
        record(45, Event::SettleExit, 0, 0, 0),
    ];
    let ring = |core, records| Ring { core, tsc_hz: 1_000_000, lost: 0, records };
    let timeline = Timeline::new(&[ring(0, here), ring(1, there)]);
    timeline.check().expect("nests");
    assert_eq!(timeline.flows, [Flow { from: (0, CLIENT), to: (1, SERVER), time: 35 }]);
    assert_eq!(on(&timeline, Track::Ec(0, CLIENT)), [("IpcCall", 10, 60)]);
    assert_eq!(on(&timeline, Track::Ec(1, SERVER)), [("serves EC 1000", 35, 65)]);
}

#[test]
fn cores_are_shown_over_the_same_time() {
    let run = |time, event| Record { time, ..Record::new(event, 0, CLIENT, PD) };
    // The one has idled since the boot, the other one has overwritten what it did before 1000.
    let idle = Ring { core: 1, tsc_hz: 1, lost: 0, records: vec![run(10, Event::IdleEnter)] };
    let busy = Ring { core: 0, tsc_hz: 1, lost: 5, records: vec![run(1000, Event::Switch), run(2000, Event::Switch)] };
    let timeline = Timeline::new(&[busy, idle]);
    timeline.check().expect("nests");
    assert_eq!(on(&timeline, Track::Kernel(1)), [("idle", 1000, 2000)]);
    assert_eq!(on(&timeline, Track::Runs(0))[0].1, 1000);
}

#[test]
fn slices_that_cross_are_found() {
    let mut timeline = timeline(&[]);
    let slice = |start, end| super::Slice { track: Track::Kernel(0), name: String::new(), start, end };
    timeline.slices = vec![slice(0, 10), slice(5, 15)];
    assert!(timeline.check().is_err());
    timeline.slices = vec![slice(0, 10), slice(10, 15), slice(11, 12)];
    assert!(timeline.check().is_ok());
}
