// SPDX-License-Identifier: MIT OR Apache-2.0
//! A VM session that wraps another one and lets no more guest memory through than it likes.
//!
//! This is interposition at its smallest: the client sees the interface that it knows, under the name that it knows, and
//! the refusal is an error like one of core's. The program around it (`main.rs`) hosts a VMM by the sandbox library;
//! the VMM is the one that also runs directly under init.
#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use cloister_base::sessions::{Attach, DataspaceClient, Transport, Vm, VmClient};
use cloister_base::{Cap, Error, Object};

/// How the wrapper reaches objects that it was shown, and gives capabilities free.
pub trait Reach {
    /// Carries calls to an object.
    type Transport: Transport;

    /// A transport to the object behind a capability.
    fn link(&self, cap: Cap) -> Self::Transport;

    /// Gives a capability free.
    fn drop(&self, cap: Cap);
}

/// A wrapped VM session.
#[derive(Debug)]
pub struct LimitedVm<R: Reach> {
    reach: R,
    inner: VmClient<R::Transport>,
    limit: u64,
    /// What is attached: size by guest-physical address.
    attached: BTreeMap<u64, u64>,
    /// Our own capabilities to what the client got.
    vcpus: Vec<Cap>,
}

impl<R: Reach> LimitedVm<R> {
    /// Wraps `inner` so that at most `limit` bytes are attached at a time.
    pub fn new(reach: R, inner: R::Transport, limit: u64) -> Self {
        Self { reach, inner: VmClient(inner), limit, attached: BTreeMap::new(), vcpus: Vec::new() }
    }

    /// Gives free what the wrapper holds, at the end of the session.
    pub fn release(&mut self) {
        for vcpu in self.vcpus.drain(..) {
            self.reach.drop(vcpu);
        }
    }

    fn total(&self) -> u64 {
        self.attached.values().fold(0, |sum, size| sum.saturating_add(*size))
    }

    fn attach_within(&mut self, dataspace: Cap, place: Attach) -> Result<(), Error> {
        let address = place.address.ok_or(Error::Invalid)?;
        let size = match place.size {
            0 => DataspaceClient(self.reach.link(dataspace)).info()?.size.saturating_sub(place.offset),
            size => size,
        };
        let needed = self.total().saturating_add(size);
        if needed > self.limit {
            log::error!("refused {size} bytes of guest memory at {address:#x}: {needed} of {} bytes", self.limit);
            // Not `OutOfRam`: a larger donation would not help.
            return Err(Error::Denied);
        }
        self.inner.attach(dataspace.object(), place)?;
        self.attached.insert(address, size);
        Ok(())
    }
}

impl<R: Reach> Vm for LimitedVm<R> {
    fn attach(&mut self, dataspace: Object, place: Attach) -> Result<(), Error> {
        let Object::Cap(dataspace) = dataspace else { return Err(Error::Invalid) };
        let done = self.attach_within(dataspace, place);
        self.reach.drop(dataspace);
        done
    }

    fn detach(&mut self, address: u64, size: u64) -> Result<(), Error> {
        self.inner.detach(address, size)?;
        let end = address.saturating_add(size);
        // An attachment of which a part remains counts in full: rather too much than too little.
        self.attached.retain(|start, size| *start < address || start.saturating_add(*size) > end);
        Ok(())
    }

    fn create_vcpu(&mut self, pd: Object, state: u64, core: u32) -> Result<Cap, Error> {
        let Object::Cap(pd) = pd else { return Err(Error::Invalid) };
        let vcpu = self.inner.create_vcpu(pd.object(), state, core);
        self.reach.drop(pd);
        self.vcpus.extend(vcpu);
        vcpu
    }
}

#[cfg(test)]
mod tests {
    use super::{LimitedVm, Reach};
    use cloister_base::sessions::testing::Loopback;
    use cloister_base::sessions::{
        Attach, Dataspace, DataspaceInfo, DataspaceServer, Decoder, Encoder, Rights, Vm, VmServer,
    };
    use cloister_base::{Cap, Error, Object};
    use core::cell::RefCell;
    use std::boxed::Box;
    use std::rc::Rc;
    use std::vec::Vec;

