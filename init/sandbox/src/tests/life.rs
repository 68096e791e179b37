// SPDX-License-Identifier: MIT OR Apache-2.0
//! Life of children: start, failure, exit, and what another configuration restarts.

use cloister_init_config::OnAllExited;

use super::model::{HEAD, INITIAL, OVERHEAD, World};
use crate::{Error, Quota, State};

const LOGGER: &str = "+ start driver
  + provides | + service LOG
";
const CLIENT: &str = "+ start app
  + route
    + service LOG | + child driver
    + any-service | + parent
";

#[test]
fn a_child_starts_and_everything_returns() {
    let mut world = World::with("+ start linux\n  + binary vmm\n");
    assert_eq!(world.state("linux"), State::Alive);
    assert_eq!(*world.account("linux"), Quota::new((4 << 20) - OVERHEAD.ram, 100 - OVERHEAD.caps));
    let labels: Vec<_> = world.model().at_parent.values().map(|s| format!("{} {}", s.service, s.label)).collect();
    assert_eq!(labels, ["PD linux", "CPU linux", "LOG linux", "ROM vmm"]);
    assert_eq!(world.model().segments.len(), 2);
    world.assert_all_returns();
}

#[test]
fn a_child_that_cannot_start_says_why_and_stops_nobody() {
    let cases = [
        ("+ start x", "ROM \"x\" with its program: not found"),
        (
            "+ start x\n  ram: 16K\n  + binary app",
            "its quota (ram 16K, caps 100) does not cover its environment (ram 36K, caps 14)",
        ),
        (
            "+ start x\n  ram: 37K\n  + binary app",
            "segment of ROM \"app\" at 0x400000, 8192 bytes: out of RAM quota: 8192 bytes needed, 1024 available",
        ),
        (
            "+ start x\n  + binary short",
            "ROM \"short\" of 8448 bytes is no program to run: \
             truncated: 256 bytes at offset 0x2010, but it has only 8448 bytes",
        ),
        ("+ start x\n  + binary text", "ROM \"text\" of 64 bytes is no program to run: not an ELF image (offset 0x0)"),
    ];
    for (start, why) in cases {
        let mut world = World::new();
        world.model().roms.insert("short".into(), cloister_elf::testing::program()[..0x2100].to_vec());
        world.model().roms.insert("text".into(), vec![b'#'; 64]);
        world.apply(&format!("{start}\n+ start app"));
        assert_eq!((world.state("x"), world.state("app")), (State::Stuck, State::Alive), "{start}");
        world.assert_logged(&format!("Error: child \"x\" not started: {why}"));
        let of_x = |s: &&super::model::AtParent| s.label.starts_with('x') || s.label == "short";
        assert_eq!(world.model().at_parent.values().filter(of_x).count(), 0, "it holds nothing");
        world.assert_all_returns();
    }
}

#[test]
fn a_missing_program_is_retried_with_the_next_configuration() {
    let mut world = World::with("+ start x");
    let before = world.id("x");
    world.model().roms.insert("x".into(), cloister_elf::testing::program());
    world.apply("+ start x");
    assert_eq!(world.state("x"), State::Alive);
    assert!(world.id("x") != before);
    world.assert_all_returns();
}

#[test]
fn an_environment_that_costs_more_than_known_takes_it_from_the_childs_quota() {
    let mut world = World::new();
    world.model().pd_surcharge = 100 << 10;
    world.apply("+ start app");
    assert_eq!(world.account("app").ram, (4 << 20) - OVERHEAD.ram - (100 << 10));
    world.assert_all_returns();
}

#[test]
fn sessions_of_the_environment_may_come_later() {
    let mut world = World::new();
    world.model().slow = vec!["PD", "LOG"];
    world.apply("+ start app");
    assert_eq!(world.state("app"), State::Initial);
    world.model().slow_ready = true;
    world.sandbox.parent_sessions_ready();
    assert_eq!(world.state("app"), State::Alive);
    world.assert_all_returns();
    world.model().slow_ready = false;
    world.apply("+ start app");
    world.assert_all_returns();
}

#[test]
fn an_exit_is_reported_and_gives_everything_back() {
    let mut world = World::with("+ start linux\n  + binary vmm\n+ start app\n  + exit | propagate: yes\n");
    let (linux, app) = (world.id("linux"), world.id("app"));
    world.sandbox.exit(linux, 0, "powered\noff ");
    assert_eq!(world.state("linux"), State::Alive, "it is in a call");
    assert_eq!(
        world.request("linux", 19, "ROM", "vmm", Quota::NONE),
        Err(Error::NotFound),
        "it is not served any more"
    );
    world.sandbox.settle();
    world.check();
    assert_eq!(world.state("linux"), State::Exited);
    world.assert_logged("Info: child \"linux\" exited: powered off (0)");
    assert!(world.model().ended.is_empty() && world.model().exit.is_none());
    world.sandbox.fault(app, "page fault at 0x0");
    world.sandbox.settle();
    world.assert_logged("Info: child \"app\" exited: crashed, page fault at 0x0 (-1)");
    assert_eq!(world.model().exit, Some((-1, "crashed, page fault at 0x0".into())));
    assert_eq!(world.model().ended, [OnAllExited::Stay]);
    assert_eq!(world.model().own, INITIAL);
}

