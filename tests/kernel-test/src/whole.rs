// SPDX-License-Identifier: MIT OR Apache-2.0
//! The whole machine: all memory and all time is somebody's. First of all tests, since it looks at what the kernel left.

use crate::dry::told;
use crate::harness::{Outcome, Test, own_sc};
use crate::make::{down_for, semaphore};
use crate::{check, equal, refused};
use cloister_abi::hip::{MACHINE, MemoryKind, ROOT_PD};
use cloister_abi::hypercall::{MachineControl, MachineOp, MemoryPart, PdInfo, ScTime};
use cloister_abi::status::Status;
use cloister_bare::entry::hip;
use cloister_bare::kernel::call;
use cloister_bare::{println, time};

pub(crate) static TESTS: [Test; 3] =
    [("whole-memory", memory), ("whole-time", spent), ("whole-time-of-others", spent_elsewhere)];

fn part(part: MemoryPart) -> Result<(u64, u64), Status> {
    call(&MachineControl { machine: MACHINE, operation: MachineOp::Memory as u64, value: part as u64 })
}

fn idle(core: u32) -> Result<u64, Status> {
    call(&MachineControl { machine: MACHINE, operation: MachineOp::Idle as u64, value: core.into() })
        .map(|(ticks, _)| ticks)
}

/// The firmware's map is what is available, firmware's, the boot image, and the kernel's; the kernel's is its image, its pool, and tables
/// of the IOMMU; the
/// pool is this program's budget and what the kernel says it took for itself.
fn memory() -> Outcome {
    let ranges = &hip().ranges[..hip().range_count as usize];
    let sum = |kind: MemoryKind| -> u64 {
        ranges.iter().filter(|range| range.kind == kind as u32).map(|range| range.size).sum()
    };
    let total: u64 = ranges.iter().map(|range| range.size).sum();
    let ((pool, free), (map, image)) = (part(MemoryPart::Pool)?, part(MemoryPart::Machine)?);
    let ((cores, tables), (other, iommu)) = (part(MemoryPart::Cores)?, part(MemoryPart::Other)?);
    let (budget, used) = call(&PdInfo { pd: ROOT_PD })?;
    println!(
        "memory {} KiB: available {}, boot image {}, kernel {} = image {} + IOMMU {} + pool {} (budget {}, cores {}, tables {}, other {})",
        total / 1024,
        sum(MemoryKind::Available) / 1024,
        sum(MemoryKind::BootImage) / 1024,
        sum(MemoryKind::Kernel) / 1024,
        image / 1024,
        iommu / 1024,
        pool / 1024,
        budget / 1024,
        cores / 1024,
        tables / 1024,
        other / 1024
    );
    check!(ranges.windows(2).all(|pair| pair[0].base + pair[0].size <= pair[1].base && pair[0].size != 0));
    check!(ranges.iter().all(|range| (1..=6).contains(&range.kind)));
    equal!(total, map);
    equal!(sum(MemoryKind::Kernel), image + pool + iommu);
    // What was promised beyond that, for tests.
    let more = told("overcommit").unwrap_or(0);
    equal!(pool + more, budget + cores + tables + other);
    equal!(free + more, budget - used);
    check!(sum(MemoryKind::BootImage) >= hip().image_size);
    refused!(BadParameter, MachineControl { machine: MACHINE, operation: MachineOp::Memory as u64, value: 4 });
    Ok(())
}

/// What this thread uses and what nobody uses is all the time that goes by, whether it works or sleeps.
fn spent() -> Outcome {
    let sm = semaphore(0)?;
    let read = || -> Result<_, Status> { Ok((time::now(), call(&ScTime { sc: own_sc() })?.0, idle(0)?)) };
    let (mut closest, mut most) = (u64::MAX, (0, 0));
    // The emulator may be stopped between two readings; what is not booked is never so.
    for _ in 0..20 {
        let (start, own, nobody) = read()?;
        let until = time::after(2_000);
        while time::now() < until {}
        let _ = down_for(sm, 2_000);
        let (end, own, nobody) = read().map(|(end, after, idle)| (end, after - own, idle - nobody))?;
        most = (most.0.max(own), most.1.max(nobody));
        closest = closest.min((own + nobody).abs_diff(end - start));
    }
    check!(closest < time::micros(200));
    refused!(
        BadCore,
        MachineControl { machine: MACHINE, operation: MachineOp::Idle as u64, value: hip().cores.into() }
    );
    Ok(())
}

/// A core that has nothing to do is idle all the time.
fn spent_elsewhere() -> Outcome {
    for core in 1..hip().cores {
        let mut closest = u64::MAX;
        for _ in 0..20 {
            let (start, before) = (time::now(), idle(core)?);
            let until = time::after(1_000);
            while time::now() < until {}
            let (end, after) = (time::now(), idle(core)?);
            closest = closest.min((after - before).abs_diff(end - start));
        }
        check!(closest < time::micros(200));
    }
    Ok(())
}
