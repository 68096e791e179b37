// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask size`: how much code the kernel is, by area, and how much of it is unsafe.
//!
//! A line of code is what tokei counts as one: it has something on it that is neither blank nor comment. (tokei 15.0.0 itself, which
//! cannot tell tests from the rest, counts the same lines but for four of some 18,700 in 154 files.) Tests are left out: files and
//! folders named `tests`, and whatever stands under `#[cfg(test)]`. Where the latter and `unsafe` begin and end says the syntax tree
//! ([`source`]); which file belongs to which area says [`AREAS`].

mod source;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use self::source::Source;
use crate::workspace::Workspace;

/// What the kernel shall be at most.
const AIM: usize = 9000;

/// Files that are named as the largest, and areas as what costs most.
const LARGEST: usize = 8;
const COSTLIEST: usize = 3;

/// What no kernel image has in it: shown, but no part of the sum.
const ELSEWHERE: &str = "not in the image";

/// Areas: the beginnings of their files' paths below `microhypervisor/`, and what they are. The first that fits counts.
const AREAS: &[(&str, &[&str], &str)] = &[
    (
        ELSEWHERE,
        &["stubs/", "abi/src/user.rs", "symbols/src/writer.rs"],
        "what components call by and read answers with, and what xtask writes symbols by",
    ),
    ("contract", &["abi/"], "numbers, layouts, argument structures: what each call is, written once for all sides"),
    (
        "debugging",
        &[
            "symbols/",
            "kernel/src/console.rs",
            "kernel/src/crash.rs",
            "kernel/src/flood.rs",
            "kernel/src/symbols.rs",
            "kernel/src/trace.rs",
            "kernel/src/arch/x86_64/backtrace.rs",
            "kernel/src/arch/x86_64/hooks.rs",
            "kernel/src/arch/x86_64/serial.rs",
        ],
        "log, backtrace, trace",
    ),
    (
        "IOMMU",
        &["iommu/", "kernel/src/arch/x86_64/iommu", "kernel/src/syscall/device.rs"],
        "AMD-Vi and VT-d: tables, queues, faults",
    ),
    (
        "guests: SVM",
        &["svm/", "kernel/src/arch/x86_64/guest/svm"],
        "conversion of state and exits costs most, the world switch least",
    ),
    (
        "guests: VMX",
        &["vmx/", "kernel/src/arch/x86_64/guest/vmx"],
        "as many fields again under other names, and real-mode segments",
    ),
    (
        "guests",
        &["vcpu/", "kernel/src/guest", "kernel/src/object/vcpu.rs", "kernel/src/arch/x86_64/guest"],
        "runs, kicks, time, state that both extensions have",
    ),
    (
        "memory",
        &[
            "mechanism/src/radix",
            "mechanism/src/pool",
            "mechanism/src/slab",
            "mechanism/src/budget",
            "kernel/src/memory.rs",
            "kernel/src/arch/x86_64/paging.rs",
            "kernel/src/object/space",
            "kernel/src/syscall/map.rs",
        ],
        "page tables, allocators, accounting, delegation",
    ),
    ("mechanism", &["mechanism/"], "queues, lists, mail: what needs no machine"),
    (
        "scheduling and IPC",
        &[
            "kernel/src/sched.rs",
            "kernel/src/ipc",
            "kernel/src/journey.rs",
            "kernel/src/remote.rs",
            "kernel/src/percore.rs",
            "kernel/src/lock.rs",
            "kernel/src/exception.rs",
            "kernel/src/arch/x86_64/timer.rs",
        ],
        "who runs, calls, mail between cores",
    ),
    (
        "interrupts",
        &[
            "kernel/src/interrupt.rs",
            "kernel/src/arch/x86_64/irq.rs",
            "kernel/src/arch/x86_64/msi.rs",
            "kernel/src/arch/x86_64/ioapic.rs",
            "kernel/src/arch/x86_64/apic.rs",
        ],
        "lines and messages to semaphores, storms",
    ),
    (
        "entry",
        &[
            "kernel/src/arch/x86_64/entry",
            "kernel/src/arch/x86_64/trap.rs",
            "kernel/src/arch/x86_64/idt.rs",
            "kernel/src/arch/x86_64/percore.rs",
        ],
        "assembly, traps, segments, stacks",
    ),
    (
        "boot",
        &[
            "boot-info/",
            "kernel/src/boot/",
            "kernel/src/main.rs",
            "kernel/build.rs",
            "kernel/src/arch/x86_64/boot",
            "kernel/src/arch/x86_64/smp.rs",
            "kernel/src/arch/x86_64/acpi",
            "kernel/src/arch/x86_64/rtc.rs",
        ],
        "two ways in, memory map, firmware tables, further cores, the root task",
    ),
    (
        "processor",
        &["processor/", "kernel/src/arch/", "kernel/src/width.rs"],
        "features, floating point, speculation barriers, power",
    ),
    ("objects and calls", &["kernel/src/object", "kernel/src/syscall"], "creation and destruction in all their cases"),
    ("other", &[""], ""),
];

