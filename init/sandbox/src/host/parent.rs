// SPDX-License-Identifier: MIT OR Apache-2.0
//! The parent of a child: its calls, translated to what the sandbox knows.

use cloister_base::sessions::{
    Affinity, Parent, ParentSignal, Resources, SessionRequest as Request, SessionResponse, Text,
};
use cloister_base::{Cap, Error, Link};

use super::local::LocalServices;
use super::system::System;
use crate::{ChildId, Quota, Sandbox, SessionId, SessionRequest};

/// A child's view of us.
pub(super) struct ParentOf<'h, L: LocalServices> {
    pub(super) sandbox: &'h mut Sandbox<System<L>>,
    pub(super) child: ChildId,
}

fn quota(resources: Resources) -> Quota {
    Quota::new(resources.ram, resources.caps)
}

fn resources(quota: Quota) -> Resources {
    Resources { ram: quota.ram, caps: quota.caps }
}

fn text<const N: usize>(text: &str) -> Result<Text<N>, Error> {
    Text::try_from(text).map_err(|_| Error::TooLong)
}

impl<L: LocalServices> Parent for ParentOf<'_, L> {
    fn session(
        &mut self,
        id: u64,
        service: &str,
        label: &str,
        args: &str,
        donation: Resources,
        _affinity: Affinity,
    ) -> Result<Option<Cap>, Error> {
        let request = SessionRequest { service, label, args, donation: quota(donation) };
        self.sandbox.session(self.child, id, request)
    }

    fn session_cap(&mut self, id: u64) -> Result<Option<Cap>, Error> {
        self.sandbox.session_cap(self.child, id)
    }

    fn upgrade(&mut self, id: u64, donation: Resources) -> Result<(), Error> {
        self.sandbox.upgrade(self.child, id, quota(donation))
    }

    fn close(&mut self, id: u64) -> Result<(), Error> {
        self.sandbox.close(self.child, id)
    }

    fn announce(&mut self, service: &str) -> Result<(), Error> {
        self.sandbox.announce(self.child, service)
    }

    fn session_request(&mut self, skip: u64) -> Result<Option<Request>, Error> {
        let Some(request) = self.sandbox.request(self.child, skip) else { return Ok(None) };
        Ok(Some(Request {
            id: request.id.0,
            kind: request.kind,
            service: text(request.service)?,
            label: text(request.label)?,
            args: text(request.args)?,
            donation: resources(request.donation),
            affinity: Affinity::default(),
        }))
    }

    fn deliver_session_cap(&mut self, id: u64, session: Cap) -> Result<(), Error> {
        let delivered = self.sandbox.deliver(self.child, SessionId(id), session);
        if delivered.is_err() {
            Link::from(session).drop();
        }
        delivered
    }

    fn session_response(&mut self, id: u64, response: SessionResponse) -> Result<(), Error> {
        self.sandbox.respond(self.child, SessionId(id), response)
    }

    fn exit(&mut self, code: i64, reason: &str) -> Result<(), Error> {
        self.sandbox.exit(self.child, code, reason);
        Ok(())
    }

    fn resource_request(&mut self, wanted: Resources) -> Result<(), Error> {
        self.sandbox.resource_request(self.child, quota(wanted));
        Ok(())
    }

    fn yield_request(&mut self) -> Result<Resources, Error> {
        Ok(resources(self.sandbox.yield_request(self.child)))
    }

    fn yield_response(&mut self) -> Result<(), Error> {
        self.sandbox.yield_response(self.child);
        Ok(())
    }

    fn signal_handler(&mut self, kind: ParentSignal, handler: Option<Cap>) -> Result<(), Error> {
        self.sandbox.platform().set_handler(self.child, kind, handler);
        Ok(())
    }

    fn heartbeat_response(&mut self) -> Result<(), Error> {
        Ok(())
    }
}
