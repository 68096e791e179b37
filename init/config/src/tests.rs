// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tests of the language and of routing, the latter row by row along the tables of `docs/spec/init.md`.

use proptest::prelude::{any, prop, proptest};

use crate::route::{Destination, Directory, Request, Server, Unroutable, resolve};
use crate::{OnAllExited, Severity, Start, check, load, load_sandbox, parse_number};

const GOOD: &str = "config | verbose: yes | version: v1 | on_all_exited: poweroff
. a comment
+ parent-provides
  + service ROM | . as is
  + service LOG
+ default-route
  + any-service | + parent
                | + any-child
+ default | caps: 100 | ram: 2M
+ start serial | ram: 1M
  + provides | + service Terminal
+ start linux | caps: 300 | version: 2
  + binary vmm
  + exit | propagate: yes
  + route
    + service Terminal | label: con | + child serial | identity: vm
    + any-service                   | + parent
  + config | cmdline: a=b
    + disk | : a | b
  x heartbeat
- ";

fn messages(text: &str) -> Vec<String> {
    check(text).iter().map(ToString::to_string).collect()
}

#[test]
fn a_good_configuration_is_understood() {
    let loaded = load(GOOD.as_bytes()).expect("parses");
    let messages: Vec<_> = loaded.diagnostics.iter().map(ToString::to_string).collect();
    assert_eq!(messages, ["line 20, column 5: warning: `heartbeat` is not implemented yet, it has no effect"]);
    let config = loaded.config;
    assert_eq!((config.version.as_str(), config.verbose, config.on_all_exited), ("v1", true, OnAllExited::PowerOff));
    assert_eq!((config.keep_ram, config.keep_caps), (320 << 10, 20));
    assert_eq!(config.parent_provides, ["ROM", "LOG"]);
    let [serial, linux] = config.starts.as_slice() else { panic!("two children") };
    assert_eq!((serial.ram, serial.caps, serial.binary.as_str(), serial.awaited), (1 << 20, 100, "serial", false));
    assert_eq!(serial.route.rules[0].service, None);
    assert_eq!((linux.ram, linux.caps, linux.binary.as_str(), linux.awaited), (2 << 20, 300, "vmm", true));
    assert!(linux.propagate_exit);
    assert_eq!(linux.route.rules.len(), 2);
    assert_eq!(linux.config.as_deref(), Some("config | cmdline: a=b\n+ disk | : a | b\n-\n"));
}

#[test]
fn a_configuration_in_a_node_is_understood_as_one_of_its_own() {
    let load = |text: &str| load_sandbox(text.as_bytes(), |config| config.value("rounds").and_then(parse_number));
    let (rounds, loaded) =
        load("config | rounds: 7\n+ sandbox\n  + start a | caps: 9 | ram: 1M | rma: 2\n-\n").expect("is there");
    assert_eq!((rounds, loaded.config.starts.len(), loaded.config.starts[0].caps), (7, 1, 9));
    let messages: Vec<_> = loaded.diagnostics.iter().map(ToString::to_string).collect();
    // Where it stands in the whole text.
    assert_eq!(messages, ["line 3, column 35: error: unknown attribute `rma` of `start`, did you mean `ram`?"]);
    for bad in ["config\n+ sandbox\n-\n", "config | rounds: 7\n-\n", "config | rounds: x\n+ sandbox\n-\n", "-\n"] {
        assert!(load(bad).is_err(), "{bad}");
    }
}

