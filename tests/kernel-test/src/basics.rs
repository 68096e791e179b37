// SPDX-License-Identifier: MIT OR Apache-2.0
//! The shortest calls, numbers and registers that mean nothing, the information page, the machine.

use crate::harness::{Outcome, Test};
use crate::make::{EMPTY, limited};
use crate::{check, equal, refused};
use cloister_abi::VERSION;
use cloister_abi::cap::{Perms, SELECTORS};
use cloister_abi::hip::{
    FIRST_FREE, MACHINE, MAGIC, ROOT_EC, ROOT_HOST, ROOT_OBJECTS, ROOT_PD, ROOT_PIO, ROOT_SC, ROOT_UTCB,
};
use cloister_abi::hypercall::{CALLS, MachineControl, MachineOp, Null, PdInfo, ScTime, Yield};
use cloister_abi::utcb::WORDS;
use cloister_bare::entry::hip;
use cloister_bare::kernel::{Raw, call, message};
use cloister_bare::time;

pub(crate) static TESTS: [Test; 10] = [
    ("null-answers-version", null),
    ("numbers-without-call", numbers),
    ("wide-selectors", wide),
    ("information-page", information),
    ("first-capabilities", first),
    ("message-page", page),
    ("machine-control", machine),
    ("machine-permissions", machine_permissions),
    ("time-of-an-sc", sc_time),
    ("yield", yields),
];

fn null() -> Outcome {
    equal!(call(&Null {})?.0, u64::from(VERSION));
    Ok(())
}

fn numbers() -> Outcome {
    refused!(BadHypercall, Raw::<{ CALLS.len() as u64 }>([0; 6]));
    refused!(BadHypercall, Raw::<0xffff>([u64::MAX; 6]));
    refused!(BadHypercall, Raw::<0x1_0000_0001>([0; 6]));
    // Below the hypercalls: foreign, and no entry is registered.
    refused!(BadHypercall, Raw::<{ 0u64.wrapping_sub(0x434c_0000) }>([0; 6]));
    Ok(())
}

fn wide() -> Outcome {
    const WIDE: u64 = 1 << 32;
    let first = [WIDE | 7, 0, 0, 0, 0, 0];
    refused!(BadParameter, Raw::<1>(first));
    refused!(BadParameter, Raw::<3>(first));
    refused!(BadParameter, Raw::<4>(first));
    refused!(BadParameter, Raw::<5>(first));
    refused!(BadParameter, Raw::<6>(first));
    refused!(BadParameter, Raw::<7>(first));
    refused!(BadParameter, Raw::<8>(first));
    refused!(BadParameter, Raw::<9>(first));
    refused!(BadParameter, Raw::<10>(first));
    refused!(BadParameter, Raw::<11>(first));
    refused!(BadParameter, Raw::<12>(first));
    refused!(BadParameter, Raw::<13>(first));
    refused!(BadParameter, Raw::<14>(first));
    refused!(BadParameter, Raw::<15>(first));
    refused!(BadParameter, Raw::<16>(first));
    refused!(BadParameter, Raw::<17>(first));
    refused!(BadParameter, Raw::<18>(first));
    refused!(BadParameter, Raw::<19>(first));
    refused!(BadParameter, Raw::<20>(first));
    refused!(BadParameter, Raw::<21>(first));
    refused!(BadParameter, Raw::<22>(first));
    refused!(BadParameter, Raw::<23>(first));
    refused!(BadParameter, Raw::<24>(first));
    refused!(BadParameter, Raw::<29>(first));
    // The second selector of a call.
    refused!(BadParameter, Raw::<14>([u64::from(ROOT_PD), WIDE | 1, 0, 0, 0, 0]));
    refused!(BadParameter, Raw::<8>([EMPTY.into(), 1, 0, WIDE, 0, 0]));
    Ok(())
}

fn information() -> Outcome {
    let hip = hip();
    equal!(hip.magic, MAGIC);
    equal!(hip.version, VERSION);
    check!(hip.cores >= 1);
    check!(hip.tsc_hz >= 1_000_000);
    check!(hip.image_base != 0 && hip.image_size != 0);
    check!(hip.range_count > 0 && hip.range_count <= 64);
    let mut end = 0;
    for range in &hip.ranges[..hip.range_count as usize] {
        check!(range.base >= end);
        check!(range.size > 0);
        check!((1..=6).contains(&range.kind));
        end = range.base + range.size;
    }
    Ok(())
}

fn first() -> Outcome {
    check!(call(&PdInfo { pd: ROOT_PD }).is_ok());
    check!(call(&ScTime { sc: ROOT_SC }).is_ok());
    // Each is of its own kind.
    for sel in
        [0, ROOT_OBJECTS, ROOT_HOST, ROOT_PIO, ROOT_EC, ROOT_SC, MACHINE, FIRST_FREE + 100_000, SELECTORS, u32::MAX]
    {
        refused!(BadCapability, PdInfo { pd: sel });
    }
    refused!(BadCapability, ScTime { sc: ROOT_EC });
    Ok(())
}

fn page() -> Outcome {
    let address = message().address();
    // SAFETY: nobody else uses the page meanwhile.
    let same = unsafe { cloister_bare::kernel::Message::at(address) };
    // SAFETY: the first thread waits.
    let first = unsafe { cloister_bare::kernel::Message::at(ROOT_UTCB) };
    equal!(first.address(), ROOT_UTCB);
    message().set(WORDS - 1, 0x1234);
    equal!(same.get(WORDS - 1), 0x1234);
    Ok(())
}

fn machine() -> Outcome {
    let operation = |operation, value| MachineControl { machine: MACHINE, operation, value };
    let (size, free) = call(&operation(MachineOp::Memory as u64, 0))?;
    check!(free <= size && size > 0);
    equal!(size, hip().kernel_memory);
    refused!(BadParameter, operation(5, 0));
    refused!(BadParameter, operation(u64::MAX, 0));
    refused!(BadParameter, operation(MachineOp::Console as u64, 8 * WORDS as u64 + 1));
    refused!(BadParameter, operation(MachineOp::Console as u64, u64::MAX));
    check!(call(&operation(MachineOp::Console as u64, 0)).is_ok());
    refused!(BadCapability, MachineControl { machine: ROOT_PD, operation: MachineOp::Memory as u64, value: 0 });
    refused!(BadCapability, MachineControl { machine: EMPTY, operation: MachineOp::PowerOff as u64, value: 0 });
    Ok(())
}

fn machine_permissions() -> Outcome {
    let cases = [
        (MachineOp::PowerOff, Perms::MACHINE_POWER),
        (MachineOp::Reset, Perms::MACHINE_POWER),
        (MachineOp::Console, Perms::MACHINE_CONSOLE),
        (MachineOp::Memory, Perms::CTRL),
        (MachineOp::Idle, Perms::CTRL),
    ];
    for (operation, needed) in cases {
        let machine = limited(MACHINE, Perms::ALL.difference(needed))?;
        refused!(BadCapability, MachineControl { machine, operation: operation as u64, value: 0 });
    }
    Ok(())
}

fn sc_time() -> Outcome {
    let sc = crate::harness::own_sc();
    let (before, _) = call(&ScTime { sc })?;
    let end = time::after(2_000);
    while time::now() < end {}
    let (after, _) = call(&ScTime { sc })?;
    check!(after >= before + time::micros(1_000));
    let sc = limited(sc, Perms::ALL.difference(Perms::CTRL))?;
    refused!(BadCapability, ScTime { sc });
    Ok(())
}

fn yields() -> Outcome {
    for _ in 0..10 {
        call(&Yield {})?;
    }
    Ok(())
}
