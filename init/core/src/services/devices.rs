// SPDX-License-Identifier: MIT OR Apache-2.0
//! IO_MEM, IO_PORT, IRQ: parts of the machine that one session has at a time.

use super::Call;
use crate::machine::{Core, MEMORY_SESSION, SESSION};
use crate::objects::{Caching, IoMem as MemorySession, IoPort as PortSession, Irq as IrqSession, Owner, Thing};
use crate::{kernel, memory};
use alloc::vec::Vec;
use cloister_abi::hypercall::IrqFlags;
use cloister_base::{Cap, Error, ObjectId, selectors};
use cloister_core_model::{AccountId, Extent, PAGE, chunks};
use cloister_session::{IoMem, IoPort, Irq, Object, Resources, argument, number};

impl Core {
    /// Opens an IO_MEM session.
    pub(crate) fn open_io_mem(&mut self, donor: AccountId, args: &str, donation: Resources) -> Result<ObjectId, Error> {
        let (Some(base), Some(size)) = (number(args, "base"), number(args, "size")) else { return Err(Error::Invalid) };
        let end = base.checked_add(size).and_then(|end| end.checked_next_multiple_of(PAGE)).ok_or(Error::Invalid)?;
        let first = base & !(PAGE - 1);
        if size == 0 || !memory::is_device(self.hip, first, end - first) {
            return Err(Error::Denied);
        }
        let purse = self.open_purse(donor, donation, MEMORY_SESSION)?;
        let made = self.devices.take(first, end - first).and_then(|()| {
            let combining = argument(args, "wc") == Some("1");
            let caching = if combining { Caching::WriteCombining } else { Caching::Uncached };
            let extents = Vec::from([Extent { base: first, size: end - first }]);
            let made = self.add_dataspace(None, Owner::Session, extents, (true, caching)).and_then(|dataspace| {
                let session = MemorySession { purse, base: first, dataspace };
                self.add(None, Thing::IoMem(session)).inspect_err(|_| drop(self.remove_dataspace(dataspace)))
            });
            made.inspect_err(|_| self.devices.give(first))
        });
        made.inspect_err(|_| self.close_purse(&purse))
    }

    /// Opens an IO_PORT session.
    pub(crate) fn open_io_port(
        &mut self,
        donor: AccountId,
        args: &str,
        donation: Resources,
    ) -> Result<ObjectId, Error> {
        let (Some(base), Some(size)) = (number(args, "base"), number(args, "size")) else { return Err(Error::Invalid) };
        if size == 0 || base >= 1 << 16 || size > (1 << 16) - base {
            return Err(Error::Invalid);
        }
        let purse = self.open_purse(donor, donation, SESSION)?;
        let made = self.ports.take(base, size).and_then(|()| {
            let session = PortSession { purse, base, size, mapped: Vec::new() };
            self.add(None, Thing::IoPort(session)).inspect_err(|_| self.ports.give(base))
        });
        made.inspect_err(|_| self.close_purse(&purse))
    }

    /// Opens an IRQ session.
    pub(crate) fn open_irq(&mut self, donor: AccountId, args: &str, donation: Resources) -> Result<ObjectId, Error> {
        let gsi = number(args, "gsi").and_then(|gsi| u32::try_from(gsi).ok()).ok_or(Error::Invalid)?;
        if gsi >= self.hip.interrupts {
            return Err(Error::NotFound);
        }
        let mut flags = IrqFlags::empty();
        flags.set(IrqFlags::LEVEL, argument(args, "trigger") == Some("level"));
        flags.set(IrqFlags::LOW, argument(args, "polarity") == Some("low"));
        flags.set(IrqFlags::EXPLICIT, argument(args, "trigger").is_some());
        let purse = self.open_purse(donor, donation, SESSION)?;
        let made = self.interrupts.take(gsi.into(), 1).and_then(|()| {
            let session = IrqSession { purse, gsi, flags: flags.bits(), signal: None };
            self.add(None, Thing::Irq(session)).inspect_err(|_| self.interrupts.give(gsi.into()))
        });
        made.inspect_err(|_| self.close_purse(&purse))
    }

    /// Closes an IO_MEM, IO_PORT or IRQ session.
    pub(crate) fn close_device(&mut self, id: ObjectId) {
        match self.remove(id) {
            Some(Thing::IoMem(session)) => {
                drop(self.remove_dataspace(session.dataspace));
                self.devices.give(session.base);
                self.close_purse(&session.purse);
            }
            Some(Thing::IoPort(session)) => {
                for pd in session.mapped {
                    self.forbid_ports(pd, session.base, session.size);
                }
                self.ports.give(session.base);
                self.close_purse(&session.purse);
            }
            Some(Thing::Irq(session)) => {
                if let Some(signal) = session.signal {
                    selectors::drop_capability(signal.selector);
                }
                self.interrupts.give(session.gsi.into());
                self.close_purse(&session.purse);
            }
            _ => {}
        }
    }

    fn forbid_ports(&mut self, pd: ObjectId, base: u64, size: u64) {
        let Some(kernel) = self.pd(pd).ok().and_then(|pd| pd.purse.kernel) else { return };
        for chunk in chunks(base, base, size) {
            let _ = kernel::unmap(kernel + 3, chunk);
        }
    }
}

impl IoMem for Call<'_> {
    fn dataspace(&mut self) -> Result<Cap, Error> {
        let dataspace = self.core.io_mem_mut(self.id)?.dataspace;
        self.core.cap(dataspace)
    }
}

impl IoPort for Call<'_> {
    fn map(&mut self, pd: Object) -> Result<(), Error> {
        let pd = ObjectId::from_raw(pd.own()?);
        self.core.pd(pd)?;
        let session = self.core.io_port_mut(self.id)?;
        let (base, size) = (session.base, session.size);
        if !session.mapped.contains(&pd) {
            session.mapped.push(pd);
        }
        for chunk in chunks(base, base, size) {
            self.core.paid(Some(pd), |kernel| kernel::allow_ports(kernel + 3, chunk))?;
        }
        Ok(())
    }
}

impl Irq for Call<'_> {
    fn bind(&mut self, signal: Cap) -> Result<(), Error> {
        let session = self.core.irq_mut(self.id)?;
        if session.signal.is_some() {
            selectors::drop_capability(signal.selector);
            return Err(Error::Conflict);
        }
        let bound = kernel::bind_interrupt(signal.selector, session.gsi, session.flags);
        if let Err(status) = bound {
            selectors::drop_capability(signal.selector);
            return Err(Error::Kernel(status));
        }
        session.signal = Some(signal);
        Ok(())
    }
}
