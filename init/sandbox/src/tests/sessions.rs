// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sessions: at the parent, at another child, at the runtime environment itself.

use super::model::{HOSTING, INITIAL, Object, World};
use crate::{
    Error, ParentSignal, Quota, RequestKind, ServerRequest, SessionId, SessionRequest, SessionResponse, State,
};

const PAIR: &str = "+ start driver
  + provides | + service Block
+ start app
  + route
    + service Block | + child driver | resource: disk
    + service VM    | + local
    + any-service   | + parent
";
const GIFT: Quota = Quota::new(64 << 10, 4);

#[test]
fn sessions_at_the_parent_take_and_return_the_donation() {
    let mut world = World::with(PAIR);
    let before = *world.account("app");
    let opened = world.request("app", 20, "ROM", "vmm", GIFT).expect("opens");
    assert!(opened.is_some());
    assert_eq!(before.minus(*world.account("app")), Some(GIFT));
    let app = world.id("app");
    assert_eq!(world.sandbox.session_cap(app, 20), Ok(opened));
    world.sandbox.upgrade(app, 20, GIFT).expect("upgrades");
    world.check();
    assert_eq!(before.minus(*world.account("app")), GIFT.plus(GIFT));
    world.sandbox.close(app, 20).expect("closes");
    assert_eq!(*world.account("app"), before);
    assert_eq!(world.sandbox.close(app, 20), Err(Error::NotFound));
}

#[test]
fn what_is_refused_costs_nothing() {
    let mut world = World::with(PAIR);
    let before = *world.account("app");
    assert_eq!(world.request("app", 20, "ROM", "nothing", GIFT), Err(Error::NotFound));
    assert_eq!(world.request("app", 20, "Nic", "", GIFT), Err(Error::Denied));
    world.assert_logged("Warning: Nic session \"app\" denied: no target of the rule at line 16, column 7 serves it");
    let needed = Error::OutOfRam { needed: 8 << 10, available: 10 };
    assert_eq!(world.request("app", 20, "ROM", "vmm", Quota::new(10, 4)), Err(needed));
    let much = Quota::new(1 << 40, 0);
    let short = Error::OutOfRam { needed: 1 << 40, available: before.ram };
    assert_eq!(world.request("app", 20, "ROM", "vmm", much), Err(short));
    assert_eq!(world.request("app", 4, "ROM", "vmm", GIFT), Err(Error::Invalid), "an identifier of the environment");
    assert_eq!(world.request("app", 20, "ROM", "vmm\nchild \"x\" exited", GIFT), Err(Error::Invalid), "forged log");
    assert_eq!(world.request("app", 20, &"S".repeat(33), "vmm", GIFT), Err(Error::TooLong));
    assert_eq!(world.request("app", 20, "ROM", &"l".repeat(160), GIFT), Err(Error::Denied), "too long with the name");
    assert_eq!(*world.account("app"), before);
    world.request("app", 20, "ROM", "vmm", GIFT).expect("opens");
    assert_eq!(world.request("app", 20, "ROM", "vmm", GIFT), Err(Error::Conflict), "the identifier is taken");
    let app = world.id("app");
    assert_eq!(world.sandbox.close(app, 1), Err(Error::Invalid), "the environment cannot be closed");
    assert_eq!(world.sandbox.upgrade(app, 20, much), Err(short_of(*world.account("app"))));
    world.check();
    world.assert_all_returns();
}

fn short_of(account: Quota) -> Error {
    Error::OutOfRam { needed: 1 << 40, available: account.ram }
}

