// SPDX-License-Identifier: MIT OR Apache-2.0
//! VMs as VM sessions.
//!
//! A session is opened per VM and closed with it, which takes guest memory and VCPUs away. What the kernel needs for a
//! guest (nested page tables, VCPUs) is paid by the session's donation; when that runs out, more is donated and the call
//! made again, so that nobody has to know what a page table costs.
//!
//! Core attaches *dataspaces*, while the VMM's traits speak of its own memory by address. So the memory that a guest can get is
//! allocated here ([`GuestRam`]): the list of allocations says which dataspace an address belongs to.

use core::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cloister_base::sessions::{Attach, PdClient, Resources, Rights, VmClient};
use cloister_base::{Cap, Error as SessionError, Link, env, selectors, session};
use cloister_hypervisor::{Error, Hypervisor, MemoryRegion, Vm};
use kvm_bindings::kvm_cpuid_entry2;

use crate::calls::Hypercalls;
use crate::memory::Memory;
use crate::page::StatePage;
use crate::{CloisterVcpu, cpuid};

/// Log2 of the alignment of guest memory: that of large pages.
const ALIGN: u32 = 21;
const PAGE: u64 = 4096;
/// What a VM session is given at first.
const DONATION: Resources = Resources { ram: 128 << 10, caps: 12 };
/// What it gets on top when that does not suffice.
const MORE: Resources = Resources { ram: 64 << 10, caps: 4 };
/// How often it gets that for one call.
const TIMES: usize = 64;

/// The refusal of `call` by a session.
fn refused(call: &'static str) -> impl Fn(SessionError) -> Error {
    move |error| Error::Session { call, why: error.to_string() }
}

/// The microhypervisor, through the sessions of this component.
#[derive(Clone, Debug, Default)]
pub struct CloisterHypervisor {
    allocations: Arc<Mutex<Vec<Allocation>>>,
}

/// A dataspace that is attached to this program.
#[derive(Clone, Copy, Debug)]
struct Allocation {
    dataspace: Cap,
    address: u64,
    size: u64,
}

/// Memory for a guest, out of this component's RAM quota, zeroed. Freed when dropped.
#[derive(Debug)]
pub struct GuestRam {
    allocation: Allocation,
    allocations: Arc<Mutex<Vec<Allocation>>>,
}

impl GuestRam {
    /// First byte.
    #[must_use]
    pub fn pointer(&self) -> *mut u8 {
        core::ptr::with_exposed_provenance_mut(usize::try_from(self.allocation.address).unwrap_or(0))
    }

    /// Bytes.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.allocation.size
    }
}