    type Server = Box<dyn FnMut(&mut Decoder<'_>, &mut Encoder<'_>)>;

    /// What arrives at the real VM session.
    #[derive(Default)]
    struct Core {
        attached: Vec<u64>,
        fail: bool,
    }

    struct RealVm(Rc<RefCell<Core>>);

    impl Vm for RealVm {
        fn attach(&mut self, _: Object, place: Attach) -> Result<(), Error> {
            if self.0.borrow().fail {
                return Err(Error::Conflict);
            }
            self.0.borrow_mut().attached.push(place.address.unwrap_or(0));
            Ok(())
        }
        fn detach(&mut self, address: u64, _: u64) -> Result<(), Error> {
            self.0.borrow_mut().attached.retain(|start| *start != address);
            Ok(())
        }
        fn create_vcpu(&mut self, _: Object, _: u64, core: u32) -> Result<Cap, Error> {
            Ok(Cap::new(100 + core))
        }
    }

    struct Memory;

    impl Dataspace for Memory {
        fn info(&mut self) -> Result<DataspaceInfo, Error> {
            Ok(DataspaceInfo { size: 48 << 20, writable: true, page: 21 })
        }
    }

    #[derive(Default)]
    struct Model(Rc<RefCell<Vec<u32>>>);

    impl Reach for Model {
        type Transport = Loopback<Server>;
        fn link(&self, _: Cap) -> Loopback<Server> {
            Loopback::new(Box::new(|request, reply| DataspaceServer::dispatch(&mut Memory, request, reply)))
        }
        fn drop(&self, cap: Cap) {
            self.0.borrow_mut().push(cap.selector);
        }
    }

    fn place(address: u64, size: u64) -> Attach {
        Attach { offset: 0, size, address: Some(address), rights: Rights::RW }
    }

    type Shared<T> = Rc<RefCell<T>>;

    fn world() -> (LimitedVm<Model>, Shared<Core>, Shared<Vec<u32>>) {
        let (core, dropped) = (Rc::new(RefCell::new(Core::default())), Rc::default());
        let mut real = RealVm(Rc::clone(&core));
        let server: Server = Box::new(move |request, reply| VmServer::dispatch(&mut real, request, reply));
        (LimitedVm::new(Model(Rc::clone(&dropped)), Loopback::new(server), 64 << 20), core, dropped)
    }

    #[test]
    fn memory_within_the_limit_goes_through_and_more_does_not() {
        let (mut vm, core, dropped) = world();
        let memory = Cap::new(30).object();
        assert_eq!(vm.attach(memory, place(0, 32 << 20)), Ok(()));
        assert_eq!(vm.attach(memory, place(1 << 30, 0)), Err(Error::Denied), "the size of the dataspace counts");
        assert_eq!(vm.attach(memory, place(1 << 30, 32 << 20)), Ok(()));
        assert!(vm.attach(memory, place(2 << 30, 4096)).is_err());
        assert!(vm.attach(memory, place(2 << 30, u64::MAX)).is_err(), "no wrapping");
        assert_eq!(core.borrow().attached, [0, 1 << 30]);
        assert_eq!(vm.detach(0, 32 << 20), Ok(()));
        assert_eq!(vm.attach(memory, place(2 << 30, 32 << 20)), Ok(()));
        assert_eq!(dropped.borrow().len(), 6, "no capability is kept");
    }

    #[test]
    fn what_core_refuses_is_refused_and_not_counted() {
        let (mut vm, core, dropped) = world();
        core.borrow_mut().fail = true;
        assert_eq!(vm.attach(Cap::new(30).object(), place(0, 64 << 20)), Err(Error::Conflict));
        core.borrow_mut().fail = false;
        assert_eq!(vm.attach(Cap::new(30).object(), place(0, 64 << 20)), Ok(()));
        assert_eq!(vm.attach(Object::Nothing, place(0, 1)), Err(Error::Invalid));
        assert_eq!(vm.create_vcpu(Cap::new(31).object(), 0, 2).map(|cap| cap.selector), Ok(102));
        vm.release();
        assert_eq!(*dropped.borrow(), [30, 30, 31, 102]);
    }
}
