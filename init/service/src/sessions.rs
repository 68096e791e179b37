// SPDX-License-Identifier: MIT OR Apache-2.0
//! The open sessions of a server.

use alloc::collections::BTreeMap;

use cloister_base::sessions::{RequestKind, Resources, SessionRequest, SessionResponse};
use cloister_base::{Error, ObjectId, Registry};

use crate::door::{Door, Framework};

/// What a client asks for.
#[derive(Clone, Copy, Debug)]
pub struct NewSession<'r> {
    /// The service, for a server with several.
    pub service: &'r str,
    /// Who asks, as the parent says.
    pub label: &'r str,
    /// `key=value, …`, as the client says.
    pub args: &'r str,
    /// What the session may cost.
    pub donation: Resources,
}

/// What a server makes of a request.
pub trait Service {
    /// State of a session.
    type Session;

    /// Makes a session.
    ///
    /// # Errors
    /// Why not: [`Error::OutOfRam`] and [`Error::OutOfCaps`] if the donation is too small, else the client is denied.
    fn create(&mut self, request: NewSession<'_>) -> Result<Self::Session, Error>;

    /// A client donated more.
    fn upgrade(&mut self, _session: &mut Self::Session, _more: Resources) {}

    /// A session ends: what its donation paid must be free afterwards.
    fn close(&mut self, session: Self::Session);
}

#[derive(Debug)]
struct Open<S, P> {
    session: S,
    portal: P,
}

/// The open sessions of a server, and how it gets others.
#[derive(Debug)]
pub struct Sessions<S, D: Door = Framework> {
    door: D,
    open: Registry<Option<Open<S, D::Portal>>>,
    /// Identities by the parent's number of the session.
    numbers: BTreeMap<u64, ObjectId>,
}

impl<S> Sessions<S> {
    /// No sessions yet; the services are announced, requests are signalled.
    ///
    /// # Errors
    /// What the PD session and the parent say: [`Error::Denied`] if the configuration does not let this component provide
    /// one of the services.
    pub fn new(services: &[&str]) -> Result<Self, Error> {
        Self::with(Framework::new()?, services)
    }

    /// Whether there are requests, according to these signals: call [`Sessions::serve`].
    #[must_use]
    pub const fn is_asked(&self, bits: u64) -> bool {
        self.door.is_asked(bits)
    }
}

impl<S, D: Door> Sessions<S, D> {
    /// No sessions yet, behind this door.
    ///
    /// # Errors
    /// What the parent says to the announcements.
    pub fn with(mut door: D, services: &[&str]) -> Result<Self, Error> {
        for service in services {
            door.announce(service)?;
        }
        Ok(Self { door, open: Registry::new(), numbers: BTreeMap::new() })
    }

    /// The session whose portal was called.
    #[must_use]
    pub fn get_mut(&mut self, object: ObjectId) -> Option<&mut S> {
        self.open.get_mut(object)?.as_mut().map(|open| &mut open.session)
    }

    /// All sessions.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut S> {
        self.open.iter_mut().filter_map(|(_, open)| open.as_mut().map(|open| &mut open.session))
    }

    /// How many sessions are open.
    #[must_use]
    pub fn len(&self) -> usize {
        self.numbers.len()
    }

    /// Whether no session is open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.numbers.is_empty()
    }

    /// The door, for tests to look behind.
    #[cfg(test)]
    pub(crate) fn door_mut(&mut self) -> &mut D {
        &mut self.door
    }

    /// Answers all requests.
    pub fn serve(&mut self, service: &mut impl Service<Session = S>) {
        // Requests that cannot be answered stay in the queue; they are passed over so that the others are served.
        let mut skip = 0_u64;
        loop {
            let request = match self.door.request(skip) {
                Ok(Some(request)) => request,
                Ok(None) => return,
                Err(error) => {
                    log::error!("requests for sessions cannot be fetched: {error}");
                    return;
                }
            };
            let id = request.id;
            let answered = match request.kind {
                RequestKind::Create => self.create(service, &request),
                RequestKind::Upgrade => self.upgrade(service, id, request.donation),
                RequestKind::Close => self.close(service, id),
            };
            if let Err(error) = answered {
                log::warn!("a request for session {id} could not be answered: {error}");
                skip = skip.saturating_add(1);
            }
        }
    }

    fn create(&mut self, service: &mut impl Service<Session = S>, request: &SessionRequest) -> Result<(), Error> {
        let (id, donation) = (request.id, request.donation);
        if self.numbers.contains_key(&id) {
            return Err(Error::Conflict);
        }
        let new = NewSession { service: &request.service, label: &request.label, args: &request.args, donation };
        let session = match service.create(new) {
            Ok(session) => session,
            Err(error) => {
                log::info!("no {} session for \"{}\": {error}", request.service, request.label);
                return self.door.respond(id, refusal(error));
            }
        };
        let object = self.open.insert(None)?;
        let portal = match self.door.open(object) {
            Ok(portal) => portal,
            Err(error) => {
                self.open.remove(object);
                service.close(session);
                log::warn!("no portal for \"{}\": {error}", request.label);
                return self.door.respond(id, refusal(error));
            }
        };
        self.numbers.insert(id, object);
        let delivered = self.door.deliver(id, &portal);
        if let Some(place) = self.open.get_mut(object) {
            *place = Some(Open { session, portal });
        }
        delivered.or_else(|_| {
            // The client did not wait.
            self.forget(service, id);
            self.door.respond(id, SessionResponse::Denied)
        })
    }

    fn upgrade(&mut self, service: &mut impl Service<Session = S>, id: u64, more: Resources) -> Result<(), Error> {
        if let Some(session) = self.numbers.get(&id).copied().and_then(|object| self.get_mut(object)) {
            service.upgrade(session, more);
        }
        self.door.respond(id, SessionResponse::Ok)
    }

    fn close(&mut self, service: &mut impl Service<Session = S>, id: u64) -> Result<(), Error> {
        self.forget(service, id);
        self.door.respond(id, SessionResponse::Closed)
    }

    fn forget(&mut self, service: &mut impl Service<Session = S>, id: u64) {
        let object = self.numbers.remove(&id);
        if let Some(open) = object.and_then(|object| self.open.remove(object)).flatten() {
            self.door.close(open.portal);
            service.close(open.session);
        }
    }
}

fn refusal(error: Error) -> SessionResponse {
    match error {
        Error::OutOfRam { .. } => SessionResponse::InsufficientRam,
        Error::OutOfCaps { .. } => SessionResponse::InsufficientCaps,
        _ => SessionResponse::Denied,
    }
}
