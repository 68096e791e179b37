// SPDX-License-Identifier: MIT OR Apache-2.0
//! Makes the root task: a PD with the whole budget, its memory mapped from the boot image, the information page, the first
//! capabilities, and an EC that is ready to run.

use super::image::RootTask;
use crate::arch::bootinfo::BootInfo;
use crate::arch::{irq, paging, timer};
use crate::memory::{self, Own, POOL};
use crate::object::ec::Start;
use crate::object::space::Content;
use crate::object::{Ec, Header, Object, Pd, Ref, Sc, Space, status};
use crate::sched;
use crate::syscall::{Machine, spaces};
use crate::width::low8;
use cloister_abi::PRIORITIES;
use cloister_abi::cap::{Access, Perms, Selector};
use cloister_abi::hip::{self, Hip};
use cloister_abi::hypercall::EcFlags;
use cloister_abi::status::Status;
use cloister_mechanism::{FRAME, Frames};
use core::ptr::NonNull;

/// Priority of the root task.
const HIGHEST: u8 = low8(PRIORITIES as u64 - 1);
/// Time slice of the root task, microseconds.
const QUANTUM: u64 = 10_000;

/// Makes the root task.
///
/// # Errors
/// The pool is too small, or the root task's segments overlap.
pub(super) fn start(info: &BootInfo, task: &RootTask, features: u64) -> Result<(), &'static str> {
    // The root PD is nobody's: it lies in a frame of its own.
    let place = memory::boot_frame()?.cast::<Pd>();
    memory::book(Own::Other);
    let budget = POOL.available() * FRAME as u64 + super::layout::overcommit(info);
    // SAFETY: a fresh frame, kept for ever.
    unsafe { place.write(Pd::new(budget, u32::from(HIGHEST) + 1)) };
    // SAFETY: just written; never dropped.
    let pd = unsafe { place.as_ref() };
    make(pd, info, task, features).map_err(|why| match why {
        Status::Busy => "segments of the root task overlap",
        _ => "the kernel's pool is too small for the root task",
    })
}

fn make(pd: &Pd, info: &BootInfo, task: &RootTask, features: u64) -> Result<(), Status> {
    let spaces = spaces(pd)?;
    map_image(&spaces.host, task)?;
    map_hip(pd, &spaces.host, info, features)?;
    let objects = spaces.objects.clone();
    let give = |selector: Selector, header: &Header, perms: Perms| {
        header.acquire();
        objects.insert(selector, header, perms)
    };
    give(hip::ROOT_PD, pd.header(), Perms::ALL)?;
    give(hip::ROOT_OBJECTS, spaces.objects.header(), Perms::ALL)?;
    give(hip::ROOT_HOST, spaces.host.header(), Perms::ALL)?;
    give(hip::ROOT_PIO, spaces.ports.header(), Perms::ALL)?;
    let machine = Ref::create(pd, Machine::new())?;
    give(hip::MACHINE, machine.header(), Perms::ALL)?;
    let memory = Space::create(pd, None, Content::MachineMemory)?;
    give(hip::MACHINE_MEMORY, memory.header(), Perms::SPACE_TAKE)?;
    let ports = Space::create(pd, None, Content::MachinePorts)?;
    give(hip::MACHINE_PIO, ports.header(), Perms::SPACE_TAKE)?;
    let flags = EcFlags::GLOBAL | EcFlags::FPU;
    let start = Start { utcb: hip::ROOT_UTCB, sp: 0, ip: task.entry, core: 0, flags, event: None };
    let ec = Ec::create(pd, spaces, start)?;
    ec.registers().rdi = hip::ADDRESS;
    give(hip::ROOT_EC, ec.header(), Perms::ALL)?;
    let sc = Ref::create(pd, Sc::new(ec.clone(), HIGHEST, timer::from_micros(QUANTUM)))?;
    ec.bind(&sc);
    give(hip::ROOT_SC, sc.header(), Perms::ALL)?;
    sched::enqueue(&sc, false);
    Ok(())
}

fn map_image(host: &Space, task: &RootTask) -> Result<(), Status> {
    for segment in &task.segments[..task.count] {
        let mut access = Access::READ;
        access.set(Access::WRITE, segment.write);
        access.set(Access::EXEC, segment.exec);
        let bits = paging::attributes(access, false).ok_or(Status::BadParameter)?;
        for offset in (0..segment.size).step_by(FRAME) {
            host.map(segment.address + offset, 0, |_| Some((segment.physical + offset, bits)))?;
        }
    }
    Ok(())
}

fn map_hip(pd: &Pd, host: &Space, info: &BootInfo, features: u64) -> Result<(), Status> {
    let frame: NonNull<u8> = pd.take_zeroed().map_err(status)?;
    // SAFETY: a zeroed frame is a valid information page, and nobody else sees it yet.
    let hip = unsafe { frame.cast::<Hip>().as_mut() };
    hip.magic = hip::MAGIC;
    hip.version = cloister_abi::VERSION;
    hip.cores = u32::try_from(crate::percore::count()).unwrap_or(1);
    hip.tsc_hz = timer::tsc_hz();
    hip.features = features;
    hip.interrupts = irq::count();
    hip.kernel_memory = memory::pool_size();
    hip.boot_time = crate::arch::rtc::seconds_since_epoch();
    info.describe(hip);
    let bits = paging::attributes(Access::READ, false).ok_or(Status::BadParameter)? | paging::KERNEL_FRAME;
    host.map(hip::ADDRESS, 0, |_| Some((memory::physical(frame), bits)))
}
