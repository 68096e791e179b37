// SPDX-License-Identifier: MIT OR Apache-2.0
//! Interrupts by messages, and storms: devices that interrupt without end while nobody acknowledges.

use crate::edu::Edu;
use crate::harness::{Failure, Outcome, Test};
use crate::make::{EMPTY, down_for, limited, semaphore, try_down};
use crate::pci::{Function, MSI_X, Registers};
use crate::{check, equal, refused};
use cloister_abi::cap::{Perms, Selector};
use cloister_abi::hip::{MACHINE, ROOT_PD, features};
use cloister_abi::hypercall::{BindMsi, Call, DownFlags, IrqAck, IrqBind, SmDown};
use cloister_abi::status::Status;
use cloister_bare::entry::hip;
use cloister_bare::kernel::{Raw, call};
use cloister_bare::thread::destroy;
use cloister_bare::time;

pub(crate) static TESTS: [Test; 8] = [
    ("msi-guards", guards),
    ("msi-is-an-up", is_an_up),
    ("msi-bound-once", bound_once),
    ("msi-vectors-run-out", run_out),
    ("msi-x-each-vector-its-semaphore", msi_x),
    ("msi-storm", storm),
    ("line-storm", line_storm),
    ("msi-after-its-semaphore", orphan),
];

/// Interrupts without acknowledgement that an edge-triggered source has.
const EDGES: u64 = 64;

/// Intel 82574L (data sheet, 10.2.4): cause read and set, mask set and clear, vectors of causes.
const NIC: u32 = 0x10d3_8086;
const ICR: u64 = 0xc0;
const ICS: u64 = 0xc8;
const IMS: u64 = 0xd0;
const IMC: u64 = 0xd8;
const IVAR: u64 = 0xe4;

/// The first core takes messages of that device.
pub(crate) fn bind(sm: Selector, device: u32) -> BindMsi {
    BindMsi { machine: MACHINE, sm, device, core: 0 }
}

fn has_remapping() -> bool {
    hip().features & features::INTERRUPT_REMAPPING != 0
}

fn take_all(sm: Selector) -> Result<u64, Status> {
    let flags = (DownFlags::ZERO | DownFlags::NONBLOCKING).bits();
    call(&SmDown { sm, flags, deadline: 0 }).map(|(value, _)| value)
}

fn guards() -> Outcome {
    let sm = semaphore(0)?;
    let good = bind(sm, 8);
    refused!(BadCapability, BindMsi { machine: ROOT_PD, ..good });
    refused!(BadCapability, BindMsi { machine: EMPTY, ..good });
    refused!(BadCapability, BindMsi { machine: limited(MACHINE, Perms::ALL.difference(Perms::MACHINE_IRQ))?, ..good });
    refused!(BadCapability, BindMsi { sm: EMPTY, ..good });
    refused!(BadCapability, BindMsi { sm: limited(sm, Perms::ALL.difference(Perms::SM_BIND))?, ..good });
    for core in [hip().cores, 64, 255, 256, u32::MAX] {
        refused!(BadCore, BindMsi { core, ..good });
    }
    refused!(BadParameter, Raw::<{ BindMsi::NUMBER }>([MACHINE.into(), sm.into(), 1 << 32, 0, 0, 0]));
    refused!(BadParameter, Raw::<{ BindMsi::NUMBER }>([MACHINE.into(), sm.into(), 8, 1 << 32, 0, 0]));
    if has_remapping() {
        refused!(BadDevice, bind(sm, 1 << 16));
    }
    // Nothing of that was bound.
    refused!(BadDevice, IrqAck { sm });
    destroy(sm);
    refused!(BadCapability, good);
    Ok(())
}

fn is_an_up() -> Outcome {
    let edu = Edu::anyhow()?;
    for core in 0..hip().cores {
        let sm = semaphore(0)?;
        let message = call(&BindMsi { core, ..bind(sm, edu.function.0) })?;
        edu.set_message(Some(message));
        for _ in 0..5 {
            equal!(try_down(sm), Err(Status::Timeout));
            edu.raise();
            equal!(down_for(sm, 500_000), Ok(1));
            call(&IrqAck { sm })?;
            edu.clear();
        }
        edu.set_message(None);
        destroy(sm);
    }
    Ok(())
}

