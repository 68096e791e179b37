// SPDX-License-Identifier: MIT OR Apache-2.0
//! Core's state, and the basics that all services use: objects with portals, paying, mapping.

use crate::firmware;
use crate::kernel;
use crate::memory;
use crate::objects::{Caching, Content, Dataspace, Entry, Owner, Purse, Space, Thing};
use crate::services::cpu::PRIORITIES;
use crate::{ENTRYPOINT, label};
use alloc::vec::Vec;
use cloister_abi::cap::{Perms, Selector};
use cloister_abi::hip::{Hip, ROOT_PD};
use cloister_abi::hypercall::CreatePt;
use cloister_abi::status::Status;
use cloister_base::{Cap, Error, ObjectId, Registry, entry, selectors};
use cloister_boot_image::BootImage;
use cloister_core_model::{AccountId, Accounts, Extent, PAGE, Physical, Ranges};
use cloister_session::Resources;

/// Capabilities in all. Core's heap must be able to pay for as many objects.
pub(crate) const CAPS: u64 = 32_768;
/// Kernel memory goes to a PD in such steps, bytes.
const STEP: u64 = 16 << 10;
/// A PD keeps at least so much kernel memory at hand, for capabilities that it receives, bytes.
const SLACK: u64 = 8 << 10;
/// What each session costs: bookkeeping, portal.
pub(crate) const SESSION: Resources = Resources { ram: 4096, caps: 1 };
/// What a session with a dataspace costs.
pub(crate) const MEMORY_SESSION: Resources = Resources { ram: 4096, caps: 2 };
/// One capability.
pub(crate) const ONE: Resources = Resources { ram: 0, caps: 1 };

/// The machine, made into objects.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) hip: &'static Hip,
    pub(crate) image: BootImage<'static>,
    pub(crate) firmware: Vec<firmware::Module>,
    pub(crate) physical: Physical,
    pub(crate) ram: u64,
    pub(crate) accounts: Accounts,
    pub(crate) root: AccountId,
    pub(crate) objects: Registry<Entry>,
    pub(crate) ports: Ranges,
    pub(crate) devices: Ranges,
    pub(crate) interrupts: Ranges,
}

impl Core {
    /// Takes stock of the machine.
    pub(crate) fn new(hip: &'static Hip, heap: Extent, image: BootImage<'static>) -> Self {
        let mut physical = memory::free_memory(hip, heap);
        let firmware = firmware::modules(hip, &mut physical);
        let ram = physical.free_bytes();
        let mut accounts = Accounts::new();
        let root = accounts.endow(Resources { ram, caps: CAPS });
        Self {
            hip,
            image,
            firmware,
            physical,
            ram,
            accounts,
            root,
            // Reserved at once: core's heap must not have to find room for a copy of it later.
            objects: Registry::with_capacity(memory::length(CAPS)),
            ports: Ranges::new(),
            devices: Ranges::new(),
            interrupts: Ranges::new(),
        }
    }

    /// A module of the boot image, or of what the firmware left: physical address and size.
    pub(crate) fn module(&self, name: &str) -> Option<(u64, u64)> {
        if let Some(module) = self.firmware.iter().find(|module| module.name == name) {
            return Some((module.base, module.size));
        }
        let entry = self.image.directory().find(name)?;
        let module = self.image.find(name)?;
        Some((self.hip.image_base + entry.offset, module.data.len() as u64))
    }

    // ---- objects

    /// Adds an object with a portal that `payer` (none: core) pays for.
    pub(crate) fn add(&mut self, payer: Option<ObjectId>, object: Thing) -> Result<ObjectId, Error> {
        let portal = selectors::allocate(1)?;
        let id = self.objects.insert(Entry { portal, object })?;
        let made = self.paid(payer, |pd| {
            kernel::create_pt(&CreatePt { sel: portal, pd, ec: ENTRYPOINT, ip: entry::address(), id: id.to_raw() })
        });
        match made {
            Ok(()) => Ok(id),
            Err(error) => {
                selectors::release(portal, 1);
                self.objects.remove(id);
                Err(error)
            }
        }
    }

    /// Takes an object out and destroys its portal.
    pub(crate) fn remove(&mut self, id: ObjectId) -> Option<Thing> {
        let entry = self.objects.remove(id)?;
        kernel::destroy(entry.portal);
        selectors::release(entry.portal, 1);
        Some(entry.object)
    }

