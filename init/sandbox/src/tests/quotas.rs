// SPDX-License-Identifier: MIT OR Apache-2.0
//! Quotas of running children, and a long random life under which no byte may be lost.

use proptest::prelude::{Strategy, any, prop, prop_oneof, proptest};

use super::model::{HOSTING, INITIAL, OVERHEAD, Object, World};
use crate::{ParentSignal, Quota, SessionId, SessionRequest, SessionResponse, State};

fn app(ram: &str, caps: u64) -> String {
    format!("+ start app\n  ram: {ram} | caps: {caps}\n")
}

#[test]
fn an_upgrade_is_live_and_answers_a_request() {
    let mut world = World::with(&app("4M", 100));
    let (id, before) = (world.id("app"), *world.account("app"));
    world.sandbox.resource_request(id, Quota::new(1 << 20, 0));
    world.assert_logged("Warning: child \"app\" requests resources: ram 1M, caps 0");
    world.apply(&app("6M", 110));
    assert_eq!(world.account("app").minus(before), Some(Quota::new(2 << 20, 10)));
    assert_eq!(world.model().notices, [(id, ParentSignal::ResourceAvail)]);
    assert_eq!(world.id("app"), id);
}

#[test]
fn an_upgrade_stops_at_what_is_left_and_is_completed_later() {
    let mut world = World::with(&format!("{}+ start vmm\n  ram: 50M\n", app("4M", 100)));
    world.apply(&format!("{}+ start vmm\n  ram: 50M\n", app("20M", 100)));
    assert!(
        world.model().lines.iter().any(|line| line.starts_with("Warning: child \"app\" lacks ram 16M, caps 0, only "))
    );
    world.apply(&app("20M", 100));
    let assigned: Vec<Quota> = world.sandbox.children().map(|child| child.assigned).collect();
    assert_eq!(assigned, [Quota::new(20 << 20, 100)]);
    world.assert_all_returns();
}

#[test]
fn a_start_takes_no_more_than_is_left() {
    let mut world = World::with(&app("100M", 100));
    assert_eq!(world.state("app"), State::Alive);
    let left = (64 << 20) - (320 << 10);
    world.assert_logged(&format!(
        "Warning: child \"app\": ram 100M, caps 100 configured, only ram {}, caps 1980 left",
        cloister_init_config::format_size(left)
    ));
    assert_eq!(world.model().own, Quota::new((320 << 10) + HOSTING.ram, 1900 + HOSTING.caps));
    world.assert_all_returns();
}

#[test]
fn a_downgrade_takes_exactly_what_was_configured_in_as_many_steps_as_it_needs() {
    let mut world = World::with(&app("4M", 100));
    let id = world.id("app");
    let spent = world.account("app").minus(Quota::new(100 << 10, 20)).unwrap();
    world.request("app", 20, "LOG", "", spent).expect("opens");
    world.apply(&app("2M", 50));
    let excess = Quota::new(2 << 20, 50);
    let owed = excess.minus(Quota::new(84 << 10, 15)).unwrap();
    assert_eq!(*world.account("app"), Quota::new(16 << 10, 5), "it keeps a little");
    assert_eq!(world.sandbox.yield_request(id), owed);
    assert_eq!(world.model().notices, [(id, ParentSignal::Yield)]);
    world.sandbox.close(id, 20).expect("closes");
    world.sandbox.yield_response(id);
    world.check();
    assert!(world.sandbox.yield_request(id).is_none());
    assert_eq!(world.sandbox.children().next().unwrap().assigned, Quota::new(2 << 20, 50));
    assert_eq!(*world.account("app"), Quota::new((2 << 20) - OVERHEAD.ram, 50 - OVERHEAD.caps));
    world.assert_all_returns();
}

/// What may happen to a pair of a client and a server.
#[derive(Clone, Debug)]
enum Event {
    Configure(usize),
    Open { client: bool, number: u64, service: usize, ram: u64, caps: u64 },
    Upgrade { number: u64, ram: u64 },
    Close { client: bool, number: u64 },
    Deliver(u64),
    Respond(u64, usize),
    Exit(bool),
    Settle,
    Ready(bool),
}

