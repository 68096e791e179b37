// SPDX-License-Identifier: MIT OR Apache-2.0
//! What stands between the sessions of a server and the system, so that they can be tested without one.

use cloister_base::sessions::{ParentSignal, SessionRequest, SessionResponse};
use cloister_base::signal::Signal;
use cloister_base::{Cap, Error, ObjectId, Portal, env};

/// The parent and the maker of portals.
pub trait Door {
    /// A portal.
    type Portal;

    /// Offers a service, with a signal for requests.
    ///
    /// # Errors
    /// What the parent says.
    fn announce(&mut self, service: &str) -> Result<(), Error>;

    /// The oldest request that was not answered, but for `skip` others.
    ///
    /// # Errors
    /// What the parent says.
    fn request(&mut self, skip: u64) -> Result<Option<SessionRequest>, Error>;

    /// Hands a session out.
    ///
    /// # Errors
    /// What the parent says: nobody wants the session any more.
    fn deliver(&mut self, session: u64, portal: &Self::Portal) -> Result<(), Error>;

    /// Answers a request otherwise.
    ///
    /// # Errors
    /// What the parent says.
    fn respond(&mut self, session: u64, response: SessionResponse) -> Result<(), Error>;

    /// Makes a portal to an object of the component.
    ///
    /// # Errors
    /// What the PD session says.
    fn open(&mut self, object: ObjectId) -> Result<Self::Portal, Error>;

    /// Destroys a portal.
    fn close(&mut self, portal: Self::Portal);
}

/// The framework's door: the component's own parent and PD session.
#[derive(Debug)]
pub struct Framework {
    requests: Signal,
}

impl Framework {
    /// The door, with a signal for requests.
    ///
    /// # Errors
    /// What the PD session and the parent say.
    pub fn new() -> Result<Self, Error> {
        let requests = Signal::new()?;
        let handler: Cap = requests.cap();
        env::parent().signal_handler(ParentSignal::SessionRequests, Some(handler))?;
        Ok(Self { requests })
    }

    /// Whether the signal for requests is among these.
    #[must_use]
    pub const fn is_asked(&self, bits: u64) -> bool {
        self.requests.is_in(bits)
    }
}

impl Door for Framework {
    type Portal = Portal;

    fn announce(&mut self, service: &str) -> Result<(), Error> {
        env::parent().announce(service)
    }

    fn request(&mut self, skip: u64) -> Result<Option<SessionRequest>, Error> {
        env::parent().session_request(skip)
    }

    fn deliver(&mut self, session: u64, portal: &Portal) -> Result<(), Error> {
        env::parent().deliver_session_cap(session, portal.cap())
    }

    fn respond(&mut self, session: u64, response: SessionResponse) -> Result<(), Error> {
        env::parent().session_response(session, response)
    }

    fn open(&mut self, object: ObjectId) -> Result<Portal, Error> {
        Portal::new(object)
    }

    fn close(&mut self, portal: Portal) {
        if let Err(error) = portal.free() {
            log::warn!("a session's portal could not be freed: {error}");
        }
    }
}
