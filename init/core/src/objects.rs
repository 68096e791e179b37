// SPDX-License-Identifier: MIT OR Apache-2.0
//! What core serves: the state behind each portal.
//!
//! Each object has a portal of its own. *Purses* pay: a session's purse is an account with what was donated to it, and for PD
//! and VM sessions a kernel PD whose budget of kernel memory is filled out of that account on demand.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use cloister_abi::cap::Selector;
use cloister_base::ObjectId;
use cloister_core_model::{AccountId, Extent, Regions};
use cloister_session::{Cap, Fault, Resources};

/// An object with its portal.
#[derive(Debug)]
pub(crate) struct Entry {
    /// Its portal.
    pub(crate) portal: Selector,
    /// What it is.
    pub(crate) object: Thing,
}

/// Kinds of object.
#[derive(Debug)]
pub(crate) enum Thing {
    Parent(Box<Parent>),
    Pd(Box<Pd>),
    Cpu(Box<Cpu>),
    Thread(Box<Thread>),
    Dataspace(Dataspace),
    Vm(Box<Vm>),
    Rom(Rom),
    Log(Log),
    IoMem(IoMem),
    IoPort(IoPort),
    Irq(Irq),
    Timer(Timer),
    Platform(Platform),
    Rm(Rm),
    RegionMap(RegionMap),
}

/// What pays for a session.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Purse {
    pub(crate) account: AccountId,
    /// What was donated so far: goes back to the donor.
    pub(crate) donation: Resources,
    /// What the session itself costs.
    pub(crate) overhead: Resources,
    /// Kernel PD whose budget is filled from the account, if there is one.
    pub(crate) kernel: Option<Selector>,
    /// Kernel memory that was put there, bytes.
    pub(crate) budget: u64,
}

/// What lies in an address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// A dataspace.
    Dataspace(ObjectId),
    /// A page of the kernel's: message page of a thread, state page of a virtual CPU.
    KernelPage,
}

/// An address space: of a component or of a guest.
#[derive(Debug)]
pub(crate) struct Space {
    pub(crate) selector: Selector,
    pub(crate) regions: Regions<Content>,
    /// Capabilities that were charged for the bookkeeping of the regions.
    pub(crate) charged: u64,
}

/// PD session. Its kernel PD is the purse's; object, host and port space follow that selector.
#[derive(Debug)]
pub(crate) struct Pd {
    pub(crate) label: String,
    pub(crate) purse: Purse,
    pub(crate) space: Space,
    pub(crate) dataspaces: Vec<ObjectId>,
    pub(crate) threads: Vec<ObjectId>,
    pub(crate) vcpus: Vec<(ObjectId, u64)>,
    /// Portals, signals, semaphores.
    pub(crate) made: BTreeMap<u64, Selector>,
    pub(crate) next_handle: u64,
    pub(crate) notification: Option<Selector>,
}

/// CPU session.
#[derive(Debug)]
pub(crate) struct Cpu {
    pub(crate) label: String,
    pub(crate) purse: Purse,
    pub(crate) priority: u32,
    pub(crate) threads: Vec<ObjectId>,
    pub(crate) handler: Option<Cap>,
    pub(crate) fault: Option<Fault>,
}

/// Thread or entrypoint.
#[derive(Debug)]
pub(crate) struct Thread {
    pub(crate) name: String,
    pub(crate) pd: ObjectId,
    pub(crate) cpu: ObjectId,
    pub(crate) ec: Selector,
    pub(crate) event: Selector,
    pub(crate) sc: Option<Selector>,
    pub(crate) utcb: u64,
    pub(crate) priority: u32,
    pub(crate) global: bool,
    pub(crate) fault: Option<Fault>,
}

/// Who made a dataspace and gets its costs back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// RAM of a PD session.
    Ram(ObjectId),
    /// A session (ROM, IO_MEM) whose overhead covers it; its memory is not RAM to be freed.
    Session,
}

/// How memory is cached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Caching {
    Cached,
    Uncached,
    WriteCombining,
}

/// Memory.
#[derive(Debug)]
pub(crate) struct Dataspace {
    pub(crate) owner: Owner,
    pub(crate) extents: Vec<Extent>,
    pub(crate) size: u64,
    pub(crate) align: u32,
    pub(crate) writable: bool,
    pub(crate) caching: Caching,
    /// The region map that it shows, if it is a managed one; then it has no extents.
    pub(crate) map: Option<ObjectId>,
    /// PD and VM sessions and region maps in which it is attached, or was.
    pub(crate) attached: Vec<ObjectId>,
}

/// VM session.
#[derive(Debug)]
pub(crate) struct Vm {
    pub(crate) label: String,
    pub(crate) purse: Purse,
    pub(crate) space: Space,
    pub(crate) vcpus: Vec<Vcpu>,
}

/// Virtual CPU.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Vcpu {
    pub(crate) selector: Selector,
    /// Where its state page is.
    pub(crate) pd: ObjectId,
    pub(crate) state: u64,
}