fn bound_once() -> Outcome {
    let sm = semaphore(0)?;
    let first = call(&bind(sm, 8))?;
    refused!(Busy, bind(sm, 8));
    refused!(Busy, IrqBind { machine: MACHINE, sm, gsi: 5, flags: 0 });
    // The line that was refused is free still.
    let other = semaphore(0)?;
    call(&IrqBind { machine: MACHINE, sm: other, gsi: 5, flags: 0 })?;
    refused!(Busy, bind(other, 8));
    let third = semaphore(0)?;
    check!(call(&bind(third, 8))? != first);
    [sm, other, third].into_iter().for_each(destroy);
    Ok(())
}

fn run_out() -> Outcome {
    for core in 0..hip().cores {
        let mut bound = [0; 256];
        let mut count = 0;
        loop {
            let sm = semaphore(0)?;
            match call(&BindMsi { core, ..bind(sm, 8) }) {
                Ok(_) => bound[count] = sm,
                Err(why) => {
                    destroy(sm);
                    // The core has no vector left, or the IOMMU no entry for the device.
                    check!(matches!(why, Status::Busy | Status::OutOfMemory));
                    break;
                }
            }
            count += 1;
        }
        check!((60..=192).contains(&count));
        bound[..count].iter().for_each(|sm| destroy(*sm));
        let sm = semaphore(0)?;
        call(&BindMsi { core, ..bind(sm, 8) })?;
        destroy(sm);
    }
    Ok(())
}

/// The network adapter: a cause each for its first three vectors.
pub(crate) struct Nic {
    registers: Registers,
    /// What the vectors count up.
    pub(crate) semaphores: [Selector; 3],
}

/// A receive queue, a transmit queue, and all else.
const CAUSES: [u32; 3] = [1 << 20, 1 << 22, 1 << 24];

impl Nic {
    /// Finds it, and binds its vectors to these cores.
    pub(crate) fn new(cores: [u32; 3]) -> Result<Self, Failure> {
        let nic = Function::find(NIC)?.ok_or(Failure::Skipped("no network adapter"))?;
        let at = nic.capability(MSI_X).ok_or(Failure::Skipped("no MSI-X"))?;
        let place = nic.read(at + 4);
        let table = nic.registers(place.to_le_bytes()[0] & 7, u64::from(place & !7))?;
        let registers = nic.registers(0, 0)?;
        let mut semaphores = [0; 3];
        for ((entry, sm), core) in (0..).step_by(16).zip(&mut semaphores).zip(cores) {
            *sm = semaphore(0)?;
            let (address, data) = call(&BindMsi { core, ..bind(*sm, nic.0) })?;
            table.write(entry, u32::try_from(address & 0xffff_ffff).unwrap_or(0));
            table.write(entry + 4, u32::try_from(address >> 32).unwrap_or(0));
            table.write(entry + 8, u32::try_from(data).unwrap_or(0));
            table.write(entry + 12, 0);
        }
        nic.write(at, nic.read(at) | 1 << 31);
        // Receive queue 0 to vector 0, transmit queue 0 to vector 1, all else to vector 2.
        registers.write(IVAR, 8 | 9 << 8 | 10 << 16);
        registers.write(IMS, CAUSES[0] | CAUSES[1] | CAUSES[2]);
        Ok(Self { registers, semaphores })
    }

    /// The device sends a vector's messages 128 us apart, and may send the last one again when that time is over.
    fn calm(&self) {
        let end = time::after(500);
        while time::now() < end {}
        for sm in self.semaphores {
            // What it sent again.
            let _ = take_all(sm);
        }
    }

    pub(crate) fn raise(&self, vector: usize) {
        self.calm();
        self.registers.write(ICS, CAUSES[vector]);
    }

