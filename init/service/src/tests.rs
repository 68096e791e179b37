// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tests of sessions behind a door that plays the parent.

use std::string::{String, ToString};
use std::vec::Vec;

use cloister_base::sessions::{Affinity, RequestKind, Resources, SessionRequest, SessionResponse, Text};
use cloister_base::{Error, ObjectId};

use crate::{Door, NewSession, Service, Sessions};

#[derive(Debug, Default)]
struct Parent {
    announced: Vec<String>,
    queue: Vec<SessionRequest>,
    delivered: Vec<(u64, ObjectId)>,
    responses: Vec<(u64, SessionResponse)>,
    portals: Vec<ObjectId>,
    /// Sessions whose clients did not wait.
    stale: Vec<u64>,
    no_portals: bool,
}

impl Parent {
    fn answered(&mut self, id: u64) -> Result<(), Error> {
        let at = self.queue.iter().position(|request| request.id == id).ok_or(Error::NotFound)?;
        self.queue.remove(at);
        Ok(())
    }
}

impl Door for Parent {
    type Portal = ObjectId;

    fn announce(&mut self, service: &str) -> Result<(), Error> {
        if service == "Forbidden" {
            return Err(Error::Denied);
        }
        self.announced.push(service.to_string());
        Ok(())
    }

    fn request(&mut self, skip: u64) -> Result<Option<SessionRequest>, Error> {
        Ok(self.queue.get(usize::try_from(skip).unwrap()).cloned())
    }

    fn deliver(&mut self, session: u64, portal: &ObjectId) -> Result<(), Error> {
        if self.stale.contains(&session) {
            return Err(Error::Invalid);
        }
        self.answered(session)?;
        self.delivered.push((session, *portal));
        Ok(())
    }

    fn respond(&mut self, session: u64, response: SessionResponse) -> Result<(), Error> {
        self.answered(session)?;
        self.responses.push((session, response));
        Ok(())
    }

    fn open(&mut self, object: ObjectId) -> Result<ObjectId, Error> {
        if self.no_portals {
            return Err(Error::OutOfCaps { needed: 1, available: 0 });
        }
        self.portals.push(object);
        Ok(object)
    }

    fn close(&mut self, portal: ObjectId) {
        self.portals.retain(|open| *open != portal);
    }
}

fn request(id: u64, kind: RequestKind, label: &str) -> SessionRequest {
    let (service, label) = (Text::try_from("Terminal").unwrap(), Text::try_from(label).unwrap());
    let donation = Resources { ram: 4096, caps: 3 };
    SessionRequest { id, kind, service, label, args: Text::new(), donation, affinity: Affinity::default() }
}

/// Sessions are their labels; `refuse` gets none, `more` wants a larger donation.
#[derive(Debug, Default)]
struct Terminal {
    closed: Vec<String>,
    upgraded: Vec<u64>,
}

impl Service for Terminal {
    type Session = String;

    fn create(&mut self, request: NewSession<'_>) -> Result<String, Error> {
        match request.label {
            "refuse" => Err(Error::Invalid),
            "more" => Err(Error::OutOfRam { needed: 8192, available: request.donation.ram }),
            label => Ok(label.to_string()),
        }
    }

    fn upgrade(&mut self, session: &mut String, more: Resources) {
        session.push('+');
        self.upgraded.push(more.ram);
    }

    fn close(&mut self, session: String) {
        self.closed.push(session);
    }
}

struct World {
    sessions: Sessions<String, Parent>,
    terminal: Terminal,
}

impl World {
    fn new() -> Self {
        let sessions = Sessions::with(Parent::default(), &["Terminal"]).expect("announces");
        Self { sessions, terminal: Terminal::default() }
    }

    fn ask(&mut self, id: u64, kind: RequestKind, label: &str) {
        self.parent().queue.push(request(id, kind, label));
        self.sessions.serve(&mut self.terminal);
    }

    fn parent(&mut self) -> &mut Parent {
        self.sessions.door_mut()
    }
}

#[test]
fn a_session_lives_from_create_to_close() {
    let mut world = World::new();
    assert_eq!(world.parent().announced, ["Terminal"]);
    world.ask(100, RequestKind::Create, "vmm");
    let (id, object) = world.parent().delivered[0];
    assert_eq!((id, world.sessions.len()), (100, 1));
    assert_eq!(world.sessions.get_mut(object).map(|s| s.as_str()), Some("vmm"));
    world.ask(100, RequestKind::Upgrade, "");
    assert_eq!(world.sessions.get_mut(object).map(|s| s.as_str()), Some("vmm+"));
    assert_eq!(world.parent().responses, [(100, SessionResponse::Ok)]);
    world.ask(100, RequestKind::Close, "");
    assert_eq!(world.parent().responses[1], (100, SessionResponse::Closed));
    assert_eq!(world.terminal.closed, ["vmm+"]);
    assert_eq!(world.sessions.get_mut(object), None, "a stale identity finds nothing");
    assert!(world.sessions.is_empty() && world.parent().portals.is_empty());
}

#[test]
fn refusals_tell_the_parent_why() {
    let mut world = World::new();
    world.ask(1, RequestKind::Create, "refuse");
    world.ask(2, RequestKind::Create, "more");
    world.parent().no_portals = true;
    world.ask(3, RequestKind::Create, "vmm");
    use SessionResponse::{Denied, InsufficientCaps, InsufficientRam};
    assert_eq!(world.parent().responses, [(1, Denied), (2, InsufficientRam), (3, InsufficientCaps)]);
    assert_eq!(world.terminal.closed, ["vmm"], "what was made is undone");
    assert!(world.sessions.is_empty());
}

#[test]
fn clients_need_not_wait() {
    let mut world = World::new();
    world.parent().stale = std::vec![7];
    world.ask(7, RequestKind::Create, "vmm");
    assert!(world.sessions.is_empty() && world.parent().portals.is_empty());
    world.ask(8, RequestKind::Close, "");
    assert_eq!(world.parent().responses, [(7, SessionResponse::Denied), (8, SessionResponse::Closed)]);
    assert_eq!(world.terminal.closed, ["vmm"]);
}

#[test]
fn a_request_that_makes_no_sense_keeps_nobody_else_waiting() {
    let mut world = World::new();
    world.ask(1, RequestKind::Create, "first");
    world.parent().queue.push(request(1, RequestKind::Create, "again"));
    world.ask(2, RequestKind::Create, "second");
    let labels: Vec<String> = world.sessions.iter_mut().map(|s| s.clone()).collect();
    assert_eq!(labels, ["first", "second"]);
    assert_eq!(world.parent().queue.len(), 1);
}

#[test]
fn what_the_configuration_forbids_is_an_error_at_the_start() {
    assert_eq!(Sessions::<String, Parent>::with(Parent::default(), &["Forbidden"]).err(), Some(Error::Denied));
}
