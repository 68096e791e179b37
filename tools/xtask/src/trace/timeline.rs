// SPDX-License-Identifier: MIT OR Apache-2.0
//! From records to slices on tracks.
//!
//! A core has two tracks: which EC is current (*runs*), and what the kernel does (*kernel*), whose slices nest since it is not
//! preemptible. An EC has one: what it serves, its hypercalls and exceptions from their start until it goes on, the guest that it runs. Arrows
//! lead from a call to where it is served.
//!
//! A trace begins somewhere: the end of what began before it is left out, and what has not ended at its end ends there.

use std::collections::BTreeMap;

use cloister_abi::arch::current::vcpu::ExitReason;
use cloister_abi::hypercall::{CALLS, Call, IpcReply};
use cloister_abi::trace::{Event, Record};

use super::names::Names;
use super::rings::Ring;

/// Where a slice is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Track {
    /// Who runs on a core.
    Runs(u32),
    /// What the kernel does on a core.
    Kernel(u32),
    /// An EC of a core. (Another core's may have the same number at another time.)
    Ec(u32, u64),
}

/// Something that took time. Ticks of the core's clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Slice {
    pub(crate) track: Track,
    pub(crate) name: String,
    pub(crate) start: u64,
    pub(crate) end: u64,
}

/// A call that went from one EC to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Flow {
    /// Core and EC.
    pub(crate) from: (u32, u64),
    pub(crate) to: (u32, u64),
    pub(crate) time: u64,
}

/// All that is shown.
#[derive(Debug, Default)]
pub(crate) struct Timeline {
    pub(crate) slices: Vec<Slice>,
    pub(crate) flows: Vec<Flow>,
    pub(crate) names: Names,
    /// PDs of ECs that ran.
    pub(crate) domains: BTreeMap<u64, u64>,
}

/// Kinds of slices on an EC's track, outermost first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Serves,
    Call,
    Guest,
}

struct Open {
    kind: Kind,
    name: String,
    start: u64,
}

/// What is going on on a core.
struct Core<'a> {
    timeline: &'a mut Timeline,
    number: u32,
    now: u64,
    current: Option<(u64, u64)>,
    kernel: Vec<(Event, String, u64)>,
    /// An EC whose hypercall was handled: it goes on, unless the scheduler is called now.
    handled: Option<u64>,
    open: BTreeMap<u64, Vec<Open>>,
}

impl Timeline {
    /// The timeline of all cores.
    pub(crate) fn new(rings: &[Ring]) -> Self {
        let mut timeline = Self { names: Names::new(rings), ..Self::default() };
        let end = rings.iter().flat_map(|ring| &ring.records).map(|record| record.time).max().unwrap_or(0);
        for ring in rings {
            let mut core = Core {
                timeline: &mut timeline,
                number: ring.core,
                now: 0,
                current: None,
                kernel: Vec::new(),
                handled: None,
                open: BTreeMap::new(),
            };
            for record in &ring.records {
                core.end_handled(record.event());
                core.now = core.now.max(record.time);
                core.take(record);
            }
            core.finish(end);
        }
        timeline.begin(rings);
        timeline
    }

    /// Cuts off what lies before the time from which on all cores are seen: a core that did little still has all since the boot.
    fn begin(&mut self, rings: &[Ring]) {
        let full = rings.iter().filter(|ring| ring.lost > 0 && !ring.is_of_names());
        let begin = full.filter_map(|ring| ring.records.first()).map(|record| record.time).max().unwrap_or(0);
        self.slices.retain(|slice| slice.end >= begin);
        self.slices.iter_mut().for_each(|slice| slice.start = slice.start.max(begin));
        self.flows.retain(|flow| flow.time >= begin);
    }

    /// The name of an EC: its own, or a number.
    pub(crate) fn name(&self, ec: u64) -> String {
        self.names.get(ec).map_or_else(|| format!("EC {:x}", ec & 0xffff_ffff), str::to_owned)
    }

    /// Whether the slices of each track lie in each other or apart; an error names two that do not.
    pub(crate) fn check(&self) -> Result<(), String> {
        let mut sorted: Vec<_> = self.slices.iter().collect();
        sorted.sort_by_key(|slice| (slice.track, slice.start, u64::MAX - slice.end));
        let mut around: Vec<&Slice> = Vec::new();
        for slice in sorted {
            while around.last().is_some_and(|outer| outer.track != slice.track || outer.end <= slice.start) {
                around.pop();
            }
            if let Some(outer) = around.last().filter(|outer| outer.end < slice.end) {
                return Err(format!("{slice:?} begins in {outer:?} but ends behind it"));
            }
            if slice.end < slice.start {
                return Err(format!("{slice:?} ends before it begins"));
            }
            around.push(slice);
        }
        Ok(())
    }
}