#[test]
fn an_exited_child_stays_so_until_its_version_changes() {
    let mut world = World::with("+ start app");
    let id = world.id("app");
    world.sandbox.exit(id, 0, "");
    world.apply("+ start app\n  ram: 5M");
    assert_eq!((world.state("app"), world.id("app")), (State::Exited, id));
    world.apply("+ start app\n  version: 2");
    assert_eq!(world.state("app"), State::Alive);
    world.assert_all_returns();
}

#[test]
fn the_awaited_are_those_who_serve_nobody() {
    let mut world = World::new();
    let text = format!("{}{LOGGER}+ start app\n-\n", HEAD.replacen("config", "config | on_all_exited: poweroff", 1));
    world.apply_config(cloister_init_config::load(text.as_bytes()).unwrap().config);
    let app = world.id("app");
    world.sandbox.exit(app, 0, "");
    world.sandbox.settle();
    world.sandbox.settle();
    assert_eq!(world.model().ended, [OnAllExited::PowerOff]);
    assert_eq!(world.state("driver"), State::Alive);
}

#[test]
fn a_hundred_lives_leave_nothing_behind() {
    let mut world = World::with(LOGGER);
    let before = world.model().own;
    for round in 0..100 {
        world.apply(&format!("{LOGGER}+ start linux\n  version: {round}\n  + binary vmm\n  + config | a: b"));
        world.request("linux", 20, "ROM", "config", Quota::new(4096, 1)).expect("opens");
        let linux = world.id("linux");
        world.sandbox.exit(linux, 0, "powered off");
        world.sandbox.settle();
        assert_eq!(world.model().own, before);
    }
    assert_eq!(world.sandbox.sessions.len(), 4);
    world.assert_all_returns();
}

/// Same instance or restarted, for a change between two configurations.
#[test]
fn only_what_changed_restarts() {
    let app = |inside: &str| format!("+ start app\n{inside}");
    let route = |rule: &str| app(&format!("  + route\n    + {rule}\n    + any-service | + parent"));
    let cases = [
        (app(""), app("  ram: 5M | caps: 90"), false),
        (app("  + config | a: 1"), app("  + config | a: 2"), false),
        (app(""), app("\n. comment"), false),
        (app(""), format!("+ start vmm\n{}", app("")), false),
        (app(""), route("service LOG | + parent"), false),
        (app(""), app("  + exit | propagate: yes"), false),
        (app(""), app("  version: 1"), true),
        (app("  version: 1"), app("  version: 2"), true),
        (app(""), app("  + config | a: 1"), true),
        (app("  + config | a: 1"), app(""), true),
        (app(""), app("  + binary vmm"), true),
        (app(""), route("service LOG | + parent | label: other"), true),
    ];
    for (before, after, restarts) in cases {
        let mut world = World::with(&before);
        let id = world.id("app");
        world.apply(&after);
        assert_eq!(world.state("app"), State::Alive);
        assert_eq!(world.id("app") != id, restarts, "from\n{before}\nto\n{after}");
        world.assert_all_returns();
    }
}

#[test]
fn a_changed_configuration_of_a_child_is_told_to_it() {
    let mut world = World::with("+ start app\n  + config | a: 1");
    world.request("app", 20, "ROM", "config", Quota::new(4096, 1)).expect("opens");
    assert_eq!(world.model().texts.values().next().unwrap(), "config | a: 1\n-\n");
    world.apply("+ start app\n  + config | a: 2");
    assert_eq!(world.model().texts.values().next().unwrap(), "config | a: 2\n-\n");
    world.assert_all_returns();
}

#[test]
fn clients_follow_their_server() {
    let mut world = World::with(&format!("{CLIENT}{LOGGER}"));
    assert_eq!(world.state("app"), State::RamInitialized, "its server comes later in the list and answers later");
    let (app, driver) = (world.id("app"), world.id("driver"));

    world.apply(&format!("{CLIENT}+ start driver\n  version: 2\n  + provides | + service LOG"));
    assert!(world.id("app") != app && world.id("driver") != driver, "both are restarted");
    let app = world.id("app");

    let text = format!("{HEAD}{CLIENT}-\n");
    world.apply_config(cloister_init_config::load(text.as_bytes()).unwrap().config);
    assert_eq!((world.state("app"), world.id("app")), (State::Stuck, app), "the server is gone");
    assert!(world.model().lines.iter().any(|l| l.starts_with("Warning: child \"app\" stuck: LOG session \"app\"")));

    world.apply(&format!("{CLIENT}{LOGGER}"));
    assert_eq!(world.state("app"), State::RamInitialized);
    assert!(world.id("app") != app);
    world.assert_all_returns();
}

#[test]
fn children_that_use_each_other_restart_together_and_once() {
    let both = |version: u32| {
        format!(
            "+ start app\n  version: {version}\n  + provides | + service A\n  + route\n    + service B   | + child vmm\n    \
             + any-service | + parent\n+ start vmm\n  + provides | + service B\n  + route\n    \
             + service A   | + child app\n    + any-service | + parent\n"
        )
    };
    let mut world = World::with(&both(1));
    world.request("app", 20, "B", "", Quota::new(4096, 1)).expect("asked");
    world.request("vmm", 20, "A", "", Quota::new(4096, 1)).expect("asked");
    let (app, vmm) = (world.id("app"), world.id("vmm"));
    world.apply(&both(2));
    assert_eq!((world.id("app").0, world.id("vmm").0), (app.0 + 2, vmm.0 + 2));
    assert_eq!((world.state("app"), world.state("vmm")), (State::Alive, State::Alive));
    world.assert_all_returns();
}