    /// The capability to an object that its client gets: it can be called.
    pub(crate) fn cap(&self, id: ObjectId) -> Result<Cap, Error> {
        self.objects.get(id).map(|entry| Cap::portal(entry.portal)).ok_or(Error::NoSuchObject)
    }

    /// What pays for a session, or for a region map.
    pub(crate) fn purse(&mut self, id: ObjectId) -> Result<&mut Purse, Error> {
        let id = self.region_map(id).map_or(id, |map| map.session);
        self.objects.get_mut(id).and_then(|entry| entry.object.purse()).ok_or(Error::NoSuchObject)
    }

    fn account(&mut self, id: ObjectId) -> Result<AccountId, Error> {
        self.purse(id).map(|purse| purse.account)
    }

    // ---- paying

    /// Uses some of a session's account.
    pub(crate) fn withdraw(&mut self, id: ObjectId, amount: Resources) -> Result<(), Error> {
        let account = self.account(id)?;
        self.accounts.withdraw(account, amount)
    }

    /// Gives back what was used.
    pub(crate) fn deposit(&mut self, id: ObjectId, amount: Resources) {
        if let Ok(account) = self.account(id) {
            self.accounts.deposit(account, amount);
        }
    }

    /// Makes something for which the kernel PD of `payer` pays (none: core's own), which gets more kernel memory out of its
    /// account as long as it runs out.
    pub(crate) fn paid<R>(
        &mut self,
        payer: Option<ObjectId>,
        attempt: impl Fn(Selector) -> Result<R, Status>,
    ) -> Result<R, Error> {
        let kernel = match payer {
            None => ROOT_PD,
            Some(id) => self.purse(id)?.kernel.ok_or(Error::Invalid)?,
        };
        loop {
            match (attempt(kernel), payer) {
                (Ok(value), _) => return Ok(value),
                (Err(Status::OutOfBudget), Some(id)) => self.grow(id, kernel)?,
                (Err(Status::Busy), _) => return Err(Error::Conflict),
                (Err(other), _) => return Err(Error::Kernel(other)),
            }
        }
    }

    /// Gives a kernel PD more budget out of its session's account.
    fn grow(&mut self, id: ObjectId, kernel: Selector) -> Result<(), Error> {
        let amount = Resources { ram: STEP, caps: 0 };
        self.withdraw(id, amount)?;
        if kernel::move_budget(kernel, STEP).is_err() {
            // The kernel's memory is used up: nobody's quota can help.
            self.deposit(id, amount);
            return Err(Error::Kernel(Status::OutOfMemory));
        }
        self.purse(id)?.budget += STEP;
        Ok(())
    }

    /// Keeps some kernel memory at hand for a PD that is about to receive capabilities.
    pub(crate) fn keep_slack(&mut self, id: ObjectId) {
        let Some(kernel) = self.purse(id).ok().and_then(|purse| purse.kernel) else { return };
        if kernel::budget_left(kernel).is_ok_and(|left| left < SLACK) {
            // Without quota there is no slack; who needs it then gets the error.
            let _ = self.grow(id, kernel);
        }
    }

    /// Opens a purse for a session of these costs.
    pub(crate) fn open_purse(
        &mut self,
        donor: AccountId,
        donation: Resources,
        overhead: Resources,
    ) -> Result<Purse, Error> {
        let account = self.accounts.open(donor, donation)?;
        if let Err(error) = self.accounts.withdraw(account, overhead) {
            self.accounts.close(account, donation);
            return Err(error);
        }
        Ok(Purse { account, donation, overhead, kernel: None, budget: 0 })
    }

    /// Gives a purse a kernel PD.
    pub(crate) fn add_kernel_pd(&mut self, purse: &mut Purse) -> Result<(), Error> {
        let selector = selectors::allocate(4)?;
        let mut budget = 2 * STEP;
        loop {
            let amount = Resources { ram: budget, caps: 0 };
            let made = self.accounts.withdraw(purse.account, amount).and_then(|()| {
                kernel::create_pd(selector, budget, PRIORITIES).map_err(|status| {
                    self.accounts.deposit(purse.account, amount);
                    Error::Kernel(status)
                })
            });
            match made {
                Ok(()) => break,
                Err(Error::Kernel(Status::OutOfBudget)) if budget < 1 << 20 => budget *= 2,
                Err(error) => {
                    selectors::release(selector, 4);
                    return Err(error);
                }
            }
        }
        purse.kernel = Some(selector);
        purse.budget = budget;
        Ok(())
    }

