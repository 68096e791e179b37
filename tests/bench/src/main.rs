// SPDX-License-Identifier: MIT OR Apache-2.0
//! Path lengths of the kernel: how many instructions a call takes, from before its `syscall` to after it.
//!
//! Meant for an emulator that counts instructions in place of time (`-icount shift=0,sleep=off`): there the time-stamp counter is
//! the number of instructions. Each path is walked several times and the shortest is taken, so that tables are there and
//! slabs are filled. One line per figure on the debug console, `bench NAME VALUE instructions`, then `bench done`.
//!
//! [`calls`] makes the bare system calls, [`paths`] walks the paths of one thread, [`guest`] measures inside a guest, [`cross`] reaches
//! other cores, [`objects`] makes one of each
//! kind, [`switching`]
//! has others run, [`crowds`] lets very many wait, [`growth`] makes many objects.
#![no_std]
#![no_main]
#![expect(unsafe_code, reason = "system calls without stubs, so that the stubs are not counted")]

mod calls;
mod cross;
mod crowds;
mod growth;
mod guest;
mod objects;
mod paths;
mod switching;

use cloister_abi::status::Status;
use cloister_bare::entry::hip;
use cloister_bare::println;

/// What the kernel may be told that makes its short paths longer, and how their figures are called then: all that any processor needs
/// against its own speculation, and the trace.
const KINDS: [(&[u8], &str); 2] = [(b"mitigations=force", "barriers-"), (b"trace=", "traced-")];

/// What it was told of these.
fn kind() -> Option<&'static str> {
    let told = |option: &[u8]| hip().cmdline.windows(option.len()).any(|part| part == option);
    KINDS.into_iter().find_map(|(option, kind)| told(option).then_some(kind))
}

/// Reports a figure.
fn report(name: &str, value: u64) {
    println!("bench {}{name} {value} instructions", kind().unwrap_or_default());
}

fn run() -> Result<(), Status> {
    if hip().cores > 1 {
        // The other figures are those of one core.
        return cross::cross();
    }
    paths::null();
    paths::ipc()?;
    if kind().is_some() {
        return guest::exits();
    }
    paths::semaphores()?;
    paths::delegation()?;
    guest::exits()?;
    objects::objects()?;
    switching::helping()?;
    switching::runnable()?;
    switching::timers()?;
    crowds::crowds()?;
    growth::growth()
}

fn main() -> bool {
    if let Err(status) = run() {
        println!("measuring ended early: {status}");
        return false;
    }
    println!("bench done");
    true
}

cloister_bare::root_task!(main);
