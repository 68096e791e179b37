// SPDX-License-Identifier: MIT OR Apache-2.0
//! Core as the parent of init: opens core's services, at once.

use super::Call;
use crate::kernel;
use crate::machine::Core;
use crate::objects::{Session, Thing};
use cloister_base::{Cap, Error, ObjectId, selectors};
use cloister_core_model::AccountId;
use cloister_session::{
    ARGS, Affinity, LABEL, Parent, ParentSignal, Resources, SessionRequest, SessionResponse, id as environment,
};

impl Core {
    /// Opens a session of one of core's services.
    pub(crate) fn open(
        &mut self,
        donor: AccountId,
        service: &str,
        (label, args): (&str, &str),
        donation: Resources,
    ) -> Result<ObjectId, Error> {
        let opened = match service {
            "PD" => self.open_pd(donor, label, donation),
            "CPU" => self.open_cpu(donor, label, args, donation),
            "LOG" => self.open_log(donor, label, donation),
            "ROM" => self.open_rom(donor, label, donation),
            "VM" => self.open_vm(donor, label, donation),
            "RM" => self.open_rm(donor, donation),
            "IO_MEM" => self.open_io_mem(donor, args, donation),
            "IO_PORT" => self.open_io_port(donor, args, donation),
            "IRQ" => self.open_irq(donor, args, donation),
            "Timer" => self.open_timer(donor, donation),
            "Platform" => self.open_platform(donor, label, donation),
            _ => Err(Error::NotFound),
        };
        opened.inspect_err(|error| {
            if !matches!(error, Error::OutOfRam { .. } | Error::OutOfCaps { .. }) {
                log::warn!("{label}: {service} session ({args}) refused: {error}");
            }
        })
    }

    /// Closes a session.
    pub(crate) fn close(&mut self, id: ObjectId) {
        match self.objects.get(id).map(|entry| &entry.object) {
            Some(Thing::Pd(_)) => self.close_pd(id),
            Some(Thing::Cpu(_)) => self.close_cpu(id),
            Some(Thing::Vm(_)) => self.close_vm(id),
            Some(Thing::Rm(_)) => self.close_rm(id),
            Some(Thing::Timer(_)) => self.close_timer(id),
            Some(Thing::IoMem(_) | Thing::IoPort(_) | Thing::Irq(_)) => self.close_device(id),
            Some(Thing::Rom(_) | Thing::Log(_) | Thing::Platform(_)) => self.close_small(id),
            Some(Thing::Parent(_) | Thing::Thread(_) | Thing::Dataspace(_) | Thing::RegionMap(_)) | None => {}
        }
    }
}

impl Parent for Call<'_> {
    fn session(
        &mut self,
        id: u64,
        service: &str,
        label: &str,
        args: &str,
        donation: Resources,
        _: Affinity,
    ) -> Result<Option<Cap>, Error> {
        let parent = self.core.parent(self.id)?;
        if id < environment::FIRST_FREE || label.len() > LABEL || args.len() > ARGS {
            return Err(Error::Invalid);
        }
        if parent.sessions.contains_key(&id) {
            return Err(Error::Conflict);
        }
        let account = parent.account;
        let object = self.core.open(account, service, (label, args), donation)?;
        self.core.parent_mut(self.id)?.sessions.insert(id, Session { object, environment: false });
        self.core.cap(object).map(Some)
    }

    fn session_cap(&mut self, id: u64) -> Result<Option<Cap>, Error> {
        let session = self.core.parent(self.id)?.sessions.get(&id).copied();
        self.core.cap(session.ok_or(Error::NotFound)?.object).map(Some)
    }

    fn upgrade(&mut self, id: u64, donation: Resources) -> Result<(), Error> {
        let parent = self.core.parent(self.id)?;
        let (donor, session) = (parent.account, parent.sessions.get(&id).copied().ok_or(Error::NotFound)?);
        let account = self.core.purse(session.object)?.account;
        if account == donor {
            return Err(Error::Invalid);
        }
        self.core.accounts.transfer(donor, account, donation)?;
        let purse = self.core.purse(session.object)?;
        purse.donation.ram += donation.ram;
        purse.donation.caps += donation.caps;
        Ok(())
    }

    fn close(&mut self, id: u64) -> Result<(), Error> {
        let parent = self.core.parent_mut(self.id)?;
        let session = parent.sessions.get(&id).copied().ok_or(Error::NotFound)?;
        if session.environment {
            return Err(Error::Denied);
        }
        parent.sessions.remove(&id);
        self.core.close(session.object);
        Ok(())
    }

    fn announce(&mut self, service: &str) -> Result<(), Error> {
        log::warn!("init announces \"{service}\", but there is nobody above it to use that");
        Ok(())
    }

    fn session_request(&mut self, _: u64) -> Result<Option<SessionRequest>, Error> {
        Ok(None)
    }

    fn deliver_session_cap(&mut self, _: u64, session: Cap) -> Result<(), Error> {
        selectors::drop_capability(session.selector);
        Err(Error::NotFound)
    }

    fn session_response(&mut self, _: u64, _: SessionResponse) -> Result<(), Error> {
        Err(Error::NotFound)
    }

    fn exit(&mut self, code: i64, reason: &str) -> Result<(), Error> {
        log::info!("init exited with {code}: {reason}");
        kernel::power_off(code.cast_unsigned() & 0xff);
        Err(Error::Unsupported)
    }

    fn resource_request(&mut self, wanted: Resources) -> Result<(), Error> {
        log::warn!("init asks for {} bytes and {} capabilities more, which do not exist", wanted.ram, wanted.caps);
        Ok(())
    }

    fn yield_request(&mut self) -> Result<Resources, Error> {
        Ok(Resources::default())
    }

    fn yield_response(&mut self) -> Result<(), Error> {
        Ok(())
    }

    fn signal_handler(&mut self, _: ParentSignal, handler: Option<Cap>) -> Result<(), Error> {
        // Core answers at once, and wants nothing back: there is never news.
        if let Some(handler) = handler {
            selectors::drop_capability(handler.selector);
        }
        Ok(())
    }

    fn heartbeat_response(&mut self) -> Result<(), Error> {
        Ok(())
    }
}
