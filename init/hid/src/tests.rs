// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tests of the notation, in the order of its description in `docs/spec/init.md`.

use proptest::prelude::{Strategy, any, prop, prop_assert, prop_assert_eq, proptest};

use crate::{Document, Element, ErrorKind, Limits, Position, ProblemKind, parse, parse_bytes, parse_with};

fn clean(text: &str) -> Document<'_> {
    let document = parse(text).expect("parses");
    assert_eq!(document.problems, [], "in:\n{text}");
    document
}

fn only_problem(text: &str) -> (ProblemKind, Position, String) {
    let document = parse(text).expect("parses");
    assert_eq!(document.problems.len(), 1, "{:?}", document.problems);
    let problem = &document.problems[0];
    (problem.kind, problem.position, problem.text.clone())
}

#[test]
fn nested_nodes_with_names_and_attributes() {
    let document =
        clean("config | verbose: yes\n\n+ start osci\n  ram: 8M\n  + route\n    + any-service\n      + parent\n-\n");
    let root = &document.root;
    assert_eq!((root.kind, root.value("verbose")), ("config", Some("yes")));
    let start = &root.nodes[0];
    assert_eq!((start.name(), start.value("ram"), start.position), (Some("osci"), Some("8M"), Position::new(3, 3)));
    assert_eq!(start.attribute("ram").unwrap().position, Position::new(4, 3));
    assert_eq!(start.attribute("ram").unwrap().value_position, Position::new(4, 8));
    assert_eq!(start.nodes[0].nodes[0].nodes[0].kind, "parent");
}

#[test]
fn segments_count_as_lines_with_their_own_column() {
    let text = [
        "route",
        "+ service ROM | label: recording | + child record_rom",
        "+ service Gui                    | + child wm",
        "                                 | + child other | label: x",
        "+ any-service | + parent",
        "-",
    ];
    let text = text.join("\n");
    let document = clean(&text);
    let services = &document.root.nodes;
    assert_eq!(services.len(), 3);
    assert_eq!(services[0].nodes[0].name(), Some("record_rom"));
    assert_eq!(services[1].nodes.len(), 2);
    assert_eq!((services[1].nodes[1].value("label"), services[1].nodes[1].position), (Some("x"), Position::new(4, 38)));
    assert_eq!(services[2].nodes[0].kind, "parent");
}

#[test]
fn guides_are_only_for_the_eye() {
    let document = clean(
        "config\n+ start a\n| + config\n  |\n  |     fps: 50\n  |\n  | + channel | label: l\n  | + channel | label: r\n+ route\n-\n",
    );
    let start = &document.root.nodes[0];
    assert_eq!(start.nodes[0].value("fps"), Some("50"));
    assert_eq!(start.nodes[0].nodes.len(), 2);
    assert_eq!(document.root.nodes[1].kind, "route");
}

#[test]
fn a_name_may_contain_what_looks_special_and_a_tag_behind_the_type_is_an_attribute() {
    let document = clean("config\n+ arg -c\n+ env : x\n+ service label: a -> b\n+ service | name:\n-\n");
    let nodes = &document.root.nodes;
    assert_eq!(nodes[0].name(), Some("-c"));
    assert_eq!(nodes[1].name(), Some(": x"));
    assert_eq!((nodes[2].name(), nodes[2].value("label")), (None, Some("a -> b")));
    assert_eq!(nodes[3].name(), Some(""));
}

#[test]
fn comments_and_quotes_swallow_the_line() {
    let document = clean(
        "config\n.\n. a | b: c\n+ arg -c | . tab\there | x: y\n  : a | b\n  :  two\n  :\n  : \tend \n+ env HOME | : /\n-\n",
    );
    let arg = &document.root.nodes[0];
    let text: Vec<_> = arg.text.iter().map(|line| line.text).collect();
    assert_eq!(text, ["a | b", " two", "", "\tend "]);
    assert_eq!(document.root.nodes[1].text[0].text, "/");
}

#[test]
fn disabled_nodes_are_kept_apart() {
    let document = clean("config\nx start a | ram: 1M\n  + route\n+ start b\n-\n");
    assert!(document.root.nodes[0].disabled && !document.root.nodes[1].disabled);
    assert_eq!(document.root.nodes[0].nodes.len(), 1);
    assert_eq!(document.root.enabled().count(), 1);
    assert_eq!(document.root.first("start").and_then(|n| n.name()), Some("b"));
}

#[test]
fn crlf_and_what_fills_a_page_are_tolerated() {
    let document = parse_bytes(b"config | a: b\r\n+ n x\r\n-\r\n\0\0\0\xff").expect("parses");
    assert_eq!(document.problems, []);
    assert_eq!((document.root.value("a"), document.root.nodes[0].name()), (Some("b"), Some("x")));
}

