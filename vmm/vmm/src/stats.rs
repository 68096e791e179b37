// SPDX-License-Identifier: MIT OR Apache-2.0
//! Counting exits by reason: what a boot costs, and where.

use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering};
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use cloister_hypervisor::{Access, Exit};

/// When this program began.
static STARTED: OnceLock<Instant> = OnceLock::new();
/// Answers how many bytes this program has been given in all and still has; none where nobody keeps such accounts.
static LEFT: OnceLock<fn() -> Option<u64>> = OnceLock::new();

/// Notes that the program begins.
pub fn begin() {
    STARTED.get_or_init(Instant::now);
}

/// Says how to find out what is left of the program's memory.
pub fn set_left(left: fn() -> Option<u64>) {
    LEFT.get_or_init(|| left);
}

/// Counts by reason and place.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// Becomes true when the counts so far are to be told.
    pub marker: Arc<AtomicBool>,
    /// What the guest has and what the program was given, bytes: if both are known, what the VM costs beside its guest's memory is told.
    memory: Option<(u64, u64)>,
    counts: HashMap<(&'static str, u64), u64>,
}

impl Stats {
    /// Nothing counted yet. `memory`: the guest's, and what the program was given in all, bytes.
    #[must_use]
    pub fn new(memory: Option<(u64, u64)>) -> Self {
        Self { memory, ..Self::default() }
    }

    /// Counts one exit.
    pub fn count(&mut self, exit: &Exit) {
        let key = match exit {
            Exit::Access(access) => place(*access),
            Exit::Halt => ("hlt", 0),
            Exit::InterruptWindow => ("interrupt window", 0),
            Exit::Deadline => ("deadline", 0),
            Exit::Kicked => ("kicked", 0),
            Exit::Again => ("again", 0),
            _ => ("other", 0),
        };
        let count = self.counts.entry(key).or_default();
        *count = count.saturating_add(1);
    }

    /// Whether the marker has come since the last call.
    pub fn take_marker(&self) -> bool {
        self.marker.load(Ordering::Relaxed) && self.marker.swap(false, Ordering::Relaxed)
    }

    /// Tells the figures of a boot, in the form that `cargo xtask bench` reads. `exits` counts more than the monitor sees.
    pub fn tell(&self, exits: Option<u64>) {
        if let Some(started) = STARTED.get() {
            eprintln!("bench boot-time {} ns", started.elapsed().as_nanos());
        }
        eprintln!("bench boot-exits {} exits", exits.unwrap_or(self.total()));
        let left = LEFT.get().and_then(|left| left());
        if let (Some((guest, given)), Some(left)) = (self.memory, left) {
            let own = given.saturating_sub(guest).saturating_sub(left).saturating_add(image_size());
            eprintln!("bench vm-overhead {own} bytes");
        }
        eprintln!("bench done");
    }

    /// The number of exits.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.counts.values().fold(0, |sum, n| sum.saturating_add(*n))
    }
}

/// Bytes of this program's code and constants: memory too, although several VMMs share it out of the boot image.
fn image_size() -> u64 {
    unsafe extern "C" {
        static __executable_start: u8;
        static __etext: u8;
    }
    let (start, end) = ((&raw const __executable_start).addr(), (&raw const __etext).addr());
    u64::try_from(end.saturating_sub(start)).unwrap_or(0)
}

fn place(access: Access) -> (&'static str, u64) {
    match access {
        Access::PortRead(port) => ("port read", u64::from(port)),
        Access::PortWrite(port) => ("port write", u64::from(port)),
        Access::MmioRead(address) => ("memory read", address & !0xfff),
        Access::MmioWrite(address) => ("memory write", address & !0xfff),
        Access::MsrRead(msr) => ("msr read", u64::from(msr)),
        Access::MsrWrite(msr) => ("msr write", u64::from(msr)),
        Access::Cpuid(leaf) => ("cpuid", u64::from(leaf)),
        Access::Xsetbv => ("xsetbv", 0),
        Access::Hypercall(nr) => ("hypercall", nr),
        _ => ("access", 0),
    }
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut list: Vec<_> = self.counts.iter().collect();
        list.sort_by_key(|&(key, n)| (core::cmp::Reverse(n), key));
        writeln!(f, "vm: {} exits", self.total())?;
        list.iter().try_for_each(|((name, place), n)| writeln!(f, "vm: {n:8} {name} {place:#x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::Stats;
    use cloister_hypervisor::{Access, Exit};

    #[test]
    fn exits_are_counted_by_place() {
        let mut stats = Stats::default();
        for _ in 0..3 {
            stats.count(&Exit::Access(Access::PortRead(0x3fd)));
        }
        stats.count(&Exit::Halt);
        assert_eq!(stats.total(), 4);
        let text = stats.to_string();
        assert!(text.lines().nth(1).unwrap().ends_with("3 port read 0x3fd"), "{text}");
    }
}