#[test]
fn each_slip_is_reported_with_place_and_nearest_word() {
    let with = |line: &str| format!("config\n+ default | caps: 9 | ram: 1M\n+ start a\n{line}\n-\n");
    let cases = [
        ("  rma: 4M", "line 4, column 3: error: unknown attribute `rma` of `start`, did you mean `ram`?"),
        (
            "  ram: 4X",
            "line 4, column 8: error: `ram` of `start` must be a size such as `4096`, `16K`, `8M` or `1G`, not `4X`",
        ),
        (
            "  ram: 4M | ram: 5M",
            "line 4, column 13: error: duplicate attribute, the one at line 4, column 3 counts: `ram`",
        ),
        ("  + biinary x", "line 4, column 5: error: unknown node `biinary` in `start`, did you mean `binary`?"),
        ("  + binary", "line 4, column 5: error: `binary` lacks its attribute `name`"),
        (
            "  + binary b\n  + binary c",
            "line 5, column 5: error: a second `binary` in `start`, the one at line 4, column 5 counts",
        ),
        (
            "  + exit | propagate: maybe",
            "line 4, column 23: error: `propagate` of `exit` must be `yes` or `no`, not `maybe`",
        ),
        ("  + provides | : text", "line 4, column 16: error: `provides` takes no quoted text"),
        ("  + affinity | xpos: 1", "line 4, column 5: warning: `affinity` is not implemented yet, it has no effect"),
        ("  priority: -1", "line 4, column 3: warning: attribute `priority` is not implemented yet, it has no effect"),
        ("  caps: 9 ram: 1M", "line 4, column 9: error: this looks like two things, is a `|` missing?: `9 ram: 1M`"),
        ("+ start a", "line 4, column 9: error: a second child `a`, the one at line 3, column 9 counts"),
        ("+ start b -> c", "line 4, column 9: error: `->` in the name of child `b -> c`"),
        (
            "  + route\n    + service ROM | + child aa",
            "line 5, column 23: error: there is no child `aa`, did you mean `a`?",
        ),
        ("  + route\n    + service ROM | + child a", "line 5, column 23: error: child `a` does not provide `ROM`"),
        ("  + route\n    + service RM | + parent", "line 5, column 22: warning: `RM` is not in `parent-provides`"),
        (
            "  + route\n    + any-service | + parent | + any-child",
            "line 5, column 34: error: unknown node `any-child` in `parent`, it may have no nodes; to stand beside `parent`, it needs a line of its own",
        ),
        ("  + route\n    + any-service", "line 5, column 7: warning: a rule for any service without targets"),
    ];
    for (line, expected) in cases {
        let found = messages(&with(line));
        assert!(found.iter().any(|message| message == expected), "for `{line}` expected\n{expected}\nfound {found:#?}");
    }
    assert_eq!(messages(&with("")), Vec::<String>::new());
    assert_eq!(messages("config\n+ start a\n-\n").len(), 2, "neither ram nor caps");
    assert_eq!(messages("konfig\n-\n"), ["line 1, column 1: error: the top-level node is `konfig`, must be `config`"]);
    assert_eq!(check("config")[0].severity, Severity::Error);
}

#[test]
fn the_content_of_a_childs_config_is_its_own_affair() {
    assert_eq!(
        messages("config\n+ start a | ram: 1M | caps: 1\n  + config | foo: bar | name: x\n    + any | + thing\n-\n"),
        Vec::<String>::new()
    );
}

/// Children `log` and `s1`, `s2` that provide LOG and `S`; the parent provides ROM; LOG is offered locally too.
struct World;

impl Directory for World {
    fn parent(&self, service: &str) -> bool {
        service == "ROM"
    }
    fn child(&self, name: &str, service: &str) -> bool {
        matches!((name, service), ("log", "LOG") | ("s1" | "s2", "S"))
    }
    fn children(&self, service: &str) -> Vec<String> {
        let names = ["log", "s1", "s2"];
        names.iter().filter(|name| self.child(name, service)).map(ToString::to_string).collect()
    }
    fn local(&self, service: &str) -> bool {
        service == "LOG"
    }
}

fn start_with(extra: &str) -> Start {
    let text = format!("config\n+ start c\n{extra}\n-\n");
    load(text.as_bytes()).expect("parses").config.starts.remove(0)
}

fn routed(rules: &str, service: &str, label: &str) -> Result<Destination, Unroutable> {
    let lines: String =
        rules.split(';').map(|rule| format!("    + {}\n", rule.trim().replace(" & ", "\n      "))).collect();
    resolve(&start_with(&format!("  + route\n{lines}")), Request { service, label }, &World)
}

fn server(rules: &str, service: &str, label: &str) -> Option<Server> {
    routed(rules, service, label).ok().map(|destination| destination.server)
}

#[test]
fn rules_select_labels() {
    let rows = [
        ("", true, true),
        ("| label: 0", false, true),
        ("| label_suffix: 0", false, true),
        ("| label_prefix:", false, true),
        ("| label:", false, false),
        ("| label_last: 0", false, true),
        ("| label_last: c", true, false),
        ("| unscoped_label: c", true, false),
        ("| unscoped_label: c -> 0", false, true),
    ];
    for (attributes, environment, client) in rows {
        let rule = format!("service LOG {attributes} | + child log");
        assert_eq!(routed(&rule, "LOG", "c").is_ok(), environment, "{rule} of c");
        assert_eq!(routed(&rule, "LOG", "c -> 0").is_ok(), client, "{rule} of c -> 0");
    }
}

#[test]
fn targets_rewrite_labels() {
    let rows = [
        ("", "c", "c -> 0"),
        ("| label: x", "x", "x"),
        ("| identity: role", "role -> c", "role -> 0"),
        ("| identity:", "c", "0"),
        ("| resource: res", "res", "c -> res"),
        ("| prepend_resource: p/", "p/c", "c -> p/0"),
        ("| identity: role | resource: r | prepend_resource: p/", "role -> p/r", "role -> p/r"),
    ];
    for (attributes, environment, client) in rows {
        let rule = format!("service LOG | + child log {attributes}");
        assert_eq!(routed(&rule, "LOG", "c").expect("routes").label, environment, "{rule}");
        assert_eq!(routed(&rule, "LOG", "c -> 0").expect("routes").label, client, "{rule}");
    }
}