impl Core<'_> {
    fn take(&mut self, record: &Record) {
        let Some(event) = record.event() else { return };
        let [first, second] = [record.first, record.second].map(|ec| self.timeline.names.ec(ec, self.now));
        let detail = record.detail();
        match event {
            Event::CallEnter => {
                let name = call_name(detail);
                // The answer ends what was served; until the next call comes it waits.
                if u64::from(detail) == IpcReply::NUMBER {
                    self.close(first, Kind::Serves);
                    self.begin(first, Kind::Call, "waits for a call".to_owned());
                } else {
                    self.begin(first, Kind::Call, name.clone());
                }
                self.enter(event, name);
            }
            Event::CallExit => {
                self.handled = Some(first).filter(|ec| self.is_current(*ec));
                self.leave(Event::CallEnter);
            }
            Event::TrapEnter => {
                let name = trap_name(detail);
                if detail < 32 && first != 0 {
                    self.begin(first, Kind::Call, name.clone());
                }
                self.enter(event, name);
            }
            Event::TrapExit => {
                if self.is_current(first) {
                    self.close(first, Kind::Call);
                }
                self.leave(Event::TrapEnter);
            }
            Event::SettleEnter => self.enter(event, "schedule".to_owned()),
            Event::SettleExit => {
                if let Some((ec, _)) = self.current {
                    self.close(ec, Kind::Call);
                }
                self.leave(Event::SettleEnter);
            }
            Event::IdleEnter => self.enter(event, "idle".to_owned()),
            Event::IdleExit => self.leave(Event::IdleEnter),
            Event::GuestEnter => {
                self.begin(second, Kind::Guest, "guest".to_owned());
                self.enter(event, "guest".to_owned());
            }
            Event::GuestExit => {
                self.rename_guest(second, &format!("guest, until {}", exit_name(detail)));
                self.close(second, Kind::Guest);
                self.leave(Event::GuestEnter);
            }
            Event::Switch => self.switch(first, record.second),
            Event::IpcCall => {
                self.close(second, Kind::Serves);
                let name = format!("serves {}", self.timeline.name(first));
                self.begin(second, Kind::Serves, name);
                let (from, to) = ((u32::from(detail), first), (self.number, second));
                self.timeline.flows.push(Flow { from, to, time: self.now });
            }
            Event::IpcReply | Event::Name => {}
        }
    }

    /// Another EC is current, or none.
    fn switch(&mut self, ec: u64, pd: u64) {
        self.end_run();
        if ec != 0 {
            self.timeline.domains.insert(ec, pd);
            self.current = Some((ec, self.now));
            self.close(ec, Kind::Call);
        }
    }

    fn end_run(&mut self) {
        if let Some((ec, start)) = self.current.take() {
            let name = self.timeline.name(ec);
            self.slice(Track::Runs(self.number), name, start);
        }
    }

    /// Whether an EC is current, as far as is known.
    fn is_current(&self, ec: u64) -> bool {
        self.current.is_none_or(|(current, _)| current == ec)
    }

    /// An EC whose call was handled went on then, if `next` is not the scheduler. `now` is still the time of the record before.
    fn end_handled(&mut self, next: Option<Event>) {
        if let Some(ec) = self.handled.take().filter(|_| next != Some(Event::SettleEnter)) {
            self.close(ec, Kind::Call);
        }
    }

    fn slice(&mut self, track: Track, name: String, start: u64) {
        self.timeline.slices.push(Slice { track, name, start, end: self.now });
    }

    /// The kernel begins something.
    fn enter(&mut self, event: Event, name: String) {
        self.kernel.push((event, name, self.now));
    }

    /// The kernel ends something, and whatever it did not end inside.
    fn leave(&mut self, event: Event) {
        let Some(place) = self.kernel.iter().rposition(|(open, ..)| *open == event) else { return };
        while self.kernel.len() > place {
            if let Some((_, name, start)) = self.kernel.pop() {
                self.slice(Track::Kernel(self.number), name, start);
            }
        }
    }

    /// Something begins on an EC's track, in place of what was there of the same kind.
    fn begin(&mut self, ec: u64, kind: Kind, name: String) {
        self.close(ec, kind);
        let start = self.now;
        self.open.entry(ec).or_default().push(Open { kind, name, start });
    }

    /// Says of a guest that runs why it exited.
    fn rename_guest(&mut self, ec: u64, name: &str) {
        let open = self.open.get_mut(&ec).and_then(|open| open.last_mut()).filter(|open| open.kind == Kind::Guest);
        let kernel = self.kernel.last_mut().filter(|(event, ..)| *event == Event::GuestEnter);
        for place in open.map(|open| &mut open.name).into_iter().chain(kernel.map(|(_, name, _)| name)) {
            name.clone_into(place);
        }
    }

    /// Ends what is of that kind on an EC's track, and what is in it.
    fn close(&mut self, ec: u64, kind: Kind) {
        while let Some(open) = self.open.get_mut(&ec).and_then(|open| open.pop_if(|open| open.kind >= kind)) {
            self.slice(Track::Ec(self.number, ec), open.name, open.start);
        }
    }

    /// What goes on when the trace ends does so until `end`, also on a core that notes nothing any more.
    fn finish(mut self, end: u64) {
        self.end_handled(None);
        self.now = self.now.max(end);
        self.end_run();
        while let Some((event, ..)) = self.kernel.last() {
            self.leave(*event);
        }
        for ec in self.open.keys().copied().collect::<Vec<_>>() {
            self.close(ec, Kind::Serves);
        }
    }
}

fn call_name(number: u16) -> String {
    let known = CALLS.iter().find(|(_, known)| *known == u64::from(number));
    known.map_or_else(|| "foreign system call".to_owned(), |(name, _)| (*name).to_owned())
}

fn trap_name(vector: u16) -> String {
    match vector {
        1 => "debug exception".to_owned(),
        3 => "breakpoint".to_owned(),
        6 => "undefined instruction".to_owned(),
        7 => "first use of floating point".to_owned(),
        13 => "protection fault".to_owned(),
        14 => "page fault".to_owned(),
        0..32 => format!("exception {vector}"),
        0xf0 => "timer".to_owned(),
        0xf1 => "another core".to_owned(),
        0xf2 => "IOMMU".to_owned(),
        _ => format!("interrupt {vector:#x}"),
    }
}

fn exit_name(detail: u16) -> String {
    match detail {
        0xfffe => "an interrupt".to_owned(),
        0xffff => "the kernel goes on with it".to_owned(),
        reason => {
            ExitReason::from_raw(u64::from(reason)).map_or_else(|| reason.to_string(), |reason| format!("{reason:?}"))
        }
    }
}

#[cfg(test)]
mod tests;