impl Drop for GuestRam {
    fn drop(&mut self) {
        lock(&self.allocations).retain(|other| other.address != self.allocation.address);
        // What can't be given back stays charged to this component.
        let _ = env::pd().detach(self.allocation.address);
        let _ = env::pd().free(self.allocation.dataspace.object());
        selectors::drop_capability(self.allocation.dataspace.selector);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl CloisterHypervisor {
    /// What is left of this component's RAM quota, bytes.
    ///
    /// # Errors
    /// The PD session's refusal.
    pub fn available(&self) -> Result<u64, Error> {
        env::pd().quota().map(|quota| quota.ram_available()).map_err(refused("the quota"))
    }

    /// Allocates memory that guests can be given, and attaches it to this program.
    ///
    /// # Errors
    /// [`Error::Quota`]: this component's RAM quota does not suffice. Other refusals of the PD session.
    pub fn allocate(&self, size: u64) -> Result<GuestRam, Error> {
        let size = size.checked_next_multiple_of(PAGE).ok_or(Error::Quota { wanted: size, available: 0 })?;
        let pd = env::pd();
        let available = self.available()?;
        if available < size {
            return Err(Error::Quota { wanted: size, available });
        }
        let dataspace = pd.alloc(size, ALIGN).map_err(|error| match error {
            SessionError::OutOfRam { .. } => Error::Quota { wanted: size, available },
            other => refused("the allocation of guest memory")(other),
        })?;
        let attached = pd.attach(dataspace.object(), Attach::anywhere(Rights::RW));
        let address = attached.map_err(|error| {
            free(&pd, dataspace);
            refused("the attachment of guest memory to the VMM")(error)
        })?;
        let allocation = Allocation { dataspace, address, size };
        lock(&self.allocations).push(allocation);
        Ok(GuestRam { allocation, allocations: Arc::clone(&self.allocations) })
    }

    /// The allocation that the range lies in.
    fn find(&self, address: u64, size: u64) -> Option<Allocation> {
        let inside = |a: &&Allocation| {
            let offset = address.wrapping_sub(a.address);
            address >= a.address && offset.checked_add(size).is_some_and(|end| end <= a.size)
        };
        lock(&self.allocations).iter().find(inside).copied()
    }
}

fn free(pd: &PdClient<Link>, dataspace: Cap) {
    // What can't be freed stays charged to this component.
    let _ = pd.free(dataspace.object());
    selectors::drop_capability(dataspace.selector);
}

impl Hypervisor for CloisterHypervisor {
    type Vm = CloisterVm;

    fn create_vm(&self) -> Result<CloisterVm, Error> {
        let info = env::cpu().info().map_err(refused("the CPU session"))?;
        let session = session::open("VM", "", "", DONATION).map_err(refused("opening a VM session"))?;
        Ok(CloisterVm {
            session: Arc::new(Session { session, pages: Mutex::default() }),
            hypervisor: self.clone(),
            memory: Memory::default(),
            tsc_hz: info.tsc_hz,
        })
    }

    fn supported_cpuid(&self) -> Result<Vec<kvm_cpuid_entry2>, Error> {
        Ok(cpuid::supported())
    }
}

/// An open VM session. It is closed when the VM and all of its VCPUs are gone.
#[derive(Debug)]
pub struct Session {
    session: session::Session,
    /// Addresses reserved for state pages.
    pages: Mutex<Vec<u64>>,
}

impl Session {
    /// Makes a call, donating more as long as that is what it lacks.
    fn paid<T>(&self, call: impl Fn(&VmClient<Link>) -> Result<T, SessionError>) -> Result<T, SessionError> {
        let client = VmClient(self.session.link());
        for _ in 0..TIMES {
            match call(&client) {
                Err(SessionError::OutOfRam { .. } | SessionError::OutOfCaps { .. }) => self.session.upgrade(MORE)?,
                other => return other,
            }
        }
        call(&client)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // The parent takes the session back from us, whatever it says.
        let _ = self.session.close();
        for address in lock(&self.pages).drain(..) {
            let _ = env::pd().detach(address);
        }
    }
}

/// A virtual machine of the microhypervisor.
#[derive(Debug)]
pub struct CloisterVm {
    session: Arc<Session>,
    hypervisor: CloisterHypervisor,
    memory: Memory,
    tsc_hz: u64,
}

impl Vm for CloisterVm {
    type Vcpu = CloisterVcpu;

    unsafe fn map(&self, region: &MemoryRegion) -> Result<(), Error> {
        let bad = |reason| Error::Region { address: region.guest, size: region.size, reason };
        let found = self.hypervisor.find(region.host, region.size);
        let allocation = found.ok_or_else(|| bad("not memory that was allocated for guests"))?;
        // SAFETY: the caller's word.
        unsafe { self.memory.add(*region) }?;
        let mut rights = Rights::READ;
        rights.set(Rights::WRITE, region.protection.write);
        rights.set(Rights::EXEC, region.protection.execute);
        let offset = region.host.wrapping_sub(allocation.address);
        let place = Attach { offset, size: region.size, address: Some(region.guest), rights };
        let attached = self.session.paid(|vm| vm.attach(allocation.dataspace.object(), place));
        attached.map_err(|error| {
            // It was added above.
            let _ = self.memory.remove(region.guest, region.size);
            let (size, guest) = (region.size, region.guest);
            let why = format!("guest memory of {size} bytes at {guest:#x}: {error}");
            Error::Session { call: "the VM service's attach", why }
        })
    }

    fn unmap(&self, guest: u64, size: u64) -> Result<(), Error> {
        self.memory.remove(guest, size)?;
        self.session.paid(|vm| vm.detach(guest, size)).map_err(refused("the VM service's detach"))
    }

    fn create_vcpu(&self, _id: u32) -> Result<CloisterVcpu, Error> {
        let pd = env::pd();
        let state = pd.reserve(None, PAGE).map_err(refused("reserving an address"))?;
        lock(&self.session.pages).push(state);
        let own = Cap::new(selectors::PD).object();
        let made = self.session.paid(|vm| vm.create_vcpu(own, state, 0));
        let vcpu = made.map_err(refused("the VM service's create_vcpu"))?;
        let address = usize::try_from(state).unwrap_or(0);
        let page = NonNull::new(core::ptr::with_exposed_provenance_mut(address));
        let page = page.ok_or(Error::Unsupported("an address for the state page"))?;
        // SAFETY: core mapped the page there, until the session is closed, which the VCPU keeps open; nobody else knows it.
        let page = unsafe { StatePage::new(page) };
        let calls = Hypercalls::new(vcpu.selector);
        Ok(CloisterVcpu::new(calls, page, self.memory.clone(), Some(Arc::clone(&self.session))))
    }

    fn tsc_khz(&self) -> Result<u32, Error> {
        u32::try_from(self.tsc_hz / 1000).map_err(|_| Error::Unsupported("a time-stamp counter below 4 THz"))
    }
}
