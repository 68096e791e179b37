// SPDX-License-Identifier: MIT OR Apache-2.0
//! A timeline in the trace event format, which Perfetto and Chrome's tracing open ("Trace Event Format", Google, 2016:
//! complete, flow and metadata events; times in microseconds).

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};

use serde_json::{Value, json};

use super::timeline::{Timeline, Track};

/// Process number of the cores; those of PDs follow.
const CORES: u64 = 1;
/// Numbers of threads are unique, whatever process they belong to, and none is 0, since Perfetto takes that for the idle thread of
/// Linux and drops what overlaps on it; one that is its process's number is shown as a main thread. From here on are those of cores and ECs.
const CORE_THREADS: u64 = 500;
const ECS: u64 = 1000;

/// Writes it.
pub(crate) fn write(timeline: &Timeline, tsc_hz: u64, out: &mut impl Write) -> io::Result<()> {
    let zero = timeline.slices.iter().map(|slice| slice.start).min().unwrap_or(0);
    let micros = |ticks: u64| micros(ticks.saturating_sub(zero), tsc_hz);
    let places = Places::new(timeline);
    let mut lines = Lines { out, first: true };
    writeln!(lines.out, "{{\"displayTimeUnit\":\"ns\",\"traceEvents\":[")?;
    for event in places.names(timeline) {
        lines.line(&event)?;
    }
    for slice in &timeline.slices {
        let (process, thread) = places.of(slice.track);
        lines.line(&json!({
            "ph": "X", "pid": process, "tid": thread, "name": slice.name,
            "ts": micros(slice.start), "dur": micros(slice.end) - micros(slice.start),
        }))?;
    }
    for (id, flow) in (1..).zip(&timeline.flows) {
        for (phase, (core, ec)) in [("s", flow.from), ("f", flow.to)] {
            let (process, thread) = places.of(Track::Ec(core, ec));
            lines.line(&json!({
                "ph": phase, "bp": "e", "id": id, "cat": "ipc", "name": "call",
                "pid": process, "tid": thread, "ts": micros(flow.time),
            }))?;
        }
    }
    writeln!(lines.out, "\n]}}")
}

/// Microseconds of so many ticks, to a thousandth.
#[expect(clippy::cast_precision_loss, reason = "a thousandth of a microsecond is exact for some hundred days")]
fn micros(ticks: u64, tsc_hz: u64) -> f64 {
    let nanos = u128::from(ticks) * 1_000_000_000 / u128::from(tsc_hz.max(1));
    nanos as f64 / 1000.0
}

struct Lines<'a, W> {
    out: &'a mut W,
    first: bool,
}

impl<W: Write> Lines<'_, W> {
    fn line(&mut self, event: &Value) -> io::Result<()> {
        if !std::mem::take(&mut self.first) {
            writeln!(self.out, ",")?;
        }
        write!(self.out, "{event}")
    }
}

/// Numbers of processes and threads for tracks.
struct Places {
    /// Names of PDs in the order of their numbers.
    domains: Vec<String>,
    /// ECs: their process, their number in it, and their name there.
    ecs: BTreeMap<(u32, u64), (u64, u64, String)>,
}

/// What core calls a thread: the label of its component, and its own name.
fn parts(name: &str) -> Option<(&str, &str)> {
    name.rsplit_once(": ")
}

impl Places {
    fn new(timeline: &Timeline) -> Self {
        let shown = timeline.slices.iter().filter_map(|slice| match slice.track {
            Track::Ec(core, ec) => Some((core, ec)),
            _ => None,
        });
        let called = timeline.flows.iter().flat_map(|flow| [flow.from, flow.to]);
        let ecs: BTreeSet<_> = shown.chain(called).collect();
        // What a PD is called, if one of its ECs says so.
        let labels: BTreeMap<u64, String> = ecs
            .iter()
            .filter_map(|(_, ec)| Some((*timeline.domains.get(ec)?, parts(&timeline.name(*ec))?.0.to_owned())))
            .collect();
        let mut places = Self { domains: Vec::new(), ecs: BTreeMap::new() };
        for key in ecs {
            let name = timeline.name(key.1);
            let pd = timeline.domains.get(&key.1);
            let (domain, thread) = match (parts(&name), pd) {
                (Some((label, thread)), _) => (label.to_owned(), thread.to_owned()),
                // One that was never seen to run is nobody's.
                (None, None) => ("never ran".to_owned(), name),
                (None, Some(pd)) => {
                    (labels.get(pd).cloned().unwrap_or_else(|| format!("PD {:x}", pd & 0xffff_ffff)), name)
                }
            };
            let process = places.domain(domain);
            let number = ECS + places.ecs.len() as u64;
            places.ecs.insert(key, (process, number, thread));
        }
        places
    }