#[test]
fn the_first_of_two_attributes_wins_and_the_second_is_reported() {
    let document = parse("config | a: 1\n  b: 2 | a: 3\n-\n").expect("parses");
    assert_eq!(document.root.value("a"), Some("1"));
    let problem = &document.problems[0];
    assert_eq!((problem.position, problem.text.as_str()), (Position::new(2, 10), "a"));
    assert_eq!(problem.kind, ProblemKind::Duplicate(Position::new(1, 10)));
}

#[test]
fn what_a_strict_reader_objects_to() {
    use ProblemKind as P;
    let at = Position::new;
    let cases = [
        ("config\n  verbose yes\n-\n", P::NotUnderstood, at(2, 3), "verbose yes"),
        ("config\nverbose: yes\n-\n", P::SecondTopLevelNode, at(2, 1), "verbose: yes"),
        ("config\n+\n-\n", P::NodeWithoutType, at(2, 1), "+"),
        ("config\n+ Start\n-\n", P::NodeWithoutType, at(2, 1), "+ Start"),
        ("config | a: yes b: no\n-\n", P::MissingDelimiter, at(1, 13), "yes b: no"),
        ("config\n+ service LOG + parent\n-\n", P::MissingDelimiter, at(2, 11), "LOG + parent"),
        ("config\n  + a\n b: c\n-\n", P::AttributeLeftOfNode, at(3, 2), "b: c"),
        ("config\n+ a\n  : t\n  b: c\n-\n", P::AttributeAfterText, at(4, 3), "b"),
        ("config\n+ a\n + b\n-\n", P::ShallowNesting, at(3, 2), "+ b"),
        ("config\n+ a\n  : t\n  + b\n-\n", P::TextBesideNodes, at(3, 3), "t"),
        ("config | a:b\n-\n", P::NoSpace, at(1, 12), "a:b"),
        ("config\n- x\n", P::AfterEnd, at(2, 2), "x"),
        ("config\n-\n\nconfig\n-\n", P::AfterEnd, at(4, 1), "config"),
        ("config\n  .text\n-\n", P::NotUnderstood, at(2, 3), ".text"),
    ];
    for (text, kind, position, fragment) in cases {
        assert_eq!(only_problem(text), (kind, position, fragment.to_owned()), "in:\n{text}");
    }
}

#[test]
fn what_leaves_no_tree() {
    let cases = [
        ("", ErrorKind::NoTopLevelNode, (1, 1)),
        ("\nconfig\n-\n", ErrorKind::NoTopLevelNode, (1, 1)),
        (". c\nconfig\n-\n", ErrorKind::NoTopLevelNode, (1, 1)),
        ("config\n+ a\n", ErrorKind::NoEndMarker, (3, 1)),
        ("config", ErrorKind::NoEndMarker, (1, 7)),
        ("config\n\ta: b\n-\n", ErrorKind::ControlCharacter('\t'), (2, 1)),
        ("config\n. a\u{1}\n-\n", ErrorKind::ControlCharacter('\u{1}'), (2, 4)),
    ];
    for (text, kind, (line, column)) in cases {
        let error = parse(text).expect_err(text);
        assert_eq!((error.kind, error.position), (kind, Position::new(line, column)), "in: {text:?}");
    }
    let error = parse_bytes(b"config\n  a: \xff\n-\n").expect_err("not UTF-8");
    assert_eq!((error.kind, error.position), (ErrorKind::NotUtf8, Position::new(2, 6)));
}

#[test]
fn limits_hold() {
    let limits = Limits { bytes: 100, depth: 3, items: 4, attributes: 2 };
    let kind = |text: &str| parse_with(text, limits).map(|_| ()).map_err(|error| error.kind);
    assert_eq!(kind("a\n+ b\n  + c\n-\n"), Ok(()));
    assert_eq!(kind("a\n+ b\n  + c\n    + d\n-\n"), Err(ErrorKind::TooDeep(3)));
    assert_eq!(kind("a\n+ b\n+ b\n+ b\n+ b\n+ b\n-\n"), Err(ErrorKind::TooManyItems(4)));
    assert_eq!(kind("a | b: 1 | c: 1 | d: 1\n-\n"), Err(ErrorKind::TooManyItems(2)));
    assert_eq!(kind(&"a".repeat(101)), Err(ErrorKind::TooLong(100)));
}

