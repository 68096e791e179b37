// SPDX-License-Identifier: MIT OR Apache-2.0
//! On which core interrupts arrive. A component cannot see that, since its semaphore counts up all the same; the kernel's trace tells it
//! (`trace=SIZE` on the command line), by an exception or interrupt with a device's vector on the core that it came to.

use crate::edu::Edu;
use crate::harness::{Failure, Outcome, Test};
use crate::make::{down_for, semaphore, signal};
use crate::messages::{Nic, bind};
use crate::trace::each;
use crate::{check, equal};
use cloister_abi::cap::Selector;
use cloister_abi::hip::MACHINE;
use cloister_abi::hypercall::{BindMsi, IrqAck, IrqBind, SmDown};
use cloister_abi::status::Status;
use cloister_abi::trace::Event;
use cloister_bare::entry::hip;
use cloister_bare::kernel::call;
use cloister_bare::thread::destroy;
use cloister_bare::time;

pub(crate) static TESTS: [Test; 3] = [
    ("msi-arrives-on-the-chosen-core", message),
    ("msi-x-arrives-on-the-chosen-cores", messages),
    ("line-arrives-on-the-chosen-core", line),
];

/// Vectors of devices (docs/spec/trace.md).
const DEVICES: core::ops::Range<u16> = 0x30..0xf0;
/// Microseconds that an interrupt takes at most, on a busy host.
const PATIENCE: u64 = 2_000_000;

/// Device interrupts of each core from now on.
struct Arrivals([u64; 64]);

impl Arrivals {
    fn watch() -> Result<Self, Failure> {
        let mut ends = [0; 64];
        for (core, end) in (0..hip().cores).zip(&mut ends) {
            *end = each(core, 0, |_| ())?;
        }
        Ok(Self(ends))
    }

    /// So many came to that core, or more, and none to any other. The network adapter may send a message twice if its cause stays.
    fn all_on(self, chosen: u32, least: u64) -> Outcome {
        let sm = semaphore(0)?;
        equal!(down_for(sm, 2_000), Err(Status::Timeout));
        destroy(sm);
        for (core, from) in (0..hip().cores).zip(self.0) {
            let mut count = 0;
            each(core, from, |record| {
                let came = record.event() == Some(Event::TrapEnter) && DEVICES.contains(&record.detail());
                count += u64::from(came);
            })?;
            let expected = if core == chosen { count.max(least) } else { 0 };
            equal!((core, count), (core, expected));
        }
        Ok(())
    }
}

fn message() -> Outcome {
    let edu = Edu::anyhow()?;
    for core in 0..hip().cores {
        let sm = semaphore(0)?;
        edu.set_message(Some(call(&BindMsi { core, ..bind(sm, edu.function.0) })?));
        let arrivals = Arrivals::watch()?;
        for _ in 0..3 {
            edu.raise();
            equal!(down_for(sm, PATIENCE), Ok(1));
            call(&IrqAck { sm })?;
            edu.clear();
        }
        arrivals.all_on(core, 3)?;
        edu.set_message(None);
        destroy(sm);
    }
    Ok(())
}

fn messages() -> Outcome {
    let cores = [2, 1, 0].map(|vector| vector % hip().cores);
    let nic = Nic::new(cores)?;
    for (vector, core) in cores.into_iter().enumerate() {
        let arrivals = Arrivals::watch()?;
        nic.raise(vector);
        equal!(down_for(nic.semaphores[vector], PATIENCE), Ok(1));
        nic.clear(vector)?;
        arrivals.all_on(core, 1)?;
    }
    nic.end();
    Ok(())
}

/// The lines of PCI devices, one of which is the device's, at a core.
fn lines(word: Selector, core: u32) -> Result<[Selector; 8], Failure> {
    let mut bound = [0; 8];
    for (gsi, place) in (16..).zip(&mut bound) {
        *place = signal(word, gsi)?;
        call(&IrqBind { machine: MACHINE, sm: *place, gsi, flags: u64::from(core) << 8 })?;
    }
    Ok(bound)
}

fn line() -> Outcome {
    let edu = Edu::anyhow()?;
    edu.set_message(None);
    for core in 0..hip().cores {
        let word = semaphore(0)?;
        let bound = lines(word, core)?;
        let arrivals = Arrivals::watch()?;
        for _ in 0..3 {
            edu.raise();
            let (came, _) = call(&SmDown { sm: word, flags: 1, deadline: time::after(PATIENCE) })?;
            check!(came.is_power_of_two());
            edu.clear();
            for sm in bound {
                call(&IrqAck { sm })?;
            }
        }
        arrivals.all_on(core, 3)?;
        bound.into_iter().for_each(destroy);
        destroy(word);
    }
    Ok(())
}