#[test]
fn a_server_is_asked_and_answers_in_its_own_time() {
    let mut world = World::with(PAIR);
    let (app, driver) = (world.id("app"), world.id("driver"));
    let (client, server) = (*world.account("app"), *world.account("driver"));
    assert_eq!(world.request("app", 20, "Block", "a", GIFT), Ok(None));
    assert_eq!(*world.account("driver"), server.plus(GIFT).unwrap(), "the donation comes with the request");
    let number = world.asked_number("driver", RequestKind::Create).expect("a request");
    let (kind, donation) = (RequestKind::Create, GIFT);
    let (service, label, args) = ("Block", "app -> disk", "a=1");
    assert_eq!(world.asked("driver"), Some(ServerRequest { id: number, kind, service, label, args, donation }));
    assert_eq!(world.sandbox.request(driver, 1), None);
    assert_eq!(world.model().notices, [(driver, ParentSignal::SessionRequests)]);
    assert_eq!(world.sandbox.session_cap(app, 20), Ok(None));

    world.sandbox.deliver(driver, number, Object(77)).expect("was asked");
    assert_eq!(world.model().notices[1..], [(app, ParentSignal::SessionReady)]);
    assert_eq!(world.asked_number("driver", RequestKind::Create), None);
    assert_eq!(world.sandbox.session_cap(app, 20), Ok(Some(Object(77))));

    world.sandbox.upgrade(app, 20, GIFT).expect("upgrades");
    assert_eq!(world.asked_number("driver", RequestKind::Upgrade), Some(number));
    world.sandbox.respond(driver, number, SessionResponse::Ok).expect("was asked");
    assert_eq!(world.asked_number("driver", RequestKind::Upgrade), None);

    world.sandbox.close(app, 20).expect("closes");
    assert_eq!(world.asked_number("driver", RequestKind::Close), Some(number));
    assert!(*world.account("app") != client, "nothing returns before the server says so");
    world.sandbox.respond(driver, number, SessionResponse::Closed).expect("was asked");
    assert_eq!((*world.account("app"), *world.account("driver")), (client, server));
    world.check();
    world.assert_all_returns();
}

#[test]
fn a_server_may_refuse() {
    let had = GIFT.ram;
    let cases = [
        (SessionResponse::Denied, Error::Denied),
        (SessionResponse::InsufficientRam, Error::OutOfRam { needed: had + 1, available: had }),
        (SessionResponse::InsufficientCaps, Error::OutOfCaps { needed: 5, available: 4 }),
    ];
    for (response, refusal) in cases {
        let mut world = World::with(PAIR);
        let (app, driver) = (world.id("app"), world.id("driver"));
        let client = *world.account("app");
        assert_eq!(world.request("app", 20, "Block", "", GIFT), Ok(None));
        let number = world.asked_number("driver", RequestKind::Create).expect("a request");
        world.sandbox.respond(driver, number, response).expect("was asked");
        assert_eq!(*world.account("app"), client);
        assert_eq!(world.sandbox.session_cap(app, 20), Err(refusal));
        assert_eq!(world.sandbox.session_cap(app, 20), Err(Error::NotFound), "the answer closed it");
        world.assert_all_returns();
    }
}

#[test]
fn a_server_answers_only_what_it_was_asked() {
    let mut world = World::with(PAIR);
    let (app, driver) = (world.id("app"), world.id("driver"));
    assert_eq!(world.request("app", 20, "Block", "", GIFT), Ok(None));
    let number = world.asked_number("driver", RequestKind::Create).expect("a request");
    assert_eq!(world.sandbox.deliver(app, number, Object(1)), Err(Error::NotFound), "not the server");
    assert_eq!(world.sandbox.deliver(driver, SessionId(1), Object(1)), Err(Error::NotFound));
    assert_eq!(world.sandbox.respond(driver, number, SessionResponse::Closed), Err(Error::Invalid));
    assert_eq!(world.sandbox.respond(driver, number, SessionResponse::Ok), Err(Error::Invalid));
    world.sandbox.deliver(driver, number, Object(1)).expect("was asked");
    assert_eq!(world.sandbox.deliver(driver, number, Object(1)), Err(Error::Invalid), "twice");
    assert_eq!(world.sandbox.announce(driver, "Block"), Ok(()));
    assert_eq!(world.sandbox.announce(driver, "Nic"), Err(Error::Denied));
    world.assert_logged("Error: child \"driver\" announces Nic, which its start node does not provide");
}

#[test]
fn a_server_that_keeps_a_donation_is_named_and_pays_at_its_end() {
    let mut world = World::with(PAIR);
    let (app, driver) = (world.id("app"), world.id("driver"));
    assert_eq!(world.request("app", 20, "Block", "a", GIFT), Ok(None));
    let number = world.asked_number("driver", RequestKind::Create).expect("a request");
    world.sandbox.deliver(driver, number, Object(1)).expect("was asked");
    // It spends all but 1 KiB at the parent.
    let left = *world.account("driver");
    let spent = left.minus(Quota::new(1024, 10)).unwrap();
    world.request("driver", 17, "LOG", "", spent).expect("opens");
    world.sandbox.close(app, 20).expect("closes");
    world.sandbox.respond(driver, number, SessionResponse::Closed).expect("was asked");
    world.check();
    world.assert_logged("Error: child \"driver\" closed session \"app -> disk\", but keeps ram 63K, caps 0");
    world.assert_all_returns();
}