    pub(crate) fn clear(&self, vector: usize) -> Result<(), Status> {
        self.registers.write(ICR, CAUSES[vector]);
        call(&IrqAck { sm: self.semaphores[vector] }).map(drop)
    }

    /// MSI-X stays enabled: this emulator does not like its end while it holds interrupts back.
    pub(crate) fn end(self) {
        self.registers.write(IMC, u32::MAX);
        self.calm();
        self.semaphores.into_iter().for_each(destroy);
    }
}

fn msi_x() -> Outcome {
    let nic = Nic::new([0, 1, 2].map(|vector| vector % hip().cores))?;
    for round in 0..6 {
        let raised = round % 3;
        nic.raise(raised);
        for (index, sm) in nic.semaphores.iter().enumerate() {
            let came = if index == raised { down_for(*sm, 500_000) } else { try_down(*sm) };
            equal!(came, if index == raised { Ok(1) } else { Err(Status::Timeout) });
        }
        nic.clear(raised)?;
    }
    nic.end();
    Ok(())
}

/// A message after the other, none acknowledged: so many are counted, the machine goes on, and the acknowledgement lets
/// the next ones in.
fn storm() -> Outcome {
    let edu = Edu::anyhow()?;
    let sm = semaphore(0)?;
    edu.set_message(Some(call(&bind(sm, edu.function.0))?));
    for _ in 0..20 * EDGES {
        edu.raise();
    }
    let other = semaphore(0)?;
    equal!(down_for(other, 20_000), Err(Status::Timeout));
    equal!(take_all(sm), Ok(EDGES));
    edu.raise();
    equal!(down_for(sm, 5_000), Err(Status::Timeout));
    // What came meanwhile is one.
    call(&IrqAck { sm })?;
    equal!(down_for(sm, 5_000), Ok(1));
    equal!(down_for(sm, 5_000), Err(Status::Timeout));
    call(&IrqAck { sm })?;
    edu.raise();
    equal!(down_for(sm, 500_000), Ok(1));
    edu.set_message(None);
    edu.clear();
    [sm, other].into_iter().for_each(destroy);
    Ok(())
}

/// A line that nobody serves is one up; each acknowledgement lets it come once more.
fn line_storm() -> Outcome {
    let edu = Edu::anyhow()?;
    edu.set_message(None);
    let mut lines = [0; 8];
    for (gsi, sm) in (16..).zip(&mut lines) {
        *sm = semaphore(0)?;
        call(&IrqBind { machine: MACHINE, sm: *sm, gsi, flags: u64::from(gsi % hip().cores) << 8 })?;
    }
    edu.raise();
    let other = semaphore(0)?;
    equal!(down_for(other, 20_000), Err(Status::Timeout));
    let mut came = None;
    for sm in lines {
        match take_all(sm) {
            Ok(1) => check!(came.replace(sm).is_none()),
            Ok(_) => check!(false),
            Err(why) => equal!(why, Status::Timeout),
        }
    }
    let Some(sm) = came else { return Err(Failure::Skipped("the device's line is not among 16 to 23")) };
    for _ in 0..3 {
        call(&IrqAck { sm })?;
        equal!(down_for(sm, 500_000), Ok(1));
        equal!(down_for(sm, 2_000), Err(Status::Timeout));
    }
    edu.clear();
    call(&IrqAck { sm })?;
    equal!(down_for(sm, 5_000), Err(Status::Timeout));
    lines.into_iter().for_each(destroy);
    destroy(other);
    Ok(())
}

/// A device whose driver has gone goes on sending: nobody is hurt, and the log stays readable.
fn orphan() -> Outcome {
    let edu = Edu::anyhow()?;
    let sm = semaphore(0)?;
    edu.set_message(Some(call(&bind(sm, edu.function.0))?));
    edu.raise();
    equal!(down_for(sm, 500_000), Ok(1));
    destroy(sm);
    let start = time::now();
    let mut count = 0;
    while time::now() - start < time::micros(20_000) {
        edu.raise();
        count += 1;
    }
    check!(count > 100);
    edu.set_message(None);
    edu.clear();
    // The core takes interrupts of others again.
    is_an_up()
}