#[test]
fn the_first_matching_rule_counts() {
    let child = |name: &str| Some(Server::Child(name.into()));
    assert_eq!(server("service S | + child s1; service S | + child s2", "S", "c"), child("s1"));
    assert_eq!(server("service S | label: x | + child s1; service S | + child s2", "S", "c"), child("s2"));
    assert_eq!(
        server("any-service | + parent; service S | + child s2", "S", "c"),
        child("s2"),
        "any-service falls through"
    );
    assert_eq!(
        server("service S | + parent; any-service | + child s1", "S", "c"),
        None,
        "service does not fall through"
    );
    assert_eq!(server("service S & + parent & + child s2", "S", "c"), child("s2"), "the next target of a rule");
    assert_eq!(server("service S; any-service | + child s1", "S", "c"), None, "a rule without targets denies");
    assert_eq!(server("any-service | + any-child", "LOG", "c"), child("log"));
    assert_eq!(server("any-service | + local", "LOG", "c"), Some(Server::Local));
    assert_eq!(server("any-service | + local", "ROM", "c"), None);
}

#[test]
fn failures_say_why() {
    assert_eq!(routed("service LOG | + parent", "ROM", "c"), Err(Unroutable::NoRule));
    assert!(matches!(routed("service LOG | + parent", "LOG", "c"), Err(Unroutable::NoServer(at)) if at.line == 4));
    assert!(matches!(routed("any-service | + any-child", "S", "c"), Err(Unroutable::Ambiguous(at)) if at.line == 4));
    let after = routed("any-service & + any-child & + child s2", "S", "c").expect("the next target is tried");
    assert_eq!(after.server, Server::Child("s2".into()));
    let long = format!("c -> {}", "x".repeat(156));
    assert_eq!(routed("any-service | + parent", "ROM", &long), Err(Unroutable::LabelTooLong));
    let grown = format!("any-service | + parent | prepend_resource: {}", "y".repeat(100));
    assert_eq!(routed(&grown, "ROM", &long[..100]), Err(Unroutable::LabelTooLong));
}

#[test]
fn some_roms_need_no_rule() {
    let route = "  + route\n    + any-service | + parent";
    let ask = |start: &Start, label: &str| resolve(start, Request { service: "ROM", label }, &World).expect("routes");
    let plain = start_with(route);
    assert_eq!(ask(&plain, "c -> config").server, Server::Parent);
    assert_eq!(ask(&plain, "c").label, "c");
    let full = start_with(&format!("  + config\n  + binary vmm\n{route}"));
    assert_eq!(ask(&full, "c -> config").server, Server::InlineConfig);
    assert_eq!(ask(&full, "c"), Destination { server: Server::Parent, label: "vmm".into() });
    assert_eq!(ask(&full, "c -> vmm").label, "c -> vmm");
}

proptest! {
    #[test]
    fn loading_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = load(&bytes);
    }

    #[test]
    fn loading_mutilated_configurations_never_panics(cut in 0..GOOD.len(), len in 0..40_usize, with in "[ -~\n]{0,6}") {
        let end = (cut + len).min(GOOD.len());
        let text = format!("{}{with}{}", &GOOD[..cut], &GOOD[end..]);
        let _ = check(&text);
    }
}

#[test]
fn the_example_of_the_language_reference_is_accepted() {
    let page = include_str!("../../../docs/spec/init.md");
    let from = page.find("    config |").expect("the page has an example");
    let example: Vec<&str> = page[from..].lines().map_while(|line| line.strip_prefix("    ")).collect();
    assert_eq!(messages(&example.join("\n")), Vec::<String>::new());
    assert_eq!(example.last(), Some(&"-"));
}

#[test]
fn the_language_reference_names_every_word() {
    fn words(kind: &crate::language::NodeKind, found: &mut Vec<&'static str>) {
        found.push(kind.kind);
        if kind.later {
            return;
        }
        found.extend(kind.attributes.iter().map(|attribute| attribute.tag));
        if let crate::language::Content::Nodes(nodes) = &kind.content {
            nodes.iter().for_each(|node| words(node, found));
        }
    }
    let page = include_str!("../../../docs/spec/init.md");
    let mut all = Vec::new();
    words(&crate::language::CONFIG, &mut all);
    for word in all {
        let named = ["`", ": ", "+ ", " "]
            .iter()
            .any(|before| ["`", ":", " "].iter().any(|behind| page.contains(&format!("{before}{word}{behind}"))));
        assert!(named, "the page does not name `{word}`");
    }
}