    /// Closes a purse: destroys its kernel PD, and gives everything back.
    pub(crate) fn close_purse(&mut self, purse: &Purse) {
        if let Some(kernel) = purse.kernel {
            kernel::destroy(kernel);
            kernel::drop(kernel, 4);
            selectors::release(kernel, 4);
        }
        self.accounts.deposit(purse.account, Resources { ram: purse.budget, caps: 0 });
        self.accounts.deposit(purse.account, purse.overhead);
        self.accounts.close(purse.account, purse.donation);
    }

    // ---- dataspaces

    /// Adds a dataspace whose portal `payer` pays for.
    pub(crate) fn add_dataspace(
        &mut self,
        payer: Option<ObjectId>,
        owner: Owner,
        extents: Vec<Extent>,
        (writable, caching): (bool, Caching),
    ) -> Result<ObjectId, Error> {
        let size = extents.iter().map(|extent| extent.size).sum();
        let align =
            extents.iter().map(|extent| (extent.base | extent.size | 1 << 30).trailing_zeros()).min().unwrap_or(12);
        // What lies in one piece can be mapped with pages as large as its start is aligned.
        let align = if extents.len() == 1 { align.max(largest_page(extents[0])) } else { align };
        let dataspace = Dataspace { owner, extents, size, align, writable, caching, map: None, attached: Vec::new() };
        self.add(payer, Thing::Dataspace(dataspace))
    }

    /// Removes a dataspace from wherever it is attached, and from the world. Its memory is the caller's to free.
    pub(crate) fn remove_dataspace(&mut self, id: ObjectId) -> Vec<Extent> {
        let Ok(dataspace) = self.dataspace_mut(id) else { return Vec::new() };
        let attached = core::mem::take(&mut dataspace.attached);
        for place in attached {
            let Ok(space) = self.space(place) else { continue };
            let pieces = space.regions.detach_all(Content::Dataspace(id));
            self.unmap(place, &pieces);
            self.settle(place);
        }
        match self.remove(id) {
            Some(Thing::Dataspace(dataspace)) => dataspace.extents,
            _ => Vec::new(),
        }
    }

    /// Where a dataspace is from an offset on: physical address, and bytes in a row.
    pub(crate) fn locate(&self, id: ObjectId, offset: u64) -> Result<(u64, u64), Error> {
        let mut left = offset;
        for extent in &self.dataspace(id)?.extents {
            if left < extent.size {
                return Ok((extent.base + left, extent.size - left));
            }
            left -= extent.size;
        }
        Err(Error::Invalid)
    }

    // ---- address spaces

    pub(crate) fn space(&mut self, id: ObjectId) -> Result<&mut Space, Error> {
        self.objects.get_mut(id).and_then(|entry| entry.object.space()).ok_or(Error::NoSuchObject)
    }

    /// Whether an account can pay for what a change of an address space may cost.
    pub(crate) fn can_settle(&mut self, id: ObjectId, caps: u64) -> Result<(), Error> {
        let account = self.account(id)?;
        let available = self.accounts.quota(account).caps_available();
        if available < caps { Err(Error::OutOfCaps { needed: caps, available }) } else { Ok(()) }
    }

    /// Charges, or gives back, what the bookkeeping of an address space costs now.
    pub(crate) fn settle(&mut self, id: ObjectId) {
        let Ok(space) = self.space(id) else { return };
        let (count, charged) = (space.regions.count(), space.charged);
        let done = if count > charged {
            self.withdraw(id, Resources { ram: 0, caps: count - charged }).is_ok()
        } else {
            self.deposit(id, Resources { ram: 0, caps: charged - count });
            true
        };
        if let (true, Ok(space)) = (done, self.space(id)) {
            space.charged = count;
        }
    }

    /// Who a session belongs to.
    pub(crate) fn label(&self, id: ObjectId) -> alloc::string::String {
        label::of(self.objects.get(id).map(|entry| &entry.object))
    }

    /// Gives a capability to another component's object space.
    pub(crate) fn give(&mut self, id: ObjectId, from: Selector, to: Selector, perms: Perms) -> Result<(), Error> {
        self.paid(Some(id), |kernel| kernel::give(kernel + 1, from, to, perms))
    }
}

fn largest_page(extent: Extent) -> u32 {
    let size = extent.size.max(PAGE).ilog2();
    let page = if size >= 21 { 21 } else { 12 };
    extent.base.trailing_zeros().min(page).max(12)
}

/// Most bytes of core's heap that one capability may cost: the place in the registry and what hangs on it.
const _: () = assert!(size_of::<Entry>() as u64 * CAPS < memory::HEAP_SIZE / 3);