#[test]
fn a_client_that_ends_leaves_its_sessions_to_the_server_to_close() {
    let mut world = World::with(PAIR);
    let (app, driver) = (world.id("app"), world.id("driver"));
    assert_eq!(world.request("app", 20, "Block", "", GIFT), Ok(None));
    let server = *world.account("driver");
    let number = world.asked_number("driver", RequestKind::Create).expect("a request");
    world.sandbox.exit(app, 1, "");
    world.sandbox.settle();
    world.check();
    assert_eq!(world.asked_number("driver", RequestKind::Close), Some(number));
    assert_eq!(world.sandbox.deliver(driver, number, Object(1)), Err(Error::Invalid), "too late");
    world.sandbox.respond(driver, number, SessionResponse::Closed).expect("was asked");
    assert_eq!(world.account("driver").plus(GIFT), Some(server));
    world.assert_all_returns();
}

#[test]
fn clients_of_a_server_that_ended_get_their_donations_back() {
    let mut world = World::with(PAIR);
    let (app, driver) = (world.id("app"), world.id("driver"));
    let client = *world.account("app");
    for number in [20, 21, 22] {
        assert_eq!(world.request("app", number, "Block", "", GIFT), Ok(None));
    }
    let first = world.asked_number("driver", RequestKind::Create).expect("a request");
    world.sandbox.deliver(driver, first, Object(1)).expect("was asked");
    world.sandbox.close(app, 22).expect("closes");
    world.sandbox.fault(driver, "illegal instruction");
    world.sandbox.settle();
    world.check();
    assert_eq!(*world.account("app"), client);
    assert_eq!(world.state("app"), State::Alive);
    for number in [20, 21] {
        assert_eq!(world.sandbox.session_cap(app, number), Err(Error::ServerGone));
        assert_eq!(world.sandbox.upgrade(app, number, GIFT), Err(Error::NotFound), "the answer closed it");
    }
    world.assert_all_returns();
}

#[test]
fn a_request_waits_with_its_donation_until_the_server_is_there() {
    let mut world = World::new();
    world.model().slow = vec!["PD"];
    world.apply(PAIR);
    world.model().slow_ready = true;
    // The client gets its PD session first in another order of the list.
    world.sandbox.parent_sessions_ready();
    assert_eq!((world.state("app"), world.state("driver")), (State::Alive, State::Alive));
    world.model().slow_ready = false;
    world.apply(&PAIR.replacen("+ start driver", "+ start driver\n  version: 2", 1));
    assert_eq!((world.state("app"), world.state("driver")), (State::Alive, State::Initial));
    assert_eq!(world.request("app", 20, "Block", "", GIFT), Ok(None));
    let held = world.sandbox.slack();
    let kept = HOSTING.plus(HOSTING).and_then(|both| both.plus(Quota::new(320 << 10, 20))).unwrap();
    let own = world.model().own.without(kept);
    assert_eq!(own.minus(held), Some(GIFT), "the donation is nobody else's");
    world.model().slow_ready = true;
    world.sandbox.parent_sessions_ready();
    world.check();
    assert!(world.asked_number("driver", RequestKind::Create).is_some());
    world.assert_all_returns();
}

#[test]
fn the_host_program_may_serve_by_itself() {
    let mut world = World::with(PAIR);
    let (app, before) = (world.id("app"), *world.account("app"));
    assert!(world.request("app", 20, "VM", "", GIFT).expect("opens").is_some());
    world.sandbox.upgrade(app, 20, GIFT).expect("upgrades");
    assert_eq!(world.model().local.values().next(), Some(&("app".to_owned(), GIFT.plus(GIFT).unwrap())));
    world.sandbox.close(app, 20).expect("closes");
    assert_eq!(*world.account("app"), before);
    let refused = SessionRequest { service: "VM", label: "", args: "refuse", donation: GIFT };
    assert_eq!(world.sandbox.session(app, 21, refused), Err(Error::Invalid));
    assert_eq!(*world.account("app"), before);
    world.request("app", 22, "VM", "", GIFT).expect("opens");
    world.assert_all_returns();
}

#[test]
fn a_child_cannot_fill_our_heap_with_sessions() {
    let mut world = World::with("+ start app\n  caps: 1500\n  ram: 32M\n");
    let opened =
        (20..1000).take_while(|number| world.request("app", *number, "LOG", "", Quota::new(8 << 10, 3)).is_ok());
    assert_eq!(opened.count(), 256 - 4);
    world.assert_all_returns();
    assert_eq!(world.model().own, INITIAL);
}
