// SPDX-License-Identifier: MIT OR Apache-2.0
//! PD: memory, address space, quota and kernel objects of one component.

use super::Call;
use crate::machine::{Core, ONE, SESSION};
use crate::memory;
use crate::objects::{Caching, Content, Owner, Pd as Session, Purse, Space, Thing};
use crate::{ENTRYPOINT, kernel};
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::ToString;
use alloc::vec::Vec;
use cloister_abi::USER_END;
use cloister_abi::cap::{NONE, Perms, Selector};
use cloister_abi::hypercall::{CreatePt, CreateSm};
use cloister_base::{Cap, Error, ObjectId, selectors};
use cloister_core_model::{AccountId, Regions, pages};
use cloister_session::{Attach, Made, Object, Pd, Quota, Resources, Rights};

/// Where in a component things go that may go anywhere: behind the program.
const ANYWHERE: u64 = 1 << 30;

impl Core {
    /// Opens a PD session.
    pub(crate) fn open_pd(&mut self, donor: AccountId, label: &str, donation: Resources) -> Result<ObjectId, Error> {
        let mut purse = self.open_purse(donor, donation, SESSION)?;
        match self.add_kernel_pd(&mut purse).and_then(|()| self.add_pd(purse, label)) {
            Ok(id) => Ok(id),
            Err(error) => {
                self.close_purse(&purse);
                Err(error)
            }
        }
    }

    fn add_pd(&mut self, purse: Purse, label: &str) -> Result<ObjectId, Error> {
        let kernel = purse.kernel.ok_or(Error::Invalid)?;
        let space = Space { selector: kernel + 2, regions: Regions::new(ANYWHERE, USER_END), charged: 0 };
        self.add(
            None,
            Thing::Pd(Box::new(Session {
                label: label.to_string(),
                purse,
                space,
                dataspaces: Vec::new(),
                threads: Vec::new(),
                vcpus: Vec::new(),
                made: BTreeMap::new(),
                next_handle: 1,
                notification: None,
            })),
        )
    }

    /// Closes a PD session: everything made through it goes.
    pub(crate) fn close_pd(&mut self, id: ObjectId) {
        let Ok(pd) = self.pd_mut(id) else { return };
        let (threads, vcpus) = (core::mem::take(&mut pd.threads), core::mem::take(&mut pd.vcpus));
        let (dataspaces, made) = (core::mem::take(&mut pd.dataspaces), core::mem::take(&mut pd.made));
        let notification = pd.notification.take();
        for thread in threads {
            self.kill_thread(thread);
        }
        for (vm, state) in vcpus {
            self.drop_vcpu(vm, id, state);
        }
        for selector in made.into_values().chain(notification) {
            kernel::destroy(selector);
            selectors::release(selector, 1);
            self.deposit(id, ONE);
        }
        for dataspace in dataspaces {
            self.free_ram(id, dataspace);
        }
        self.forget_space(id);
        if let Some(Thing::Pd(pd)) = self.remove(id) {
            self.close_purse(&pd.purse);
        }
    }

    /// Frees RAM that a PD session allocated.
    fn free_ram(&mut self, id: ObjectId, dataspace: ObjectId) {
        let size = self.dataspace(dataspace).map_or(0, |memory| memory.size);
        let extents = self.remove_dataspace(dataspace);
        self.physical.free(&extents);
        self.deposit(id, Resources { ram: size, caps: 1 });
    }
}

impl Call<'_> {
    /// Makes a kernel object that the PD pays for.
    fn make(&mut self, perms: Perms, create: impl Fn(Selector, Selector) -> kernel::Answer<()>) -> Result<Made, Error> {
        self.core.withdraw(self.id, ONE)?;
        let made = selectors::allocate(1).and_then(|selector| {
            let made = self.core.paid(Some(self.id), |pd| create(selector, pd));
            made.map(|()| selector).inspect_err(|_| selectors::release(selector, 1))
        });
        let selector = made.inspect_err(|_| self.core.deposit(self.id, ONE))?;
        self.core.keep_slack(self.id);
        let pd = self.core.pd_mut(self.id)?;
        let handle = pd.next_handle;
        pd.next_handle += 1;
        pd.made.insert(handle, selector);
        Ok(Made { handle, cap: Cap::new(selector).limited(perms) })
    }

    fn notification_selector(&mut self) -> Result<Selector, Error> {
        if let Some(selector) = self.core.pd(self.id)?.notification {
            return Ok(selector);
        }
        self.core.withdraw(self.id, ONE)?;
        let made = selectors::allocate(1).and_then(|sel| {
            let semaphore = move |pd| kernel::create_sm(&CreateSm { sel, pd, count: 0, target: NONE, bit: 0 });
            self.core.paid(Some(self.id), semaphore).map(|()| sel).inspect_err(|_| selectors::release(sel, 1))
        });
        let selector = made.inspect_err(|_| self.core.deposit(self.id, ONE))?;
        self.core.pd_mut(self.id)?.notification = Some(selector);
        Ok(selector)
    }

    fn account_of(&mut self, pd: Object) -> Result<AccountId, Error> {
        Ok(self.core.pd(ObjectId::from_raw(pd.own()?))?.purse.account)
    }
}

