// SPDX-License-Identifier: MIT OR Apache-2.0
//! The start of core, and its main loop.

use crate::machine::Core;
use crate::objects::{Parent, Session, Thing};
use crate::{
    CONTROL, ENTRYPOINT, ENTRYPOINT_STACK, FAULT_ENTRYPOINT, FAULT_STACK, FAULT_SYNC, NOTIFICATION, arch, faults,
    kernel, memory, services,
};
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use cloister_abi::cap::NONE;
use cloister_abi::hip::{Hip, MemoryKind, ROOT_EC, ROOT_PD, ROOT_UTCB};
use cloister_abi::hypercall::{CreateEc, CreatePt, CreateSm, EcFlags};
use cloister_abi::status::Status;
use cloister_base::{Cap, Error, Link, ObjectId, entry, signal};
use cloister_boot_image::BootImage;
use cloister_core_model::Extent;
use cloister_loader::{LoadError, Local};
use cloister_session::{
    CpuClient, Decode, Decoder, Encode, Encoder, Object, PdClient, Resources, RomClient, Transport, id,
};
use core::sync::atomic::{AtomicPtr, Ordering};

/// What core keeps for itself.
const RESERVE: Resources = Resources { ram: 1 << 20, caps: 512 };
/// Identity of the portal between main thread and entrypoint.
const CONTROL_ID: u64 = u64::MAX;
/// What the main thread tells the entrypoint.
const MAKE_INIT: u64 = 1;
const NEWS: u64 = 2;
const LOCATE: u64 = 3;

static STATE: AtomicPtr<Core> = AtomicPtr::new(core::ptr::null_mut());

/// Why core can't go on.
#[derive(Debug)]
enum Failure {
    Kernel(&'static str, Status),
    Image(cloister_boot_image::Error),
    Init(LoadError),
    Hip,
}

impl core::fmt::Display for Failure {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Kernel(what, status) => write!(f, "{what}: {status}"),
            Self::Image(error) => write!(f, "boot image: {error}"),
            Self::Init(error) => write!(f, "init: {error}"),
            Self::Hip => f.write_str("the kernel speaks another version of the contract"),
        }
    }
}

impl<E: Into<LoadError>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Init(error.into())
    }
}

struct Console;

impl log::Log for Console {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let mark = match record.level() {
            log::Level::Error => "error: ",
            log::Level::Warn => "warning: ",
            log::Level::Info | log::Level::Debug | log::Level::Trace => "",
        };
        services::small::write_lines("core", &alloc::format!("{mark}{}", record.args()));
    }

    fn flush(&self) {}
}

/// Runs core.
pub(crate) fn run(hip: &'static Hip) -> ! {
    if let Err(failure) = start(hip) {
        log::error!("{failure}");
    }
    kernel::power_off(2);
    loop {
        core::hint::spin_loop();
    }
}

fn start(hip: &'static Hip) -> Result<(), Failure> {
    if hip.magic != cloister_abi::hip::MAGIC || hip.version >> 16 != cloister_abi::VERSION >> 16 {
        return Err(Failure::Hip);
    }
    let heap = memory::prepare(hip).map_err(|status| Failure::Kernel("mapping memory", status))?;
    if log::set_logger(&Console).is_ok() {
        log::set_max_level(log::LevelFilter::Info);
    }
    take_machine(hip, heap)?;
    make_threads().map_err(|status| Failure::Kernel("making core's threads", status))?;
    let init = control(MAKE_INIT)?;
    start_init(init)?;
    loop {
        faults::finish();
        let deadline = control(NEWS)?;
        signal::take(NOTIFICATION, deadline)?;
    }
}