    /// The number of the PD of that name.
    fn domain(&mut self, name: String) -> u64 {
        let place = self.domains.iter().position(|known| *known == name).unwrap_or_else(|| {
            self.domains.push(name);
            self.domains.len() - 1
        });
        CORES + 1 + place as u64
    }

    fn of(&self, track: Track) -> (u64, u64) {
        match track {
            Track::Runs(core) => (CORES, CORE_THREADS + 2 * u64::from(core)),
            Track::Kernel(core) => (CORES, CORE_THREADS + 2 * u64::from(core) + 1),
            Track::Ec(core, ec) => self.ecs.get(&(core, ec)).map_or((CORES, ECS - 1), |(pid, tid, _)| (*pid, *tid)),
        }
    }

    fn names(&self, timeline: &Timeline) -> Vec<Value> {
        let process =
            |pid: u64, name: &str| json!({"ph": "M", "name": "process_name", "pid": pid, "args": {"name": name}});
        let thread = |(pid, tid): (u64, u64), name: &str| json!({"ph": "M", "name": "thread_name", "pid": pid, "tid": tid, "args": {"name": name}});
        let mut events = vec![process(CORES, "Cores")];
        let tracks: BTreeSet<_> = timeline.slices.iter().map(|slice| slice.track).collect();
        for track in tracks {
            let name = match track {
                Track::Runs(core) => format!("core {core} runs"),
                Track::Kernel(core) => format!("core {core} kernel"),
                Track::Ec(..) => continue,
            };
            events.push(thread(self.of(track), &name));
        }
        events.extend((CORES + 1..).zip(&self.domains).map(|(pid, name)| process(pid, name)));
        events.extend(self.ecs.values().map(|(pid, tid, name)| thread((*pid, *tid), name)));
        events
    }
}

#[cfg(test)]
mod tests {
    use cloister_abi::trace::{Event, Record};
    use serde_json::Value;

    use super::{BTreeSet, write};
    use crate::trace::names::Names;
    use crate::trace::rings::Ring;
    use crate::trace::timeline::{Flow, Slice, Timeline, Track};

    #[test]
    fn tracks_slices_and_flows_are_written() {
        let mut timeline = Timeline::default();
        let slice = |track, name: &str, start, end| Slice { track, name: name.to_owned(), start, end };
        timeline.slices = vec![
            slice(Track::Kernel(0), "IpcCall", 1000, 3000),
            slice(Track::Ec(0, 7), "IpcCall", 1000, 5000),
            slice(Track::Ec(0, 8), "serves", 2000, 4000),
        ];
        timeline.flows = vec![Flow { from: (0, 7), to: (0, 8), time: 2000 }];
        let named = Record::new(Event::Name, 0, 7, u64::from_le_bytes(*b"me: cli\0"));
        timeline.names = Names::new(&[Ring { core: 0, tsc_hz: 1, lost: 0, records: vec![named] }]);
        timeline.domains.extend([(7, 0x100), (8, 0x100)]);
        let mut text = Vec::new();
        write(&timeline, 1_000_000_000, &mut text).expect("memory takes all");
        let parsed: Value = serde_json::from_slice(&text).expect("JSON");
        let events = parsed["traceEvents"].as_array().expect("a list");
        let of = |phase: &str| events.iter().filter(|event| event["ph"] == phase).collect::<Vec<_>>();
        assert_eq!(of("X").len(), 3);
        assert_eq!((of("X")[0]["ts"].as_f64(), of("X")[0]["dur"].as_f64()), (Some(0.0), Some(2.0)));
        // A thread number is that of one thread, and 0 is nobody's.
        let threads: BTreeSet<_> =
            events.iter().filter_map(|event| Some((event["tid"].as_u64()?, event["pid"].as_u64()?))).collect();
        let numbers: BTreeSet<_> = threads.iter().map(|(thread, _)| *thread).collect();
        assert_eq!((numbers.len(), numbers.contains(&0)), (threads.len(), false));
        assert_eq!(of("s")[0]["tid"], of("X")[1]["tid"]);
        assert_eq!(of("f")[0]["tid"], of("X")[2]["tid"]);
        let named = |name: &str| of("M").iter().any(|event| event["args"]["name"] == name);
        assert!(named("cli") && named("EC 8") && named("me") && !named("PD 100"));
    }
}
