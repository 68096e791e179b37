// SPDX-License-Identifier: MIT OR Apache-2.0
//! Interrupts: each bound one is an up of its semaphore.
//!
//! A binding is named by core and vector: each core has a [`Table`] of its device vectors, and what raises the vector is the binding's
//! [`irq::Way`], from a line of an I/O APIC or by a message. The interrupt path is one index and one small lock; searching is left to binding.
//!
//! Storms: a binding takes [`Binding::limit`] interrupts that nobody acknowledged (one of a level-triggered line), then its source is
//! blocked until `IrqAck`. A message that no hardware between device and core can block is counted no more, and each one
//! that still comes *brakes* its core: all device interrupts of the core wait for [`BRAKE`] microseconds, so that a device gone wild
//! costs the core latency, but not its time. What came meanwhile is one up more at the acknowledgement: no interrupt is lost, only
//! their number.
//!
//! Concurrency: a slot's lock is held while its semaphore is counted up, and unbinding takes it, so that afterwards no core
//! uses the semaphore any more. Order of locks: slot, then semaphore, then I/O APIC or nothing; who unbinds or acknowledges holds no
//! lock of a semaphore. `Sm::binding` says which slot is a semaphore's; who moves it from 0 has bound it, who moves it to 0 unbinds.

use crate::arch::{cpu, irq, timer};
use crate::object::{Object, Sm};
use crate::percore::{ALARM, CORES, Core};
use crate::width::{low8, low32};
use cloister_abi::hypercall::IrqFlags;
use cloister_abi::status::Status;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicPtr, AtomicU32, Ordering::Relaxed, Ordering::SeqCst};
use spin::Mutex;

/// Device vectors of a core.
const VECTORS: usize = irq::VECTORS;
/// Interrupts of an edge-triggered source that nobody need acknowledge.
const EDGES: u32 = 64;
/// How long a braked core takes no device interrupts, microseconds.
const BRAKE: u64 = 1_000;

/// A binding.
#[derive(Debug)]
struct Binding {
    semaphore: NonNull<Sm>,
    way: irq::Way,
    /// Interrupts since the last acknowledgement.
    open: u32,
    /// More came than were counted, or may have come.
    missed: bool,
    blocked: bool,
}

// SAFETY: a semaphore that goes unbinds its interrupt first; the binding is behind its slot's lock.
unsafe impl Send for Binding {}

impl Binding {
    /// Interrupts that are taken without being acknowledged.
    fn limit(&self) -> u32 {
        if self.way.is_level() { 1 } else { EDGES }
    }

    /// One came. Answers whether it counts.
    fn arrive(&mut self) -> bool {
        if self.open >= self.limit() {
            self.missed = true;
            return false;
        }
        self.open += 1;
        if self.open == self.limit() {
            self.blocked = self.way.block(true);
            // An edge that comes while it is blocked leaves no trace.
            self.missed = self.blocked && !self.way.is_level();
        }
        true
    }

    /// They were taken. Answers whether there is one more.
    fn acknowledge(&mut self) -> bool {
        let missed = core::mem::take(&mut self.missed);
        self.open = u32::from(missed);
        if core::mem::take(&mut self.blocked) {
            self.way.block(false);
        }
        missed
    }

    fn semaphore(&self) -> &Sm {
        // SAFETY: a semaphore that goes unbinds its interrupt first, which needs the slot's lock.
        unsafe { self.semaphore.as_ref() }
    }
}

/// Device vectors of a core.
#[derive(Debug)]
struct Table {
    slots: [Mutex<Option<Binding>>; VECTORS],
    /// Identity of the core's local APIC.
    apic: u32,
    /// Where the search for a free vector goes on: a vector is used again as late as possible, since an interrupt of its last
    /// source may be under way still.
    next: AtomicU32,
}

const _: () = assert!(size_of::<Table>() <= FRAMES * cloister_mechanism::FRAME);
const FRAMES: usize = 3;

static TABLES: [AtomicPtr<Table>; CORES] = [const { AtomicPtr::new(core::ptr::null_mut()) }; CORES];

fn table(core: u8) -> Option<&'static Table> {
    // SAFETY: null, or a table that was made for ever.
    unsafe { TABLES.get(usize::from(core))?.load(Relaxed).as_ref() }
}

/// Gives the core that runs its table. Called once per core, at boot.
///
/// # Errors
/// There are too many cores, or the pool is too small.
pub(crate) fn add_core(core: u8) -> Result<(), &'static str> {
    let place = TABLES.get(usize::from(core)).ok_or("too many cores")?;
    let table = crate::memory::POOL.reserve(FRAMES).map_err(|_| "the kernel's pool is too small")?.cast::<Table>();
    let new = Table { slots: [const { Mutex::new(None) }; VECTORS], apic: irq::apic_id(), next: AtomicU32::new(0) };
    // SAFETY: fresh adjacent frames, kept for ever, large enough as asserted above.
    unsafe { table.write(new) };
    place.store(table.as_ptr(), Relaxed);
    Ok(())
}