impl Pd for Call<'_> {
    fn alloc(&mut self, size: u64, align: u32) -> Result<Cap, Error> {
        let size = pages(size).filter(|size| *size > 0).ok_or(Error::Invalid)?;
        if !(12..=30).contains(&align) {
            return Err(Error::Invalid);
        }
        let cost = Resources { ram: size, caps: 1 };
        self.core.withdraw(self.id, cost)?;
        let Some(extents) = self.core.physical.allocate(size, align) else {
            self.core.deposit(self.id, cost);
            return Err(Error::OutOfRam { needed: size, available: self.core.physical.free_bytes() });
        };
        memory::zero(&extents);
        let kept = extents.clone();
        let kind = (true, Caching::Cached);
        match self.core.add_dataspace(Some(self.id), Owner::Ram(self.id), extents, kind) {
            Ok(dataspace) => {
                self.core.pd_mut(self.id)?.dataspaces.push(dataspace);
                self.core.keep_slack(self.id);
                self.core.cap(dataspace)
            }
            Err(error) => {
                self.core.physical.free(&kept);
                self.core.deposit(self.id, cost);
                Err(error)
            }
        }
    }

    fn free(&mut self, dataspace: Object) -> Result<(), Error> {
        let which = ObjectId::from_raw(dataspace.own()?);
        if self.core.dataspace(which)?.owner != Owner::Ram(self.id) {
            return Err(Error::Denied);
        }
        self.core.pd_mut(self.id)?.dataspaces.retain(|other| *other != which);
        self.core.free_ram(self.id, which);
        Ok(())
    }

    fn quota(&mut self) -> Result<Quota, Error> {
        let account = self.core.purse(self.id)?.account;
        Ok(self.core.accounts.quota(account))
    }

    fn reference_account(&mut self, pd: Object) -> Result<(), Error> {
        let (account, reference) = (self.core.purse(self.id)?.account, self.account_of(pd)?);
        self.core.accounts.set_reference(account, reference)
    }

    fn transfer_quota(&mut self, pd: Object, amount: Resources) -> Result<(), Error> {
        let (account, other) = (self.core.purse(self.id)?.account, self.account_of(pd)?);
        self.core.accounts.trade(account, other, amount)
    }

    fn attach(&mut self, dataspace: Object, place: Attach) -> Result<u64, Error> {
        let address = self.core.attach(self.id, dataspace, place)?;
        self.core.keep_slack(self.id);
        Ok(address)
    }

    fn detach(&mut self, address: u64) -> Result<(), Error> {
        self.core.detach_at(self.id, address)
    }

    fn reserve(&mut self, address: Option<u64>, size: u64) -> Result<u64, Error> {
        let size = pages(size).ok_or(Error::Invalid)?;
        self.core.can_settle(self.id, 1)?;
        let address = self.core.space(self.id)?.regions.reserve(address, size)?;
        self.core.settle(self.id);
        Ok(address)
    }

    fn alloc_rpc(&mut self, entrypoint: Object, ip: u64, identity: u64) -> Result<Made, Error> {
        let thread = self.core.thread(ObjectId::from_raw(entrypoint.own()?))?;
        // A portal leads into the PD that the entrypoint runs in: only who holds that PD may make one.
        if thread.pd != self.id || thread.global {
            return Err(Error::Invalid);
        }
        let ec = thread.ec;
        self.make(Perms::PT_CALL, |sel, pd| kernel::create_pt(&CreatePt { sel, pd, ec, ip, id: identity }))
    }

    fn alloc_signal(&mut self, bit: u32) -> Result<Made, Error> {
        if bit >= 64 {
            return Err(Error::Invalid);
        }
        let target = self.notification_selector()?;
        let perms = Perms::SM_UP | Perms::SM_DOWN | Perms::SM_BIND;
        self.make(perms, |sel, pd| kernel::create_sm(&CreateSm { sel, pd, count: 0, target, bit }))
    }

    fn alloc_semaphore(&mut self, count: u64) -> Result<Made, Error> {
        let perms = Perms::SM_UP | Perms::SM_DOWN;
        self.make(perms, |sel, pd| kernel::create_sm(&CreateSm { sel, pd, count, target: NONE, bit: 0 }))
    }

    fn free_object(&mut self, handle: u64) -> Result<(), Error> {
        let selector = self.core.pd_mut(self.id)?.made.remove(&handle).ok_or(Error::NotFound)?;
        kernel::destroy(selector);
        selectors::release(selector, 1);
        self.core.deposit(self.id, ONE);
        Ok(())
    }

    fn notification(&mut self) -> Result<Cap, Error> {
        let selector = self.notification_selector()?;
        Ok(Cap::new(selector).limited(Perms::SM_UP | Perms::SM_DOWN))
    }

    fn assign_parent(&mut self, parent: Cap) -> Result<(), Error> {
        let given = self.core.give(self.id, parent.selector, selectors::PARENT, Perms::PT_CALL);
        selectors::drop_capability(parent.selector);
        given
    }

    fn protect(&mut self, address: u64, size: u64, rights: Rights) -> Result<(), Error> {
        self.core.can_settle(self.id, 2)?;
        let space = self.core.space(self.id)?;
        let Some(piece) = space.regions.at(address) else { return Err(Error::NotFound) };
        let Content::Dataspace(shown) = piece.region.what else { return Err(Error::Denied) };
        if rights.contains(Rights::WRITE) && !self.core.dataspace(shown)?.writable {
            return Err(Error::Denied);
        }
        let pieces = self.core.space(self.id)?.regions.protect(address, size, rights)?;
        self.core.settle(self.id);
        self.core.unmap(self.id, &pieces);
        if rights.is_empty() { Ok(()) } else { self.core.map(self.id, &pieces) }
    }
}

const _: () = assert!(ENTRYPOINT < selectors::FIRST_FREE);
