// SPDX-License-Identifier: MIT OR Apache-2.0
//! The reference of the hypercalls and what the calls of all these tests were answered: no other status than it lists, and each that it
//! lists, but for those that cannot come on this machine, or not from one program.

use crate::edu::amd_unit;
use crate::guest_guards::supported;
use crate::harness::{Failure, Outcome, Test, Text};
use cloister_abi::hip::{MACHINE, features};
use cloister_abi::hypercall::{CALLS, TraceControl};
use cloister_abi::status::Status;
use cloister_abi::trace::TraceOp;
use cloister_bare::documented::{DOCUMENTED, seen};
use cloister_bare::entry::hip;
use cloister_bare::kernel::call;
use cloister_bare::println;

pub(crate) static TESTS: [Test; 1] = [("statuses-are-those-of-the-reference", statuses)];

fn has(feature: u64) -> bool {
    hip().features & feature != 0
}

fn is_traced() -> bool {
    call(&TraceControl { machine: MACHINE, operation: TraceOp::Read as u64, argument: 0, value: 0 }).is_ok()
}

/// Why a status that is listed may not have come.
fn excuse(name: &str, status: Status) -> bool {
    let iommu = has(features::IOMMU);
    match (name, status) {
        // Vectors of one core are fewer than the entries of VT-d.
        ("BindMsi", Status::OutOfMemory) => !iommu || amd_unit().is_none(),
        // The pool is the sum of all budgets, so a budget is used up first; tables of devices are larger than what is here.
        (_, Status::OutOfMemory) => true,
        ("CreateVcpu", Status::BadFeature) => supported(),
        ("CreateVcpu" | "VcpuRun" | "VcpuSync" | "VcpuKick", _) if !supported() => true,
        ("VcpuRun" | "VcpuSync", Status::BadCore) => hip().cores == 1,
        // Large pages are there in all machines of these tests, for devices too.
        ("Delegate", Status::BadFeature) => true,
        ("BindMsi", Status::BadDevice) => !iommu,
        ("CreateSpace" | "AssignDevice" | "DeviceFault", Status::BadFeature) => iommu,
        ("AssignDevice" | "DeviceFault", _) => !iommu,
        ("TraceControl", Status::Success) => !is_traced(),
        ("TraceControl", Status::BadFeature) => is_traced(),
        _ => false,
    }
}

fn statuses() -> Outcome {
    let mut missing = 0;
    for (((name, _), seen), documented) in CALLS.iter().zip(seen()).zip(DOCUMENTED) {
        for (bit, status) in Status::ALL.iter().enumerate() {
            match (seen >> bit & 1 != 0, documented >> bit & 1 != 0) {
                (true, false) => {
                    return Err(Failure::Failed(Text::of(format_args!(
                        "{name} answered {status:?}, which is not listed"
                    ))));
                }
                (false, true) if !excuse(name, *status) => {
                    println!("{name} is said to answer {status:?}, which never came");
                    missing += 1;
                }
                _ => {}
            }
        }
    }
    crate::equal!(missing, 0);
    Ok(())
}