const CONFIGS: [&str; 6] = [
    "+ start driver\n  + provides | + service Block\n+ start app\n  + route\n    + service Block | + child driver\n    + any-service | + parent\n",
    "+ start app\n  ram: 6M\n  + route\n    + service LOG | + child driver\n    + any-service | + parent\n    \
     + service Block | + child driver\n+ start driver\n  version: 2\n  + provides\n    + service LOG\n    + service Block\n",
    "+ start app\n  version: 3\n  ram: 1M\n+ start driver\n  version: 3\n  + binary app\n",
    "",
    "+ start app\n  + config | a: 1\n  + binary nothing\n+ start driver\n  ram: 70M\n",
    "+ start driver\n  ram: 2M | caps: 60\n  + provides | + service Block\n+ start app\n  ram: 2M | caps: 60\n  + config | a: 1\n  \
     + route\n    + service Block | + child driver\n    + service VM | + local\n    + any-service | + parent\n",
];
const SERVICES: [(&str, &str); 6] =
    [("Block", "a"), ("ROM", "vmm"), ("ROM", "config"), ("LOG", ""), ("VM", ""), ("ROM", "none")];
const RESPONSES: [SessionResponse; 4] =
    [SessionResponse::Denied, SessionResponse::InsufficientRam, SessionResponse::Ok, SessionResponse::Closed];

fn event() -> impl Strategy<Value = Event> {
    let open = (any::<bool>(), 16..22_u64, 0..SERVICES.len(), 0..200_000_u64, 0..10_u64);
    prop_oneof![
        1 => (0..CONFIGS.len()).prop_map(Event::Configure),
        6 => open.prop_map(|(client, number, service, ram, caps)| Event::Open { client, number, service, ram, caps }),
        1 => (16..22_u64, 0..10_000_u64).prop_map(|(number, ram)| Event::Upgrade { number, ram }),
        2 => (any::<bool>(), 16..22_u64).prop_map(|(client, number)| Event::Close { client, number }),
        3 => (0..40_u64).prop_map(Event::Deliver),
        3 => ((0..40_u64), 0..RESPONSES.len()).prop_map(|(number, response)| Event::Respond(number, response)),
        1 => any::<bool>().prop_map(Event::Exit),
        1 => proptest::prelude::Just(Event::Settle),
        1 => any::<bool>().prop_map(Event::Ready),
    ]
}

fn happen(world: &mut World, event: Event) {
    let find =
        |world: &World, name: &str| world.sandbox.children().find(|child| child.name == name).map(|child| child.id);
    let one = |world: &World, client: bool| find(world, if client { "app" } else { "driver" });
    let (app, driver) = (find(world, "app"), find(world, "driver"));
    let number_of = |number: u64| SessionId((1 << 16) + number);
    match event {
        Event::Configure(index) => {
            let text = format!("{}{}-\n", super::model::HEAD, CONFIGS[index]);
            world.sandbox.apply(cloister_init_config::load(text.as_bytes()).unwrap().config);
        }
        Event::Open { client, number, service, ram, caps } => {
            let ((service, label), donation) = (SERVICES[service], Quota::new(ram, caps));
            if let Some(id) = one(world, client) {
                let _ = world.sandbox.session(id, number, SessionRequest { service, label, args: "", donation });
            }
        }
        Event::Upgrade { number, ram } => {
            let _ = app.map(|id| world.sandbox.upgrade(id, number, Quota::new(ram, 1)));
        }
        Event::Close { client, number } => {
            let _ = one(world, client).map(|id| world.sandbox.close(id, number));
        }
        Event::Deliver(number) => {
            let _ = driver.map(|id| world.sandbox.deliver(id, number_of(number), Object(1)));
        }
        Event::Respond(number, response) => {
            let _ = driver.map(|id| world.sandbox.respond(id, number_of(number), RESPONSES[response]));
        }
        Event::Exit(client) => {
            if let Some(id) = one(world, client) {
                world.sandbox.exit(id, 0, "");
            }
        }
        Event::Settle => world.sandbox.settle(),
        Event::Ready(ready) => {
            world.model().slow = vec!["LOG", "PD"];
            world.model().slow_ready = ready;
            world.sandbox.parent_sessions_ready();
        }
    }
}

proptest! {
    #[test]
    fn whatever_happens_everything_returns(events in prop::collection::vec(event(), 0..60)) {
        let mut world = World::with(CONFIGS[0]);
        for event in events {
            happen(&mut world, event);
            world.check();
        }
        world.assert_all_returns();
        assert_eq!(world.model().own, INITIAL);
    }
}
