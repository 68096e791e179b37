// SPDX-License-Identifier: MIT OR Apache-2.0
//! The kernel's tests: a root task that makes each hypercall rightly and wrongly, and watches what becomes of it.
//!
//! One line per test on the debug console (`test NAME ... ok`, `FAILED: WHY` or `skipped: WHY`), then the counts, then the
//! machine is switched off. One module per area; [`harness`] runs them, [`make`] has what several need. The expected
//! answers are those of docs/spec/hypercalls.md.
#![no_std]
#![no_main]
#![expect(unsafe_code, reason = "the program start, and tests that touch memory they should not")]

mod accounting;
mod arrivals;
mod bands;
mod basics;
mod chain;
mod closing;
mod cores;
mod cores_ipc;
mod create;
mod crowds;
mod destroy;
mod device_guards;
mod devices;
mod documented;
mod dry;
mod edu;
mod exception_replies;
mod exceptions;
mod foreign;
mod fpu;
mod fpu_wide;
mod fuzz;
mod guest_cores;
mod guest_events;
mod guest_exits;
mod guest_guards;
mod guest_memory;
mod guest_random;
mod harness;
mod helping;
mod interrupts;
mod ipc;
mod items;
mod journeys;
mod make;
mod messages;
mod pci;
mod ports;
mod races;
mod rollback;
mod rollback_devices;
mod scheduling;
mod semaphore;
mod spaces;
mod trace;
mod whole;

use cloister_abi::hip::MACHINE;
use cloister_abi::hypercall::{MachineControl, MachineOp};
use harness::Test;

/// All tests, area by area.
static SUITES: &[&[Test]] = &[
    &whole::TESTS,
    &basics::TESTS,
    &create::TESTS,
    &spaces::TESTS,
    &ports::TESTS,
    &semaphore::TESTS,
    &ipc::TESTS,
    &helping::TESTS,
    &chain::TESTS,
    &crowds::TESTS,
    &items::TESTS,
    &exceptions::TESTS,
    &exception_replies::TESTS,
    &foreign::TESTS,
    &fpu::TESTS,
    &fpu_wide::TESTS,
    &races::TESTS,
    &closing::TESTS,
    &scheduling::TESTS,
    &bands::TESTS,
    &destroy::TESTS,
    &accounting::TESTS,
    &rollback::TESTS,
    &rollback_devices::TESTS,
    &dry::TESTS,
    &interrupts::TESTS,
    &messages::TESTS,
    &arrivals::TESTS,
    &device_guards::TESTS,
    &devices::TESTS,
    &guest_guards::TESTS,
    &guest_exits::TESTS,
    &guest_events::TESTS,
    &guest_memory::TESTS,
    &guest_random::TESTS,
    &cores::TESTS,
    &cores_ipc::TESTS,
    &guest_cores::TESTS,
    &journeys::TESTS,
    &trace::TESTS,
    &fuzz::TESTS,
    &documented::TESTS,
];

fn main() -> bool {
    if harness::parameter("reset").is_some() {
        // Nothing comes after that.
        let reset = MachineControl { machine: MACHINE, operation: MachineOp::Reset as u64, value: 0 };
        cloister_bare::println!("reset: {:?}", cloister_bare::kernel::call(&reset));
        return false;
    }
    harness::run(&SUITES)
}

cloister_bare::root_task!(main);