fn take_machine(hip: &'static Hip, heap: Extent) -> Result<(), Failure> {
    // SAFETY: the kernel says that the boot image is there.
    let bytes = unsafe { memory::image(hip.image_base, hip.image_size) };
    let image = BootImage::parse(bytes).map_err(Failure::Image)?;
    let core = Core::new(hip, heap, image);
    let info = core.machine_info();
    log::info!(
        "{} KiB RAM, {} capabilities, {} of {} KiB kernel memory free; {} modules, {} MHz",
        info.ram_free >> 10,
        info.caps_free,
        info.kernel_free >> 10,
        info.kernel >> 10,
        core.image.modules().count(),
        hip.tsc_hz / 1_000_000,
    );
    let total = |kind: MemoryKind| {
        let of_kind = memory::ranges(hip).filter(|range| range.kind == kind as u32);
        of_kind.map(|range| range.size >> 10).sum::<u64>()
    };
    log::info!(
        "physical memory: {} KiB available, {} boot image, {} kernel, {} firmware's or reserved",
        total(MemoryKind::Available),
        total(MemoryKind::BootImage),
        total(MemoryKind::Kernel),
        total(MemoryKind::Reserved) + total(MemoryKind::AcpiReclaim) + total(MemoryKind::AcpiNvs),
    );
    STATE.store(Box::into_raw(Box::new(core)), Ordering::Release);
    Ok(())
}

fn make_threads() -> Result<(), Status> {
    // SAFETY: all portals that start at the portal entry belong to the main entrypoint (`machine::Core::add`, below).
    unsafe { entry::install(serve) };
    let page = cloister_abi::PAGE_SIZE as u64;
    kernel::create_sm(&CreateSm { sel: NOTIFICATION, pd: ROOT_PD, count: 0, target: NONE, bit: 0 })?;
    for (sel, place, stack) in [(ENTRYPOINT, 1, &ENTRYPOINT_STACK), (FAULT_ENTRYPOINT, 2, &FAULT_STACK)] {
        let flags = CreateEc::pack(EcFlags::empty(), 0, NONE);
        let utcb = ROOT_UTCB + place * page;
        kernel::create_ec(&CreateEc { sel, pd: ROOT_PD, flags, utcb, sp: stack.top(), ip: 0 })?;
    }
    for (ec, name) in [(ROOT_EC, "start"), (ENTRYPOINT, "entrypoint"), (FAULT_ENTRYPOINT, "faults")] {
        kernel::name_in_trace(ec, &alloc::format!("core: {name}"));
    }
    let sync =
        CreatePt { sel: FAULT_SYNC, pd: ROOT_PD, ec: FAULT_ENTRYPOINT, ip: arch::fault_entry(), id: faults::SYNC };
    kernel::create_pt(&sync)?;
    let ip = entry::address();
    kernel::create_pt(&CreatePt { sel: CONTROL, pd: ROOT_PD, ec: ENTRYPOINT, ip, id: CONTROL_ID })
}

/// Calls the entrypoint. Answers a number.
fn control(operation: u64) -> Result<u64, Error> {
    Link(CONTROL).exchange(
        0,
        |message| message.word(operation),
        |answer| match answer.word()? {
            0 => answer.word(),
            code => Err(Error::from_raw([code, answer.word()?, answer.word()?])),
        },
    )
}

/// Asks the entrypoint where a dataspace is from an offset on: physical address and bytes in a row.
fn locate(dataspace: Cap, offset: u64) -> Result<(u64, u64), Error> {
    let fill = |message: &mut Encoder<'_>| {
        message.word(LOCATE)?;
        message.word(offset)?;
        dataspace.object().encode(message)
    };
    Link(CONTROL).exchange(0, fill, |answer| match answer.word()? {
        0 => Ok((answer.word()?, answer.word()?)),
        code => Err(Error::from_raw([code, answer.word()?, answer.word()?])),
    })
}

/// Answers a call on the entrypoint.
fn serve(identity: u64, request: &mut Decoder<'_>, reply: &mut Encoder<'_>) {
    let pointer = STATE.load(Ordering::Acquire);
    // SAFETY: the pointer is null or the box that `take_machine` leaked; from there on only the entrypoint comes here, one
    // call at a time, and no reference outlives a call.
    let Some(core) = (unsafe { pointer.as_mut() }) else {
        entry::refuse(reply, Error::NotReady);
        return;
    };
    if identity != CONTROL_ID {
        services::dispatch(core, ObjectId::from_raw(identity), request, reply);
        return;
    }
    let answer = controlled(core, request);
    match answer {
        Ok((first, second)) => {
            let _ = [0, first, second].into_iter().try_for_each(|word| reply.word(word));
        }
        Err(error) => entry::refuse(reply, error),
    }
}

