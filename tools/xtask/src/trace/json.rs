// SPDX-License-Identifier: MIT OR Apache-2.0
//! A timeline in the trace event format, which Perfetto and Chrome's tracing open ("Trace Event Format", Google, 2016:
//! complete, flow and metadata events; times in microseconds).

use std::collections::BTreeMap;
use std::io::{self, Write};

use serde_json::{Value, json};

use super::timeline::{Timeline, Track};

/// Process number of the cores; those of PDs follow.
const CORES: u64 = 1;

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
        for (phase, ec) in [("s", flow.from), ("f", flow.to)] {
            let (process, thread) = places.of(Track::Ec(flow.core, ec));
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
    /// PDs in the order of their addresses.
    domains: BTreeMap<u64, u64>,
    /// ECs: their process and their number in it.
    ecs: BTreeMap<(u32, u64), (u64, u64)>,
}

impl Places {
    fn new(timeline: &Timeline) -> Self {
        let mut domains = BTreeMap::new();
        let mut ecs = BTreeMap::new();
        let shown = timeline.slices.iter().filter_map(|slice| match slice.track {
            Track::Ec(core, ec) => Some((core, ec)),
            _ => None,
        });
        let called = timeline.flows.iter().flat_map(|flow| [(flow.core, flow.from), (flow.core, flow.to)]);
        for ec in shown.chain(called) {
            // One that was never seen to run is nobody's.
            let pd = timeline.domains.get(&ec.1).copied().unwrap_or(0);
            let next = CORES + 1 + domains.len() as u64;
            let process = *domains.entry(pd).or_insert(next);
            let next = ecs.len() as u64 + 1;
            ecs.entry(ec).or_insert((process, next));
        }
        Self { domains, ecs }
    }

    fn of(&self, track: Track) -> (u64, u64) {
        match track {
            Track::Runs(core) => (CORES, 2 * u64::from(core)),
            Track::Kernel(core) => (CORES, 2 * u64::from(core) + 1),
            Track::Ec(core, ec) => self.ecs.get(&(core, ec)).copied().unwrap_or((CORES, 1000)),
        }
    }

    fn names(&self, timeline: &Timeline) -> Vec<Value> {
        let process =
            |pid: u64, name: &str| json!({"ph": "M", "name": "process_name", "pid": pid, "args": {"name": name}});
        let thread = |(pid, tid): (u64, u64), name: &str| json!({"ph": "M", "name": "thread_name", "pid": pid, "tid": tid, "args": {"name": name}});
        let mut events = vec![process(CORES, "Cores")];
        let mut cores: Vec<_> = timeline.slices.iter().map(|slice| slice.track).collect();
        cores.sort_unstable();
        cores.dedup();
        for track in cores {
            let name = match track {
                Track::Runs(core) => format!("core {core} runs"),
                Track::Kernel(core) => format!("core {core} kernel"),
                Track::Ec(..) => continue,
            };
            events.push(thread(self.of(track), &name));
        }
        for (pd, pid) in &self.domains {
            let name = if *pd == 0 { "never ran".to_owned() } else { format!("PD {:x}", pd & 0xffff_ffff) };
            events.push(process(*pid, &name));
        }
        events.extend(self.ecs.iter().map(|((_, ec), place)| thread(*place, &timeline.name(*ec))));
        events
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::write;
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
        timeline.flows = vec![Flow { core: 0, from: 7, to: 8, time: 2000 }];
        timeline.names.insert(7, "client".to_owned());
        timeline.domains.insert(7, 0x100);
        let mut text = Vec::new();
        write(&timeline, 1_000_000_000, &mut text).expect("memory takes all");
        let parsed: Value = serde_json::from_slice(&text).expect("JSON");
        let events = parsed["traceEvents"].as_array().expect("a list");
        let of = |phase: &str| events.iter().filter(|event| event["ph"] == phase).collect::<Vec<_>>();
        assert_eq!(of("X").len(), 3);
        assert_eq!((of("X")[0]["ts"].as_f64(), of("X")[0]["dur"].as_f64()), (Some(0.0), Some(2.0)));
        assert_eq!(of("s")[0]["tid"], of("X")[1]["tid"]);
        assert_eq!(of("f")[0]["tid"], of("X")[2]["tid"]);
        assert!(of("M").iter().any(|event| event["args"]["name"] == "client"));
    }
}