/// Binds a semaphore to a free vector of a core. `take` takes the way, given the core's APIC and the vector, and with it what the caller
/// is to be told.
fn bind<T>(sm: &Sm, core: u8, take: impl FnOnce(u32, u8) -> Result<(irq::Way, T), Status>) -> Result<T, Status> {
    let table = table(core).ok_or(Status::BadCore)?;
    if sm.binding.load(Relaxed) != 0 {
        return Err(Status::Busy);
    }
    let start = table.next.load(Relaxed) as usize;
    for index in (start..start + VECTORS).map(|index| index % VECTORS) {
        let mut slot = table.slots[index].lock();
        if slot.is_some() {
            continue;
        }
        let vector = irq::FIRST_VECTOR + low8(index as u64);
        let name = u32::from(core) << 8 | u32::from(vector);
        let (mut way, answer) = take(table.apic, vector)?;
        if sm.binding.compare_exchange(0, name, SeqCst, Relaxed).is_err() {
            return Err(Status::Busy);
        }
        way.block(false);
        *slot = Some(Binding { semaphore: sm.into(), way, open: 0, missed: false, blocked: false });
        drop(slot);
        table.next.store(low32(index as u64 + 1), Relaxed);
        if !sm.header().is_alive() {
            // It went meanwhile, and perhaps before it could see its binding.
            unbind(sm);
            return Err(Status::BadCapability);
        }
        return Ok(answer);
    }
    Err(Status::Busy)
}

/// Binds a line to a semaphore and unmasks it.
///
/// # Errors
/// There is no such line or core, or the line is bound, or the semaphore has an interrupt, or the core has no vector left.
pub(crate) fn bind_line(gsi: u32, core: u8, sm: &Sm, flags: IrqFlags) -> Result<(), Status> {
    bind(sm, core, |apic, vector| Ok((irq::Way::of_line(gsi, apic, vector, flags)?, ())))
}

/// Binds a message of a device to a semaphore. Answers the address and the data that make it.
///
/// # Errors
/// There is no such core, or the semaphore has an interrupt, or no vector of the core is free.
pub(crate) fn bind_message(device: u32, core: u8, sm: &Sm) -> Result<(u64, u64), Status> {
    bind(sm, core, |apic, vector| irq::Way::of_messages(device, apic, vector))
}

/// The slot that a semaphore's binding is in.
fn slot(name: u32) -> Option<&'static Mutex<Option<Binding>>> {
    let index = low8(u64::from(name)).checked_sub(irq::FIRST_VECTOR)?;
    table(low8(u64::from(name >> 8)))?.slots.get(usize::from(index))
}

/// Blocks the source of a semaphore's interrupt and forgets the binding. When it returns, no core uses the semaphore for it.
pub(crate) fn unbind(sm: &Sm) {
    if let Some(slot) = slot(sm.binding.swap(0, SeqCst)) {
        let mut slot = slot.lock();
        if let Some(mut binding) = slot.take() {
            binding.way.block(true);
        }
    }
}

/// Lets the next one come.
///
/// # Errors
/// No interrupt is bound to the semaphore.
pub(crate) fn acknowledge(sm: &Sm) -> Result<(), Status> {
    let mut slot = slot(sm.binding.load(SeqCst)).ok_or(Status::BadDevice)?.lock();
    // Between the two looks it may have been unbound, and the slot be another's.
    let binding = slot.as_mut().filter(|binding| binding.semaphore == NonNull::from(sm)).ok_or(Status::BadDevice)?;
    if binding.acknowledge() {
        binding.semaphore().up();
    }
    Ok(())
}

/// An interrupt came to the core that runs. Answers whether somebody asked for it.
pub(crate) fn arrived(core: &Core, vector: u8) -> bool {
    let mut slot = slot(u32::from(core.id) << 8 | u32::from(vector)).map(Mutex::lock);
    let binding = slot.as_mut().and_then(|slot| slot.as_mut());
    let known = binding.is_some();
    let counts = binding.is_some_and(|binding| {
        let counts = binding.arrive();
        if counts {
            binding.semaphore().up();
        }
        counts
    });
    drop(slot);
    if !counts {
        brake(core);
    }
    irq::end();
    known
}

/// Lets the device interrupts of this core wait.
#[cold]
fn brake(core: &Core) {
    core.brake.set(cpu::ticks() + timer::from_micros(BRAKE));
    irq::hold(true);
    core.request(ALARM);
}

/// The alarm rang: lets device interrupts in again, if it is time.
pub(crate) fn release(core: &Core) {
    if core.brake.get() != u64::MAX && core.brake.get() <= cpu::ticks() {
        core.brake.set(u64::MAX);
        irq::hold(false);
    }
}