/// ROM session.
#[derive(Debug)]
pub(crate) struct Rom {
    pub(crate) purse: Purse,
    pub(crate) dataspace: ObjectId,
    pub(crate) size: u64,
}

/// LOG session.
#[derive(Debug)]
pub(crate) struct Log {
    pub(crate) purse: Purse,
    pub(crate) label: String,
}

/// IO_MEM session.
#[derive(Debug)]
pub(crate) struct IoMem {
    pub(crate) purse: Purse,
    pub(crate) base: u64,
    pub(crate) dataspace: ObjectId,
}

/// IO_PORT session.
#[derive(Debug)]
pub(crate) struct IoPort {
    pub(crate) purse: Purse,
    pub(crate) base: u64,
    pub(crate) size: u64,
    /// PDs that may use them.
    pub(crate) mapped: Vec<ObjectId>,
}

/// IRQ session.
#[derive(Debug)]
pub(crate) struct Irq {
    pub(crate) purse: Purse,
    pub(crate) gsi: u32,
    pub(crate) flags: u64,
    pub(crate) signal: Option<Cap>,
}

/// Timer session.
#[derive(Debug)]
pub(crate) struct Timer {
    pub(crate) purse: Purse,
    pub(crate) handler: Option<Cap>,
    /// Ticks; 0 for never.
    pub(crate) next: u64,
    pub(crate) period: u64,
}

/// Platform session.
#[derive(Debug)]
pub(crate) struct Platform {
    pub(crate) purse: Purse,
    pub(crate) label: String,
}

/// RM session.
#[derive(Debug)]
pub(crate) struct Rm {
    pub(crate) purse: Purse,
    pub(crate) maps: Vec<ObjectId>,
}

/// Region map: an address space that nobody runs in, shown by its dataspace.
#[derive(Debug)]
pub(crate) struct RegionMap {
    /// The RM session that pays.
    pub(crate) session: ObjectId,
    pub(crate) space: Space,
    pub(crate) dataspace: ObjectId,
}

/// What init holds as its parent.
#[derive(Debug)]
pub(crate) struct Parent {
    /// Who donates to the sessions.
    pub(crate) account: AccountId,
    pub(crate) sessions: BTreeMap<u64, Session>,
}

/// A session of init's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Session {
    pub(crate) object: ObjectId,
    /// One of the environment: can't be closed.
    pub(crate) environment: bool,
}

impl Thing {
    /// The purse of a session.
    pub(crate) fn purse(&mut self) -> Option<&mut Purse> {
        Some(match self {
            Self::Pd(pd) => &mut pd.purse,
            Self::Cpu(cpu) => &mut cpu.purse,
            Self::Vm(vm) => &mut vm.purse,
            Self::Rom(rom) => &mut rom.purse,
            Self::Log(log) => &mut log.purse,
            Self::IoMem(memory) => &mut memory.purse,
            Self::IoPort(ports) => &mut ports.purse,
            Self::Irq(irq) => &mut irq.purse,
            Self::Timer(timer) => &mut timer.purse,
            Self::Platform(platform) => &mut platform.purse,
            Self::Rm(rm) => &mut rm.purse,
            Self::Parent(_) | Self::Thread(_) | Self::Dataspace(_) | Self::RegionMap(_) => return None,
        })
    }

    /// The address space of a PD or VM session, or of a region map.
    pub(crate) fn space(&mut self) -> Option<&mut Space> {
        match self {
            Self::Pd(pd) => Some(&mut pd.space),
            Self::Vm(vm) => Some(&mut vm.space),
            Self::RegionMap(map) => Some(&mut map.space),
            _ => None,
        }
    }
}

/// Generates `Core::pd(id)` and the like: the object of that kind, or an error.
macro_rules! accessors {
    ($access:ident, $($variant:ident $get:ident $(($mut:tt))?,)+) => {
        impl crate::machine::Core {
            $(
                pub(crate) fn $get(&$($mut)? self, id: ObjectId) -> Result<&$($mut)? $variant, cloister_session::Error> {
                    match self.objects.$access(id).map(|entry| &$($mut)? entry.object) {
                        Some(Thing::$variant(object)) => Ok(object),
                        Some(_) => Err(cloister_session::Error::Invalid),
                        None => Err(cloister_session::Error::NoSuchObject),
                    }
                }
            )+
        }
    };
}

accessors! {
    get,
    Parent parent,
    Pd pd,
    Cpu cpu,
    Thread thread,
    Dataspace dataspace,
    Vm vm,
    RegionMap region_map,
}

accessors! {
    get_mut,
    Parent parent_mut (mut),
    Pd pd_mut (mut),
    Cpu cpu_mut (mut),
    Thread thread_mut (mut),
    Dataspace dataspace_mut (mut),
    Vm vm_mut (mut),
    Rom rom_mut (mut),
    Log log_mut (mut),
    IoMem io_mem_mut (mut),
    IoPort io_port_mut (mut),
    Irq irq_mut (mut),
    Timer timer_mut (mut),
    Rm rm_mut (mut),
    RegionMap region_map_mut (mut),
}
