// SPDX-License-Identifier: MIT OR Apache-2.0
//! VM: a guest's memory and virtual CPUs, paid by the session's own donation.

use super::Call;
use crate::kernel;
use crate::machine::{Core, ONE, SESSION};
use crate::objects::{Purse, Space, Thing, Vcpu, Vm as Session};
use alloc::boxed::Box;
use alloc::string::ToString;
use alloc::vec::Vec;
use cloister_abi::cap::{NONE, Perms};
use cloister_abi::hypercall::CreateVcpu;
use cloister_base::{Cap, Error, ObjectId, selectors};
use cloister_core_model::{AccountId, Regions};
use cloister_session::{Attach, Object, Resources, Vm};

/// End of guest-physical memory: what four levels of page tables reach.
const GUEST_END: u64 = 1 << 48;

impl Core {
    /// Opens a VM session.
    pub(crate) fn open_vm(&mut self, donor: AccountId, label: &str, donation: Resources) -> Result<ObjectId, Error> {
        let mut purse = self.open_purse(donor, donation, SESSION)?;
        let made = self.add_kernel_pd(&mut purse).and_then(|()| self.add_vm(purse, label));
        let id = made.inspect_err(|_| self.close_purse(&purse))?;
        match self.make_guest(id) {
            Ok(()) => Ok(id),
            Err(error) => {
                self.close_vm(id);
                Err(error)
            }
        }
    }

    fn add_vm(&mut self, purse: Purse, label: &str) -> Result<ObjectId, Error> {
        let space = Space { selector: NONE, regions: Regions::guest(GUEST_END), charged: 0 };
        self.add(None, Thing::Vm(Box::new(Session { label: label.to_string(), purse, space, vcpus: Vec::new() })))
    }

    fn make_guest(&mut self, id: ObjectId) -> Result<(), Error> {
        let selector = selectors::allocate(1)?;
        let made = self.paid(Some(id), |pd| kernel::create_guest(selector, pd));
        made.inspect_err(|_| selectors::release(selector, 1))?;
        self.vm_mut(id)?.space.selector = selector;
        Ok(())
    }

    /// Closes a VM session.
    pub(crate) fn close_vm(&mut self, id: ObjectId) {
        let Ok(vm) = self.vm_mut(id) else { return };
        let vcpus = core::mem::take(&mut vm.vcpus);
        for vcpu in vcpus {
            self.destroy_vcpu(id, vcpu);
        }
        self.forget_space(id);
        if let Some(Thing::Vm(vm)) = self.remove(id) {
            if vm.space.selector != NONE {
                kernel::destroy(vm.space.selector);
                selectors::release(vm.space.selector, 1);
            }
            self.close_purse(&vm.purse);
        }
    }

    fn destroy_vcpu(&mut self, vm: ObjectId, vcpu: Vcpu) {
        kernel::destroy(vcpu.selector);
        selectors::release(vcpu.selector, 1);
        self.drop_kernel_page(vcpu.pd, vcpu.state);
        self.deposit(vm, ONE);
        if let Ok(pd) = self.pd_mut(vcpu.pd) {
            pd.vcpus.retain(|(_, state)| *state != vcpu.state);
        }
    }

    /// Destroys the virtual CPU whose state page is in a PD that goes.
    pub(crate) fn drop_vcpu(&mut self, vm: ObjectId, pd: ObjectId, state: u64) {
        let Ok(session) = self.vm_mut(vm) else { return };
        let found = session.vcpus.iter().position(|vcpu| vcpu.pd == pd && vcpu.state == state);
        if let Some(index) = found {
            let vcpu = session.vcpus.remove(index);
            self.destroy_vcpu(vm, vcpu);
        }
    }

    fn make_vcpu(&mut self, vm: ObjectId, pd: ObjectId, state: u64, core: u32) -> Result<Cap, Error> {
        let (guest, host) = (self.vm(vm)?.space.selector, self.pd(pd)?.space.selector);
        let sel = selectors::allocate(1)?;
        // The state page is mapped with tables of the PD; the tables must be there, so the PD pays when they are not.
        self.keep_slack(pd);
        let create = |payer| kernel::create_vcpu(&CreateVcpu { sel, pd: payer, guest, host, address: state, core });
        self.paid(Some(vm), create).inspect_err(|_| selectors::release(sel, 1))?;
        self.vm_mut(vm)?.vcpus.push(Vcpu { selector: sel, pd, state });
        self.pd_mut(pd)?.vcpus.push((vm, state));
        Ok(Cap::new(sel).limited(Perms::VCPU_RUN | Perms::VCPU_KICK))
    }
}

impl Vm for Call<'_> {
    fn attach(&mut self, dataspace: Object, place: Attach) -> Result<(), Error> {
        if place.address.is_none() {
            return Err(Error::Invalid);
        }
        self.core.attach(self.id, dataspace, place).map(|_| ())
    }

    fn detach(&mut self, address: u64, size: u64) -> Result<(), Error> {
        self.core.can_settle(self.id, 1)?;
        let pieces = self.core.space(self.id)?.regions.detach_range(address, size)?;
        self.core.detached(self.id, &pieces);
        Ok(())
    }

    fn create_vcpu(&mut self, pd: Object, state: u64, core: u32) -> Result<Cap, Error> {
        let pd = ObjectId::from_raw(pd.own()?);
        self.core.pd(pd)?;
        self.core.withdraw(self.id, ONE)?;
        let made = self.core.kernel_page(pd, Some(state)).and_then(|state| {
            self.core.make_vcpu(self.id, pd, state, core).inspect_err(|_| self.core.drop_kernel_page(pd, state))
        });
        made.inspect_err(|_| self.core.deposit(self.id, ONE))
    }
}