/// What was counted of some files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sum {
    files: usize,
    code: usize,
    unsafe_lines: usize,
    unsafe_places: usize,
    argued: usize,
}

impl Sum {
    fn add(&mut self, source: &Source) {
        self.files += 1;
        self.code += source.code;
        self.unsafe_lines += source.unsafe_lines;
        self.unsafe_places += source.unsafe_places;
        self.argued += source.argued;
    }
}

pub(crate) fn command(workspace: &Workspace) -> Result<bool> {
    let root = workspace.root.join("microhypervisor");
    let mut files = Vec::new();
    collect(&root, &mut files)?;
    let mut counted = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).with_context(|| format!("{} cannot be read", file.display()))?;
        let path = file.strip_prefix(&root).unwrap_or(&file).display().to_string();
        let source = Source::read(&text).with_context(|| format!("{} is not understood", file.display()))?;
        counted.push((path, source));
    }
    let tests: Vec<_> = counted.iter().flat_map(|(path, source)| source.test_files(path)).collect();
    counted.retain(|(path, _)| !tests.iter().any(|test| path.starts_with(test)));
    Ok(show(&mut counted))
}

/// All Rust files that are no tests.
fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let entries = fs::read_dir(folder).with_context(|| format!("{} cannot be read", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        let is_test = path.file_stem().is_some_and(|stem| stem == "tests" || stem == "benches" || stem == "target");
        if is_test {
            continue;
        }
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

/// The area of a file.
fn area(path: &str) -> usize {
    let fits = |(_, beginnings, _): &(&str, &[&str], &str)| beginnings.iter().any(|begin| path.starts_with(begin));
    AREAS.iter().position(fits).unwrap_or(AREAS.len() - 1)
}

/// Prints the tables; false if an unsafe place has no argument.
fn show(counted: &mut [(String, Source)]) -> bool {
    let mut areas: BTreeMap<usize, Sum> = BTreeMap::new();
    let mut all = Sum::default();
    let mut places = (0, 0);
    for (path, source) in counted.iter() {
        let area = area(path);
        areas.entry(area).or_default().add(source);
        places = (places.0 + source.argued, places.1 + source.unsafe_places);
        if AREAS[area].0 != ELSEWHERE {
            all.add(source);
        }
    }
    let row = |name: &str, sum: &Sum, note: &str| {
        let Sum { files, code, unsafe_lines, unsafe_places, .. } = sum;
        println!("{name:<20} {files:>5} {code:>6} {unsafe_lines:>7} {unsafe_places:>7}  {note}");
    };
    println!("{:<20} {:>5} {:>6} {:>7} {:>7}", "area", "files", "code", "unsafe", "places");
    let mut sorted: Vec<_> = areas.iter().collect();
    sorted.sort_by_key(|(_, sum)| std::cmp::Reverse(sum.code));
    let is_in = |area: usize| AREAS[area].0 != ELSEWHERE;
    for (area, sum) in sorted.iter().filter(|(area, _)| is_in(**area)) {
        let (name, _, note) = AREAS[**area];
        row(name, sum, note);
    }
    row("all", &all, &format!("the aim is {AIM}"));
    for (area, sum) in sorted.iter().filter(|(area, _)| !is_in(**area)) {
        row(AREAS[**area].0, sum, AREAS[**area].2);
    }
    let tenths = |part: usize| 1000 * part / all.code.max(1);
    let percent = |part: usize| format!("{}.{} %", tenths(part) / 10, tenths(part) % 10);
    println!("\nWhat costs most:");
    for (area, sum) in sorted.iter().filter(|(area, _)| is_in(**area)).take(COSTLIEST) {
        println!("{:>6}  {} ({}): {}", sum.code, AREAS[**area].0, percent(sum.code), AREAS[**area].2);
    }
    println!("\n{} of the lines are in unsafe blocks, functions and implementations.", percent(all.unsafe_lines));
    println!("{} of {} unsafe places have an argument (SAFETY:, # Safety).", places.0, places.1);
    counted.sort_by_key(|(_, source)| std::cmp::Reverse(source.code));
    println!("\nLargest files:");
    for (path, source) in counted.iter().take(LARGEST) {
        println!("{:>6}  {path}", source.code);
    }
    for (path, source) in counted.iter() {
        for line in &source.unargued {
            println!("no argument: {path}:{line}");
        }
    }
    places.0 == places.1
}

#[cfg(test)]
mod tests {
    use super::{AREAS, area};

    #[test]
    fn files_have_areas() {
        let name = |path| AREAS[area(path)].0;
        assert_eq!(name("abi/src/hip.rs"), "contract");
        assert_eq!(name("kernel/src/object/space.rs"), "memory");
        assert_eq!(name("kernel/src/object/ec.rs"), "objects and calls");
        assert_eq!(name("kernel/src/arch/x86_64/cpu.rs"), "processor");
        assert_eq!(name("something/new.rs"), "other");
    }
}