#[test]
fn the_generator_aligns_tables() {
    let ram = Element::new("ram").with("quota", "15M").with("used", "4904K").with("avail", "10456K");
    let caps = Element::new("caps").with("quota", 1970).with("used", 148).with("avail", 1822);
    let arguments = Element::new("args").with_text("label=\"a | b\"");
    let pd = Element::named("session", "PD").with("state", "OK").with("label", "test");
    let log = Element::named("session", "LOG").with("state", "CREATING").with("label", "test -> 0");
    let (pd, log) = (pd.with("ram", "192K").with("caps", 13), log.with("ram", "8K").with("caps", 2));
    let requested = Element::new("requested").with_node(pd.with_node(arguments)).with_node(log);
    let child = Element::named("child", "test").with("binary", "dummy").with_node(requested);
    let state = Element::new("state").with("version", "v1").with_node(ram).with_node(caps).with_node(child);
    let expected = "state | version: v1\n\
        + ram  | quota: 15M  | used: 4904K | avail: 10456K\n\
        + caps | quota: 1970 | used: 148   | avail: 1822\n\
        + child test | binary: dummy\n  + requested\n    \
            + session PD  | state: OK       | label: test      | ram: 192K | caps: 13 | + args | : label=\"a | b\"\n    \
            + session LOG | state: CREATING | label: test -> 0 | ram: 8K   | caps: 2\n-\n";
    let text = state.to_text().expect("writes");
    assert_eq!(text, expected);
    assert_eq!(Element::from_node(&clean(&text).root), state);
}

#[test]
fn the_generator_refuses_what_the_notation_cannot_say() {
    for bad in ["a|b", " a", "a ", "a\nb", "\t"] {
        assert!(Element::new("n").with("a", bad).to_text().is_err(), "{bad:?}");
    }
    assert!(Element::new("N").to_text().is_err());
    assert!(Element::new("n").with("A", "b").to_text().is_err());
    assert!(Element::new("n").with_text("a\nb").to_text().is_err());
    assert!(Element::new("n").with_text("a\tb | c ").to_text().is_ok());
}

fn element() -> impl Strategy<Value = Element> {
    let tag = || "[a-z][a-z0-9_-]{0,4}";
    let value =
        || prop::sample::select(vec!["", "a", "a: b", "x", "+ y", ". c", ": d", "-", "a -> b", "ä 1", "x y: z"]);
    let attributes = prop::collection::btree_map(tag(), value().prop_map(str::to_owned), 0..4);
    let named = (any::<bool>(), value(), attributes).prop_map(|(named, name, rest)| {
        let mut all: Vec<(String, String)> = if named { vec![("name".into(), name.into())] } else { vec![] };
        all.extend(rest.into_iter().filter(|(tag, _)| tag != "name"));
        all
    });
    let leaf = (tag(), named.clone(), prop::collection::vec("[ -~\t]{0,6}", 0..3))
        .prop_map(|(kind, attributes, text)| Element { kind, attributes, nodes: vec![], text });
    leaf.prop_recursive(5, 40, 4, move |inner| {
        (tag(), named.clone(), prop::collection::vec(inner, 0..4)).prop_map(|(kind, attributes, nodes)| Element {
            kind,
            attributes,
            nodes,
            text: vec![],
        })
    })
}

proptest! {
    #[test]
    fn never_panics_on_bytes(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = parse_bytes(&bytes);
    }

    #[test]
    fn never_panics_on_almost_hid(text in "config( [a|:x+.]{0,5})?\n([ |+x.:a\u{e4}\t\r-]{0,12}\n){0,8}-\n?") {
        if let Ok(document) = parse(&text) {
            let again = Element::from_node(&document.root);
            let text = again.to_text().expect("what was read can be written");
            prop_assert_eq!(Element::from_node(&parse(&text).expect("parses").root), again);
        }
    }

    #[test]
    fn what_is_written_is_read_back(element in element()) {
        let text = element.to_text().expect("writes");
        let document = parse(&text).expect("parses");
        prop_assert_eq!(Element::from_node(&document.root), element, "{}", text);
    }

    #[test]
    fn positions_point_at_what_they_name(element in element()) {
        let text = element.to_text().expect("writes");
        let document = parse(&text).expect("parses");
        let lines: Vec<Vec<char>> = text.split('\n').map(|line| line.chars().collect()).collect();
        let mut nodes = vec![&document.root];
        while let Some(node) = nodes.pop() {
            let at = |p: Position| lines[p.line as usize - 1][p.column as usize - 1..].iter().collect::<String>();
            prop_assert!(at(node.position).starts_with(node.kind));
            for attribute in &node.attributes {
                prop_assert!(at(attribute.value_position).starts_with(attribute.value));
            }
            nodes.extend(&node.nodes);
        }
    }
}