fn controlled(core: &mut Core, request: &mut Decoder<'_>) -> Result<(u64, u64), Error> {
    match u64::decode(request)? {
        MAKE_INIT => make_init(core).map(|first| (first, 0)),
        LOCATE => {
            let (offset, dataspace) = (u64::decode(request)?, Object::decode(request)?);
            core.locate(ObjectId::from_raw(dataspace.own()?), offset)
        }
        _ => {
            core.handle_faults();
            Ok((core.handle_time(), 0))
        }
    }
}

/// Opens init's environment. Answers the first selector of its sessions (PD, CPU, LOG, ROM, parent), which lie in a row.
fn make_init(core: &mut Core) -> Result<u64, Error> {
    let root = core.root;
    let small = Resources { ram: 16 << 10, caps: 4 };
    let left = core.accounts.quota(root).available();
    let all = Resources { ram: left.ram.saturating_sub(RESERVE.ram), caps: left.caps.saturating_sub(RESERVE.caps) };
    let pd = core.open(root, "PD", ("init", ""), all)?;
    let cpu = core.open(root, "CPU", ("init", ""), small)?;
    let log = core.open(root, "LOG", ("init", ""), small)?;
    let rom = core.open(root, "ROM", ("init", ""), small)?;
    let account = core.purse(pd)?.account;
    let mut sessions = BTreeMap::new();
    for (number, object) in [(id::PD, pd), (id::CPU, cpu), (id::LOG, log), (id::BINARY, rom)] {
        sessions.insert(number, Session { object, environment: true });
    }
    let parent = core.add(None, Thing::Parent(Box::new(Parent { account, sessions })))?;
    let base = cloister_base::selectors::allocate(5)?;
    for (object, sel) in [pd, cpu, log, rom, parent].into_iter().zip(base..) {
        let from = core.cap(object)?;
        kernel::give(cloister_abi::hip::ROOT_OBJECTS, from.selector, sel, from.perms).map_err(Error::Kernel)?;
    }
    let quota = core.accounts.quota(account);
    log::info!("init gets {} KiB RAM and {} capabilities", quota.ram_available() >> 10, quota.caps_available());
    Ok(base.into())
}

/// Loads and starts init, as any parent does it.
fn start_init(base: u64) -> Result<(), Failure> {
    let base = u32::try_from(base).map_err(|_| Error::Malformed)?;
    let (pd, cpu) = (PdClient(Link(base)), CpuClient(Link(base + 1)));
    let rom = RomClient(Link(base + 3)).content()?;
    // SAFETY: `take_machine` stored the state; the image in it never changes, and nobody changes the state now.
    let image = unsafe { STATE.load(Ordering::Acquire).as_ref() }.map(|core| core.image);
    let file = image.and_then(|image| image.find("init")).ok_or(Error::NotFound)?;
    let entry = cloister_loader::load(file.data, rom.dataspace, &pd, &Window)?;
    pd.assign_parent(Cap::portal(base + 4))?;
    cloister_loader::start("init", entry, (Cap::new(base), &pd), &cpu, &Window)?;
    Ok(())
}

/// Memory is filled through core's window on all of it.
struct Window;

impl Local for Window {
    fn fill(&self, dataspace: Cap, offset: usize, data: &[u8]) -> Result<(), Error> {
        let mut left = data;
        let mut offset = offset as u64;
        while !left.is_empty() {
            let (physical, size) = locate(dataspace, offset)?;
            // SAFETY: the memory was allocated for the program that is being loaded, and is not in use yet.
            let memory = unsafe { memory::own(physical, size) };
            let (now, later) = left.split_at(memory.len().min(left.len()));
            memory[..now.len()].copy_from_slice(now);
            offset += now.len() as u64;
            left = later;
        }
        Ok(())
    }

    fn dismiss(&self, cap: Cap) {
        Link::from(cap).drop();
    }
}
